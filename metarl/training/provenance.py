"""With what a run was made: versions of packages, and the state of the code."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from metarl import __version__

INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
"""flags of the processor that matter for products of matrices"""


def versions() -> dict[str, str]:
    """Of Python, metarl, and the packages that decide numbers."""
    ours = {"python": platform.python_version(), "metarl-suite": __version__}
    return ours | {name: version(name) for name in ("torch", "gymnasium", "numpy")}


def git_state() -> dict[str, Any] | None:
    """Commit of the current folder, and whether it has uncommitted changes.

    The folder may be anyone's: programs that its git configuration names are not executed.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        words = ("config", "--null", "--name-only", "--get-regexp", r"^filter\.")
        filters = _git(*words, codes=(0, 1))
        off = dict.fromkeys(filter(None, filters.split("\0")), "")
        status = _git("status", "--porcelain", "--ignore-submodules=dirty", settings=off)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "uncommitted_changes": bool(status)}


def _git(
    *arguments: str, settings: Mapping[str, str] | None = None, codes: Sequence[int] = (0,)
) -> str:
    """What git prints.

    Args:
        arguments: after `git`.
        settings: override those of the configuration.
        codes: exit codes that are no error.
    """
    # Neither a monitor of files, nor a remote that fetches what a partial clone lacks.
    safe = {"core.fsmonitor": "false", "protocol.allow": "never"} | dict(settings or {})
    variables = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"}
    variables["GIT_CONFIG_COUNT"] = str(len(safe))
    for number, (name, value) in enumerate(safe.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    ended = subprocess.run(
        ["git", *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        env={**os.environ, **variables},
    )
    if ended.returncode not in codes:
        raise subprocess.SubprocessError(ended.stderr)
    return ended.stdout.strip()


def describe_machine() -> dict[str, str]:
    """Processor, instruction sets, cores, load, system, Python and date."""
    path = Path("/proc/cpuinfo")
    known = cpu_fields(path.read_text(encoding="utf-8")) if path.exists() else {}
    flags = (known.get("flags") or known.get("Features") or "").split()
    usable = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if usable else os.cpu_count()
    sets = ", ".join(name for name in INSTRUCTION_SETS if name in flags)
    return {
        "processor": known.get("model name") or platform.processor() or platform.machine(),
        "instruction sets": sets or "unknown",
        "cores": str(cores),
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
        "system": platform.platform(),
        "Python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def cpu_fields(text: str) -> dict[str, str]:
    """The fields of the first processor of /proc/cpuinfo."""
    first, _, _ = text.partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
