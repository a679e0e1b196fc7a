"""Generated pages: everything registered is included, docstrings are converted correctly."""

import re
from dataclasses import fields

import _api
import _docstrings
import _pages
import numpy as np
import pytest
from _quick_starts import QUICK_STARTS
from gymnasium import spaces

import metarl
from metarl.envs.navigation.point_navigation import PointNavigation
from tests.test_docs import check_command, commands
from tests.test_readme import ROOT

IDS = [name for name in metarl.task_ids() if name.startswith("metarl/")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The generated pages, written over those of an earlier build."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "agents").mkdir()
    (folder / "agents" / "removed.md").write_text("# an agent that no longer exists\n")
    _pages.write_pages(folder)
    return folder


def test_there_is_a_page_for_exactly_every_family_and_agent(folder):
    written = {str(path.relative_to(folder)) for path in folder.rglob("*.md")}
    families = {f"families/{name.removeprefix('metarl/')}.md" for name in IDS}
    assert written == families | {f"agents/{name}.md" for name in metarl.agent_names()}
    table = (folder / "families.inc").read_text(encoding="utf-8")
    assert all(f"`{name}`" in table for name in _pages._families()[0])


@pytest.mark.parametrize("task_id", IDS)
def test_page_of_a_family_is_complete(task_id, folder):
    families, missing = _pages._families()
    page = (folder / "families" / f"{_pages.slug(task_id)}.md").read_text(encoding="utf-8")
    assert "Source" in page  # source of the definition
    if task_id in missing:
        assert missing[task_id] in page
        pytest.skip(missing[task_id])
    family = families[task_id]
    first, *_ = type(family).__doc__.splitlines()
    assert first in page
    texts = _docstrings.field_texts(type(family))
    for field in fields(family):
        text = _docstrings.linked(_pages._escaped(texts[field.name]))
        assert f"| `{field.name}` | `{getattr(family, field.name)!r}` | {text} |" in page
    for name, reference in family.references(family.trial_episodes).items():
        assert f"| `{name}` | {reference.role} |" in page


@pytest.mark.parametrize("task_id", IDS)
def test_every_family_has_a_frame(task_id, folder):
    name = _pages.slug(task_id)
    page = folder / "families" / f"{name}.md"
    (link,) = re.findall(rf"!\[A frame of {task_id}\]\((.*)\)", page.read_text(encoding="utf-8"))
    # Links to committed frames are relative to the folder of the build, below docs/.
    below_docs = ROOT / "docs" / "generated" / "families"
    found = page.with_name(link) if link == f"{name}.png" else below_docs / link
    assert found.resolve().stat().st_size > 1000


@pytest.mark.parametrize("task_id", IDS)
def test_the_page_of_a_family_begins_with_its_picture_and_a_command(task_id, folder):
    page = (folder / "families" / f"{_pages.slug(task_id)}.md").read_text(encoding="utf-8")
    title, picture, command, *_ = page.split("\n\n")
    assert title == f"# {task_id}"
    assert picture.startswith(f"![A frame of {task_id}](")
    (line,) = commands(command)
    assert line.split()[:2] == ["metarl", "train"]
    assert line.split()[3] == task_id
    if task_id not in _pages._families()[1]:
        check_command(line)


def test_exactly_the_families_have_a_command():
    assert sorted(QUICK_STARTS) == sorted(IDS)


@pytest.mark.parametrize("name", metarl.agent_names())
def test_page_of_an_agent_has_every_option_once(name, folder):
    page = (folder / "agents" / f"{name}.md").read_text(encoding="utf-8")
    config = metarl.agent_config(name)
    default = config()
    for field in fields(config):
        value = getattr(default, field.name)
        assert page.count(f"\n| `{field.name}` | `{value!r}` |") == 1
        assert _docstrings.field_texts(config)[field.name]  # every option is documented


def test_presets_are_on_the_pages_of_agent_and_family(folder):
    (preset,) = metarl.presets("maml", "metarl/PointNavigation-v0").values()
    for page in ("agents/maml.md", "families/PointNavigation-v0.md"):
        assert f"`{preset.name}`" in (folder / page).read_text(encoding="utf-8")


def test_every_public_name_is_in_the_api():
    names = [line.split()[-1] for line in _api.api().splitlines() if line.startswith("..")]
    assert set(names) >= {f"metarl.{name}" for name in metarl.__all__}
    assert "metarl.errors.ConfigError" in names
    assert len(names) == len(set(names))


class OneStepEnv:
    """Ends after one step; its frames are filled with the number of steps."""

    action_space = spaces.Discrete(2)

    def reset(self, seed):
        self.steps = 0

    def step(self, action):
        self.steps += 1
        return None, 0.0, True, False, {}

    def render(self):
        return np.full((4, 5, 3), self.steps, dtype=np.uint8)


def test_frame_is_of_the_first_episode(monkeypatch, tmp_path):
    monkeypatch.setattr(_pages.gymnasium, "make", lambda task_id, render_mode: OneStepEnv())
    frame = _pages.frame("metarl/Rendered-v0")
    assert frame.shape == (4, 5, 3)
    assert (frame == 1).all()
    link = _pages.rendered_frame("metarl/Rendered-v0", PointNavigation(), tmp_path)
    assert link == "![A frame of metarl/Rendered-v0](Rendered-v0.png)"
    assert (tmp_path / "Rendered-v0.png").exists()
    assert link in _pages.family_page("metarl/Rendered-v0", PointNavigation(), link)


def test_the_page_of_a_family_with_a_missing_package_shows_the_error(monkeypatch, tmp_path):
    def make(task_id):
        raise ImportError(f"no simulator for {task_id}")

    monkeypatch.setattr(metarl, "make_family", make)
    _pages.write_pages(tmp_path)
    page = (tmp_path / "families" / "GoalBandit-v0.md").read_text(encoding="utf-8")
    assert "no simulator for metarl/GoalBandit-v0" in page


def test_field_texts_of_derived_classes_override_those_of_bases():
    class Base:
        one: int = 1
        """the first"""
        two: int = 2  # the second
        three: int = 3

    class Derived(Base):
        two: int = 4
        """the second,
        overridden"""

    expected = {"one": "the first", "two": "the second, overridden"}
    assert _docstrings.field_texts(Derived) == expected
    assert _docstrings.field_texts(int) == {}


@pytest.mark.parametrize(
    ("docstring", "rest"),
    [
        ("Of `x` and ``y``.", "Of ``x`` and ``y``."),
        (
            "A sum:\n\n    a = b\n\n    c\n\nEnd.",
            "A sum:\n\n::\n\n        a = b\n\n        c\n\nEnd.",
        ),
        ("One of\n\none  1st\ntwo  2nd", "One of\n\n::\n\n    one  1st\n    two  2nd"),
        ("Sum.\n\nArgs:\n    x: `y`.\n\n    z: 2.", "Sum.\n\nArgs:\n    x: ``y``.\n\n    z: 2."),
    ],
)
def test_docstrings_are_converted_to_restructuredtext(docstring, rest):
    assert "\n".join(_docstrings.as_rest(docstring.splitlines())).strip() == rest


def test_arxiv_numbers_become_links():
    link = "[arXiv:1611.02779](https://arxiv.org/abs/1611.02779)"
    assert _docstrings.linked("Duan, arXiv:1611.02779.") == f"Duan, {link}."
    assert _docstrings.linked("(Duan 1611.02779)") == f"(Duan {link})"
    assert _docstrings.linked("about 0.12345 and 1234.5") == "about 0.12345 and 1234.5"


def test_bars_in_table_cells_are_escaped():
    table = _pages.table(("a", "b"), [(_pages._escaped("x | y"), "z")])
    assert table.splitlines()[-1] == r"| x \| y | z |"
