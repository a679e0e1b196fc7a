"""RL^2 on point navigation, three episodes per trial: train, evaluate on unseen goals, plot.

The task of the MAML paper (Finn et al. 2017, arXiv:1703.03400), where MAML gets -3.2 after three
gradient steps and 120 trajectories; an oracle that knows the goal gets -0.51. RL^2 explores in the
first episode and moves straight to the goal in the later ones.

    python experiments/rl2_point_navigation.py --seed 3
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import metarl


@dataclass(frozen=True, kw_only=True)
class Options:
    """RL^2 on point navigation: train, evaluate on unseen goals, plot."""

    seed: int = 0
    """root of all randomness"""
    test_tasks: int = 1000
    """unseen goals that the final agent is evaluated on"""
    out: Path | None = None
    """run folder; by default runs/rl2-PointNavigation-v0-seedSEED"""


def main(options: Options) -> None:
    """Train, evaluate, plot."""
    run = metarl.train(
        "rl2",
        "metarl/PointNavigation-v0",
        preset="episodes-3",
        seed=options.seed,
        out=options.out,
    )
    for curve in metarl.evaluate(run, num_tasks=options.test_tasks, progress=True):
        returns = "  ".join(f"{value:7.2f}" for value in curve.returns.mean(1))
        print(f"{curve.label:28} return of each episode {returns}")
    for figure in metarl.plot([run]):
        print(figure)


if __name__ == "__main__":
    main(tyro.cli(Options))
