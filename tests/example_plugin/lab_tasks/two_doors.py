"""A family whose agents must find the side of a prize."""

from dataclasses import dataclass

import torch
from gymnasium import spaces

import metarl


@dataclass(frozen=True, kw_only=True)
class TwoDoors(metarl.TaskFamily):
    """A corridor with a door at each end; the task is the door that hides the prize."""

    reach: int = 3
    """steps from the middle to either door"""

    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Discrete(2)  # to the left, to the right
    task_space = spaces.Discrete(2)  # the prize is on the left, on the right
    episode_steps = 10  # time limit of an episode
    trial_episodes = 3  # episodes of a trial

    def sample_tasks(self, num_tasks, generator, split="train"):
        return torch.randint(2, (num_tasks,), generator=generator, device=generator.device)

    def reset(self, task, noise):
        return torch.zeros_like(task)  # the state is the position; episodes start in the middle

    def observe(self, task, state):
        return (state / self.reach).unsqueeze(-1)

    def step(self, task, state, action, noise):
        state = state + 2 * action - 1
        prize = torch.where(task == 1, self.reach, -self.reach)
        return state, (state == prize).float(), state.abs() >= self.reach
