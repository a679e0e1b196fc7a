"""The gated recurrent unit: one step, and whole sequences with a lean backward on a CPU.

    r, z = sigmoid(W_r x + b_r + U_r h + c_r),  sigmoid(W_z x + b_z + U_z h + c_z)
    n    = tanh(W_n x + b_n + r * (U_n h + c_n))
    h'   = n + z * (h - n)

Source: Cho et al. 2014, arXiv:1406.1078, in the form of the PyTorch manual. On a CPU autograd's
generic loop spends its time in small kernels and memory allocation; here each step is eight kernels
forward and a dozen backward, and the weights' gradients are two matrix products over all steps.

Axes: `T` steps, `L` lanes, `F` inputs, `H` hidden.
"""

from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable

from metarl.native.recurrent import Recurrence, can_run, run, step
from metarl.networks.memory import SequenceCore

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


class GRUCore(SequenceCore):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), orthogonal recurrent weights."""

    def __init__(self, inputs: int, hidden_size: int, *, generator: Generator) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, hidden_size)
        initialise_gates(self.gru, generator)

    @property
    def layer(self) -> nn.GRU:
        """The weights."""
        return self.gru

    def initial_state(self, lanes: int, horizon: int) -> Tensor:
        """Zeros [L, H]."""
        return next(self.gru.parameters()).new_zeros(lanes, self.gru.hidden_size)

    def step(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One GRU cell."""
        if can_run(recurrence := Recurrence(self.gru), features, state):
            return step(recurrence, features, state)
        hidden = torch.gru_cell(features, state, *self.gru.parameters())
        return hidden, hidden

    def sequence(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """By the compiled library, the fused kernel on a GPU, or else `gru_sequence`."""
        if can_run(recurrence := Recurrence(self.gru), features, state):
            return run(recurrence, features, state)
        if features.is_cuda:
            output: Tensor = self.gru(features, state.unsqueeze(0))[0]
        else:
            output = gru_sequence(features, state, *self.gru.parameters())
        return output, output[-1]


def initialise_gates(core: nn.GRU | nn.LSTM, generator: Generator) -> None:
    """Orthogonal weights gate by gate, zero biases."""
    for name, parameter in core.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(parameter)
            continue
        for gate in parameter.data.view(-1, core.hidden_size, parameter.shape[1]):
            nn.init.orthogonal_(gate, generator=generator)


def gru_sequence(
    features: Tensor,
    initial: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
) -> Tensor:
    """Hidden states [T, L, H] of a GRU that starts at `initial` [L, H], given features [T, L, F].

    The weights are those of `torch.nn.GRU`: [3H, F], [3H, H], [3H], [3H]. First derivatives only.
    """
    hidden = weight_hh.shape[1]
    # The recurrent bias of the gates r and z can be added outside the loop.
    bias = bias_ih + torch.cat((bias_hh[: 2 * hidden], bias_hh.new_zeros(hidden)))
    gates = torch.nn.functional.linear(features, weight_ih, bias)
    output: Tensor = _GRU.apply(gates, initial, weight_hh, bias_hh[2 * hidden :])  # type: ignore[no-untyped-call]
    return output


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, initial: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """[T, L, 3H] input part of the gates -> [T, L, H] hidden states."""
        steps, lanes, width = gates.shape
        size = width // 3
        state = gates.new_empty(steps + 1, lanes, size)
        state[0] = initial
        rz = gates.new_empty(steps, lanes, 2 * size)
        new = gates.new_empty(steps, lanes, size)
        inner = gates.new_empty(steps, lanes, size)
        weight_rz, weight_n = weight.t()[:, : 2 * size], weight.t()[:, 2 * size :]
        for t in range(steps):
            h, gate, rz_t, inner_t = state[t], gates[t], rz[t], inner[t]
            torch.addmm(gate[:, : 2 * size], h, weight_rz, out=rz_t)
            rz_t.sigmoid_()
            torch.addmm(bias, h, weight_n, out=inner_t)
            n = torch.addcmul(gate[:, 2 * size :], rz_t[:, :size], inner_t, out=new[t])
            n.tanh_()
            torch.lerp(n, h, rz_t[:, size:], out=state[t + 1])
        ctx.save_for_backward(state, rz, new, inner, weight)
        return state[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of the input gates, the initial state, the recurrent weight, the bias of n."""
        state, rz, new, inner, weight = ctx.saved_tensors
        steps, lanes, size = new.shape
        grad_gates = grad.new_empty(steps, lanes, 3 * size)
        grad_inner = grad.new_empty(steps, lanes, size)
        weight_rz, weight_n = weight[: 2 * size], weight[2 * size :]
        pair = grad.new_empty(lanes, 2 * size)
        grad_h = torch.zeros_like(grad[0])
        for t in reversed(range(steps)):
            rz_t, n, gate = rz[t], new[t], grad_gates[t]
            r, z = rz_t[:, :size], rz_t[:, size:]
            grad_h = grad_h.add_(grad[t])
            kept = grad_h * z
            grad_n = _tanh_backward.grad_input(grad_h - kept, n, grad_input=gate[:, 2 * size :])
            torch.mul(grad_n, inner[t], out=pair[:, :size])
            torch.mul(grad_h, state[t] - n, out=pair[:, size:])
            grad_rz = _sigmoid_backward.grad_input(pair, rz_t, grad_input=gate[:, : 2 * size])
            grad_inner_t = torch.mul(grad_n, r, out=grad_inner[t])
            grad_h = kept.addmm_(grad_rz, weight_rz).addmm_(grad_inner_t, weight_n)
        before = state[:-1].reshape(-1, size)
        flat_inner = grad_inner.view(-1, size)
        grad_weight = torch.empty_like(weight)
        torch.mm(
            grad_gates.view(-1, 3 * size)[:, : 2 * size].t(), before, out=grad_weight[: 2 * size]
        )
        torch.mm(flat_inner.t(), before, out=grad_weight[2 * size :])
        return grad_gates, grad_h, grad_weight, flat_inner.sum(0)
