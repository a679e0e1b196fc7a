"""MAML on point navigation: train, adapt to unseen goals by gradient steps, plot.

The protocol of Finn et al. 2017 (arXiv:1703.03400): 40 unseen goals, 40 trajectories per gradient
step. The second and third step are .4 and .2 times as long as the first; in the paper both are
half. Published return: -40.41 before adaptation and -11.68, -3.33, -3.23 after one, two, three
steps; an oracle that knows the goal gets -0.51.

    python experiments/maml_point_navigation.py --seed 3            # 80 seconds: -11 / -4 / -2
    python experiments/maml_point_navigation.py --agent fomaml      # or promp, meta_sgd, ...
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

import metarl


@dataclass(frozen=True, kw_only=True)
class Options:
    """MAML on point navigation: train, adapt to unseen goals, plot."""

    agent: Literal["maml", "fomaml", "emaml", "promp", "meta_sgd", "reptile", "pretrained"] = "maml"
    """agent that adapts by gradient steps"""
    seed: int = 0
    """root of all randomness"""
    iterations: int | None = None
    """meta-iterations; by default those of the preset"""
    num_tasks: int | None = None
    """goals of a meta-iteration; by default those of the preset"""
    goals: int = 40
    """unseen goals that the final agent is evaluated on"""
    trajectories: int = 40
    """episodes of experience per gradient step"""
    steps: int = 3
    """gradient steps"""
    out: Path | None = None
    """run folder; by default runs/AGENT-PointNavigation-v0-seedSEED"""


def main(options: Options) -> None:
    """Train, evaluate, plot."""
    overrides: dict[str, Any] = {"iterations": options.iterations, "num_tasks": options.num_tasks}
    run = metarl.train(
        options.agent,
        "metarl/PointNavigation-v0",
        preset="finn-2017",
        seed=options.seed,
        out=options.out,
        **{name: value for name, value in overrides.items() if value is not None},
    )
    curves = metarl.evaluate(
        run,
        num_tasks=options.goals,
        agent_options={
            "rollouts_per_task": options.trajectories,
            "evaluation_steps": options.steps,
        },
        progress=True,
    )
    for curve in curves:
        returns = "  ".join(f"{value:7.2f}" for value in curve.returns.mean(1))
        print(f"{curve.label:28} return after 0, 1, ... steps {returns}")
    for kind in ("adaptation", "paths"):
        for figure in metarl.plot([run], kind=kind):
            print(figure)


if __name__ == "__main__":
    main(tyro.cli(Options))
