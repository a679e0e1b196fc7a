"""The constructor arguments of a registered Gymnasium environment as options; loads no torch."""

import dataclasses
import enum
import inspect
import typing
from typing import Any

import docstring_parser
import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator

from metarl.errors import ConfigError
from metarl.field_types import union_members

OPTION_TYPES = (bool, int, float, str)
"""plain types of the constructor arguments that become options; Enums and tuples do, too"""


def env_options(task_id: str) -> type[Any]:
    """A dataclass whose fields are the constructor arguments with plain defaults.

    Args:
        task_id: id for `gymnasium.make`; a module named in it must have been imported.

    Raises:
        ConfigError: the id makes vector environments only.
    """
    spec = env_spec(task_id)
    entry_point = spec.entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    if creator is None:
        raise ConfigError(
            f"{task_id} has no entry_point for single environments, only a vector_entry_point; "
            "metarl steps single environments."
        )
    cls = dataclasses.make_dataclass(
        getattr(creator, "__name__", "Env"), _options(creator, spec), frozen=True, kw_only=True
    )
    cls.__module__ = creator.__module__
    cls.__doc__ = inspect.getdoc(creator) or f"{task_id}, a Gymnasium environment."
    return cls


def env_spec(task_id: str) -> EnvSpec:
    """The Gymnasium spec of an id, with or without the module that registers it."""
    return gymnasium.spec(task_id.rpartition(":")[2])


def _options(creator: Any, spec: EnvSpec) -> list[tuple[str, Any, Any]]:
    """Name, type and field of the constructor arguments whose defaults are plain values.

    The `help` of a field is the description of the argument in the docstring.
    """
    function = creator.__init__ if inspect.isclass(creator) else creator
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # names that are imported for type checkers only
        hints = {}
    doc = docstring_parser.parse(f"{inspect.getdoc(function) or inspect.getdoc(creator)}")
    texts = {one.arg_name: " ".join((one.description or "").split()) for one in doc.params}
    found = []
    for name, parameter in inspect.signature(creator).parameters.items():
        default = spec.kwargs.get(name, parameter.default)
        default = default.item() if isinstance(default, np.generic) else default
        named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if name == "render_mode" or not named or not _is_option(default):
            continue
        field = dataclasses.field(default=default, metadata={"help": texts.get(name, "")})
        kind = hints.get(name, int | float if type(default) is int else None)
        plain = all(one in (*OPTION_TYPES, type(None)) for one in union_members(kind))
        found.append((name, kind if plain and kind is not None else _kind(default), field))
    return found


def _is_option(default: Any) -> bool:
    """Whether an argument with this default is an option: a plain value, or a tuple of these."""
    if type(default) is tuple:
        return bool(default) and all(map(_is_option, default))
    return type(default) in OPTION_TYPES or isinstance(default, enum.Enum)


def _kind(default: Any) -> Any:
    """The type of a default; that of a tuple names the types of its elements."""
    if type(default) is not tuple:
        return type(default)
    kinds = tuple(map(_kind, default))
    return tuple[kinds[0], ...] if len(set(kinds)) == 1 else tuple[kinds]  # type: ignore[valid-type]
