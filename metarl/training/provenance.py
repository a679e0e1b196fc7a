"""With what a run was made: versions of packages, and the state of the code."""

import os
import platform
import subprocess
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
