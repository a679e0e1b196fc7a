"""A causal transformer as memory: every step attends to all steps of the trial so far.

Layers are pre-norm (Xiong et al. 2020, arXiv:2002.04745): x + attention(norm(x)), then
x + mlp(norm(x)). Positions are rotary (Su et al. 2021, arXiv:2104.09864), so attention depends on
how many steps ago something happened. The last projection of each branch starts small, as in GPT-2,
so that a new transformer is nearly the identity. It is the successor of SNAIL's attention (Mishra
et al. 2018, arXiv:1707.03141) as a memory for RL^2.

Axes: `T` steps, `L` lanes, `M` attention heads, then features (`F` in, `H` out).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Generator, Tensor, nn

from metarl.errors import ConfigError
from metarl.networks.attention import KeysAndValues, causal_attention
from metarl.networks.layers import linear
from metarl.networks.memory import (
    InputSizes,
    MemoryCore,
    MemoryOptions,
    SequenceCore,
)
from metarl.networks.recurrent import Embedded
from metarl.validation import require_between, require_positive

TransformerState: TypeAlias = tuple[KeysAndValues, ...]
"""keys and values of each layer"""

ROTARY_BASE = 10_000.0
"""pair i of d / 2 turns by base^(-2 i / d) at each step (Su et al. 2021, section 3.3)"""
MIN_CONTEXT, MAX_CONTEXT, MAX_LAYERS = 4, 2**20, 100


@dataclass(frozen=True, kw_only=True)
class TransformerOptions(MemoryOptions):
    """Causal transformer, pre-norm, rotary positions."""

    layers: int = 2
    """layers of attention and multilayer perceptron"""
    heads: int = 4
    """attention heads; hidden_size / heads must be a whole even number"""
    context: int = 1024
    """the most steps of a trial; a longer trial is refused"""

    def build(self, sizes: InputSizes, hidden_size: int, generator: Generator) -> MemoryCore:
        """Reads the whole percept."""
        require_positive("heads", self.heads)
        require_between("layers", self.layers, 1, MAX_LAYERS)
        require_between("context", self.context, MIN_CONTEXT, MAX_CONTEXT)
        if hidden_size % (2 * self.heads):
            raise ConfigError(
                f"hidden_size={hidden_size} does not divide into heads={self.heads} of even size, "
                f"as the memory 'transformer' needs; it must be a multiple of {2 * self.heads}."
            )
        embedding = linear(sizes.total, hidden_size, gain=2**0.5, generator=generator)
        return Embedded(embedding, TransformerCore(self, hidden_size, generator=generator))


class TransformerCore(SequenceCore):
    """Layers of causal attention over the embedded steps of a trial."""

    cosine: Tensor
    sine: Tensor

    def __init__(
        self, options: TransformerOptions, hidden_size: int, *, generator: Generator
    ) -> None:
        super().__init__()
        self.heads, self.head_size = options.heads, hidden_size // options.heads
        self.context = options.context
        branches = 2 * options.layers
        self.layers = nn.ModuleList(
            _Layer(hidden_size, options.heads, gain=branches**-0.5, generator=generator)
            for _ in range(options.layers)
        )
        self.norm = nn.LayerNorm(hidden_size)
        speed = ROTARY_BASE ** -(torch.arange(0, self.head_size, 2) / self.head_size)
        angle = torch.arange(options.context).unsqueeze(1) * speed
        self.register_buffer("cosine", angle.cos(), persistent=False)  # [context, H / M / 2]
        self.register_buffer("sine", angle.sin(), persistent=False)

    def initial_state(self, lanes: int, horizon: int) -> TransformerState:
        """Room for the keys and values of `horizon` steps in each layer.

        Raises:
            ConfigError: the context holds fewer steps.
        """
        self._require_context(horizon)
        shape = (2, lanes, self.heads, horizon, self.head_size)
        rooms = [self.cosine.new_empty(shape) for _ in self.layers]
        return tuple(KeysAndValues(room[0], room[1], 0) for room in rooms)

    def step(self, features: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """One step; keys and values are written in place while there is room."""
        output, state = self._run(features.unsqueeze(0), state, KeysAndValues.write)
        return output.squeeze(0), state

    def sequence(
        self, features: Tensor, state: TransformerState
    ) -> tuple[Tensor, TransformerState]:
        """All steps at once."""
        return self._run(features, state, KeysAndValues.joined)

    def _run(
        self,
        features: Tensor,
        state: TransformerState,
        add: Callable[[KeysAndValues, Tensor, Tensor], KeysAndValues],
    ) -> tuple[Tensor, TransformerState]:
        """[T, L, H] -> [T, L, H] and the state with keys and values of these steps added."""
        start = state[0].length
        end = start + len(features)
        self._require_context(end)
        rotation = self.cosine[start:end], self.sine[start:end]
        hidden, after = features, []
        for layer, past in zip(self.layers, state, strict=True):
            assert isinstance(layer, _Layer)
            query, key, value = layer.projections(hidden)
            past = add(past, rotated(key, *rotation), value)
            read = causal_attention(rotated(query, *rotation), *past.so_far)
            hidden = layer.output(hidden, read.permute(2, 0, 1, 3).flatten(2))
            after.append(past)
        return self.norm(hidden), tuple(after)

    def _require_context(self, steps: int) -> None:
        if steps > self.context:
            raise ConfigError(
                f"The context of the memory 'transformer' holds {self.context} steps, but a trial "
                f"has {steps}. Give it more (`context` among the memory's options), or use "
                "fewer or shorter episodes."
            )


class _Layer(nn.Module):
    """Attention and a multilayer perceptron, each added to its input."""

    def __init__(self, size: int, heads: int, *, gain: float, generator: Generator) -> None:
        super().__init__()
        self._heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.projection = linear(size, 3 * size, gain=1.0, generator=generator)
        self.merge = linear(size, size, gain=gain, generator=generator)
        self.expand = linear(size, 4 * size, gain=2**0.5, generator=generator)
        self.contract = linear(4 * size, size, gain=gain, generator=generator)

    def projections(self, hidden: Tensor) -> Tensor:
        """[T, L, H] -> queries, keys and values, [3, L, M, T, H / M]."""
        parts: Tensor = self.projection(self.attention_norm(hidden))
        return parts.view(*hidden.shape[:2], 3, self._heads, -1).permute(2, 1, 3, 0, 4)

    def output(self, hidden: Tensor, read: Tensor) -> Tensor:
        """What attention read is added, then the perceptron's output; [T, L, H] each."""
        hidden = hidden + self.merge(read)
        inner = nn.functional.gelu(self.expand(self.mlp_norm(hidden)))
        added: Tensor = hidden + self.contract(inner)
        return added


def rotated(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns each pair (i, i + half) of components by the angle of its position.

    The product of a turned query and a turned key depends on the distance of their positions alone.
    Source: Su et al. 2021, arXiv:2104.09864, eq. 34.

    Args:
        vectors: [L, M, T, H / M].
        cosine: [T, H / M / 2] of the angles.
        sine: likewise.
    """
    one, two = vectors.chunk(2, -1)
    return torch.cat((one * cosine - two * sine, one * sine + two * cosine), -1)
