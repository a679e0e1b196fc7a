"""Experience of lanes that a loop of a user steps, recorded as a trajectory.

Axes: `T` steps, `N` tasks, `B` rollouts of each, `L` = N x B lanes, then features.
"""

import torch
from torch import Tensor

from metarl.errors import PolicyUseError
from metarl.trajectory import Trajectory


class Recording:
    """The steps of a phase; an episode counts from its first step, once it has ended."""

    def __init__(self) -> None:
        self._steps: list[dict[str, Tensor]] = []

    def add(self, step: dict[str, Tensor]) -> None:
        """Adds one step of all lanes: columns of a `Trajectory`, [L, ...], without `valid`."""
        self._steps.append(step)

    def truncate(self) -> None:
        """The episode of every lane ends with the last step."""
        for step in self._steps[-1:]:
            step["truncated"] = ~step["terminated"]

    def trajectory(self, num_tasks: int) -> Trajectory:
        """The finished episodes of each lane, one after the other, [T, N, B, ...].

        Raises:
            PolicyUseError: a lane has finished none.
        """
        if not self._steps:
            raise PolicyUseError(
                "Nothing was observed since the start of the trial or the last adapt(), so there "
                "is nothing to adapt to. Take episodes with act() and observe() first."
            )
        names = self._steps[0]
        columns = {name: torch.stack([step[name] for step in self._steps]) for name in names}
        start, length = _whole_episodes(
            columns["first"], columns["terminated"] | columns["truncated"]
        )
        if not bool((length > 0).all()):
            lane = int((length <= 0).nonzero()[0])
            raise PolicyUseError(
                f"Lane {lane} has finished no episode since the start of the trial or the last "
                f"adapt(), after {len(self._steps)} steps; an agent adapts to whole episodes. "
                "Call adapt() after every lane has finished one."
            )
        time = torch.arange(int(length.max()), device=start.device)[:, None]
        valid = time < length
        source = (start + time).clamp_max(len(self._steps) - 1)
        lanes = torch.arange(len(start), device=start.device)
        columns = {name: column[source, lanes] for name, column in columns.items()}
        for column in columns.values():
            column[~valid] = 0
        lead = (len(time), num_tasks, len(lanes) // num_tasks)
        columns["valid"] = valid
        return Trajectory(
            **{name: column.view(*lead, *column.shape[2:]) for name, column in columns.items()}
        )


def _whole_episodes(first: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
    """Of each lane: the first step of its first episode, and the steps up to its last end; [L].

    Args:
        first: [T, L] bool, an episode starts at this step.
        ended: [T, L] bool, one ends there.
    """
    start = first.long().argmax(0)
    time = torch.arange(len(first), device=first.device)[:, None]
    last = torch.where(ended & (time >= start) & first.any(0), time, -1).amax(0)
    return start, torch.where(last < 0, 0, last - start + 1)
