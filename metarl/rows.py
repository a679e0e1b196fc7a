"""Adaptation curves in and out of `adaptation.csv`: tidy rows that plots and tables read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How one agent adapted in N tasks, measured at P points of experience."""

    run: str  # name of the run folder; "" for a reference
    agent: str  # name of the agent or reference
    role: str  # "agent", "floor", "baseline" or "ceiling"
    label: str  # how a legend calls it
    family: str  # task id
    split: str  # "train" or "test"
    seed: int  # of the tasks and trials: equal seeds are the same tasks and world noise
    episode: NDArray[np.int64]  # [P] the k in "the k-th episode in a task never seen"
    env_steps: NDArray[np.float64]  # [P, N] environment steps lived in the task by its end
    returns: NDArray[np.float64]  # [P, N] mean over copies where there are several
    success: NDArray[np.float64]  # [P, N] likewise; NaN where the family does not define it
