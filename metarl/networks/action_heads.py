"""Action heads: distributions over actions, given the outputs of a network.

Axes: any leading ones, then `R` parameters of a distribution and `A` action features.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from metarl.errors import ConfigError
from metarl.native.losses import can_evaluate, categorical
from metarl.noise import LaneNoise


class ActionHead(nn.Module, ABC):
    """A family of distributions over actions, with no parameters of its own.

    `dist_params`, [..., R], are the parameters of one distribution: first the `outputs` that a
    network computes from its inputs, then the `constants`, learned numbers that do not depend on
    the inputs.
    """

    outputs: int
    """numbers the network has to compute; also the features of an encoded action"""
    constants: int
    """numbers that do not depend on the observation"""

    @abstractmethod
    def initial_constants(self) -> Tensor:
        """The constants before any learning, [constants]."""

    @abstractmethod
    def sample(self, dist_params: Tensor, noise: LaneNoise) -> tuple[Tensor, Tensor]:
        """An action in each lane, for dist_params [L, R], and its log-probability; no gradient."""

    @abstractmethod
    def mode(self, dist_params: Tensor) -> Tensor:
        """The action of highest probability or density, for dist_params [L, R]."""

    def choose(
        self, dist_params: Tensor, noise: LaneNoise, *, greedy: bool
    ) -> tuple[Tensor, Tensor]:
        """As `sample`; where `greedy`, the mode instead of a random action."""
        if not greedy:
            return self.sample(dist_params, noise)
        action = self.mode(dist_params)
        return action, self.evaluate(dist_params, action)[0]

    @abstractmethod
    def evaluate(self, dist_params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of `action`, and the entropy of the distribution."""

    def evaluate_once(self, dist_params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """As `evaluate`, and maybe faster, for losses that are derived once at most."""
        return self.evaluate(dist_params, action)

    @abstractmethod
    def supervised_loss(self, dist_params: Tensor, target: Tensor) -> Tensor:
        """Loss of distributions [..., R] where the right action is known, [...]."""

    @abstractmethod
    def kl_divergence(self, old: Tensor, new: Tensor) -> Tensor:
        """KL(old || new) of the distributions given by two dist_params tensors, [...]."""

    @abstractmethod
    def encode(self, action: Tensor) -> Tensor:
        """The action as features of order one, [..., A]."""

    @abstractmethod
    def decode(self, features: Tensor) -> Tensor:
        """The action of these features [..., A], up to what the environment clips."""


class CategoricalHead(ActionHead):
    """Discrete actions; the network gives logits [..., A]."""

    constants = 0

    def __init__(self, space: spaces.Discrete) -> None:
        super().__init__()
        if int(space.start) != 0:
            raise ConfigError(f"Discrete actions must start at 0; got {space}.")
        self.outputs = int(space.n)
        self.register_buffer("_identity", torch.eye(self.outputs), persistent=False)

    def initial_constants(self) -> Tensor:
        """There are none."""
        return torch.zeros(0)

    def sample(self, dist_params: Tensor, noise: LaneNoise) -> tuple[Tensor, Tensor]:
        """By inverting the cumulative distribution: one uniform number per lane."""
        log_probs = self._log_probs(dist_params)
        cumulative = log_probs.exp().cumsum(0)
        uniform = noise.uniform()
        # Rounding (or NaN from a broken network) must not index past the last action.
        action = (cumulative < uniform).sum(0).clamp_max_(self.outputs - 1)
        return action, log_probs.gather(0, action.unsqueeze(0)).squeeze(0)

    def mode(self, dist_params: Tensor) -> Tensor:
        """The highest logit; of equal ones the first."""
        return dist_params.argmax(-1)

    def evaluate(self, dist_params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the softmax at the action, and - sum p log p."""
        log_probs = self._log_probs(dist_params)
        entropy = -(log_probs.exp() * log_probs).sum(0)
        return log_probs.gather(0, action.unsqueeze(0)).squeeze(0), entropy

    def evaluate_once(self, dist_params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """By the compiled library, where it is."""
        if can_evaluate(dist_params, action):
            return categorical(dist_params, action)
        return self.evaluate(dist_params, action)

    def supervised_loss(self, dist_params: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy: minus the log-probability of the right action."""
        log_probs = self._log_probs(dist_params)
        return -log_probs.gather(0, target.unsqueeze(0)).squeeze(0)

    def kl_divergence(self, old: Tensor, new: Tensor) -> Tensor:
        """Sum over actions of p (log p - log q)."""
        log_old, log_new = self._log_probs(old), self._log_probs(new)
        return (log_old.exp() * (log_old - log_new)).sum(0)

    @staticmethod
    def _log_probs(dist_params: Tensor) -> Tensor:
        """[..., A] -> [A, ...]: for few actions this layout is ten times faster on a CPU."""
        return dist_params.movedim(-1, 0).contiguous().log_softmax(0)

    def encode(self, action: Tensor) -> Tensor:
        """One-hot."""
        identity: Tensor = self.get_buffer("_identity")
        return identity.index_select(0, action.flatten()).view(*action.shape, -1)

    def decode(self, features: Tensor) -> Tensor:
        """The place of the one."""
        return features.argmax(-1)


class BoxUnits(nn.Module):
    """Box actions in units of their bounds: action = centre + half_range * unit.

    A component without two bounds keeps its own unit.
    """

    centre: Tensor
    half_range: Tensor
    limit: Tensor

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        if len(space.shape) != 1:
            raise ConfigError(f"Box actions must be vectors [A]; got shape {space.shape}.")
        self.size = int(space.shape[0])
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        # Float's own limits stand for "no bound", and a range of zero has no unit.
        bounded = (high - low < np.finfo(np.float32).max) & (high > low)
        middle = np.where(bounded, low, 0.0) / 2 + np.where(bounded, high, 0.0) / 2
        centre = np.where(high > low, middle, low)
        scale = np.where(bounded, (np.where(bounded, high, 1) - np.where(bounded, low, -1)) / 2, 1)
        limit = np.where(bounded, 1.0, np.inf)
        for name, value in (("centre", centre), ("half_range", scale), ("limit", limit)):
            self.register_buffer(
                name, torch.as_tensor(value, dtype=torch.float32), persistent=False
            )

    def decode(self, unit: Tensor) -> Tensor:
        """Units -> actions, [..., A]; nothing is clipped."""
        return self.centre + self.half_range * unit

    def unclipped(self, action: Tensor) -> Tensor:
        """Actions -> units, [..., A]."""
        return (action - self.centre) / self.half_range

    def encode(self, action: Tensor) -> Tensor:
        """Actions -> units, [..., A], clipped to the bounds as the environment does."""
        return torch.clamp(self.unclipped(action), -self.limit, self.limit)


class GaussianHead(ActionHead):
    """Box actions; the network gives the mean in units of the bounds, log deviations are constants.

    A bounded action is `centre + half_range * u`; densities are those of `u`. The action is not
    clipped here: the environment clips it, and the density stays exact.
    """

    def __init__(self, space: spaces.Box, *, initial_std: float = 1.0) -> None:
        super().__init__()
        self.units = BoxUnits(space)
        self.outputs = self.constants = self.units.size
        self._initial_std = initial_std

    def initial_constants(self) -> Tensor:
        """Logarithms of the first standard deviations, in units of the bounds."""
        return torch.full((self.constants,), math.log(self._initial_std))

    def sample(self, dist_params: Tensor, noise: LaneNoise) -> tuple[Tensor, Tensor]:
        """Mean plus noise."""
        mean, log_std = dist_params.chunk(2, -1)
        standard = noise.normal(self.outputs).to(dist_params.dtype)
        unit = mean + log_std.exp() * standard
        return self.units.decode(unit), _density(standard, log_std)

    def mode(self, dist_params: Tensor) -> Tensor:
        """The mean."""
        return self.units.decode(dist_params.chunk(2, -1)[0])

    def evaluate(self, dist_params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Density in units of the bounds, and its entropy."""
        mean, log_std = dist_params.chunk(2, -1)
        unit = self.units.unclipped(action)
        entropy = log_std.sum(-1) + 0.5 * math.log(2 * math.pi * math.e) * self.outputs
        return _density((unit - mean) * (-log_std).exp(), log_std), entropy

    def supervised_loss(self, dist_params: Tensor, target: Tensor) -> Tensor:
        """Half the squared error of the mean, in units of the bounds, summed over components."""
        mean, _ = dist_params.chunk(2, -1)
        unit = self.units.unclipped(target)
        return 0.5 * (unit - mean).square().sum(-1)

    def kl_divergence(self, old: Tensor, new: Tensor) -> Tensor:
        """That of Gaussians with independent components."""
        return gaussian_kl(old, new)

    def encode(self, action: Tensor) -> Tensor:
        """In units of the bounds, clipped to them as the environment does."""
        return self.units.encode(action)

    def decode(self, features: Tensor) -> Tensor:
        """From units of the bounds."""
        return self.units.decode(features)


def gaussian_kl(old: Tensor, new: Tensor) -> Tensor:
    """KL(old || new) of Gaussians with independent components, [...].

        sum over components of log(s / r) + (r^2 + (m - n)^2) / (2 s^2) - 1/2

    Args:
        old: [..., 2 Z], the means m, then the logarithms of the deviations r.
        new: the same with n and s.
    """
    (mean, log_std), (new_mean, new_log_std) = old.chunk(2, -1), new.chunk(2, -1)
    ratio = (2 * (log_std - new_log_std)).exp()
    distance = ((mean - new_mean) * (-new_log_std).exp()).square()
    return (new_log_std - log_std + 0.5 * (ratio + distance - 1)).sum(-1)


def _density(standard: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of a Gaussian at a point given in deviations from its mean, summed over [A]."""
    constant = 0.5 * math.log(2 * math.pi) * standard.shape[-1]
    return -(0.5 * standard.square() + log_std).sum(-1) - constant


def action_head(space: Space[Any], *, initial_std: float = 1.0) -> ActionHead:
    """The head that serves an action space.

    Raises:
        ConfigError: neither Discrete from 0 on nor a vector Box.
    """
    if isinstance(space, spaces.Discrete):
        return CategoricalHead(space)
    if isinstance(space, spaces.Box):
        return GaussianHead(space, initial_std=initial_std)
    raise ConfigError(
        f"No action head serves {space}; it must be Discrete (from 0 on) or a Box vector."
    )


def append_constants(outputs: Tensor, constants: Tensor) -> Tensor:
    """Outputs of a network, [..., O], followed by the constants: dist_params [..., R].

    Args:
        outputs: [..., O].
        constants: [C], or any shape that broadcasts to [..., C].
    """
    if not constants.shape[-1]:
        return outputs
    return torch.cat((outputs, constants.expand(*outputs.shape[:-1], -1)), -1)
