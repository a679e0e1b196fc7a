"""Predictors of sine waves that need no training: points and values go in, predictions come out.

Axes: `N` tasks, `B` copies of each, `F` frequencies; a wave of known frequency has two weights.
"""

from collections.abc import Mapping, Sequence
from math import pi
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.agent import PolicyOutput
from metarl.networks.policies import UniformPolicy
from metarl.tasks.family import Reference
from metarl.trajectory import Percept

FREQUENCIES = 41
"""frequencies that the Bayesian fit keeps apart where the frequency is not known"""

Bounds = Sequence[tuple[float, float]]
"""of amplitude, frequency and phase"""


def references(
    action_space: spaces.Box, bounds: Bounds, *, learns: bool
) -> Mapping[str, Reference]:
    """From guessing to knowing the wave; the fit only where there is something to fit."""
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
    """Predicts nothing but zero."""

    def initial_memory(self, num_tasks: int, copies: int) -> None:
        """Nothing to remember."""

    def act(self, percept: Percept, memory: None, generator: Generator) -> PolicyOutput:
        """Zeros."""
        value = torch.zeros_like(percept.previous_action)
        return PolicyOutput(value, torch.zeros_like(percept.previous_reward), None)


class WaveOracle:
    """Knows amplitude, frequency and phase of every task, [N, 3]."""

    def __init__(self, tasks: Tensor) -> None:
        self._tasks = tasks.unsqueeze(1)

    def initial_memory(self, num_tasks: int, copies: int) -> None:
        """Nothing to remember."""

    def act(self, percept: Percept, memory: None, generator: Generator) -> PolicyOutput:
        """The value itself."""
        amplitude, frequency, phase = self._tasks.unbind(-1)
        value = amplitude * torch.sin(frequency * percept.obs[..., 0] + phase)
        return PolicyOutput(value.unsqueeze(-1), torch.zeros_like(percept.previous_reward), None)


class Belief(NamedTuple):
    """What is thought of the wave's weights under each frequency."""

    mean: Tensor  # [N, B, F, 2] float64
    covariance: Tensor  # [N, B, F, 2, 2]
    evidence: Tensor  # [N, B, F] log-likelihood of all values so far
    x: Tensor  # [N, B] the point before


class BayesianFit:
    """Bayesian linear regression under each of some frequencies, weighted by their evidence.

        y(x) = a sin(w x) + b cos(w x),   a = amplitude cos(phase), b = amplitude sin(phase)

    The prior of (a, b) is the Gaussian that has the moments of the tasks, so the first predictions
    are the best that are linear in what was seen, though not the best of all. With one frequency
    two values decide the wave.

    Source: Bishop 2006, Pattern Recognition and Machine Learning, section 3.3, one value at a time.
    """

    def __init__(self, bounds: Bounds, device: torch.device, *, learns: bool) -> None:
        (low, high), (slowest, fastest), phases = bounds
        if phases != (0.0, pi):
            raise AssertionError(f"the moments below are those of phases in [0, pi], not {phases}")
        known = slowest == fastest
        count = 1 if known else FREQUENCIES
        frequency = torch.linspace(slowest, fastest, count, dtype=torch.float64)
        self._frequency = frequency.to(device)
        # What values are off by, in deviations: rounding, or a frequency between two of ours.
        self._noise = 1e-3 if known else 0.05
        self._learns = learns
        amplitude, square = (low + high) / 2, (low**2 + low * high + high**2) / 3
        b = amplitude * 2 / pi
        self._mean = self._frequency.new_tensor([0.0, b])
        self._covariance = self._frequency.new_tensor([square / 2, square / 2 - b**2]).diag()

    def initial_memory(self, num_tasks: int, copies: int) -> Belief:
        """The prior."""
        lanes = (num_tasks, copies, len(self._frequency))
        return Belief(
            mean=self._mean.expand(*lanes, 2),
            covariance=self._covariance.expand(*lanes, 2, 2),
            evidence=self._mean.new_zeros(lanes),
            x=self._mean.new_zeros(lanes[:2]),
        )

    def act(self, percept: Percept, memory: Belief, generator: Generator) -> PolicyOutput:
        """Learns the value that is shown, and predicts the mean."""
        x, value, told, _ = percept.obs.to(torch.float64).unbind(-1)
        if self._learns:
            memory = self._learnt(memory, value, told > 0)
        expected = (memory.mean * self._features(x)).sum(-1)
        prediction = (memory.evidence.softmax(-1) * expected).sum(-1)
        action = prediction.to(percept.obs.dtype).unsqueeze(-1)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), memory._replace(x=x))

    def _features(self, x: Tensor) -> Tensor:
        """Points [N, B] -> [N, B, F, 2]."""
        angle = x.unsqueeze(-1) * self._frequency
        return torch.stack((angle.sin(), angle.cos()), -1)

    def _learnt(self, belief: Belief, value: Tensor, told: Tensor) -> Belief:
        """After the values [N, B] of the points before, in the lanes that were told."""
        features = self._features(belief.x)
        reach = (belief.covariance @ features.unsqueeze(-1)).squeeze(-1)
        variance = (features * reach).sum(-1) + self._noise**2
        error = value.unsqueeze(-1) - (belief.mean * features).sum(-1)
        gain = reach / variance.unsqueeze(-1)
        covariance = belief.covariance - gain.unsqueeze(-1) * reach.unsqueeze(-2)
        likelihood = -0.5 * (error.square() / variance + variance.log())
        lane = told.unsqueeze(-1)
        return Belief(
            mean=torch.where(
                lane.unsqueeze(-1), belief.mean + gain * error.unsqueeze(-1), belief.mean
            ),
            covariance=torch.where(lane[..., None, None], covariance, belief.covariance),
            evidence=belief.evidence + likelihood * lane,
            x=belief.x,
        )
