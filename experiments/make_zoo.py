"""Trains, evaluates and describes the agents of the zoo: the folders in `experiments/zoo`.

    python experiments/make_zoo.py                          # all of them: an hour
    python experiments/make_zoo.py --only rl2-bandit-5x10

A run continues from its checkpoint. Each folder is the output of `metarl.write_card`, and replaces
the one before.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro
from reporting import EVALUATION_SEED, one_line_errors

import metarl

ZOO = Path(__file__).parent / "zoo"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One agent of the zoo."""

    agent: str
    task: str
    preset: str | None
    test_tasks: int
    seed: int = 0
    evaluation: Mapping[str, Any] = field(default_factory=dict)  # agent options
    options: Mapping[str, Any] = field(default_factory=dict)  # that override the preset
    task_options: Mapping[str, Any] = field(default_factory=dict)  # likewise


AGENTS = {
    "rl2-bandit-5x10": Trained(
        agent="rl2", task="metarl/BernoulliBandit-v0", preset="pulls-10", test_tasks=10_000
    ),
    "rl2-bandit-5x100": Trained(
        agent="rl2", task="metarl/BernoulliBandit-v0", preset="pulls-100", test_tasks=10_000
    ),
    "rl2-grid-navigation": Trained(
        agent="rl2", task="metarl/GridNavigation-v0", preset="varibad", test_tasks=2100
    ),
    "rl2-point-navigation": Trained(
        agent="rl2", task="metarl/PointNavigation-v0", preset="episodes-3", test_tasks=1000
    ),
    "rl2-two-step": Trained(
        agent="rl2", task="metarl/TwoStep-v0", preset="wang-2018", test_tasks=2000
    ),
    "dpt-bandit-5x100": Trained(
        agent="dpt",
        task="metarl/BernoulliBandit-v0",
        preset="pulls-100",
        test_tasks=4000,
        options={"hidden_size": 64},  # the file is a quarter as large
    ),
    "rl2-transformer-bandit-5x10": Trained(
        agent="rl2",
        task="metarl/BernoulliBandit-v0",
        preset="pulls-10",
        test_tasks=10_000,
        options={
            "memory": "transformer",
            "hidden_size": 32,
            "learning_rate": 1e-3,
            "iterations": 200,
        },
    ),
    "versa-bandit-5x10": Trained(
        agent="versa",
        task="metarl/BernoulliBandit-v0",
        preset=None,
        test_tasks=10_000,
        options={"hidden_size": 32},
        task_options={"pulls": 10},
    ),
    "prototypical-networks-glyphs": Trained(
        agent="prototypical_networks",
        task="metarl/FewShotClassification-v0",
        preset="ways-5-shots-1",
        test_tasks=2000,
        options={"hidden_size": 64},
    ),
    "pearl-sparse-navigation": Trained(
        agent="pearl", task="metarl/SparsePointNavigation-v0", preset="episodes-6", test_tasks=1000
    ),
    # Seed 1: with seed 0 of the reproductions a few goals diverge at the second step.
    "maml-point-navigation": Trained(
        agent="maml",
        task="metarl/PointNavigation-v0",
        preset="finn-2017",
        test_tasks=1000,
        seed=1,
        evaluation={"rollouts_per_task": 40, "evaluation_steps": 3},
    ),
    "meta-lstm-sinusoid": Trained(
        agent="meta_lstm",
        task="metarl/Sinusoid-v0",
        preset="supervised-shots-5",
        test_tasks=1000,
        evaluation={"rollouts_per_task": 1, "evaluation_steps": 10},  # each adapts alone
    ),
    "rl2-tabular-mdp": Trained(
        agent="rl2",
        task="metarl/TabularMDP-v0",
        preset="episodes-10",
        test_tasks=2000,
        options={"hidden_size": 32, "num_tasks": 256},
    ),
    "varibad-grid-navigation": Trained(
        agent="varibad", task="metarl/GridNavigation-v0", preset="varibad", test_tasks=2100
    ),
    "platipus-point-navigation": Trained(
        agent="platipus",
        task="metarl/PointNavigation-v0",
        preset=None,
        test_tasks=1000,
        evaluation={"rollouts_per_task": 40, "evaluation_steps": 3},
        options={  # those of MAML, with half the tasks
            "num_tasks": 20,
            "iterations": 100,
            "inner_lr": 0.5,
            "later_lr_scale": 0.4,
            "later_lr_decay": 0.5,
            "curvature_rollouts": 5,
            "damping": 1e-5,
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Makes the folders of the zoo."""

    only: tuple[str, ...] = ()
    """names; by default all"""
    out: Path = Path("runs/make-zoo")
    """parent of the run folders"""
    zoo: Path = ZOO
    """parent of the folders of the zoo"""


def main(options: Options) -> None:
    """Trains, evaluates and writes each agent."""
    for name in options.only or AGENTS:
        item = AGENTS[name]
        run = metarl.train(
            item.agent,
            item.task,
            preset=item.preset,
            seed=item.seed,
            out=options.out / name,
            resume=True,
            task_options=item.task_options,
            **item.options,
        )
        metarl.evaluate(
            run, num_tasks=item.test_tasks, seed=EVALUATION_SEED, agent_options=item.evaluation
        )
        folder = options.zoo / name
        with one_line_errors(), TemporaryDirectory(prefix=".zoo.", dir=options.zoo) as drafts:
            metarl.write_card(run, share=Path(drafts) / name)
            shutil.rmtree(folder, ignore_errors=True)
            (Path(drafts) / name).rename(folder)
        print(folder / "README.md")


if __name__ == "__main__":
    main(tyro.cli(Options))
