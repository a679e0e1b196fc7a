"""Checks of the names and types of options, which are fields of a dataclass.

Ranges are checked by the dataclass itself, afterwards.
"""

import dataclasses
import difflib
import enum
import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import numpy as np

from metarl.errors import ConfigError, UnknownOptionError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")
Given = ParamSpec("Given")
Result = TypeVar("Result")

NAME = "option"
"""key in the metadata of a field with the option's name, where the field has another one"""
_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "None",
}
_EXAMPLES = {int: "[1, 2]", float: "[0.5, 1.0]", str: "['one', 'two']"}


def option_name(field: "dataclasses.Field[Any]") -> str:
    """The name by which users set a field."""
    return str(field.metadata.get(NAME, field.name))


def check_fields(options: Any) -> None:
    """Checks all fields of a dataclass from its `__post_init__`.

    NumPy's numbers become Python's, and texts become paths where the field is one; `~` is the home
    folder.

    Raises:
        ConfigError: a value is not of the annotated type, or NaN.
    """
    require_types(type(options), vars(options))
    hints = field_hints(type(options))
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(value, np.generic):
            value = value.item()
            object.__setattr__(options, field.name, value)
        if value is not None and Path in union_members(hints.get(field.name)):
            if "\0" in str(value):
                raise ConfigError(f"{option_name(field)}={shown(value)} holds a zero byte.")
            object.__setattr__(options, field.name, Path(value).expanduser())


def require_types(cls: type[Any], given: Mapping[str, Any]) -> None:
    """Raises `ConfigError` unless the values of fields of `cls` are of the annotated types.

    A whole number counts as a number, a list as a tuple, a text as a path, and NumPy's numbers as
    Python's. NaN is no number, unless it is the default. What is not annotated may be anything.

    Args:
        cls: a dataclass.
        given: values by the name of the field.
    """
    hints = field_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints.get(field.name, Any)
        if field.init and field.name in given and not _is_valid(given[field.name], field, hint):
            value = given[field.name]
            is_choice = isinstance(value, str) and typing.get_origin(hint) is Literal
            got = "" if is_choice else f"; got {_got(value, hint)}"
            raise ConfigError(
                f"{option_name(field)}={shown(value)} of {cls.__name__} must be "
                f"{_wanted(hint)}{got}."
            )


def checks_arguments(*names: str) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Decorator of a public function, which checks the types of some arguments by its annotations.

    A list counts as a sequence, as do a tuple, a range and an array. The decorated function raises
    `ConfigError` before it runs.
    """

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            arguments = signature.bind(*args, **kwargs).arguments
            hints = _argument_hints(function)
            for name in names:
                if name in arguments:
                    _require_argument(function.__name__, name, arguments[name], hints[name])
            return function(*args, **kwargs)

        return checked

    return decorate


@functools.cache
def _argument_hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function)


def _require_argument(function: str, name: str, value: Any, hint: Any) -> None:
    given = tuple(value) if isinstance(value, np.ndarray | range) and np.ndim(value) else value
    kinds = union_members(hint)
    is_mapping = isinstance(value, Mapping)
    fits = [one for one in kinds if not (is_mapping and dataclasses.is_dataclass(one))]
    if not any(_fits(given, kind) for kind in fits):
        raise ConfigError(
            f"{name}={shown(value)} of {function} must be {_wanted(hint)}; got {_got(given, hint)}."
        )


def require_instance(
    name: str, value: Any, kind: type[Any] | tuple[type[Any], ...], wanted: str
) -> None:
    """Raises `ConfigError` unless an argument is an instance of `kind`, in words `wanted`."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name}={shown(value)} must be {wanted}; got {kind_of(value)}.")


def require_all(name: str, values: Any, kind: type[Result], wanted: str) -> list[Result]:
    """The values as a list; `ConfigError` unless all are instances of `kind`, in words `wanted`."""
    try:
        found = [*values]
    except TypeError:
        found = [values]
    for one in found:
        require_instance(name, one, kind, wanted)
    return found


