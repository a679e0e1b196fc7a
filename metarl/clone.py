"""The version and the plugins of a clone that is not installed."""

import tomllib
from importlib.metadata import EntryPoint, PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path

from metarl.plugins import PLUGIN_GROUP

ROOT = Path(__file__).parents[1]
PLUGINS = ("metarl.envs", "metarl.agents")


def version() -> str:
    """The installed version, else that of the clone."""
    try:
        return installed_version("metarl-suite")
    except PackageNotFoundError:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return f"{project['version']}+clone"


def plugins(search_path: list[str]) -> list[EntryPoint]:
    """Makes `envs/` and `agents/` importable where no installation maps them into the package.

    Args:
        search_path: the folders of `metarl`'s submodules; the clone is added to it.

    Returns:
        The plugins without installed entry points: empty where the project is installed.
    """
    missing = [name for name in PLUGINS if find_spec(name) is None]
    if not missing or not (ROOT / "pyproject.toml").exists():
        return []
    search_path.append(str(ROOT))
    return [EntryPoint(name.rpartition(".")[2], name, PLUGIN_GROUP) for name in missing]
