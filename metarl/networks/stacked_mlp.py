"""A multilayer perceptron with separate parameters for every task, and its derivatives.

All tasks are computed in one batch of matrix products:

    h[0] = inputs,   z[l] = h[l-1] W[l] + b[l],   h[l] = act(z[l])
    dist_params = (z[last], constants)

Meta-gradients through inner steps need Hessian-vector products of a loss over many thousands of
samples. The loss is a function of the few numbers `dist_params`, so autograd differentiates that
part.
The network's part is written out here (Pearlmutter 1994, doi:10.1162/neco.1994.6.1.147: the
derivative of the backward pass along a direction), so that the many products with one Hessian
share everything that does not depend on the direction.

On a CPU in single precision the compiled library computes the same (`metarl/native/stacked.py`).

Axes: `M` samples of each task, `N` tasks, `P` parameters, `F` features, `R` parameters of an action
distribution.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from metarl.native.library import alone
from metarl.native.stacked import Kept, NetShape, StackedPass, can_run
from metarl.networks.action_heads import append_constants

Activation: TypeAlias = Literal["tanh", "relu"]

PART = 2**20
"""numbers per layer in one part of a pass on a CPU, which bounds its memory"""

FEW = 4
"""most features for which products are written out"""


def times(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Products of every task's inputs with its own matrix: [M, N, F] x [N, F, G] -> [M, N, G].

    On a CPU in single precision, large products are computed as a 1x1 convolution grouped by task:
    oneDNN is two to three times faster than the library behind `bmm` on some processors. For few
    features the sum is written out.
    """
    samples, tasks, size = inputs.shape
    in_graph = torch.compiler.is_compiling()  # of any number of samples
    if in_graph or inputs.is_cuda or inputs.dtype != torch.float32 or samples * tasks < 1024:
        product = torch.bmm(inputs.transpose(0, 1), weight).transpose(0, 1)
        return (product if bias is None else product + bias).contiguous()
    if size <= FEW:
        columns, rows = inputs.unsqueeze(-1).unbind(2), weight.contiguous().unbind(1)
        total = columns[0] * rows[0] if bias is None else bias.addcmul(columns[0], rows[0])
        for column, row in zip(columns[1:], rows[1:], strict=True):
            total.addcmul_(column, row)
        return total
    image = inputs.reshape(1, samples, 1, tasks * size).permute(0, 3, 1, 2)
    kernel = weight.mT.reshape(-1, size, 1, 1)
    flat = None if bias is None else bias.flatten()
    product = nn.functional.conv2d(image, kernel, flat, groups=tasks)
    return product.permute(0, 2, 3, 1).reshape(samples, tasks, -1)


def add_outer(total: Tensor, inputs: Tensor, delta: Tensor) -> None:
    """Adds outer products, summed over samples, to `total` [N, F, G]: [M, N, F] x [M, N, G]."""
    # NOTE: the narrow matrix comes first, because the other order is ten times slower.
    if delta.shape[2] < inputs.shape[2]:
        total, inputs, delta = total.mT, delta, inputs
    total += torch.bmm(inputs.permute(1, 2, 0), delta.transpose(0, 1))


class _Layer(NamedTuple):
    weight: Tensor  # [N, F, F']
    bias: Tensor  # [N, F']


class Forward(NamedTuple):
    """A forward pass, with what its derivatives need."""

    features: list[list[Tensor]]  # part by part: inputs of every layer, [m, N, F]
    dist_params: Tensor  # [M, N, R]
    compiled: StackedPass | None = None  # instead of features, where the library serves


class Backward(NamedTuple):
    """A backward pass, with what its derivative needs."""

    gradient: Tensor  # [N, P]
    deltas: list[list[Tensor]]  # part by part: derivative of the loss by every z, [m, N, F]
    curvatures: list[
        list[Tensor]
    ]  # part by part, of hidden layers: act''(z) / act'(z) times that by h
    compiled: Kept | None = None  # instead of both


