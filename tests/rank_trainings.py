"""Trainings by several processes, one after the other; `python -m tests.rank_trainings FOLDER`."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import metarl
from metarl.errors import MetaRLError, NonFiniteError
from tests.rank_agents import AGENT

TASK = "metarl/BernoulliBandit-v0"
OPTIONS: dict[str, Any] = {
    "num_tasks": 8,
    "hidden_size": 8,
    "iterations": 6,
    "progress": False,
    "checkpoint_seconds": 1e-6,
}


class NotANumber(metarl.Callback):
    """Fails after the first iteration, some seconds later than other ranks come so far."""

    def on_iteration(self, training, row):
        time.sleep(0.5)
        raise NonFiniteError("not a number")


class StopAfterThree(metarl.Callback):
    """Ends the training after three iterations."""

    def on_iteration(self, training, row):
        return training.progress.iteration == 3


def attempt(folder: Path, name: str, train: Callable[[], Any]) -> None:
    """Writes down how the training ended, for this rank."""
    try:
        run = train()
        end = "trained"
        if name in ("whole", "resumed"):
            agent = run.make_agent(run.config.make_family())
            write(folder, f"{name}, saved: {run.load(agent).iteration}")
    except MetaRLError as error:
        end = f"{type(error).__name__}: {error}"
    except ZeroDivisionError as error:
        end = f"its own {error}"
    write(folder, f"{name}: {end}")


def write(folder: Path, line: str) -> None:
    with open(folder / f"rank-{os.environ['RANK']}.txt", "a") as said:
        said.write(line + "\n")


def main(folder: Path) -> None:
    """All trainings, and at last one in which a rank is killed."""

    def train(name: str, agent: str = "rl2", **others: Any) -> object:
        return metarl.train(agent, TASK, out=folder / name, **{**OPTIONS, **others})

    def fragile(name: str, failure: str, **others: Any) -> object:
        return train(name, AGENT, failure=failure, **others)

    attempt(folder, "whole", lambda: train("whole"))
    attempt(folder, "stopped", lambda: train("resumed", callbacks=[StopAfterThree()]))
    attempt(folder, "again", lambda: train("resumed"))
    attempt(folder, "resumed", lambda: train("resumed", resume=True))
    attempt(
        folder,
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
    attempt(folder, "not finite", lambda: fragile("stop", "not finite"))
    attempt(folder, "rollback", lambda: fragile("rollback", "not finite", on_nan="rollback"))
    attempt(
        folder,
        "callback",
        lambda: train("callback", on_nan="rollback", callbacks=[NotANumber()]),
    )
    attempt(folder, "error", lambda: fragile("error", "error"))
    attempt(folder, "memory", lambda: train("refused", "varibad"))
    attempt(folder, "shares", lambda: train("refused", num_tasks=9, num_minibatches=3))
    attempt(folder, "seeds", lambda: metarl.train_seeds("rl2", TASK, seeds=(0, 1)))
    attempt(folder, "killed", lambda: fragile("killed", "killed"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
