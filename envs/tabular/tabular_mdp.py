"""Small random MDPs: transition tables and mean rewards go in, states and rewards come out.

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
from metarl.envs.tabular.planning import MDP, Prior, Size
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_positive


@dataclass(frozen=True, kw_only=True)
class TabularMDP(TaskFamily):
    """An MDP of a few states, all tables of which must be found out by trying.

        next_state ~ P[state, action],   P[s, a] ~ Dirichlet(1, ..., 1)
        reward     ~ N(R[state, action], 1),   R[s, a] ~ N(prior_mean, 1)

    Every episode opens in state 0, lasts `steps` steps and never terminates. A task is P and R
    in one row, [N, F], drawn anew in both splits: tasks are never drawn twice. A row P[s, a] of
    one's own need not add up to one: its entries are weights, of which one must be positive.

    Source: Duan et al. 2016, arXiv:1611.02779, section 3.2.
    """

    states: int = 10
    """states; the first is where episodes open"""
    actions: int = 5
    """actions to choose from in every state"""
    steps: int = 10
    """steps after which an episode is truncated"""
    prior_mean: float = 1.0
    """mean of the normal distribution that mean rewards are drawn from"""

    can_render: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("states", "actions", "steps"):
            require_positive(name, getattr(self, name))

    @property
    def observation_space(self) -> spaces.Box:
        """The state, one-hot."""
        return spaces.Box(0.0, 1.0, (self.states,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """What to do; it means something else in every state."""
        return spaces.Discrete(self.actions)

    @property
    def task_space(self) -> spaces.Box:
        """First the rows of P, state by state and action by action, then R in the same order."""
        pairs = self.states * self.actions
        low, high = np.array([[0, -np.inf], [1, np.inf]], dtype=np.float32).repeat(
            [pairs * self.states, pairs], 1
        )
        return spaces.Box(low, high, dtype=np.float32)

    @property
    def episode_steps(self) -> int:
        """As the option says."""
        return self.steps

    @property
    def trial_episodes(self) -> int:
        """Ten, the shortest trials of the source, which has 25, 50, 75 and 100, too."""
        return 10

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Tasks [N, F]."""
        shape, device = (num_tasks, self.states, self.actions), generator.device
        weight = torch.empty(*shape, self.states, device=device).exponential_(generator=generator)
        noise = torch.randn(shape, generator=generator, device=device)
        return MDP(_normalised(weight), self.prior_mean + noise).packed()

    def mdp(self, task: Tensor) -> MDP:
        """P [..., S, A, S], rows adding up to one, and R [..., S, A] of the tasks [..., F]."""
        weight, reward = self._tables(task)
        return MDP(_normalised(weight), reward)

    def reset(self, task: Tensor, generator: Generator) -> Tensor:
        """State 0 in every lane, [L] int64."""
        return torch.zeros(len(task), dtype=torch.int64, device=task.device)

    def observe(self, task: Tensor, state: Tensor) -> Tensor:
        """The state, one-hot, [L, S]."""
        return torch.nn.functional.one_hot(state, self.states).float()

    def step(
        self, task: Tensor, state: Tensor, action: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draws the next state and the reward: one uniform and one normal number per lane.

        So policies that are given equal seeds meet the same luck, whatever they do.
        """
        weights, rewards = self._tables(task)
        lane = torch.arange(len(task), device=task.device)
        mean, reached = rewards[lane, state, action], weights[lane, state, action].cumsum(1)
        luck = torch.rand(mean.shape, generator=generator, device=task.device) * reached[:, -1]
        # Without the last sum, so that no rounding can lead to a state S.
        next_state = (reached[:, :-1] <= luck.unsqueeze(1)).sum(1)
        reward = mean + torch.randn(mean.shape, generator=generator, device=task.device)
        return next_state, reward, torch.zeros_like(mean, dtype=torch.bool)

    def render(self, task: Tensor, life: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """Mean rewards, how often each action was tried in each state, and the latest choice."""
        choices = [
            Choice(int(one.state), int(after.action))
            for one, after in pairwise(life)
            if after.action is not None
        ]
        tried = np.zeros((self.states, self.actions), dtype=int)
        for choice in choices:
            tried[choice.state, choice.action] += 1
        last = choices[-1] if choices and life[-1].action is not None else None
        picture = draw_table(self._tables(task)[1][0].numpy(), tried, int(life[-1].state), last)
        return captioned(
            picture,
            progress(latest_episode(life), self.steps),
            "rows: states, columns: actions; darker: pays more; number: tries",
        )

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """From random to an oracle that knows the MDP."""
        size = Size(states=self.states, actions=self.actions, steps=self.steps)
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
