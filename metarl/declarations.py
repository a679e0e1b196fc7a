"""The options that the source of a class declares, read without importing its module.

Modules of families and agents import torch, which takes seconds. Lists and help texts need no more
than docstrings, fields and defaults, so these are read from the syntax tree. What cannot be read in
this way is imported.
"""

import ast
import builtins
import dataclasses
import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

from metarl.plugins import load_object


class _UnreadableError(Exception):
    """The source does not show what is needed."""


def declared_class(path: str) -> type[Any]:
    """A dataclass with the docstring and the fields of another.

    It has no methods and checks no values.

    Args:
        path: `'module:Class'` of the other.

    Returns:
        That dataclass, or the class itself where its source cannot be read, as where a field has
        no docstring.
    """
    module, _, name = path.partition(":")
    try:
        definition = _module(module)[name]
        entries = _fields(definition).values()
    except Exception:  # what is wrong with it, importing it will tell
        return load_object(path)  # type: ignore[no-any-return]
    made = dataclasses.make_dataclass(name, entries, frozen=True, kw_only=True)
    made.__doc__ = ast.get_docstring(definition.node)
    return made


class _Class(NamedTuple):
    """The definition of a class in an unimported module."""

    node: ast.ClassDef
    module: "_Module"

    def bases(self) -> Iterator["_Class"]:
        """Its bases in unimported modules."""
        for base in self.node.bases:
            found = self.module.value(base.value if isinstance(base, ast.Subscript) else base)
            if isinstance(found, _Class):
                yield found
            elif dataclasses.is_dataclass(found):
                raise _UnreadableError


class _Module:
    """The names of a module, evaluated when they are looked up."""

    def __init__(self, name: str) -> None:
        self._nodes: dict[str, ast.ClassDef | ast.expr] = {}
        self._imported: dict[str, tuple[str, str | None]] = {}  # from module, name in it
        path, package = _source(name)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                self._nodes[node.name] = node
            elif isinstance(node, ast.AnnAssign | ast.Assign) and node.value:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                self._nodes |= {t.id: node.value for t in targets if isinstance(t, ast.Name)}
            elif isinstance(node, ast.Import):
                self._imported |= {a.asname or a.name: (a.name, None) for a in node.names}
            elif isinstance(node, ast.ImportFrom):
                origin = "." * node.level + (node.module or "")
                origin = importlib.util.resolve_name(origin, package)
                self._imported |= {a.asname or a.name: (origin, a.name) for a in node.names}

    def __getitem__(self, name: str) -> Any:
        """The value of a name; a `_Class` where its module is not imported."""
        if name in self._nodes:
            node = self._nodes[name]
            return _Class(node, self) if isinstance(node, ast.ClassDef) else self.value(node)
        module, member = self._imported[name]  # KeyError: Python looks for a builtin
        package = _Package(module)
        return package if member is None else getattr(package, member)

    def value(self, node: ast.expr) -> Any:
        """The value of an annotation, a default or a base class."""
        code = compile(ast.Expression(node), "<source>", "eval")
        return eval(code, {"__builtins__": builtins}, self)  # type: ignore[arg-type]


_module = functools.cache(_Module)


def _source(name: str) -> tuple[Path, str]:
    """The file that has the names of a module, and the package of its relative imports."""
    spec = _spec(name)
    if spec.origin is None or spec.parent is None:
        raise _UnreadableError
    path = Path(spec.origin)
    stub = path.with_suffix(".pyi")  # of a package that loads its names lazily
    return (stub if stub.exists() else path), spec.parent


def _spec(name: str) -> ModuleSpec:
    """Where a module is. Unlike `importlib.util.find_spec`, this imports none of its packages."""
    if name in sys.modules and (spec := sys.modules[name].__spec__):
        return spec
    package, _, _ = name.rpartition(".")
    if not package:  # no plugin, so its source is of no interest
        raise _UnreadableError
    path = _spec(package).submodule_search_locations
    found = (finder.find_spec(name, path) for finder in sys.meta_path)
    return next(spec for spec in found if spec is not None)


class _Package:
    """The names of a module that is imported already, of the standard library, or unimported."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, member: str) -> Any:
        top = self._name.partition(".")[0]
        # `metarl` is imported, but to take a name from it imports the module that defines it.
        if top in sys.stdlib_module_names or (self._name in sys.modules and self._name != "metarl"):
            return getattr(importlib.import_module(self._name), member)
        return _module(self._name)[member]


def _fields(definition: _Class) -> dict[str, tuple[str, Any, Any]]:
    """The fields by name, those of base classes first, as `make_dataclass` takes them."""
    found: dict[str, tuple[str, Any, Any]] = {}
    for base in reversed(list(definition.bases())):
        found |= _fields(base)
    node = definition.node
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return found
    for line, below in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(line, ast.AnnAssign) and "ClassVar" not in ast.unparse(line.annotation):
            name = ast.unparse(line.target)
            found[name] = (name, *_kind_and_field(definition.module, line, below))
    return found


def _kind_and_field(
    module: _Module, line: ast.AnnAssign, below: ast.stmt | None
) -> tuple[Any, Any]:
    """The type and the default of a field; tyro shows `help`, which is the docstring below it."""
    text = below.value if isinstance(below, ast.Expr) else None
    if line.value is None or not isinstance(text, ast.Constant):
        raise _UnreadableError
    kind, default = module.value(line.annotation), module.value(line.value)
    if isinstance(kind, str):  # a forward reference
        raise _UnreadableError
    metadata = {"help": " ".join(str(text.value).split())}
    if isinstance(default, dataclasses.Field):
        factory: Any = default.default_factory
        return kind, dataclasses.field(default_factory=factory, metadata=metadata)
    return kind, dataclasses.field(default=default, metadata=metadata)
