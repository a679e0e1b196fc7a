"""Steps of a recurrent policy for discrete actions, each one call of the compiled library.

The definition is `RecurrentPolicy.act` in torch; results differ by rounding. The weights are packed
once and stay as they are for all steps, as while a rollout is collected.

Axes: `L` lanes, `D` observation, `H` hidden.
"""

import ctypes
from operator import attrgetter
from typing import Any, Generic, NamedTuple, Self

import torch
from torch import Tensor

from metarl.native.library import (
    MOST_LANES,
    ActingStep,
    Layer,
    Perceptron,
    address,
    new_memory,
    parts_of,
    require_library,
    serves,
    share_out,
)
from metarl.native.perceptron import perceptron_sizes, perceptron_weights
from metarl.native.ppo import ActorCriticWeights
from metarl.native.recurrent import State, layer_weights

_TYPES = (torch.float32, torch.int64, torch.float32, *[torch.bool] * 4, torch.float32)
"""of the fields of `ActingInputs`"""
_shape, _type = attrgetter("shape"), attrgetter("dtype")
BLOCKS_OF_A_THREAD = 4
"""fewer blocks of 64 lanes are not worth a thread of their own"""


class ActingInputs(NamedTuple):
    """A percept, and the numbers that decide the actions."""

    obs: Tensor  # [L, D]
    previous_action: Tensor  # [L] int64
    previous_reward: Tensor  # [L]
    previous_terminated: Tensor  # [L] bool, as the next three
    previous_truncated: Tensor
    first_of_episode: Tensor
    first_of_trial: Tensor
    uniform: Tensor  # [L] in [0, 1)


class Acted(NamedTuple, Generic[State]):
    """What one step returns."""

    action: Tensor  # [L] int64
    log_prob: Tensor  # [L]
    state: State
    value: Tensor | None  # [L] of the value head


class Acting:
    """Acts in L lanes, with the weights that the network has when this is made."""

    def __init__(
        self, weights: ActorCriticWeights, *, lanes: int, observation: int, with_values: bool
    ) -> None:
        """Packs the weights; `observation` is D."""
        self._library = loaded = require_library()
        core, actions = weights.recurrence.core, len(weights.policy[3])
        assert weights.recurrence.embedding is not None
        self._hidden, self._is_lstm = core.hidden_size, isinstance(core, torch.nn.LSTM)
        self._step = step = ActingStep(
            layer=Layer(
                cell=int(self._is_lstm),
                embedded=True,
                steps=1,
                lanes=lanes,
                all_lanes=lanes,
                block=MOST_LANES,
                inputs=weights.recurrence.embedding.in_features,
                hidden=self._hidden,
            ),
            policy=perceptron_sizes(self._hidden, weights.policy),
            value=perceptron_sizes(self._hidden, weights.value) if with_values else Perceptron(),
            observation=observation,
            actions=actions,
        )
        self._weights = weights  # NOTE: the step holds addresses alone
        layer_weights(step.layer, weights.recurrence.weights)
        perceptron_weights(step.policy, weights.policy)
        perceptron_weights(step.value, weights.value)
        sizes = (ctypes.c_int64 * 3)()
        loaded.acting_sizes(step, sizes)
        self._packed = [new_memory(size) for size in sizes]
        step.layer.packed, step.policy.packed, step.value.packed = map(address, self._packed)
        loaded.acting_prepare(step)
        self._blocks = loaded.recurrent_blocks(step.layer)
        lane = torch.Size((lanes,))
        self._shapes = (torch.Size((lanes, observation)), *[lane] * (len(_TYPES) - 1))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: acting changes nothing here."""
        return self

    def can_act(self, inputs: ActingInputs, state: State) -> bool:
        """Whether lanes, sizes and types are those that it was made for."""
        (lanes, _), hidden = self._shapes[0], self._hidden
        parts = (state,) if isinstance(state, Tensor) else state
        return (
            tuple(map(_shape, inputs)) == self._shapes
            and tuple(map(_type, inputs)) == _TYPES
            and len(parts) == 1 + self._is_lstm
            and all(part.shape == (lanes, hidden) and serves(part) for part in parts)
        )

    def act(self, inputs: ActingInputs, state: State) -> Acted[State]:
        """One step; the inputs must be such that `can_act`."""
        step = ActingStep.from_buffer_copy(self._step)  # of this call, as threads may share this
        kept = [value.contiguous() for value in inputs]
        step.obs, step.previous_action, step.previous_reward, *flags, step.uniform = map(
            address, kept
        )
        step.flags[:] = flags
        before = [part.contiguous() for part in ((state,) if isinstance(state, Tensor) else state)]
        after = [torch.empty_like(part) for part in before]
        action, log_prob = torch.empty_like(kept[1]), torch.empty_like(kept[2])
        step.layer.hidden0, step.hidden = address(before[0]), address(after[0])
        if self._is_lstm:
            step.layer.cell0, step.cell = address(before[1]), address(after[1])
        value = torch.empty_like(log_prob) if step.value.outputs else None
        step.action, step.log_prob, step.values = map(address, (action, log_prob, value))
        parts: list[tuple[()]] = [()] * parts_of(self._blocks, BLOCKS_OF_A_THREAD)
        share_out("act", step, self._blocks, parts)
        next_state = after[0] if isinstance(state, Tensor) else (after[0], after[1])
        return Acted(action, log_prob, next_state, value)
