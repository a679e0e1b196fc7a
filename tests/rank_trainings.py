"""Trainings by several processes, one after the other; `python -m tests.rank_trainings FOLDER`."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import metarl
from metarl.errors import MetaRLError
from tests.rank_agents import AGENT

TASK = "metarl/BernoulliBandit-v0"
OPTIONS: dict[str, Any] = {
    "num_tasks": 8,
    "hidden_size": 8,
    "iterations": 6,
    "progress": False,
    "checkpoint_seconds": 1e-6,
}


class StopAfterThree(metarl.Callback):
    """Ends the training after three iterations."""

    def on_iteration(self, training, row):
        return training.progress.iteration == 3


def attempt(name: str, train: Callable[[], object]) -> None:
    """Prints the rank and how the training ended."""
    try:
        train()
        end = "trained"
    except MetaRLError as error:
        end = f"{type(error).__name__}: {error}"
    except ZeroDivisionError as error:
        end = f"its own {error}"
    print(f"rank {os.environ['RANK']}, {name}: {end}", flush=True)


def main(folder: Path) -> None:
    """All trainings, and at last one in which a rank is killed."""

    def train(name: str, agent: str = "rl2", **others: Any) -> object:
        return metarl.train(agent, TASK, out=folder / name, **{**OPTIONS, **others})

    def fragile(name: str, failure: str, **others: Any) -> object:
        return train(name, AGENT, failure=failure, **others)

    attempt("whole", lambda: train("whole"))
    attempt("stopped", lambda: train("resumed", callbacks=[StopAfterThree()]))
    attempt("again", lambda: train("resumed"))
    attempt("resumed", lambda: train("resumed", resume=True))
    attempt(
        "maml",
        lambda: metarl.train(
            "maml",
            "metarl/PointNavigation-v0",
            out=folder / "maml",
            num_tasks=4,
            rollouts_per_task=4,
            iterations=2,
            progress=False,
        ),
    )
    attempt("not finite", lambda: fragile("stop", "not finite"))
    attempt("rollback", lambda: fragile("rollback", "not finite", on_nan="rollback"))
    attempt("error", lambda: fragile("error", "error"))
    attempt("memory", lambda: train("refused", "varibad"))
    attempt("shares", lambda: train("refused", num_tasks=9, num_minibatches=3))
    attempt("seeds", lambda: metarl.train_seeds("rl2", TASK, seeds=(0, 1)))
    attempt("killed", lambda: fragile("killed", "killed"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
