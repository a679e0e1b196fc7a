"""Reference policies for the regression of sine waves.

Axes: `L` lanes, `N` tasks, `F` frequencies, each with two regression weights.
"""

from collections.abc import Mapping, Sequence
from math import pi
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import PolicyOutput
from metarl.networks.policies import UniformPolicy
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference
from metarl.trajectory import Percept

FREQUENCIES = 41
"""candidate frequencies of the Bayesian fit where the frequency is unknown"""

Bounds = Sequence[tuple[float, float]]
"""bounds of amplitude, frequency and phase"""


def references(
    action_space: spaces.Box, bounds: Bounds, *, learns: bool
) -> Mapping[str, Reference]:
    """All references, from the floor to the ceiling; the Bayesian fit only if `learns`."""
    every = {
        "random": Reference(
            role="floor", label="random", build=lambda _: UniformPolicy(action_space)
        ),
        "zero": Reference(role="floor", label="zero", build=lambda _: Zero()),
        "prior": Reference(
            role="floor",
            label="mean of all waves",
            build=lambda tasks: BayesianFit(bounds, tasks.device, learns=False),
        ),
        "bayesian_fit": Reference(
            role="baseline",
            label="Bayesian least squares",
            build=lambda tasks: BayesianFit(bounds, tasks.device, learns=True),
        ),
        "oracle": Reference(
            role="ceiling", label="oracle (knows the wave)", build=lambda tasks: WaveOracle(tasks)
        ),
    }
    return {name: every[name] for name in every if learns or name != "bayesian_fit"}


class Zero:
    """Always predicts zero."""

    def initial_memory(self, lanes: int, horizon: int) -> None:
        """No memory."""

    def act(self, percept: Percept, memory: None, noise: LaneNoise) -> PolicyOutput:
        """Zero."""
        value = torch.zeros_like(percept.previous_action)
        return PolicyOutput(value, torch.zeros_like(percept.previous_reward), None)


class WaveOracle:
    """Predicts the true values, from the amplitude, frequency and phase of every task, [N, 3]."""

    def __init__(self, tasks: Tensor) -> None:
        self._tasks = tasks

    def initial_memory(self, lanes: int, horizon: int) -> None:
        """No memory."""

    def act(self, percept: Percept, memory: None, noise: LaneNoise) -> PolicyOutput:
        """The true value."""
        x = percept.obs[:, 0]
        tasks = self._tasks.repeat_interleave(len(x) // len(self._tasks), 0)
        amplitude, frequency, phase = tasks.unbind(-1)
        value = amplitude * torch.sin(frequency * x + phase)
        return PolicyOutput(value.unsqueeze(-1), torch.zeros_like(percept.previous_reward), None)


class WavePosterior(NamedTuple):
    """Gaussian posterior of the regression weights under each frequency."""

    mean: Tensor  # [L, F, 2] float64
    covariance: Tensor  # [L, F, 2, 2]
    evidence: Tensor  # [L, F] log-likelihood of the values so far
    x: Tensor  # [L] the previous point


class BayesianFit:
    """Bayesian linear regression under each candidate frequency, weighted by its evidence.

        y(x) = a sin(w x) + b cos(w x),   a = amplitude cos(phase), b = amplitude sin(phase)

    The prior of (a, b) is the Gaussian with the moments of the tasks, so predictions are the best
    that are linear in the observed values, but not optimal among all. With a known frequency two
    values determine the wave.

    Source: Bishop 2006, Pattern Recognition and Machine Learning, section 3.3, one value at a time.
    """

    def __init__(self, bounds: Bounds, device: torch.device, *, learns: bool) -> None:
        (low, high), (slowest, fastest), phases = bounds
        if phases != (0.0, pi):
            raise AssertionError(f"the moments below hold for phases in [0, pi], not {phases}")
        known = slowest == fastest
        count = 1 if known else FREQUENCIES
        frequency = torch.linspace(slowest, fastest, count, dtype=torch.float64)
        self._frequency = frequency.to(device)
        # Standard deviation of the residuals: rounding, or a frequency between two candidates.
        self._noise = 1e-3 if known else 0.05
        self._learns = learns
        amplitude, square = (low + high) / 2, (low**2 + low * high + high**2) / 3
        b = amplitude * 2 / pi
        self._mean = self._frequency.new_tensor([0.0, b])
        self._covariance = self._frequency.new_tensor([square / 2, square / 2 - b**2]).diag()

    def initial_memory(self, lanes: int, horizon: int) -> WavePosterior:
        """The prior."""
        count = len(self._frequency)
        return WavePosterior(
            mean=self._mean.expand(lanes, count, 2),
            covariance=self._covariance.expand(lanes, count, 2, 2),
            evidence=self._mean.new_zeros(lanes, count),
            x=self._mean.new_zeros(lanes),
        )

    def act(self, percept: Percept, memory: WavePosterior, noise: LaneNoise) -> PolicyOutput:
        """Updates on the value shown, and predicts the posterior mean."""
        x, value, shown, _ = percept.obs.to(torch.float64).unbind(-1)
        if self._learns:
            memory = self._updated(memory, value, shown > 0)
        expected = (memory.mean * self._features(x)).sum(-1)
        prediction = (memory.evidence.softmax(-1) * expected).sum(-1)
        action = prediction.to(percept.obs.dtype).unsqueeze(-1)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), memory._replace(x=x))

    def _features(self, x: Tensor) -> Tensor:
        """Points [L] -> [L, F, 2]."""
        angle = x.unsqueeze(-1) * self._frequency
        return torch.stack((angle.sin(), angle.cos()), -1)

    def _updated(self, posterior: WavePosterior, value: Tensor, shown: Tensor) -> WavePosterior:
        """The posterior after the values [L] at the previous points, where they are shown."""
        features = self._features(posterior.x)
        projection = (posterior.covariance @ features.unsqueeze(-1)).squeeze(-1)
        variance = (features * projection).sum(-1) + self._noise**2
        error = value.unsqueeze(-1) - (posterior.mean * features).sum(-1)
        gain = projection / variance.unsqueeze(-1)
        covariance = posterior.covariance - gain.unsqueeze(-1) * projection.unsqueeze(-2)
        log_likelihood = -0.5 * (error.square() / variance + variance.log())
        shown = shown.unsqueeze(-1)
        return WavePosterior(
            mean=torch.where(
                shown.unsqueeze(-1), posterior.mean + gain * error.unsqueeze(-1), posterior.mean
            ),
            covariance=torch.where(shown[..., None, None], covariance, posterior.covariance),
            evidence=posterior.evidence + log_likelihood * shown,
            x=posterior.x,
        )
