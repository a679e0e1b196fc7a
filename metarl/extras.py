"""Importing packages that are extras, which are not installed with metarl."""

from importlib import import_module
from typing import Any

from metarl.errors import MissingPackageError


def require_extra(package: str, extra: str, need: str, *, otherwise: str = "") -> Any:
    """The package, imported.

    Args:
        package: its import name.
        extra: of metarl that installs it.
        need: beginning of the message, such as "MP4 needs imageio".
        otherwise: end of the message: what works without the package.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"{need}, which is not installed: pip install 'metarl-suite[{extra}]'."
            f"{' ' * bool(otherwise)}{otherwise}"
        ) from error
