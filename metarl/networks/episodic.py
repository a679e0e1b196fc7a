"""Episodic memories: embedded observations of the trial, each with what followed it.

The entry of a step s is the embedding of its observation and the percept of the step s + 1: the
action taken, its reward, and whatever the next observation shows, such as a label. At step t, the
entries of all earlier steps are compared with the embedding of the present observation, by
attention (Matching Networks) or by their distance from prototypes (Prototypical Networks).

Both were published for supervised few-shot classification, where what follows an image is its
label. With labels as outcomes and weights, the class probabilities of the first query are theirs.
In RL an outcome is an action and its reward, so their product is part of it: the reward of each
action.

Axes: `T` steps, `S` entries, `L` lanes, `D` observation, `E` embedding, `C` actions or classes, `V`
numbers of an outcome, `H` features.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from metarl.networks.attention import KeysAndValues, causal_attention
from metarl.networks.layers import linear, mlp
from metarl.networks.memory import (
    InputSizes,
    MemoryCore,
    MemoryOptions,
    MemoryState,
    PolicyInputs,
)
from metarl.validation import require_between

SMALLEST_NORM = 1e-2
"""shorter embeddings are divided by this, not by their length"""


@dataclass(frozen=True, kw_only=True)
class MatchingOptions(MemoryOptions):
    """Attention by cosine similarity (Vinyals et al. 2016, arXiv:1606.04080)."""

    temperature: float = 0.1
    """the cosine similarity is divided by this before the softmax; 1 in the paper"""

    def build(self, sizes: InputSizes, hidden_size: int, generator: Generator) -> MemoryCore:
        """Reads the whole percept."""
        require_between("temperature", self.temperature, 1e-3, 1e3)
        return MatchingCore(sizes, hidden_size, self.temperature, generator=generator)


@dataclass(frozen=True, kw_only=True)
class PrototypicalOptions(MemoryOptions):
    """Distances from weighted means (Snell et al. 2017, arXiv:1703.05175)."""

    def build(self, sizes: InputSizes, hidden_size: int, generator: Generator) -> MemoryCore:
        """Reads the whole percept."""
        return PrototypicalCore(sizes, hidden_size, generator=generator)


class EpisodicCore(MemoryCore):
    """Embedding of observations, outcomes, and features of what the memory returned."""

    def __init__(
        self,
        sizes: InputSizes,
        hidden_size: int,
        read_size: int,
        feature_size: int,
        *,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.embedding = mlp(
            [sizes.observation, hidden_size, hidden_size], last_gain=1.0, generator=generator
        )
        self.merge = linear(
            sizes.total + read_size + 1, feature_size, gain=2**0.5, generator=generator
        )

    def outcome(self, inputs: PolicyInputs) -> Tensor:
        """What followed the step before: its percept, and the reward of its action; [..., V]."""
        rewarded_action = inputs.previous_action * inputs.previous_reward.unsqueeze(-1)
        return torch.cat((inputs.values, rewarded_action), -1)

    def step(self, inputs: PolicyInputs, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """One step."""
        one = PolicyInputs(inputs.values.unsqueeze(0), inputs.sizes)
        features, state = self.run(one, state, in_place=True)
        return features.squeeze(0), state

    def sequence(self, inputs: PolicyInputs, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """All steps at once."""
        return self.run(inputs, state, in_place=False)

    @staticmethod
    def shifted(embedding: Tensor, before: Tensor) -> Tensor:
        """The embedding of the step before each step, [T, L, E]; `before` [L, E] is the first."""
        return torch.cat((before.unsqueeze(0), embedding[:-1]))

    @staticmethod
    def from_second_step(value: Tensor, start: int) -> Tensor:
        """`value` [T, ...], but zeros at the first step of a trial, before which nothing came."""
        return value if start else torch.cat((torch.zeros_like(value[:1]), value[1:]))

    @abstractmethod
    def run(
        self, inputs: PolicyInputs, state: MemoryState, *, in_place: bool
    ) -> tuple[Tensor, MemoryState]:
        """Features [T, L, H] of inputs [T, L, ...], and the state after them."""

    def features(self, inputs: PolicyInputs, read: Tensor, start: int) -> Tensor:
        """[T, L, H] of the percept, what the memory returned, and the number of entries."""
        entries = self.entries(read, start).log1p()
        return torch.relu(self.merge(torch.cat((inputs.values, read, entries), -1)))

    @staticmethod
    def entries(like: Tensor, start: int) -> Tensor:
        """Number of steps before each step, [T, L, 1], the first of which has number `start`."""
        steps = torch.arange(start, start + len(like), device=like.device, dtype=like.dtype)
        return steps.view(-1, 1, 1).expand(*like.shape[:2], 1)

    def empty_embedding(self, lanes: int) -> Tensor:
        """Stands for the embedding before the first step, [L, E]."""
        return next(self.parameters()).new_zeros(lanes, self.hidden_size)


class MatchingState(NamedTuple):
    """What `MatchingCore` carries."""

    embedding: Tensor  # [L, E] of the previous observation, of unit length
    entries: KeysAndValues  # keys [L, 1, S, E], outcomes [L, 1, S, V]; the first is empty


class MatchingCore(EpisodicCore):
    """Reads the mean outcome of earlier steps, weighted by how similar their observations were.

        read[t] = sum over s < t of w[s] outcome[s],
        w = softmax over s < t of cos(f(obs[t]), f(obs[s])) / temperature

    Source: Vinyals et al. 2016, arXiv:1606.04080, eq. 1 and section 2.1.1, without full context
    embeddings. At the first step of a trial it reads zeros.
    """

    def __init__(
        self, sizes: InputSizes, hidden_size: int, temperature: float, *, generator: Generator
    ) -> None:
        self._outcome_size = sizes.total + sizes.action
        super().__init__(sizes, hidden_size, self._outcome_size, hidden_size, generator=generator)
        self.temperature = temperature

    def initial_state(self, lanes: int, horizon: int) -> MatchingState:
        """Room for `horizon` entries."""
        empty = self.empty_embedding(lanes)
        keys = empty.new_empty(lanes, 1, horizon, self.hidden_size)
        values = empty.new_empty(lanes, 1, horizon, self._outcome_size)
        return MatchingState(empty, KeysAndValues(keys, values, 0))

    def run(
        self, inputs: PolicyInputs, state: MatchingState, *, in_place: bool
    ) -> tuple[Tensor, MatchingState]:
        """Attention of each step to the entries before it."""
        # The floor keeps the gradient at an observation of zeros, which embeds to zeros, small.
        embedding = nn.functional.normalize(
            self.embedding(inputs.observation), dim=-1, eps=SMALLEST_NORM
        )
        start = state.entries.length
        before = self.shifted(embedding, state.embedding)
        keys, outcomes = (
            each.transpose(0, 1).unsqueeze(1) for each in (before, self.outcome(inputs))
        )
        add = state.entries.write if in_place else state.entries.joined
        entries = add(keys, outcomes)
        read = self.read(embedding, entries)
        return self.features(inputs, read, start), MatchingState(embedding[-1], entries)

    def read(self, embedding: Tensor, entries: KeysAndValues) -> Tensor:
        """What the last T steps read, [T, L, V], given their embeddings [T, L, E]."""
        known = entries.length - 1
        if not known:
            return embedding.new_zeros(*embedding.shape[:2], self._outcome_size)
        keys, outcomes = (each[:, :, 1:] for each in entries.so_far)
        query = embedding.transpose(0, 1).unsqueeze(1)[:, :, -known:]  # the first step has none
        width = max(self.hidden_size, self._outcome_size)
        query, keys, outcomes = (_padded(each, width) for each in (query, keys, outcomes))
        read = causal_attention(query, keys, outcomes, 1.0 / self.temperature)
        read = read[..., : self._outcome_size].squeeze(1).transpose(0, 1)
        first = len(embedding) - len(read)
        return torch.cat((read.new_zeros(first, *read.shape[1:]), read))


def _padded(value: Tensor, width: int) -> Tensor:
    """With zeros behind, [..., width]: kernels that need no T x S memory want equal widths."""
    return nn.functional.pad(value, (0, width - value.shape[-1]))


class PrototypicalState(NamedTuple):
    """What `PrototypicalCore` carries; its size does not grow."""

    embedding: Tensor  # [L, E] of the previous observation
    total: Tensor  # [L, C, E] weighted sum of embeddings
    weight: Tensor  # [L, C] sum of weights
    length: int  # steps so far


class PrototypicalCore(EpisodicCore):
    """Reads the distance of the present observation from a prototype of each action or class.

        prototype[c] = sum over s < t of m[s, c] f(obs[s]) / sum over s < t of m[s, c]
        read[t]      = -||f(obs[t]) - prototype[c]||^2 / E for each c, and log(1 + sum of m)

    An entry's weight m[s, c] = softplus(linear(bounded outcome[s])) is learned. It starts high for
    the action taken, higher the better its reward, and near 0 for the others; for continuous
    actions c is a component of the action, and the prototypes are learned groups. With the shown
    labels as weights, the softmax over c of -||...||^2 gives the class probabilities of the source.

    Source: Snell et al. 2017, arXiv:1703.05175, eqs. 1 and 2.
    """

    def __init__(self, sizes: InputSizes, hidden_size: int, *, generator: Generator) -> None:
        self._classes = sizes.action
        super().__init__(sizes, hidden_size, 2 * self._classes, hidden_size, generator=generator)
        self.weigh = linear(
            sizes.total + sizes.action, self._classes, gain=0.1, generator=generator
        )
        with torch.no_grad():
            # softplus(1 + tanh(reward)) for the action taken, softplus(-4) = .02 for the others.
            action = slice(sizes.observation, sizes.observation + self._classes)
            self.weigh.weight[:, action].add_(torch.eye(self._classes), alpha=5.0)
            self.weigh.weight[:, sizes.total :].add_(torch.eye(self._classes))
            self.weigh.bias.sub_(4.0)

    def initial_state(self, lanes: int, horizon: int) -> PrototypicalState:
        """Empty sums."""
        empty = self.empty_embedding(lanes)
        total = empty.new_zeros(lanes, self._classes, self.hidden_size)
        return PrototypicalState(empty, total, total[..., 0], 0)

    def run(
        self, inputs: PolicyInputs, state: PrototypicalState, *, in_place: bool
    ) -> tuple[Tensor, PrototypicalState]:
        """Distances of each step from the prototypes of the steps before it."""
        embedding = self.embedding(inputs.observation)
        before = self.shifted(embedding, state.embedding)
        weight = self.from_second_step(self.weights(inputs), state.length)
        total = state.total + (weight.unsqueeze(-1) * before.unsqueeze(-2)).cumsum(0)
        sums = state.weight + weight.cumsum(0)
        read = torch.cat((self.similarity(embedding, total, sums), sums.log1p()), -1)
        after = PrototypicalState(embedding[-1], total[-1], sums[-1], state.length + len(embedding))
        return self.features(inputs, read, state.length), after

    def weights(self, inputs: PolicyInputs) -> Tensor:
        """How much the entry before each step belongs to each action or class, [T, L, C]."""
        reward = inputs.previous_reward.tanh().unsqueeze(-1)
        bounded = (
            inputs.observation,
            inputs.previous_action,
            reward,
            inputs.flags,
            inputs.previous_action * reward,
        )
        return nn.functional.softplus(self.weigh(torch.cat(bounded, -1)))

    @staticmethod
    def similarity(embedding: Tensor, total: Tensor, weight: Tensor) -> Tensor:
        """-||f - prototype||^2 / E, [T, L, C].

        Args:
            embedding: f, [T, L, E].
            total: weighted sums of embeddings, [T, L, C, E].
            weight: sums of the weights, [T, L, C].
        """
        prototype = total / weight.clamp_min(1e-6).unsqueeze(-1)
        return -(embedding.unsqueeze(-2) - prototype).square().mean(-1)
