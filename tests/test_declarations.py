import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from metarl.declarations import declared_class

COMPARE = """
import dataclasses, inspect, sys, typing
import lab_tasks
from metarl import registry
from metarl.plugins import load_object
from tyro._docstrings import get_field_docstring

families = [spec.kwargs["family"] for spec in registry.gymnasium.registry.values()
            if "family" in spec.kwargs]
paths = [*registry._agents.values(), *registry._memories.values(), *families]
declared = {path: registry.declared_class(path) for path in paths}
assert "torch" not in sys.modules
for path, cls in declared.items():
    real = load_object(path)
    assert cls is not real, path
    kinds = typing.get_type_hints(real)
    fields = dataclasses.fields(real)
    found = {f.name: (f.type, f.metadata["help"]) for f in dataclasses.fields(cls)}
    texts = {f.name: " ".join(get_field_docstring(real, f.name, ()).split()) for f in fields}
    assert list(found.items()) == [(f.name, (kinds[f.name], texts[f.name])) for f in fields], path
    assert dataclasses.asdict(cls()) == dataclasses.asdict(real()), path
    assert cls.__doc__ == inspect.getdoc(real), path
print(len(declared))
"""


def test_what_the_source_declares_is_what_an_import_finds():
    plugin = Path(__file__).parent / "example_plugin"
    code = f"import sys; sys.path.append({str(plugin)!r})\n{COMPARE}"
    ended = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=120, text=True, stdout=subprocess.PIPE
    )
    assert int(ended.stdout) > 35


SOURCE = '''
import typing as t
from dataclasses import dataclass, field
from typing import ClassVar

import no_such_library

from ..shared import Base, LIMIT

Mode = t.Literal["a", "b"]


@dataclass(frozen=True, kw_only=True)
class Boat(Base[int]):
    """A boat.

    It floats.
    """

    wheels: ClassVar[int] = 0
    mode: Mode = "a"
    """how it
    floats"""
    width: int = 2 * LIMIT
    """of the boat"""
    ports: tuple[str, ...] = field(default_factory=lambda: ("x",))
    """where it goes"""

    def float_away(self): ...
'''
SHARED = '''
from dataclasses import dataclass
from typing import Generic, TypeVar

import no_such_library

T = TypeVar("T")
LIMIT: int = 4


@dataclass(frozen=True, kw_only=True)
class Base(Generic[T]):
    length: float | None = None
    """in metres"""
    width: int = 1
    """overridden"""
'''


@pytest.fixture
def harbour(tmp_path, monkeypatch):
    """Writes modules of an imported package, which themselves cannot be imported."""

    def write(source: str, shared: str = SHARED) -> str:
        name = f"harbour_{tmp_path.name}"
        (tmp_path / name / "boats").mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "boats" / "__init__.py").write_text("raise RuntimeError('no import')")
        (tmp_path / name / "boats" / "fast.py").write_text(source)
        (tmp_path / name / "shared.py").write_text(shared)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(sys.modules, name, __import__(name))
        return f"{name}.boats.fast:Boat"

    return write


def test_nothing_is_imported_to_read_a_class(harbour):
    boat = declared_class(harbour(SOURCE))
    assert dataclasses.asdict(boat(mode="b")) == {
        "length": None,
        "width": 8,
        "mode": "b",
        "ports": ("x",),
    }
    assert boat.__doc__.splitlines() == ["A boat.", "", "It floats."]
    texts = {f.name: f.metadata["help"] for f in dataclasses.fields(boat)}
    assert texts["mode"] == "how it floats"
    assert texts["width"] == "of the boat"


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ('"""of the boat"""', "# a comment"),
        ("2 * LIMIT", "no_such_library.WIDTH"),
        ("mode: Mode", 'mode: "Mode"'),
        ("mode: Mode", "mode: Unknown"),
        ("class Boat", "class Ship"),
        ("import no_such_library", "import this is no Python"),
    ],
)
def test_a_class_that_cannot_be_read_is_imported(harbour, part, instead):
    assert part in SOURCE
    with pytest.raises(RuntimeError, match="no import"):
        declared_class(harbour(SOURCE.replace(part, instead)))


def test_the_error_of_a_missing_module_is_that_of_its_import():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        declared_class("no_such_module:Boat")
