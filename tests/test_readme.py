"""The README's promises: its example runs as printed, its links lead somewhere."""

import re
import sys
from pathlib import Path

import gymnasium
import pytest
import torch

import metarl
from metarl.seeding import Seeds
from metarl.tasks.family import TensorEnv

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next of its kind."""
    (body,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return body


def code_blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def local_links(text: str) -> list[str]:
    """Targets of links and pictures that lie in this repository."""
    return [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]


@pytest.fixture
def own_family(tmp_path, monkeypatch):
    """The README's family, made from a module of the user's as the README says."""
    (code,) = code_blocks(section(README, "Your own task"), "python")
    (tmp_path / "my_module.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield metarl.make_family("my_module:lab/TwoDoors-v0")
    del sys.modules["my_module"], gymnasium.registry["lab/TwoDoors-v0"]


def test_own_task_rewards_the_door_that_the_task_names(own_family):
    world = TensorEnv(own_family, torch.tensor([0, 1]), Seeds(0).torch("world"))
    torch.testing.assert_close(world.reset(), torch.zeros(2, 1))

    to_the_right = torch.ones(2, dtype=torch.int64)
    lived = [world.step(to_the_right) for _ in range(own_family.reach)]

    assert [step.terminated.tolist() for step in lived] == [[False] * 2, [False] * 2, [True] * 2]
    assert [step.reward.tolist() for step in lived] == [[0, 0], [0, 0], [0, 1]]
    assert lived[-1].obs.tolist() == [[1], [1]]
    assert lived[0].obs.dtype == lived[0].reward.dtype == torch.float32


def test_own_task_ends_at_its_time_limit(own_family):
    world = TensorEnv(own_family, torch.tensor([0]), Seeds(0).torch("world"))
    world.reset()
    pacing = [world.step(torch.tensor([t % 2])) for t in range(own_family.episode_steps)]
    truncated = [bool(step.truncated) for step in pacing]
    assert truncated == [False] * (own_family.episode_steps - 1) + [True]


def test_own_task_draws_both_doors(own_family):
    tasks = own_family.sample_tasks(1000, Seeds(0).torch("tasks"))
    assert tasks.float().mean() == pytest.approx(0.5, abs=0.06)  # four standard errors


def test_own_task_has_the_option_that_the_command_line_shows(own_family):
    commands = "".join(code_blocks(section(README, "Your own task"), "bash"))
    ((task, option, value),) = re.findall(r"train rl2 (\S+) --task\.(\w+) (\d+)", commands)
    assert getattr(metarl.make_family(task, **{option: int(value)}), option) == int(value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = local_links(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_no_number_is_left_open():
    assert "TODO" not in README


def test_a_missing_section_or_link_is_found():
    page = "# A\n\n## B\n\n```python\nx\n```\n[one](gone.md), [two](https://host/x)\n## C\n"
    assert code_blocks(section(page, "B"), "python") == ["x\n"]
    assert local_links(page) == ["gone.md"]
    with pytest.raises(ValueError, match="not enough values"):
        section(page, "D")
