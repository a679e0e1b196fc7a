"""Options of agents and task families as plain values, as JSON keeps them, and back.

A field may be a number, a text, None, an Enum, a path, or a tuple, list, mapping or dataclass of
these. What is read from a run folder equals what was written, or is refused before a run starts.
"""

import dataclasses
import enum
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import ConfigError
from metarl.field_types import field_hints, option_name, require_types, union_members

_PLAIN = (bool, int, float, str, type(None))


def option_names(cls: type[Any]) -> list[str]:
    """Names of all options of a class."""
    return [option_name(field) for field in _fields(cls)]


def plain_options(options: Any) -> dict[str, Any]:
    """The options of a dataclass by name, as numbers, texts, tuples, lists and mappings.

    An Enum becomes the name of its member, a dataclass a mapping.

    Raises:
        ConfigError: a value cannot be stored in a run folder, or would come out changed.
    """
    cls = type(options)
    return {
        option_name(field): _stored(cls, field, getattr(options, field.name))
        for field in _fields(cls)
    }


def require_storable(cls: type[Any]) -> None:
    """Raises `ConfigError` if the default of an option cannot be stored in a run folder."""
    for field in _fields(cls):
        if field.default is not dataclasses.MISSING:
            _stored(cls, field, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            _stored(cls, field, field.default_factory())


def typed_options(cls: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `cls` by field name, from plain or typed options; unknown ones are left out.

    Raises:
        ConfigError: a value is not of the annotated type.
    """
    hints = field_hints(cls)
    arguments = {
        field.name: _typed(given[option_name(field)], _kinds(field, hints))
        for field in _fields(cls)
        if option_name(field) in given
    }
    require_types(cls, arguments)
    return arguments


def plain_value(value: Any) -> Any:
    """One value as JSON keeps it, but with tuples; other types are returned as they are."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain_options(value)
    if isinstance(value, Mapping):
        return {name: plain_value(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        parts = [plain_value(one) for one in value]
        return parts if isinstance(value, list) else tuple(parts)
    return value


def _stored(cls: type[Any], field: "dataclasses.Field[Any]", value: Any) -> Any:
    plain = plain_value(value)
    kinds = _kinds(field, field_hints(cls))
    try:
        read = _typed(json.loads(json.dumps(plain)), kinds)
    except (TypeError, ValueError, RecursionError):
        read = object()
    if not _are_identical(read, value):
        raise ConfigError(
            f"{cls.__name__} has the option {option_name(field)}={value!r}, which a run "
            "folder cannot keep, so the run could not be loaded with it. Options are numbers, "
            "texts, None, members of an Enum, paths, and tuples or frozen dataclasses of these, "
            f"with an annotation that names the type; this one is annotated {field.type!r}."
        )
    return plain


def _fields(cls: type[Any]) -> Iterator["dataclasses.Field[Any]"]:
    return (field for field in dataclasses.fields(cls) if field.init)


def _kinds(field: "dataclasses.Field[Any]", hints: Mapping[str, Any]) -> tuple[Any, ...]:
    """The types that a field may have: those of its annotation, and that of its default."""
    default = () if isinstance(field.default, _PLAIN) else (type(field.default),)
    return (*union_members(hints.get(field.name, Any)), *default)


def _typed(value: Any, kinds: Sequence[Any]) -> Any:
    """The value as one of `kinds`, if it is a plain form of it, else unchanged."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return _typed_text(value, kinds)
    if isinstance(value, Mapping):
        return _typed_mapping(value, kinds)
    if isinstance(value, tuple | list):
        return _typed_sequence(value, kinds)
    return value


def _typed_text(value: str, kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        if isinstance(kind, enum.EnumMeta) and value in kind.__members__:
            return kind[value]
        if isinstance(kind, type) and issubclass(kind, Path) and str not in kinds:
            return Path(value)
    return value


def _typed_mapping(value: Mapping[str, Any], kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        is_class = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        if is_class and set(value) <= set(option_names(kind)):
            return kind(**typed_options(kind, value))
    parts = [typing.get_args(kind)[1:] for kind in kinds if len(typing.get_args(kind)) == 2]
    inner = union_members(parts[0][0]) if parts else ()
    return {name: _typed(one, inner) for name, one in value.items()}


def _typed_sequence(value: Sequence[Any], kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        origin = typing.get_origin(kind) or kind
        if origin is list:
            inner = typing.get_args(kind)[:1]
            return [_typed(one, union_members(inner[0]) if inner else ()) for one in value]
    inner = next((typing.get_args(kind) for kind in kinds if typing.get_args(kind)), ())
    if (len(inner) == 2 and inner[1] is Ellipsis) or len(inner) == 1:
        inner = (inner[0],) * len(value)
    if len(inner) != len(value):
        inner = (Any,) * len(value)
    return tuple(_typed(one, union_members(part)) for one, part in zip(value, inner, strict=True))


def _are_identical(one: Any, two: Any) -> bool:
    """Equal in type and value, also within tuples, lists and mappings; NaN equals NaN."""
    if isinstance(two, Mapping):
        return isinstance(one, Mapping) and (
            one.keys() == two.keys() and all(_are_identical(one[name], two[name]) for name in two)
        )
    if type(one) is not type(two):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(two) and all(map(_are_identical, one, two))
    return bool(one == two) or (one != one and two != two)
