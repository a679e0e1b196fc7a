"""Virtual environments for clients: their own packages in front of those of the tests."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make_venv(folder: Path, requirements: list[str]) -> Path:
    """The Python of a virtual environment with the packages; nothing is installed twice.

    It also finds the packages with which the tests run, so that no second torch is installed.
    """
    python = folder / "bin" / "python"
    stamp = folder / "requirements.txt"
    wanted = "\n".join(requirements)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    inside = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    (inside / "site-packages" / "zz_packages_of_the_tests.pth").write_text(
        sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8"
    )
    constraints = folder / "constraints.txt"
    constraints.write_text(f"torch=={version('torch')}\n", encoding="utf-8")
    command = [str(python), "-m", "pip", "install", "-q", "-c", str(constraints), *requirements]
    subprocess.run(command, check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def version(package: str) -> str:
    """The installed version of a package."""
    from importlib.metadata import version as installed

    return installed(package)


def run(python: Path, words: list[str], folder: Path, seconds: int = 900) -> str:
    """The output of a program that imports metarl from this clone; it must exit with 0."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    variables = {"MUJOCO_GL": "egl", **os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [str(python), *words],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    assert finished.returncode == 0, finished.stdout[-5000:]
    return finished.stdout
