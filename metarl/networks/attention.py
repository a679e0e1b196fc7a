"""Attention over the earlier steps of a trial, and the memory that joins it with a GRU.

Axes: `T` steps, `S` steps so far, `L` lanes, `M` attention heads, then features (`F` in, `H` out).
"""

from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarl.networks.gru import GRUCore
from metarl.networks.layers import linear
from metarl.networks.memory import SequenceCore


def causal_attention(
    query: Tensor, keys: Tensor, values: Tensor, scale: float | None = None
) -> Tensor:
    """Softmax attention of the last T steps, each over the steps up to its own.

    Args:
        query: [L, M, T, F / M].
        keys: [L, M, S, F / M] of all steps so far, S >= T.
        values: likewise; the fast kernels need the width of the keys.
        scale: factor on the products; by default one over the root of the width.

    Returns:
        [L, M, T, F / M].
    """
    steps, so_far = query.shape[2], keys.shape[2]
    attention = partial(nn.functional.scaled_dot_product_attention, scale=scale)
    if steps == 1:
        return attention(query, keys, values)
    # On a GPU the faster kernels add gradients up in another order each time.
    exact = sdpa_kernel(SDPBackend.MATH) if query.is_cuda else nullcontext()
    with exact:
        if steps == so_far:
            return attention(query, keys, values, is_causal=True)
        seen = torch.ones(steps, so_far, dtype=torch.bool, device=query.device)
        return attention(query, keys, values, attn_mask=seen.tril(so_far - steps))


class KeysAndValues(NamedTuple):
    """Keys and values of the steps so far, in memory that may be allocated for a whole trial."""

    keys: Tensor  # [L, M, room, F / M], of which `length` steps are written
    values: Tensor
    length: int

    @property
    def so_far(self) -> tuple[Tensor, Tensor]:
        """Keys and values [L, M, length, F / M]; views."""
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def write(self, key: Tensor, value: Tensor) -> "KeysAndValues":
        """One more step [L, M, 1, F / M].

        NOTE: written in place while there is room, so a state can be stepped from only once.
        """
        if self.length == self.keys.shape[2]:
            return self.joined(key, value)
        self.keys[:, :, self.length], self.values[:, :, self.length] = key[:, :, 0], value[:, :, 0]
        return self._replace(length=self.length + 1)

    def joined(self, keys: Tensor, values: Tensor) -> "KeysAndValues":
        """More steps [L, M, T, F / M], in new memory without further room."""
        if self.length:
            before_keys, before_values = self.so_far
            keys = torch.cat((before_keys, keys), 2)
            values = torch.cat((before_values, values), 2)
        return KeysAndValues(keys, values, keys.shape[2])


class AttentionState(NamedTuple):
    """What `AttentionCore` carries."""

    hidden: Tensor  # [L, H] of the GRU
    past: KeysAndValues


class AttentionCore(SequenceCore):
    """A GRU, and softmax attention over every step of the trial so far.

    With features x[t] and the GRU's output h[t], in each of `M` heads, where q, k and v are linear
    in [h, x]:

        read[t] = sum over s <= t of w[s] v[s],   w = softmax(q[t] . k[s] / sqrt(H / M))

    The output is relu(W [h[t], x[t], read[t] of all heads]).

    A GRU alone must keep everything it may need in one vector, which is hard to learn where there
    is much to remember, as in the tables of an MDP. The cost: 2 H more numbers per lane and step,
    and acting takes time in proportion to T^2.

    Sources: Mishra et al. 2018, arXiv:1707.03141 (SNAIL: attention for meta-learners, there over
    temporal convolutions); Vaswani et al. 2017, arXiv:1706.03762, section 3.2 (the attention).
    """

    def __init__(self, inputs: int, hidden_size: int, *, heads: int, generator: Generator) -> None:
        super().__init__()
        self.heads = heads
        self.gru = GRUCore(inputs, hidden_size, generator=generator)
        read = hidden_size + inputs
        self.query = linear(read, hidden_size, gain=1.0, generator=generator)
        # Keys, then values.
        self.entry = linear(read, 2 * hidden_size, gain=1.0, generator=generator)
        self.merge = linear(read + hidden_size, hidden_size, gain=2**0.5, generator=generator)

    def initial_state(self, lanes: int, horizon: int) -> AttentionState:
        """That of the GRU, and room for the keys and values of `horizon` steps."""
        hidden = self.gru.initial_state(lanes, horizon)
        room = hidden.new_empty(2, lanes, self.heads, horizon, hidden.shape[1] // self.heads)
        return AttentionState(hidden, KeysAndValues(room[0], room[1], 0))

    def step(self, features: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """One GRU cell, one more key and value, one query."""
        hidden, _ = self.gru.step(features, state.hidden)
        both = torch.cat((hidden, features), -1)
        query, key, value = self._parts(both.unsqueeze(0))
        past = state.past.write(key, value)
        read = causal_attention(query, *past.so_far).flatten(1)
        return self._merged(both, read), AttentionState(hidden, past)

    def sequence(self, features: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """The GRU, then all queries at once, each over the steps up to its own."""
        hidden, last = self.gru.sequence(features, state.hidden)
        both = torch.cat((hidden, features), -1)
        query, keys, values = self._parts(both)
        past = state.past.joined(keys, values)
        read = causal_attention(query, *past.so_far)
        output = self._merged(both, read.permute(2, 0, 1, 3).flatten(2))
        return output, AttentionState(last, past)

    def _parts(self, both: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[T, L, H + F] -> query, key and value of each step, [L, M, T, H / M]."""
        parts = torch.cat((self.query(both), self.entry(both)), -1)
        parts = parts.view(*both.shape[:2], 3, self.heads, -1).permute(2, 1, 3, 0, 4)
        return parts[0], parts[1], parts[2]

    def _merged(self, both: Tensor, read: Tensor) -> Tensor:
        """[..., H + F] and [..., H] -> [..., H]."""
        return torch.relu(self.merge(torch.cat((both, read), -1)))
