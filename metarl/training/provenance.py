"""With what a run was made: versions of packages, and the state of the code."""

import platform
import subprocess
from importlib.metadata import version
from typing import Any

from metarl import __version__


def versions() -> dict[str, str]:
    """Of Python, metarl, and the packages that decide numbers."""
    ours = {"python": platform.python_version(), "metarl-suite": __version__}
    return ours | {name: version(name) for name in ("torch", "gymnasium", "numpy")}


def git_state() -> dict[str, Any] | None:
    """Commit of the current folder, and whether it has uncommitted changes."""
    try:
        commit, status = (
            subprocess.run(
                ["git", *arguments], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "uncommitted_changes": bool(status)}
