"""The README: its example runs as printed, and links of all pages have a target."""

import re
import sys
from pathlib import Path

import gymnasium
import pytest
import torch

import metarl
from metarl.noise import LaneNoise
from metarl.seeding import Seeds
from metarl.tasks.tensor_env import TensorEnv

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/tutorials").glob("*.md")),
]


def section(text: str, title: str) -> str:
    """The text under a heading, up to the next heading of the same level."""
    (body,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return body


def code_blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def local_links(text: str) -> list[str]:
    """Targets of links and images that are files of this repository."""
    return [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]


@pytest.fixture
def readme_family(tmp_path, monkeypatch):
    """The family of the README, made from a user's module."""
    (code,) = code_blocks(section(README, "Your own task"), "python")
    (tmp_path / "my_module.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield metarl.make_family("my_module:lab/TwoDoors-v0")
    del sys.modules["my_module"], gymnasium.registry["lab/TwoDoors-v0"]


def test_own_task_rewards_the_door_of_the_task(readme_family):
    env = TensorEnv(readme_family, torch.tensor([0, 1]), LaneNoise.of(Seeds(0), "world", 2))
    torch.testing.assert_close(env.reset(), torch.zeros(2, 1))

    to_the_right = torch.ones(2, dtype=torch.int64)
    steps = [env.step(to_the_right) for _ in range(readme_family.reach)]

    assert [step.terminated.tolist() for step in steps] == [[False] * 2, [False] * 2, [True] * 2]
    assert [step.reward.tolist() for step in steps] == [[0, 0], [0, 0], [0, 1]]
    assert steps[-1].next_obs.tolist() == [[1], [1]]
    assert steps[0].next_obs.dtype == steps[0].reward.dtype == torch.float32


def test_own_task_ends_at_its_time_limit(readme_family):
    env = TensorEnv(readme_family, torch.tensor([0]), LaneNoise.of(Seeds(0), "world", 1))
    env.reset()
    steps = [env.step(torch.tensor([t % 2])) for t in range(readme_family.episode_steps)]
    truncated = [bool(step.truncated) for step in steps]
    assert truncated == [False] * (readme_family.episode_steps - 1) + [True]


def test_own_task_draws_both_doors(readme_family):
    tasks = readme_family.sample_tasks(1000, Seeds(0).torch("tasks"))
    assert tasks.float().mean() == pytest.approx(0.5, abs=0.06)  # four standard errors


def test_own_task_has_the_option_of_the_printed_command(readme_family):
    commands = "".join(code_blocks(section(README, "Your own task"), "bash"))
    ((task, option, value),) = re.findall(r"train rl2 (\S+) --task\.(\w+) (\d+)", commands)
    assert getattr(metarl.make_family(task, **{option: int(value)}), option) == int(value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_a_target(page):
    links = local_links(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_has_no_todo():
    assert "TODO" not in README


def test_a_missing_section_or_link_is_found():
    page = "# A\n\n## B\n\n```python\nx\n```\n[one](gone.md), [two](https://host/x)\n## C\n"
    assert code_blocks(section(page, "B"), "python") == ["x\n"]
    assert local_links(page) == ["gone.md"]
    with pytest.raises(ValueError, match="not enough values"):
        section(page, "D")
