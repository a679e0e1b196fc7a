"""Few-shot regression of sine waves as a task family.

Axes: `L` lanes, `N` tasks, `S` points of an episode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.agent import ShownTargets
from metarl.envs.drawing.layout import captioned, latest_episode, progress
from metarl.envs.few_shot import sinusoid_references
from metarl.envs.few_shot.drawing import Prediction, draw_curve
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_positive

Ranges: TypeAlias = Literal["maml", "meta-sgd"]
Rewarded: TypeAlias = Literal["all", "queries"]

RANGES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "maml": ((0.1, 5.0), (1.0, 1.0), (0.0, pi)),
    "meta-sgd": ((0.1, 5.0), (0.8, 1.2), (0.0, pi)),
}
"""bounds of the uniform distributions of amplitude, frequency and phase

Finn et al. 2017, arXiv:1703.03400, section 5.1; Li et al. 2017, arXiv:1707.09835, section 4.1."""
LIMIT = 5.0
"""largest absolute value of points, and of wave values, because it is the largest amplitude"""


class SinusoidState(NamedTuple):
    """The points of an episode, and the current step."""

    x: Tensor  # [L, S] float32
    step: Tensor  # [L] int64, points predicted so far


@dataclass(frozen=True, kw_only=True)
class Sinusoid(TaskFamily):
    """Predict the value of an unknown sine wave at points x shown one by one.

        y(x)      = amplitude * sin(frequency * x + phase),   x drawn from U[-5, 5]
        reward[t] = -(clip(action[t], -5, 5) - y(x[t]))^2

    A task is amplitude, frequency and phase. Both splits draw them from the same distribution, so
    no task occurs twice. First come `shots` points, whose true value is shown one step later,
    together with the next point; then `queries` points, whose value is not shown. Every episode
    draws new points.

    The observation is x, the true value at the previous point (zero where none is shown), whether
    one is shown, and whether this point is a query. After the last point x is zero.

    The published tasks are supervised: gradient steps use the true values. So do agents that adapt
    their parameters with `estimator="supervised"`. With other estimators they learn from rewards,
    which reveal the size of an error but not its sign, so their errors are not comparable with
    published ones. An agent with memory observes the true values. With `show_values=False` all
    agents learn from rewards only.

    Rewards of queries reveal something about their values, too. The effect is small: with the
    ranges of MAML two points determine the wave.

    Sources: Finn et al. 2017 (MAML), arXiv:1703.03400, section 5.1; Li et al. 2017 (Meta-SGD),
    arXiv:1707.09835, section 4.1. Points are shown one by one as in Santoro et al. 2016,
    arXiv:1605.06065.
    """

    ranges: Ranges = "maml"
    """maml: amplitude .1 to 5, frequency 1, phase 0 to pi; meta-sgd: also frequency .8 to 1.2"""
    shots: int = 10
    """points whose value is shown one step later"""
    queries: int = 10
    """points after the shots, whose value is not shown"""
    rewarded: Rewarded = "all"
    """predictions whose squared error is penalised: all, or those of queries only"""
    show_values: bool = True
    """whether the true values of the shots are observed"""

    can_render: ClassVar[bool] = True
    fixed_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive("shots", self.shots)
        require_positive("queries", self.queries)

    @property
    def observation_space(self) -> spaces.Box:
        """The point, the previous value, whether it is shown, whether this is a query."""
        low, high = np.array([[-LIMIT, -LIMIT, 0, 0], [LIMIT, LIMIT, 1, 1]], dtype=np.float32)
        return spaces.Box(low, high, (4,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """The predicted value; larger ones are clipped."""
        return spaces.Box(-LIMIT, LIMIT, (1,), np.float32)

    @property
    def task_space(self) -> spaces.Box:
        """Amplitude, frequency and phase."""
        low, high = np.array(RANGES[self.ranges], dtype=np.float32).T
        return spaces.Box(low, high, (3,), np.float32)

    @property
    def shown_targets(self) -> ShownTargets | None:
        """The true value of the shot before; none where values are hidden."""
        return ShownTargets(slice(1, 4), _shown_value) if self.show_values else None

    @property
    def episode_steps(self) -> int:
        """One per point."""
        return self.shots + self.queries

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Amplitudes, frequencies and phases, [N, 3]."""
        unit = torch.rand(num_tasks, 3, generator=generator, device=generator.device)
        low, high = torch.tensor(RANGES[self.ranges], device=generator.device).T
        return torch.minimum(low + (high - low) * unit, high)  # rounding could exceed it

    def reset(self, task: Tensor, noise: LaneNoise) -> SinusoidState:
        """Draws the points of an episode."""
        unit = noise.uniform(self.episode_steps)
        step = torch.zeros(len(task), dtype=torch.int64, device=task.device)
        return SinusoidState(x=LIMIT * (2 * unit - 1), step=step)

    def observe(self, task: Tensor, state: SinusoidState) -> Tensor:
        """Point, previous value, value flag and query flag, [L, 4]; see the class."""
        step = state.step.unsqueeze(1)
        x = state.x.gather(1, step.clamp_max(self.episode_steps - 1))
        previous = sine_wave(task.unsqueeze(1), state.x.gather(1, (step - 1).clamp_min(0)))
        shown = (step > 0) & (step <= self.shots) & self.show_values
        # Hidden values are finite, so that multiplying them by zero hides them completely.
        columns = (x * (step < self.episode_steps), previous * shown, shown, step >= self.shots)
        return torch.cat([column.to(torch.float32) for column in columns], 1)

    def step(
        self, task: Tensor, state: SinusoidState, action: Tensor, noise: LaneNoise
    ) -> tuple[SinusoidState, Tensor, Tensor]:
        """Minus the squared error; the episode terminates after the last query."""
        prediction = action.squeeze(1).clamp(-LIMIT, LIMIT)
        # Clipping alone would turn the infinite action of a diverged policy into a valid one.
        prediction = torch.where(action.squeeze(1).isfinite(), prediction, torch.nan)
        y = sine_wave(task, state.x.gather(1, state.step.unsqueeze(1)).squeeze(1))
        reward = -(prediction - y).square()
        if self.rewarded == "queries":
            reward = torch.where(state.step >= self.shots, reward, 0.0)
        after = state._replace(step=state.step + 1)
        return after, reward, after.step == self.episode_steps

    def render(self, task: Tensor, history: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The wave, the current point, and the predictions of this episode with true values."""
        state: SinusoidState = history[-1].state
        y = sine_wave(task, state.x)[0]
        predictions = []
        episode = latest_episode(history)
        for frame in episode:
            if frame.action is not None:
                index = int(frame.state.step) - 1
                predicted = float(frame.action.clamp(-LIMIT, LIMIT))
                predictions.append(Prediction(float(state.x[0, index]), float(y[index]), predicted))
        step = int(state.step)
        x = torch.linspace(-LIMIT, LIMIT, 201)
        edge = 1.05 * LIMIT
        image = draw_curve(
            torch.stack((x, sine_wave(task, x)), 1).tolist(),
            predictions,
            float(state.x[0, step]) if step < self.episode_steps else None,
            (-edge, -edge),
            (edge, edge),
        )
        return captioned(
            image,
            progress(episode, self.episode_steps),
            "blue: predictions, hollow: true values, line: current x",
        )

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Floors without learning, a Bayesian fit where values are shown, and an oracle."""
        return sinusoid_references.references(
            self.action_space, RANGES[self.ranges], learns=self.show_values
        )


def _shown_value(obs: Tensor) -> tuple[Tensor, Tensor]:
    """The true value at the previous point, [..., 1], and whether it is shown."""
    return obs[..., 1:2], obs[..., 2] > 0


def sine_wave(task: Tensor, x: Tensor) -> Tensor:
    """Values at points: tasks [..., 3] and points [...] -> amplitude sin(frequency x + phase)."""
    amplitude, frequency, phase = task.unbind(-1)
    return amplitude * torch.sin(frequency * x + phase)
