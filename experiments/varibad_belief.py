"""What VariBAD believes about the goal of grid navigation, step by step, as a picture.

    metarl train varibad metarl/GridNavigation-v0 --preset varibad
    python experiments/varibad_belief.py --run runs/varibad-GridNavigation-v0-seed0

The agent is rolled out in one task of the test split. Each panel is the belief before one step of
the first episode: the reward that the decoder expects for arriving in each cell, a mean over
samples of the latent numbers and over the moves from neighbouring cells. Staying is left out: the
agent stays only where it found the goal, so the decoder expects a reward of staying anywhere. After
Zintgraf et al. 2020 (arXiv:1910.08348), figure 1.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from reporting import figure_style, save_figure
from torch import Tensor

import metarl
from metarl.agents.memory.trainer import RecurrentAgent
from metarl.agents.memory.varibad import BeliefELBO
from metarl.envs.grids.grid_navigation import HIT, MISS, GridNavigation

COLUMNS = 5
"""panels in a row"""
OUTLINE = [patheffects.withStroke(linewidth=3.2, foreground="black")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What VariBAD believes about the goal of grid navigation, step by step, as a picture."""

    run: Path
    """folder of a run of varibad on grid navigation"""
    seed: int = 0
    """of the task, the rollout and the samples of the belief"""
    samples: int = 1000
    """of the latent numbers, for each belief"""
    out: Path | None = None
    """path of the figure (.png, .svg); by default belief in the run folder"""


def main(options: Options) -> None:
    """Load, roll out, draw."""
    run = metarl.load_run(options.run)
    family, agent = run.config.make_family(), None
    if isinstance(family, GridNavigation):
        agent = run.make_agent(family)
    if not (
        isinstance(family, GridNavigation)
        and isinstance(agent, RecurrentAgent)
        and isinstance(agent.auxiliary, BeliefELBO)
    ):
        raise SystemExit(
            f"{options.run} is a run of {run.config.agent} on {run.config.task}; this picture is "
            "one of varibad, with its memory belief, on metarl/GridNavigation-v0."
        )
    run.load(agent)
    seeds = metarl.Seeds(options.seed)
    goal = family.sample_tasks(1, seeds.torch("task"), "test")
    policy = agent.start(1, metarl.LaneNoise.of(seeds, "start", 1))
    trajectory = metarl.collect(family, goal, policy, episodes=1, seeds=seeds.child("rollout"))
    rewards = np.stack(
        [
            expected_on_arrival(family, agent.auxiliary, features, seeds, options.samples)
            for features in agent.features(trajectory)
        ]
    )
    path = trajectory.obs[:, 0, 0].numpy()
    print(describe(rewards, path, goal[0].numpy()))
    with figure_style():
        figure = belief_figure(rewards, path, goal[0].numpy())
        print(*save_figure(figure, options.out or run.path / "belief"), sep="\n")


def expected_on_arrival(
    family: GridNavigation, loss: BeliefELBO, features: Tensor, seeds: metarl.Seeds, samples: int
) -> NDArray[np.float32]:
    """Expected reward of arriving in each cell [x, y] under the belief of features [1, H]."""
    side, actions = family.cells, int(family.action_space.n)
    cell = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    before = cell.repeat_interleave(actions, 0)
    action = torch.arange(actions).repeat(len(cell))
    noise = metarl.LaneNoise.of(seeds, "moves", len(before))
    after, _, _ = family.step(torch.zeros_like(before), before, action, noise)
    rewards = loss.expected_rewards(
        features,
        before.float(),
        action,
        after.float(),
        generator=seeds.torch("samples"),
        samples=samples,
    )[:, 0]
    moved = (before != after).any(1)
    place = after[moved] @ torch.tensor([side, 1])
    total = torch.zeros(len(cell)).index_add(0, place, rewards[moved])
    return (total / place.bincount()).view(side, side).numpy()


def describe(
    rewards: NDArray[np.float32], path: NDArray[np.float32], goal: NDArray[np.int64]
) -> str:
    """A line for each step: where the agent is, and what it expects at the goal and elsewhere."""
    lines = ["step  position  expected reward at the goal, at the best other cell"]
    for step, (reward, (x, y)) in enumerate(zip(rewards, path.astype(int), strict=True)):
        others = np.delete(reward.ravel(), goal[0] * reward.shape[1] + goal[1])
        at_goal = reward[tuple(goal)]
        lines.append(f"{step:4}    ({x}, {y})  {at_goal:6.2f} {others.max():6.2f}")
    return "\n".join(lines)


def belief_figure(
    rewards: NDArray[np.float32], path: NDArray[np.float32], goal: NDArray[np.int64]
) -> Figure:
    """A panel for each step: expected rewards [T, x, y], path so far [T, 2], and the goal."""
    rows = -(-len(rewards) // COLUMNS)
    figure = Figure(
        figsize=(1.55 * COLUMNS + 1.2, 1.75 * rows + 0.5), dpi=200, layout="constrained"
    )
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    # Most of the range of colours for small rewards: before the goal is found all are near MISS.
    scale = PowerNorm(0.5, vmin=MISS, vmax=HIT)
    for step, (panel, reward) in enumerate(zip(panels, rewards, strict=False)):
        image = panel.imshow(reward.T, origin="lower", cmap="viridis", norm=scale)
        draw_position(panel, path[: step + 1], goal)
        panel.set_title(f"step {step}")
    for panel in panels[len(rewards) :]:
        panel.set_axis_off()
    bar = figure.colorbar(image, ax=list(panels), shrink=0.7, pad=0.02)
    bar.set_label("expected reward of arriving in the cell")
    bar.set_ticks([MISS, 0.0, 0.25, 0.5, 0.75, HIT])
    figure.supxlabel(
        "white: path so far and position; star: the goal, hidden from the agent", fontsize=8
    )
    return figure


def draw_position(panel: Axes, path: NDArray[np.float32], goal: NDArray[np.int64]) -> None:
    """The path so far, its end, and the goal, on the cells of a panel."""
    panel.plot(*path.T, color="white", linewidth=1.4, path_effects=OUTLINE)
    panel.plot(*path[-1], "o", color="white", markeredgecolor="black", markersize=7)
    panel.plot(*goal, "*", color="#D55E00", markeredgecolor="black", markersize=11)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_visible(True)


if __name__ == "__main__":
    main(tyro.cli(Options))
