"""RL^2 on the Bernoulli bandit: train, evaluate on 10,000 unseen tasks, plot.

Reproduces Duan et al. 2016 (arXiv:1611.02779), Table 1, first row: RL^2 gets 6.7 in 10 pulls of
5 arms (1000 tasks, standard error .08); the exact Bayes optimum is 6.65999.

    python experiments/rl2_bandit.py --seed 3          # about a minute on two CPU cores: 6.64
    python experiments/rl2_bandit.py --arms 10         # optimum 6.714; published 6.7
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import metarl


@dataclass(frozen=True, kw_only=True)
class Options:
    """RL^2 on the Bernoulli bandit: train, evaluate on unseen tasks, plot."""

    arms: int = 5
    """arms of every bandit"""
    pulls: int = 10
    """pulls of a trial"""
    seed: int = 0
    """root of all randomness"""
    iterations: int = 500
    """meta-iterations"""
    num_tasks: int = 512
    """bandits that run in parallel in each iteration"""
    test_tasks: int = 10_000
    """unseen bandits that the final agent is evaluated on"""
    out: Path | None = None
    """run folder; by default runs/rl2-BernoulliBandit-v0-seedSEED"""


def main(options: Options) -> None:
    """Train, evaluate, plot."""
    family = metarl.make_family("metarl/BernoulliBandit-v0", arms=options.arms, pulls=options.pulls)
    run = metarl.train(
        "rl2",
        family,
        seed=options.seed,
        iterations=options.iterations,
        num_tasks=options.num_tasks,
        out=options.out,
    )
    for curve in metarl.evaluate(run, num_tasks=options.test_tasks, progress=True):
        print(f"{curve.label:28} {curve.returns.sum(0).mean():8.3f} per trial")
    for figure in metarl.plot([run]):
        print(figure)


if __name__ == "__main__":
    main(tyro.cli(Options))
