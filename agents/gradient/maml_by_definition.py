"""The definition of adaptation and of MAML's meta-gradient, in plain autograd; only tests run it.

    params[k + 1], state[k + 1] = rule(params[k], gradient[k], loss[k], state[k])
    meta-gradient = d objective(dist[0], ..., dist[K]) / d (initial parameters, rule parameters)

with dist[k] the parameters of the action distributions of phase k.

Autograd keeps the graph of every inner step and runs back through it. That is short to read, slow,
and needs memory for K second-order graphs, so agents use `inner_loop.py` instead, which must agree.

Axes: `N` tasks, `M` samples of each task, `F` features, `P` parameters of a policy, `Q`
meta-parameters, `K` inner steps, `R` parameters of an action distribution.

Source: Finn et al. 2017, arXiv:1703.03400, algorithm 3.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from metarl.agents.gradient.inner_loop import InnerLoop
from metarl.agents.gradient.inner_rules import RuleInputs
from metarl.agents.gradient.outer_loop import MetaProblem, OuterLoss
from metarl.agents.gradient.pg_batch import PGBatch
from metarl.networks.action_heads import append_constants
from metarl.networks.stacked_mlp import StackedMLP


def dist_params_at(network: StackedMLP, params: Tensor, inputs: Tensor) -> Tensor:
    """Of the action distributions, [M, N, R], at inputs [M, N, F] and parameters [N, P]."""
    features, start = inputs, 0
    for number, (before, after) in enumerate(pairwise(network.sizes), start=2):
        weight = params[:, start : start + before * after].view(-1, before, after)
        start += before * after
        features = torch.einsum("mnf,nfg->mng", features, weight) + params[:, start : start + after]
        start += after
        if number < len(network.sizes):
            features = features.tanh() if network.activation == "tanh" else features.relu()
    constants = params[:, start:] if network.learn_constants else params[:, start:].detach()
    return append_constants(features, constants)


def adapted_params(
    inner: InnerLoop,
    meta_params: Tensor,
    batches: Sequence[PGBatch],
    start_noise: Tensor | None = None,
) -> list[Tensor]:
    """Parameters before and after each inner step, K + 1 times [N, P]; differentiable.

    Args:
        inner: networks, rule and loss.
        meta_params: [Q], requiring a gradient.
        batches: of K + 1 phases; the last is not adapted to.
        start_noise: [N, R] of the rule's start.
    """
    initial, rule_params = inner.split(meta_params)
    first, state = inner.start(
        initial.expand(batches[0].valid.shape[1], -1), rule_params, start_noise
    )
    params = [first]
    for step, batch in enumerate(batches[:-1]):
        dist_params = dist_params_at(inner.network, params[-1], batch.inputs)
        loss = inner.estimator(inner.head, dist_params, batch)
        (gradient,) = torch.autograd.grad(loss.sum(), params[-1], create_graph=True)
        if inner.first_order:
            gradient, loss = gradient.detach(), loss.detach()
        inputs = RuleInputs(rule_params, params[-1], gradient, loss, state)
        adapted, state = inner.apply_rule(inputs, step)
        params.append(adapted)
    return params


def dist_params_of_phases(
    inner: InnerLoop,
    meta_params: Tensor,
    batches: Sequence[PGBatch],
    start_noise: Tensor | None = None,
) -> list[Tensor]:
    """Outputs of the policy of each phase, K + 1 times [M, N, R]; differentiable."""
    params = adapted_params(inner, meta_params, batches, start_noise)
    return [
        dist_params_at(inner.network, each, batch.inputs)
        for each, batch in zip(params, batches, strict=True)
    ]


def meta_gradient(
    problem: MetaProblem, objective: OuterLoss, meta_params: Tensor
) -> tuple[float, Tensor]:
    """Value of an objective at meta-parameters [Q], and its gradient [Q]."""
    at = meta_params.detach().clone().requires_grad_()
    dist_params = dist_params_of_phases(problem.inner, at, problem.batches, problem.start_noise)
    loss = objective(problem, dist_params)
    (gradient,) = torch.autograd.grad(loss, at)
    return float(loss.detach()), gradient
