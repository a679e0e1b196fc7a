"""A memory that generates the weights of the policy's head from the experience of the trial.

Each earlier step is encoded with what followed it, the codes are averaged, and a network maps the
average to a Gaussian over the weights of a linear head on the present observation's features. No
gradient is taken at test time, and the order of earlier steps does not matter.

The weights are integrated out, not sampled, so that acting and training see the same distribution:
a logit of mean m and variance v becomes m / sqrt(1 + pi v / 8) (MacKay 1992,
doi:10.1162/neco.1992.4.5.720), so that uncertain weights make actions more even.

Axes: `T` steps, `L` lanes, `E` embedding, `A` action outputs, `H` features.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from metarl.errors import ConfigError
from metarl.networks.episodic import EpisodicCore
from metarl.networks.layers import linear
from metarl.networks.memory import InputSizes, MemoryCore, MemoryOptions, PolicyInputs

INITIAL_LOG_VARIANCE, MAX_LOG_VARIANCE = -2.0, 20.0
"""of every generated weight: before any learning, and at most, so that large rewards, which the
network reads, do not make it infinite"""


@dataclass(frozen=True, kw_only=True)
class AmortisedOptions(MemoryOptions):
    """Generated policy head, after VERSA (Gordon et al. 2019, arXiv:1805.09921)."""

    def build(self, sizes: InputSizes, hidden_size: int, generator: Generator) -> MemoryCore:
        """Reads the whole percept."""
        if hidden_size <= sizes.action:
            raise ConfigError(
                f"hidden_size={hidden_size} must exceed the {sizes.action} outputs of the policy "
                "where the memory is 'amortised': features hold both, and what the value reads."
            )
        return AmortisedCore(sizes, hidden_size, generator=generator)


class AmortisedState(NamedTuple):
    """What `AmortisedCore` carries; its size does not grow."""

    embedding: Tensor  # [L, E] of the previous observation
    total: Tensor  # [L, H] sum of the codes of earlier steps
    length: int  # steps so far


class AmortisedCore(EpisodicCore):
    """Features are the generated logits, [..., A], then what the value reads, [..., H - A].

        r[t]    = mean over s < t of code(f(obs[s]), outcome[s])
        mean, v = amortisation network(r[t], log(1 + t))
        logit   = mean . relu(f(obs[t])) / sqrt(1 + pi / 8 * v . relu(f(obs[t]))^2)

    Source: Gordon et al. 2019, arXiv:1805.09921, sections 3 and 4.
    """

    def __init__(self, sizes: InputSizes, hidden_size: int, *, generator: Generator) -> None:
        super().__init__(
            sizes, hidden_size, hidden_size, hidden_size - sizes.action, generator=generator
        )
        self._outputs = sizes.action
        code = hidden_size + sizes.total + sizes.action
        self.code = linear(code, hidden_size, gain=2**0.5, generator=generator)
        self.context = linear(hidden_size + 1, hidden_size, gain=2**0.5, generator=generator)
        weights = (hidden_size + 1) * sizes.action
        self.emit = linear(hidden_size, 2 * weights, gain=0.1, generator=generator)
        with torch.no_grad():
            self.emit.bias[weights:].fill_(INITIAL_LOG_VARIANCE)

    def policy_head(self, outputs: int) -> nn.Module:
        """The generated logits as they are."""
        return _First(outputs)

    def initial_state(self, lanes: int, horizon: int) -> AmortisedState:
        """An empty sum."""
        empty = self.empty_embedding(lanes)
        return AmortisedState(empty, empty, 0)

    def run(
        self, inputs: PolicyInputs, state: AmortisedState, *, in_place: bool
    ) -> tuple[Tensor, AmortisedState]:
        """Generates the head of each step from the steps before it."""
        embedding = self.embedding(inputs.observation)
        before = self.shifted(embedding, state.embedding)
        code = torch.relu(self.code(torch.cat((before, self.outcome(inputs)), -1)))
        total = state.total + self.from_second_step(code, state.length).cumsum(0)
        entries = self.entries(total, state.length)
        mean = total / entries.clamp_min(1.0)
        context = torch.relu(self.context(torch.cat((mean, entries.log1p()), -1)))
        logits = self.logits(context, embedding)
        rest = self.features(inputs, context, state.length)
        after = AmortisedState(embedding[-1], total[-1], state.length + len(embedding))
        return torch.cat((logits, rest), -1), after

    def logits(self, context: Tensor, embedding: Tensor) -> Tensor:
        """Logits [T, L, A] of the generated head, its weights integrated out."""
        shape = (*context.shape[:-1], 2, self._outputs, -1)
        mean, log_variance = self.emit(context).view(shape).unbind(-3)
        inputs = torch.cat((torch.relu(embedding), torch.ones_like(embedding[..., :1])), -1)
        inputs = inputs.unsqueeze(-1)
        variance = (log_variance.clamp_max(MAX_LOG_VARIANCE).exp() @ inputs.square()).squeeze(-1)
        logits: Tensor = (mean @ inputs).squeeze(-1) / (1 + math.pi / 8 * variance).sqrt()
        return logits


class _First(nn.Module):
    """The first components."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def forward(self, features: Tensor) -> Tensor:
        """[..., H] -> [..., count]."""
        return features[..., : self._count]
