"""What evaluated agents are worth: returns on common tasks go in, scores and differences come out.

Axes: `R` runs (the seeds of one agent), `P` points, `N` tasks; task n is the same for everybody.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.results.bootstrap import Estimate, Line, estimate_from_means


def normalised_score(
    agent: NDArray[np.floating], floor: NDArray[np.floating], ceiling: NDArray[np.floating]
) -> Estimate:
    """Where an agent stands between floor (0) and ceiling (1), and its 95% interval.

    Each resample draws tasks once for all three, so what makes a task easy for all cancels.

    Args:
        agent: [R, P, N] returns of an agent.
        floor: [1, P, N] returns in the same tasks.
        ceiling: [1, P, N] returns in the same tasks.

    Returns:
        [P] each; NaN unless the ceiling lies above the floor in every resample.
    """
    return estimate_from_means(share_of_span, agent, floor, ceiling)


def share_of_span(
    agent: NDArray[np.float64], floor: NDArray[np.float64], ceiling: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The score of mean returns, elementwise; NaN where the ceiling does not exceed the floor.

        score = (agent - floor) / (ceiling - floor)

    A ratio of means over tasks, not a mean of ratios: that would be ruled by the tasks where floor
    and ceiling nearly meet.
    """
    span = np.where(ceiling > floor, ceiling - floor, np.nan)
    score: NDArray[np.float64] = (agent - floor) / span
    return score


def paired_difference(one: NDArray[np.floating], other: NDArray[np.floating]) -> Estimate:
    """How much more `one` earns than `other` in the same tasks, and its 95% interval.

    Tasks are resampled together, so what makes a task easy for both cancels.

    Args:
        one: [R, P, N] returns.
        other: [R', P, N] returns in the same tasks.

    Returns:
        [P] each.
    """
    return estimate_from_means(np.subtract, one, other)


def cumulative_regret(line: Line, ceiling: Line) -> NDArray[np.float64]:
    """What not being the ceiling has cost by the end of each episode, [R, P, N].

        regret[k] = sum over j <= k of (ceiling[j] - returns[j]),   in the same task

    Against the best arm of a bandit its expectation is the usual regret,
    `sum over j of (max_a mean(a) - mean(arm pulled in j))`: rewards stand for their expectations,
    and because both meet the same luck, most of the luck cancels. A lucky agent may do better
    than the ceiling, so the regret of one task can fall.

    Args:
        line: [R, P, N] returns of an agent or reference.
        ceiling: [1, P, N] returns of who gives nothing away, such as the player who knows the
            best arm.

    Raises:
        ConfigError: an episode was not measured, so that there is no sum.
    """
    for each in (line, ceiling):
        if not each.is_complete:
            raise ConfigError(
                f"{each.label} was measured at {_episodes(each)}: regret adds up all episodes "
                "from the first on, and some of them are missing. Leave out the runs of agents "
                "that adapt in several copies at once, and see the adaptation instead."
            )
    if len(line.episode) != len(ceiling.episode):
        raise ConfigError(
            f"{line.label} lived {len(line.episode)} episodes and {ceiling.label} "
            f"{len(ceiling.episode)}; evaluate all runs with the same number of episodes."
        )
    regret: NDArray[np.float64] = (ceiling.returns - line.returns).cumsum(1)
    return regret


def _episodes(line: Line) -> str:
    episodes = [str(episode) for episode in line.episode]
    few = episodes if len(episodes) <= 8 else [*episodes[:6], "...", episodes[-1]]
    return f"the episodes {', '.join(few)}"


def bracket(lines: Sequence[Line], worth: Sequence[float]) -> tuple[int, int] | None:
    """Which floor and which ceiling score 0 and 1: their places among `lines`.

    The highest floor and the lowest ceiling, so that more than 0 is more than anybody reaches
    without learning, and 1 is the best that is known to be possible: an exact optimum for
    whoever does not know the task comes before an oracle that does. Only those count that lived
    as long as anybody: a ceiling of short lives is none for whoever had more experience.

    Args:
        lines: agents and references.
        worth: mean return of each, by which they are compared.

    Returns:
        None where there is no such floor or no such ceiling.
    """
    longest = max(line.last_episode for line in lines)
    lived = [(i, line.role) for i, line in enumerate(lines) if line.last_episode == longest]
    floors = [i for i, role in lived if role == "floor"]
    ceilings = [i for i, role in lived if role == "ceiling"]
    if not floors or not ceilings:
        return None
    return max(floors, key=worth.__getitem__), min(ceilings, key=worth.__getitem__)


def regret_reference(lines: Sequence[Line]) -> Line:
    """Whom regret is measured against: the highest ceiling, which gives nothing away.

    Raises:
        ConfigError: there is no ceiling.
    """
    ceilings = [line for line in lines if line.role == "ceiling"]
    if not ceilings:
        raise ConfigError(
            "Regret is what not being the ceiling has cost, and the rows hold no ceiling; evaluate "
            "with `--references all`, or a family that has one."
        )
    return max(ceilings, key=lambda line: float(line.returns.mean()))