def kind_of(value: Any) -> str:
    """What an object is, for messages: the class Lever, None, NaN, or a value of type list."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, float) and value != value:
        return "NaN"
    return f"a value of type {type(value).__name__}"


def _got(value: Any, hint: Any) -> str:
    """What was given in place of the annotated type; of a list, the first element that is wrong."""
    for kind in union_members(hint):
        origin, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
        is_list = isinstance(origin, type) and issubclass(origin, Sequence) and origin is not str
        if is_list and isinstance(value, tuple | list) and parts and parts[1:] in ((), (...,)):
            members = union_members(parts[0])
            wrong = [one for one in value if not any(_fits(one, member) for member in members)]
            if wrong:
                return f"{shown(wrong[0])} in it"
    return kind_of(value)


def shown(value: Any) -> str:
    """The `repr` of a value, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # of a class of a user
        text = object.__repr__(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def field_hints(cls: type[Any]) -> dict[str, Any]:
    """The annotations of a class; none where they name what is imported for type checkers only."""
    try:
        return typing.get_type_hints(cls)
    except Exception:
        return {}


def union_members(hint: Any) -> tuple[Any, ...]:
    """The members of a union; the type itself where it is none."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return union_members(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(one for part in typing.get_args(hint) for one in union_members(part))
    return (hint,)


def require_known(
    owner: str, given: Iterable[str], known: Sequence[str], others: Iterable[str] = ()
) -> None:
    """Raises `UnknownOptionError` unless all options given are known.

    Args:
        owner: name of the agent or family that has the options, for the message.
        given: names of the options given.
        known: names of the options that exist.
        others: further names to suggest from.
    """
    for name in given:
        if name not in known:
            # Wrappers of other libraries look for Python's own words.
            raise UnknownOptionError(
                f"{owner} has no option {name!r}.{suggestion(name, [*known, *others])} Its "
                f"options: {', '.join(known) or 'none'}. (unexpected keyword argument {name!r})"
            )


def overridden(options: Options | None, default: Options, overrides: Mapping[str, Any]) -> Options:
    """The options of a call: a dataclass, with the fields given as keywords replaced.

    Raises:
        ConfigError: `options` is another object, a keyword is no field, or a value is refused.
    """
    kind = type(default)
    options = default if options is None else options
    require_instance("options", options, kind, f"{kind.__name__}(...)")
    require_known(kind.__name__, overrides, [one.name for one in dataclasses.fields(kind)])
    return dataclasses.replace(options, **overrides)


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known name, or nothing if none is near."""
    by_lower = {one.lower(): one for one in known}
    nearest = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return f" Did you mean {by_lower[nearest[0]]!r}?" if nearest else ""


def suggestions(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """A sentence that names up to `most` known names that contain `name`, or else are near."""
    by_lower = {one.lower(): one for one in known}
    found = [one for one in by_lower if name.lower() in one][:most]
    found = found or difflib.get_close_matches(name.lower(), list(by_lower), n=most, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(by_lower[one]) for one in found)}?" if found else ""


def _is_valid(value: Any, field: "dataclasses.Field[Any]", hint: Any) -> bool:
    default = field.default
    if value is default or (type(value) is type(default) and value != value and default != default):
        return True
    kinds = union_members(hint)
    if not any(_fits(default, kind) for kind in kinds):  # the annotation is not the whole truth
        kinds += (type(default),)
    return any(_fits(value, kind) for kind in kinds)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type that is no union."""
    if isinstance(value, np.generic):
        value = value.item()
    if kind in (int, float):
        fits = isinstance(value, (int, kind)) and not isinstance(value, bool)
        return fits and value == value
    if typing.get_origin(kind) is Literal:
        return any(type(value) is type(one) and value == one for one in typing.get_args(kind))
    if isinstance(kind, enum.EnumMeta):
        return isinstance(value, kind) or (isinstance(value, str) and value in kind.__members__)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return isinstance(value, (kind, Mapping))
    if isinstance(kind, type) and issubclass(kind, Path):
        return isinstance(value, (str, os.PathLike))
    return _fits_container(value, kind)


def _fits_container(value: Any, kind: Any) -> bool:
    origin, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if not isinstance(origin, type) or origin in (Any, object):
        return True
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if origin is str or not issubclass(origin, Sequence):
        return isinstance(value, origin)
    if not isinstance(value, (tuple, list)):
        return False
    if len(parts) == 1 or parts[1:] == (Ellipsis,):
        parts = (parts[0],) * len(value)
    if not parts:
        return True
    return len(parts) == len(value) and all(
        any(_fits(one, member) for member in union_members(part))
        for one, part in zip(value, parts, strict=True)
    )


def _wanted(hint: Any) -> str:
    """The annotated type in words."""
    return " or ".join(dict.fromkeys(_word(kind) for kind in union_members(hint)))


def _word(kind: Any) -> str:
    origin, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if kind in _WORDS:
        return _WORDS[kind]
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if isinstance(origin, enum.EnumMeta):
        return f"one of {', '.join(origin.__members__)}"
    if isinstance(origin, type) and issubclass(origin, Path):
        return "a path"
    if isinstance(origin, type) and issubclass(origin, Sequence) and parts:
        few = [part for part in parts if part is not Ellipsis]
        return f"a list such as {_EXAMPLES.get(few[0], '(...)')}"
    return f"of type {getattr(origin, '__name__', origin)}"
