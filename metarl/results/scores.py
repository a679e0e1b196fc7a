"""Normalised scores and cumulative regret against floors and ceilings in the same tasks.

Axes: `R` runs (the seeds of one agent), `P` points, `N` tasks; task n is the same in all curves.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.results.bootstrap import JoinedCurve


def normalised_score(
    agent: NDArray[np.float64], floor: NDArray[np.float64], ceiling: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The score of mean returns, elementwise; NaN where the ceiling does not exceed the floor.

        score = (agent - floor) / (ceiling - floor)

    A ratio of means over tasks, not a mean of ratios: tasks where floor and ceiling nearly meet
    would dominate a mean of ratios.
    """
    span = np.where(ceiling > floor, ceiling - floor, np.nan)
    score: NDArray[np.float64] = (agent - floor) / span
    return score


def cumulative_regret(curve: JoinedCurve, ceiling: JoinedCurve) -> NDArray[np.float64]:
    """Return lost against the ceiling by the end of each episode, [R, P, N].

        regret[k] = sum over j <= k of (ceiling[j] - returns[j]),   in the same task

    Against the best arm of a bandit its expectation is the usual regret,
    `sum over j of (max_a mean(a) - mean(arm pulled in j))`. Realised rewards stand for their
    expectations; both players meet the same environment noise, so most of it cancels. An agent may
    exceed the ceiling by chance, so the regret of a single task can fall.

    Args:
        curve: [R, P, N] returns of an agent or reference.
        ceiling: [1, P, N] returns of an optimal policy, such as one that knows the best arm.

    Raises:
        ConfigError: an episode was not measured, so the sum is undefined.
    """
    for each in (curve, ceiling):
        if not each.is_complete:
            raise ConfigError(
                f"{each.label} was measured at {_episodes(each)}: regret adds up all episodes "
                "from the first on, and some of them are missing. Leave out the runs of agents "
                "that adapt in several rollouts at once, and plot the adaptation instead."
            )
    if len(curve.episode) != len(ceiling.episode):
        raise ConfigError(
            f"{curve.label} has {len(curve.episode)} episodes and {ceiling.label} has "
            f"{len(ceiling.episode)}; evaluate all runs with the same number of episodes."
        )
    regret: NDArray[np.float64] = (ceiling.returns - curve.returns).cumsum(1)
    return regret


def _episodes(curve: JoinedCurve) -> str:
    episodes = [str(episode) for episode in curve.episode]
    few = episodes if len(episodes) <= 8 else [*episodes[:6], "...", episodes[-1]]
    return f"the episodes {', '.join(few)}"


def score_references(
    curves: Sequence[JoinedCurve], mean_returns: Sequence[float]
) -> tuple[int, int] | None:
    """The floor and the ceiling that score 0 and 1, as indices into `curves`.

    0 is the highest floor, the best non-learning policy; 1 is the lowest ceiling, so an exact
    Bayes optimum is preferred over an oracle that knows the task. Only references measured up to
    the longest curve's last episode are considered: a ceiling after few episodes does not bound
    agents with more experience.

    Args:
        curves: agents and references.
        mean_returns: of each curve.

    Returns:
        None where there is no such floor or no such ceiling.
    """
    longest = max(curve.last_episode for curve in curves)
    candidates = [(i, c.role) for i, c in enumerate(curves) if c.last_episode == longest]
    floors = [i for i, role in candidates if role == "floor"]
    ceilings = [i for i, role in candidates if role == "ceiling"]
    if not floors or not ceilings:
        return None
    return (
        max(floors, key=mean_returns.__getitem__),
        min(ceilings, key=mean_returns.__getitem__),
    )


def regret_reference(curves: Sequence[JoinedCurve]) -> JoinedCurve:
    """The highest ceiling, against which regret is measured.

    Raises:
        ConfigError: there is no ceiling.
    """
    ceilings = [curve for curve in curves if curve.role == "ceiling"]
    if not ceilings:
        raise ConfigError(
            "Regret is the return lost against a ceiling, and the rows hold no ceiling; evaluate "
            "with `--references all`, or choose a family that has one."
        )
    return max(ceilings, key=lambda curve: float(curve.returns.mean()))
