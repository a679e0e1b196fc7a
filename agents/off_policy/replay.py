"""Experience of the newest tasks, kept by task: contexts and transitions of the same task.

Axes: `R` tasks of the replay, `M` tasks of a batch, `B` rollouts of each, `T` steps, `S`
transitions of each task, then features (`D` observation, `A` action in units of its bounds).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from metarl.errors import CheckpointError
from metarl.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """Transitions of M tasks."""

    obs: Tensor  # [M, S, D]
    action: Tensor  # [M, S, A]
    reward: Tensor  # [M, S]
    next_obs: Tensor  # [M, S, D] before any reset
    terminated: Tensor  # [M, S] bool


@dataclass(frozen=True, kw_only=True)
class Context:
    """What was observed in M tasks by the start of an episode."""

    obs: Tensor  # [M, T, D]
    action: Tensor  # [M, T, A]
    reward: Tensor  # [M, T]
    observed: Tensor  # [M, T] bool; the others are padding


@dataclass(frozen=True, kw_only=True)
class Overwritten:
    """What an addition replaced, so that it can be undone."""

    slots: Tensor  # [N]
    rows: Mapping[str, Tensor]  # [N, B, T, ...] each; empty if there was nothing
    steps: int  # T
    added: int


class TaskReplay:
    """A ring of the newest R tasks; each keeps its rollouts as whole trials.

    Columns are allocated once, for the longest trial so far, and grow with a longer one. A lane's
    valid steps come first.
    """

    def __init__(self, tasks: int, device: torch.device) -> None:
        self._tasks = tasks
        self._device = device
        self._columns: dict[str, Tensor] = {}  # [R, B, T, ...], and length [R, B]
        self._added = 0

    @property
    def filled(self) -> int:
        """Number of tasks in the replay."""
        return min(self._added, self._tasks)

    def add(self, experience: Trajectory, encode: Callable[[Tensor], Tensor]) -> Overwritten:
        """Copies the experience [T, N, B, ...] of N tasks over that of the oldest.

        Args:
            experience: with `next_obs`.
            encode: actions -> units of their bounds.
        """
        rows = _rows(experience, encode)
        slots = (self._added + torch.arange(len(rows["length"]))) % self._tasks
        slots = slots.to(self._device)
        steps_before = self._steps
        before = {name: column[slots] for name, column in self._columns.items()}
        undo = Overwritten(slots=slots, rows=before, steps=steps_before, added=self._added)
        self._make_room(rows)
        for name, value in rows.items():
            if name == "length":
                self._columns[name][slots] = value
            else:
                self._columns[name][slots, :, : value.shape[2]] = value
        self._added += len(slots)
        return undo

    def undo(self, overwritten: Overwritten) -> None:
        """Restores what the last `add` replaced."""
        self._added = overwritten.added
        if not overwritten.rows:
            self._columns = {}
            return
        for name, value in overwritten.rows.items():
            if name != "length":
                self._columns[name] = self._columns[name][:, :, : overwritten.steps].clone()
            self._columns[name][overwritten.slots] = value

    def sample_tasks(self, count: int, generator: Generator) -> Tensor:
        """Slots [M] of tasks, drawn uniformly with replacement."""
        drawn = torch.randint(self.filled, (count,), generator=generator)
        return drawn.to(self._device)

    def transitions(self, slots: Tensor, count: int, generator: Generator) -> Transitions:
        """`count` transitions of each task, drawn uniformly over all its rollouts."""
        end = self._columns["length"][slots].cumsum(1)  # [M, B] transitions up to a rollout's end
        unit = torch.rand(len(slots), count, generator=generator).to(self._device)
        total = end[:, -1:]
        place = (unit * total).long().minimum(total - 1)
        lane = torch.searchsorted(end, place, right=True)
        start = torch.nn.functional.pad(end, (1, 0))
        where = (slots.unsqueeze(1), lane, place - start.gather(1, lane))
        names = ("obs", "action", "reward", "next_obs", "terminated")
        return Transitions(**{name: self._columns[name][where] for name in names})

    def contexts(self, slots: Tensor, generator: Generator) -> Context:
        """The first episodes of one rollout of each task: 0, 1, ... or all but the last.

        These are the contexts that the policy draws its latent variable from, with equal weights.
        """
        unit = torch.rand(2, len(slots), generator=generator).to(self._device)
        lengths = self._columns["length"][slots]
        lane = (unit[0] * lengths.shape[1]).long().clamp_max(lengths.shape[1] - 1)
        where = (slots, lane)
        episode, length = self._columns["episode"][where], self._columns["length"][where]
        episodes = episode.gather(1, length.unsqueeze(1) - 1).squeeze(1) + 1
        before = (unit[1] * episodes).long().clamp_max(episodes - 1)
        steps = torch.arange(episode.shape[1], device=self._device)
        observed = (episode < before.unsqueeze(1)) & (steps < length.unsqueeze(1))
        longest = int(observed.sum(1).max())
        columns = {
            name: self._columns[name][where][:, :longest] for name in ("obs", "action", "reward")
        }
        return Context(**columns, observed=observed[:, :longest])

    def state(self) -> dict[str, Tensor]:
        """Copies of the experience of all tasks in the replay, and the count of additions."""
        rows = {name: value[: self.filled].clone() for name, value in self._columns.items()}
        return {**rows, "added": torch.tensor(self._added)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned.

        Raises:
            CheckpointError: it is no replay of this size; nothing was changed.
        """
        rows = {name: value for name, value in state.items() if name != "added"}
        added = int(state["added"]) if "added" in state else -1
        held = min(added, self._tasks)
        if added < 0 or any(len(value) != held for value in rows.values()):
            sizes = sorted({len(value) for value in rows.values()})
            raise CheckpointError(
                f"The checkpoint's replay does not fit this agent: with replay_tasks={self._tasks} "
                f"and {max(added, 0)} tasks added it should hold {max(held, 0)}, and it holds "
                f"{sizes}. It was written by an agent with other options."
            )
        self._added, self._columns = added, {}
        if rows:
            self._make_room(rows)
        for name, value in rows.items():
            self._columns[name][:held] = value.to(self._device)

    @property
    def _steps(self) -> int:
        return self._columns["reward"].shape[2] if self._columns else 0

    def _make_room(self, rows: Mapping[str, Tensor]) -> None:
        """Allocates columns for rows [N, B, T, ...] where those there are too short or missing."""
        steps = max(self._steps, rows["reward"].shape[2])
        if steps == self._steps:
            return
        for name, value in rows.items():
            shape = list(value.shape)
            shape[0] = self._tasks
            if name != "length":
                shape[2] = steps
            column = value.new_zeros(shape, device=self._device)
            if name in self._columns:
                old = self._columns[name]
                column[tuple(slice(size) for size in old.shape)] = old
            self._columns[name] = column


def _rows(experience: Trajectory, encode: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The columns of new tasks, [N, B, T, ...]."""
    assert experience.next_obs is not None
    columns = {
        "obs": experience.obs.to(torch.float32),
        "action": encode(experience.action),
        "reward": experience.reward.to(torch.float32),
        "next_obs": experience.next_obs.to(torch.float32),
        "terminated": experience.terminated,
        "episode": experience.episode.to(torch.int32),
    }
    rows = {name: value.movedim(0, 2) for name, value in columns.items()}
    return {**rows, "length": experience.valid.sum(0)}
