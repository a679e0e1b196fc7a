"""Random tabular MDPs as a task family.

Axes: `L` lanes, `N` tasks, `S` states, `A` actions, `F = S A S + S A` numbers of a task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.envs.drawing.layout import captioned, latest_episode, progress
from metarl.envs.grids.drawing import Choice, draw_table
from metarl.envs.tabular import references
from metarl.envs.tabular.planning import MDP, MDPSize, Prior
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_positive


@dataclass(frozen=True, kw_only=True)
class TabularMDP(TaskFamily):
    """An MDP with few states whose transition and reward tables are unknown.

        next_state ~ P[state, action],   P[s, a] ~ Dirichlet(1, ..., 1)
        reward     ~ N(R[state, action], 1),   R[s, a] ~ N(prior_mean, 1)

    Every episode starts in state 0, lasts `steps` steps and never terminates. A task is P and R
    in one row, [N, F]. Both splits draw tasks independently, so no task occurs twice. In a task
    given by the user, rows P[s, a] need not add up to one: their entries are weights, at least one
    of which must be positive.

    Source: Duan et al. 2016, arXiv:1611.02779, section 3.2.
    """

    states: int = 10
    """number of states; episodes start in the first"""
    actions: int = 5
    """number of actions in every state"""
    steps: int = 10
    """steps after which an episode is truncated"""
    prior_mean: float = 1.0
    """mean of the normal distribution that mean rewards are drawn from"""

    can_render: ClassVar[bool] = True
    fixed_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("states", "actions", "steps"):
            require_positive(name, getattr(self, name))

    @property
    def observation_space(self) -> spaces.Box:
        """The state, one-hot."""
        return spaces.Box(0.0, 1.0, (self.states,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """The action; its effect depends on the state."""
        return spaces.Discrete(self.actions)

    @property
    def task_space(self) -> spaces.Box:
        """The rows of P, ordered by state, then action; then R in the same order."""
        pairs = self.states * self.actions
        low, high = np.array([[0, -np.inf], [1, np.inf]], dtype=np.float32).repeat(
            [pairs * self.states, pairs], 1
        )
        return spaces.Box(low, high, dtype=np.float32)

    @property
    def episode_steps(self) -> int:
        """The option `steps`."""
        return self.steps

    @property
    def trial_episodes(self) -> int:
        """10, the shortest trial of the source, which also uses 25, 50, 75 and 100."""
        return 10

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Tasks [N, F]."""
        shape, device = (num_tasks, self.states, self.actions), generator.device
        weight = torch.empty(*shape, self.states, device=device).exponential_(generator=generator)
        reward = self.prior_mean + torch.randn(shape, generator=generator, device=device)
        return MDP(_normalised(weight), reward).packed()

    def mdp(self, task: Tensor) -> MDP:
        """P [..., S, A, S], rows adding up to one, and R [..., S, A] of the tasks [..., F]."""
        weight, reward = self._tables(task)
        return MDP(_normalised(weight), reward)

    def reset(self, task: Tensor, noise: LaneNoise) -> Tensor:
        """State 0 in every lane, [L] int64."""
        return torch.zeros(len(task), dtype=torch.int64, device=task.device)

    def observe(self, task: Tensor, state: Tensor) -> Tensor:
        """The state, one-hot, [L, S]."""
        return torch.nn.functional.one_hot(state, self.states).float()

    def step(
        self, task: Tensor, state: Tensor, action: Tensor, noise: LaneNoise
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draws the next state and the reward: one uniform and one normal number per lane.

        So policies given equal seeds face the same noise, whatever their actions.
        """
        weights, rewards = self._tables(task)
        lane = torch.arange(len(task), device=task.device)
        mean, cumulative = rewards[lane, state, action], weights[lane, state, action].cumsum(1)
        uniform = noise.uniform() * cumulative[:, -1]
        # The last sum is left out, so that no rounding can lead to a state S.
        next_state = (cumulative[:, :-1] <= uniform.unsqueeze(1)).sum(1)
        return next_state, mean + noise.normal(), torch.zeros_like(mean, dtype=torch.bool)

    def render(self, task: Tensor, history: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """Mean rewards, how often each action was taken in each state, and the latest action."""
        choices = [
            Choice(int(before.state), int(after.action))
            for before, after in pairwise(history)
            if after.action is not None
        ]
        tried = np.zeros((self.states, self.actions), dtype=int)
        for choice in choices:
            tried[choice.state, choice.action] += 1
        last = choices[-1] if choices and history[-1].action is not None else None
        image = draw_table(self._tables(task)[1][0].numpy(), tried, int(history[-1].state), last)
        return captioned(
            image,
            progress(latest_episode(history), self.steps),
            "rows: states, columns: actions; darker: pays more; number: visits",
        )

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, planning baselines, and an oracle that knows the MDP."""
        size = MDPSize(states=self.states, actions=self.actions, steps=self.steps)
        return references.references(size, Prior(mean_reward=self.prior_mean), self.mdp)

    def _tables(self, task: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [..., S, A, S] and mean rewards [..., S, A] of the tasks [..., F]; views."""
        pairs = self.states * self.actions
        weight, reward = task[..., :-pairs], task[..., -pairs:]
        table = (*task.shape[:-1], self.states, self.actions)
        return weight.view(*table, self.states), reward.view(table)


def _normalised(weight: Tensor) -> Tensor:
    """Rows [..., S] that add up to one."""
    return weight / weight.sum(-1, keepdim=True)