@dataclass(frozen=True, kw_only=True)
class StackedMLP:
    """The shape of a network; its parameters are passed in, a flat vector for each task."""

    sizes: tuple[int, ...]
    """inputs, hidden widths, outputs"""
    constants: int = 0
    """learnt numbers appended to every output, such as log deviations"""
    activation: Activation = "tanh"
    """of the hidden layers"""
    learn_constants: bool = True
    """False: no derivative ever reaches the constants"""

    @property
    def size(self) -> int:
        """P, parameters of one task."""
        return sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.sizes)) + (
            self.constants
        )

    @property
    def _shape(self) -> NetShape:
        relu = self.activation == "relu"
        return NetShape(self.sizes, self.constants, relu, self.learn_constants)

    def initial(self, constants: Tensor, generator: torch.Generator) -> Tensor:
        """Xavier-uniform weights, the last layer's a hundredth of that; zero biases; [P]."""
        parts = []
        for number, shape in enumerate(pairwise(self.sizes), start=2):
            weight = torch.empty(shape)
            nn.init.xavier_uniform_(weight, generator=generator)
            parts += [weight.flatten() * (0.01 if number == len(self.sizes) else 1.0)]
            parts += [torch.zeros(shape[1])]
        return torch.cat([*parts, constants])

    @staticmethod
    def computing(params: Tensor) -> AbstractContextManager[None]:
        """Within it, the compiled library has torch's threads, where it computes with `params`."""
        return alone(params)

    def outputs(self, params: Tensor, inputs: Tensor) -> Tensor:
        """Inputs [M, N, F] -> dist_params [M, N, R], for parameters [N, P]; keeps nothing."""
        if can_run(self.sizes, self.size, params, inputs):
            return StackedPass(self._shape, params, inputs, keep=False).dist_params
        return self.forward(params, inputs).dist_params

    def forward(self, params: Tensor, inputs: Tensor) -> Forward:
        """Inputs [M, N, F] through the network with parameters [N, P]."""
        if can_run(self.sizes, self.size, params, inputs):
            compiled = StackedPass(self._shape, params, inputs, keep=True)
            return Forward([], compiled.dist_params, compiled)
        layers, constants = self._parts(params)
        parts, outputs = [], []
        for part in self._split(inputs):
            features = [part]
            for layer in layers[:-1]:
                features.append(self._activate(times(features[-1], *layer)))
            parts.append(features)
            outputs.append(times(features[-1], *layers[-1]))
        return Forward(parts, append_constants(torch.cat(outputs), constants))

    def backward(self, params: Tensor, forward: Forward, cotangent: Tensor) -> Backward:
        """From the derivative of a loss by dist_params, [M, N, R], to its gradient [N, P]."""
        if forward.compiled is not None:
            gradient, kept = forward.compiled.backward(cotangent)
            return Backward(gradient, [], [], kept)
        layers, _ = self._parts(params)
        slots, constants, outputs = self._begin(params, cotangent)
        parts, all_curvatures = [], []
        for features, delta in zip(forward.features, outputs, strict=True):
            deltas, curvatures = [delta], []
            for number in reversed(range(len(layers))):
                _add(slots[number], features[number], delta)
                if number:
                    by_feature = times(delta, layers[number].weight.mT)
                    delta = self._through(by_feature, features[number])
                    deltas.append(delta)
                    if self.activation == "tanh":  # tanh'' = -2 tanh tanh'; of ReLU it is zero
                        curvatures.append(by_feature.mul_(features[number]).mul_(-2))
            parts.append(deltas[::-1])
            all_curvatures.append(curvatures[::-1])
        return Backward(_joined(slots, constants), parts, all_curvatures)

    def gradient(self, params: Tensor, forward: Forward, cotangent: Tensor) -> Tensor:
        """As `backward`, but keeps nothing for a second derivative: the gradient [N, P]."""
        if forward.compiled is not None:
            return forward.compiled.gradient(cotangent)
        layers, _ = self._parts(params)
        slots, constants, outputs = self._begin(params, cotangent)
        for features, delta in zip(forward.features, outputs, strict=True):
            for number in reversed(range(len(layers))):
                _add(slots[number], features[number], delta)
                if number:
                    delta = times(delta, layers[number].weight.mT)
                    delta = self._through(delta, features[number], out=delta)
        return _joined(slots, constants)

    def tangent(self, params: Tensor, forward: Forward, direction: Tensor) -> Tensor:
        """Derivative of dist_params along a direction [N, P] of the parameters: [M, N, R]."""
        if forward.compiled is not None:
            return forward.compiled.tangent(direction)
        return self._tangents(params, forward, direction)[0]

    def hvp(
        self,
        params: Tensor,
        forward: Forward,
        backward: Backward,
        direction: Tensor,
        dist_params_hvp: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Derivative of the gradient along a direction: the Hessian times `direction`, [N, P].

        Args:
            params: [N, P].
            forward: the forward pass at `params`.
            backward: the backward pass from the loss's derivative by dist_params.
            direction: [N, P].
            dist_params_hvp: the Hessian of the loss by dist_params times a tangent of them,
                [M, N, R] each.
        """
        if forward.compiled is not None:
            assert backward.compiled is not None
            return forward.compiled.hvp(backward.compiled, direction, dist_params_hvp)
        layers, _ = self._parts(params)
        directions, _ = self._parts(direction)
        dist_params, hidden_tangents = self._tangents(params, forward, direction)
        slots, constants, outputs = self._begin(params, dist_params_hvp(dist_params))
        parts = zip(
            forward.features,
            backward.deltas,
            backward.curvatures,
            hidden_tangents,
            outputs,
            strict=True,
        )
        for features, deltas, curvatures, tangents, delta in parts:
            for number in reversed(range(len(layers))):
                _add(slots[number], features[number], delta)
                if number:
                    feature, change = features[number], tangents[number - 1]
                    add_outer(slots[number].weight, change, deltas[number])
                    delta = times(delta, layers[number].weight.mT)
                    delta += times(deltas[number], directions[number].weight.mT)
                    delta = self._through(delta, feature, out=delta)
                    if curvatures:
                        delta.addcmul_(curvatures[number - 1], change)
        return _joined(slots, constants)

    def _tangents(
        self, params: Tensor, forward: Forward, direction: Tensor
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Of dist_params, and part by part of the hidden features."""
        layers, _ = self._parts(params)
        directions, constants = self._parts(direction)
        parts, outputs = [], []
        for features in forward.features:
            change = times(features[0], *directions[0])
            tangents: list[Tensor] = []
            for number in range(1, len(layers)):
                tangents.append(self._through(change, features[number], out=change))
                change = times(features[number], *directions[number])
                change += times(tangents[-1], layers[number].weight)
            outputs.append(change)
            parts.append(tangents)
        if not self.learn_constants:
            constants = torch.zeros_like(constants)
        return append_constants(torch.cat(outputs), constants), parts

    def _parts(self, params: Tensor) -> tuple[list[_Layer], Tensor]:
        """Flat vectors [N, P] as layers and constants [N, C]: views."""
        layers, start = [], 0
        for inputs, outputs in pairwise(self.sizes):
            middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
            weight = params[:, start:middle].view(-1, inputs, outputs)
            layers.append(_Layer(weight, params[:, middle:end]))
            start = end
        return layers, params[:, start:]

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        """The parts of a pass over samples [M, N, F]; one on a GPU and in a graph of torch."""
        if values.is_cuda or torch.compiler.is_compiling():
            return (values,)
        rows: int = max(1, PART // (values.shape[1] * max(self.sizes)))
        return torch.split(values, rows)

    def _begin(
        self, params: Tensor, cotangent: Tensor
    ) -> tuple[list[_Layer], Tensor, tuple[Tensor, ...]]:
        """Layers of zeros, derivatives by the constants, and part by part by the outputs."""
        # NOTE: one tensor per matrix, because torch adds into views of one tensor serially.
        slots = [_Layer(*map(_zeros_like, layer)) for layer in self._parts(params)[0]]
        constants = params.new_zeros(len(params), self.constants)
        outputs = cotangent
        if self.constants:
            outputs = cotangent[..., : -self.constants].contiguous()
            if self.learn_constants:
                constants = cotangent[..., -self.constants :].sum(0)
        return slots, constants, self._split(outputs)

    def _activate(self, value: Tensor) -> Tensor:
        if self.activation == "relu":
            return value.relu_()
        # NOTE: torch's own tanh is ten times slower than its sigmoid on some processors.
        return value.mul_(2).sigmoid_().mul_(2).sub_(1)

    def _through(self, value: Tensor, feature: Tensor, out: Tensor | None = None) -> Tensor:
        """Times the activation's derivative, a function of its output; into `out` or new memory."""
        out = torch.empty_like(value) if out is None else out
        aten = torch.ops.aten
        if self.activation == "relu":
            aten.threshold_backward.grad_input(value, feature, 0, grad_input=out)
        else:
            aten.tanh_backward.grad_input(value, feature, grad_input=out)
        return out


def _zeros_like(value: Tensor) -> Tensor:
    return torch.zeros_like(value, memory_format=torch.contiguous_format)


def _joined(layers: list[_Layer], constants: Tensor) -> Tensor:
    """Back to flat vectors [N, P]."""
    return torch.cat([*(part.flatten(1) for layer in layers for part in layer), constants], 1)


def _add(slot: _Layer, inputs: Tensor, delta: Tensor) -> None:
    """Adds the derivatives by weights and biases, summed over samples."""
    add_outer(slot.weight, inputs, delta)
    slot.bias.add_(delta.sum(0))
