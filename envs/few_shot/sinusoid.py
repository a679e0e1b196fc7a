"""Few-shot regression of sine waves: predictions go in, points and late values come out.

Axes: `L` lanes, `N` tasks, `S` points of an episode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi
from typing import ClassVar, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.envs.drawing.layout import captioned, latest_episode, progress
from metarl.envs.few_shot import sinusoid_references
from metarl.envs.few_shot.drawing import Answer, draw_curve
from metarl.errors import ConfigError
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_positive

Ranges: TypeAlias = Literal["maml", "meta-sgd"]
Rewarded: TypeAlias = Literal["all", "queries"]

RANGES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "maml": ((0.1, 5.0), (1.0, 1.0), (0.0, pi)),
    "meta-sgd": ((0.1, 5.0), (0.8, 1.2), (0.0, pi)),
}
"""bounds of amplitude, frequency and phase, each uniform between them

Finn et al. 2017, arXiv:1703.03400, section 5.1; Li et al. 2017, arXiv:1707.09835, section 4.1."""
FARTHEST = 5.0
"""points lie within this distance of zero; so do values, because no amplitude is larger"""


class Points(NamedTuple):
    """One episode: the points that will be asked for, and how many were."""

    x: Tensor  # [L, S] float32
    asked: Tensor  # [L] int64


@dataclass(frozen=True, kw_only=True)
class Sinusoid(TaskFamily):
    """A point x is shown and the value of a sine wave there shall be predicted.

        y(x)      = amplitude * sin(frequency * x + phase),   x drawn from U[-5, 5]
        reward[t] = -(clip(action[t], -5, 5) - y(x[t]))^2

    A task is amplitude, frequency and phase, drawn alike in both splits: tasks are never drawn
    twice. First come `shots` points, whose true value is shown one step later, together with the
    next point; then `queries` points whose value is not shown. Every episode draws other points.

    The observation is x, the true value of the point before (zero where none is shown), whether
    one is shown, and whether this point is a query. Where no point is left, x is zero.

    The published tasks are supervised: a gradient step sees the true values. Here an agent that
    adapts its parameters learns from rewards, which say how far off a prediction was, but not to
    which side; so its errors are not comparable with published ones. An agent with memory reads
    the values as they are shown. With `show_values=False` it has its own predictions and
    rewards alone, and all agents learn from the same.

    Rewards of queries say something about their values, too. It matters little: with the ranges
    of MAML two points tell the whole wave.

    Sources: Finn et al. 2017 (MAML), arXiv:1703.03400, section 5.1; Li et al. 2017 (Meta-SGD),
    arXiv:1707.09835, section 4.1. Shown point by point as in Santoro et al. 2016,
    arXiv:1605.06065.
    """

    ranges: Ranges = "maml"
    """maml: amplitude .1 to 5, frequency 1, phase 0 to pi; meta-sgd: also frequency .8 to 1.2"""
    shots: int = 10
    """points whose value is shown one step later"""
    queries: int = 10
    """points behind them, whose value is not shown"""
    rewarded: Rewarded = "all"
    """which predictions cost their squared error: all, or those of queries only"""
    show_values: bool = True
    """show the true values of the shots; otherwise rewards alone tell"""

    can_render: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive("shots", self.shots)
        require_positive("queries", self.queries)
        for name, value, known in (
            ("ranges", self.ranges, get_args(Ranges)),
            ("rewarded", self.rewarded, get_args(Rewarded)),
        ):
            if value not in known:
                raise ConfigError(f"{name}={value!r} must be one of {', '.join(known)}.")

    @property
    def observation_space(self) -> spaces.Box:
        """The point, the value before, whether one is shown, whether this is a query."""
        far = FARTHEST
        low, high = np.array([[-far, -far, 0, 0], [far, far, 1, 1]], dtype=np.float32)
        return spaces.Box(low, high, (4,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """The value predicted; others are clipped."""
        return spaces.Box(-FARTHEST, FARTHEST, (1,), np.float32)

    @property
    def task_space(self) -> spaces.Box:
        """Amplitude, frequency and phase."""
        low, high = np.array(RANGES[self.ranges], dtype=np.float32).T
        return spaces.Box(low, high, (3,), np.float32)

    @property
    def episode_steps(self) -> int:
        """One for each point."""
        return self.shots + self.queries

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Amplitudes, frequencies and phases, [N, 3]."""
        unit = torch.rand(num_tasks, 3, generator=generator, device=generator.device)
        low, high = torch.tensor(RANGES[self.ranges], device=generator.device).T
        return torch.minimum(low + (high - low) * unit, high)  # rounding could pass it

    def reset(self, task: Tensor, generator: Generator) -> Points:
        """Draws the points of an episode."""
        unit = torch.rand(len(task), self.episode_steps, generator=generator, device=task.device)
        asked = torch.zeros(len(task), dtype=torch.int64, device=task.device)
        return Points(x=FARTHEST * (2 * unit - 1), asked=asked)

    def observe(self, task: Tensor, state: Points) -> Tensor:
        """See the class."""
        asked = state.asked.unsqueeze(1)
        x = state.x.gather(1, asked.clamp_max(self.episode_steps - 1))
        before = sine_wave(task.unsqueeze(1), state.x.gather(1, (asked - 1).clamp_min(0)))
        told = (asked > 0) & (asked <= self.shots) & self.show_values
        # Where nothing is told, what is multiplied is finite: nothing of it shines through.
        columns = (x * (asked < self.episode_steps), before * told, told, asked >= self.shots)
        return torch.cat([column.to(torch.float32) for column in columns], 1)

    def step(
        self, task: Tensor, state: Points, action: Tensor, generator: Generator
    ) -> tuple[Points, Tensor, Tensor]:
        """Minus the squared error; the last query ends the episode."""
        prediction = action.squeeze(1).clamp(-FARTHEST, FARTHEST)
        # Clipping alone would turn the infinite action of a policy that diverged into a good one.
        prediction = torch.where(action.squeeze(1).isfinite(), prediction, torch.nan)
        y = sine_wave(task, state.x.gather(1, state.asked.unsqueeze(1)).squeeze(1))
        reward = -(prediction - y).square()
        if self.rewarded == "queries":
            reward = torch.where(state.asked >= self.shots, reward, 0.0)
        after = state._replace(asked=state.asked + 1)
        return after, reward, after.asked == self.episode_steps

    def render(self, task: Tensor, life: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The wave, the point asked for, and the predictions of this episode beside the truth."""
        state: Points = life[-1].state
        y = sine_wave(task, state.x)[0]
        answers = []
        episode = latest_episode(life)
        for moment in episode:
            if moment.action is not None:
                place = int(moment.state.asked) - 1
                said = float(moment.action.clamp(-FARTHEST, FARTHEST))
                answers.append(Answer(float(state.x[0, place]), float(y[place]), said))
        asked = int(state.asked)
        at = torch.linspace(-FARTHEST, FARTHEST, 201)
        far = 1.05 * FARTHEST
        picture = draw_curve(
            torch.stack((at, sine_wave(task, at)), 1).tolist(),
            answers,
            float(state.x[0, asked]) if asked < self.episode_steps else None,
            (-far, -far),
            (far, far),
        )
        return captioned(
            picture,
            progress(episode, self.episode_steps),
            "blue: predictions, hollow: true values, line: asked for now",
        )

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Floors that never learn, a Bayesian fit where values are shown, and an oracle."""
        return sinusoid_references.references(
            self.action_space, RANGES[self.ranges], learns=self.show_values
        )


def sine_wave(task: Tensor, x: Tensor) -> Tensor:
    """Value at points: tasks [..., 3] and points [...] -> amplitude sin(frequency x + phase)."""
    amplitude, frequency, phase = task.unbind(-1)
    return amplitude * torch.sin(frequency * x + phase)
