"""PLATIPUS against its equations, the definition of the meta-gradient, and MAML."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as divergence_by_torch

from metarl.agents.gradient import maml_by_definition as definition
from metarl.agents.gradient.inner_loop import InnerLoop
from metarl.agents.gradient.inner_rules import LearningRateSchedule, RuleInputs
from metarl.agents.gradient.outer_loop import MetaProblem, surrogate_loss
from metarl.agents.gradient.pg_batch import PGBatch
from metarl.agents.gradient.platipus import PLATIPUSConfig, SampledHypotheses, kl_divergence
from metarl.errors import ConfigError
from tests.adaptation_by_definition import (
    Case,
    assert_products_are_adjoint_to_the_gradient,
    derivative_by_differences,
)
from tests.gradient_rollouts import BANDIT, WALK, adapt, build, collect_phases, start, train

EXACT = {"rtol": 1e-9, "atol": 1e-11}


def rule(**options: object) -> SampledHypotheses:
    given = {
        "hypotheses": 2,
        "inner_lr": 0.3,
        "shared_lr": 0.4,
        "initial_spread": 0.2,
        "posterior_share": 0.5,
        "kl_coef": 0.01,
    }
    return SampledHypotheses(**given | options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlatipusCase(Case):
    """Two hypotheses in each of two tasks, with deviations of which none are equal."""

    num_tasks: int = 4

    def inner(self) -> InnerLoop:
        schedule = LearningRateSchedule(later=self.later_lr_scale)
        return dataclasses.replace(super().inner(), rule=rule(schedule=schedule))

    def meta_params(self, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed + 1)
        log_deviations = 0.3 * torch.randn(2 * self.size, generator=generator).double() - 1.5
        shared_lr = torch.tensor([0.4]).double()
        return torch.cat((super().meta_params(seed), log_deviations, shared_lr.log()))

    def problem(self, batches: list[PGBatch]) -> MetaProblem:
        generator = torch.Generator().manual_seed(9)
        noise = torch.randn(self.num_tasks, self.size, generator=generator).double()
        return dataclasses.replace(super().problem(batches), start_noise=noise)


CASES = [
    PlatipusCase(inner_steps=1),
    PlatipusCase(inner_steps=3, box=True, estimator="lvc"),
    PlatipusCase(inner_steps=2, multi_step_loss=True, later_lr_scale=0.4),
    PlatipusCase(inner_steps=1, box=True, first_order=True),
    PlatipusCase(inner_steps=1, box=True, learn_constants=False),
]


def penalty_by_definition(case: PlatipusCase, meta_params: Tensor, at: Tensor, batches) -> Tensor:
    """KL(q || p) of torch, for the gradients at `meta_params` and the Gaussians of `at`."""
    problem = case.problem(batches)
    gradient = problem.adapt(meta_params).losses[0].gradient
    size = case.size
    prior, posterior, shared_lr = at[size : 2 * size], at[2 * size : 3 * size], at[-1].exp()
    total = torch.zeros(()).double()
    for task in range(case.num_tasks // 2):
        mean = -shared_lr * (gradient[2 * task] + gradient[2 * task + 1]) / 2
        q = Independent(Normal(mean, posterior.exp()), 1)
        p = Independent(Normal(torch.zeros(size).double(), prior.exp()), 1)
        total = total + divergence_by_torch(q, p)
    return 0.01 * total / (case.num_tasks // 2)


@pytest.mark.parametrize("case", CASES)
def test_adaptation_and_meta_gradient_are_those_of_plain_autograd(case):
    meta_params, batches = case.meta_params(), case.batches()
    problem = case.problem(batches)
    here = problem.adapt(meta_params)
    at = meta_params.clone().requires_grad_()
    params = definition.adapted_params(case.inner(), at, batches, problem.start_noise)
    torch.testing.assert_close(here.params, params[-1].detach(), **EXACT)
    loss, gradient = problem.meta_gradient(surrogate_loss, here)
    assert loss == pytest.approx(problem.value(surrogate_loss, here))
    expected, by_definition = definition.meta_gradient(problem, surrogate_loss, meta_params)
    penalty = penalty_by_definition(case, meta_params, at, batches)
    (of_penalty,) = torch.autograd.grad(penalty, at)
    assert loss == pytest.approx(expected + float(penalty.detach()))
    torch.testing.assert_close(gradient, by_definition + of_penalty, **EXACT)
    learned = gradient if case.learn_constants else gradient[: case.size - 2]
    assert float(learned.abs().min()) > 1e-12  # of every meta-parameter
    assert float(gradient[-1].abs()) > 1e-6
    assert_products_are_adjoint_to_the_gradient(here, meta_params)


def test_the_meta_gradient_is_the_derivative_by_the_deviations_of_the_prior():
    case = PlatipusCase(inner_steps=1, box=True)
    meta_params, batches = case.meta_params(), case.batches()
    problem = dataclasses.replace(
        case.problem(batches), inner=dataclasses.replace(case.inner(), rule=rule(kl_coef=0.0))
    )
    direction = torch.zeros_like(meta_params)
    direction[case.size : 2 * case.size] = 1.0
    _, gradient = problem.meta_gradient(surrogate_loss, problem.adapt(meta_params))
    found = derivative_by_differences(
        lambda at: surrogate_loss(problem, problem.adapt(at).dist_params), meta_params, direction
    )
    torch.testing.assert_close(gradient @ direction, found, rtol=1e-6, atol=1e-8)


def test_deviations_of_actions_that_are_not_learned_are_the_same_in_all_hypotheses():
    case = PlatipusCase(inner_steps=1, box=True, learn_constants=False)
    meta_params, batches = case.meta_params(), case.batches()
    here = case.problem(batches).adapt(meta_params)
    fixed = slice(case.size - 2, case.size)
    assert torch.equal(here.params[:, fixed], meta_params[fixed].expand(case.num_tasks, -1))
    assert here.params[:, : case.size - 2].std(0).min() > 0.0


def test_a_first_step_is_the_equation_of_the_module():
    generator = torch.Generator().manual_seed(0)
    initial, noise, gradient = torch.randn(3, 4, 5, generator=generator).double()
    initial = initial[:1].expand(4, -1)
    weights = torch.randn(11, generator=generator).double()
    hypotheses = rule()
    start = hypotheses.start(initial, weights, noise)
    inputs = RuleInputs(weights, start.params, gradient, torch.zeros(4), start.state)
    found = hypotheses.apply(inputs, 0).params
    for n in range(4):
        first = 2 * (n // 2)
        for p in range(5):
            sigma, tau = float(weights[p].exp()), float(weights[5 + p].exp())
            epsilon, mu = float(noise[n, p]), float(initial[0, p])
            assert float(start.params[n, p]) == pytest.approx(mu + sigma * epsilon)
            mean = float(gradient[first, p] + gradient[first + 1, p]) / 2
            posterior = mu - float(weights[10].exp()) * mean + tau * epsilon
            expected = posterior - 0.3 * float(gradient[n, p])
            assert float(found[n, p]) == pytest.approx(expected)
    later = hypotheses.apply(inputs, 1).params  # no change of the deviations
    torch.testing.assert_close(
        later - start.params,
        found - start.params - ((weights[5:10].exp() - weights[:5].exp()) * noise),
    )


def test_divergence_of_equal_gaussians_is_zero_and_of_others_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(3, 4, generator=generator).double()
    prior, posterior = torch.randn(2, 4, generator=generator).double()
    q = Independent(Normal(shift, posterior.exp()), 1)
    p = Independent(Normal(torch.zeros(4).double(), prior.exp()), 1)
    found = kl_divergence(shift, posterior, prior)
    torch.testing.assert_close(found, divergence_by_torch(q, p))
    zero = kl_divergence(torch.zeros_like(shift), prior, prior)
    torch.testing.assert_close(zero, torch.zeros(3).double())


NO_VARIANCE = {"initial_spread": 0.0, "kl_coef": 0.0}


@pytest.mark.parametrize("family", [BANDIT, WALK])
@pytest.mark.parametrize(
    "options",
    [
        {"hypotheses": 1, "inner_lr": 0.5, "shared_lr": 0.0},
        # All hypotheses are the same, and share all experience.
        {"hypotheses": 4, "inner_lr": 0.0, "shared_lr": 0.5},
    ],
)
def test_with_variance_0_it_is_maml(family, options):
    found = build("platipus", family, **NO_VARIANCE, **options)
    maml = build("maml", family, inner_lr=0.5)
    found._inner = dataclasses.replace(found._inner, rule=_FixedRate(**vars(found._inner.rule)))
    train(found, family, range(2))
    train(maml, family, range(2))
    size = len(maml.state()["meta_params"])
    torch.testing.assert_close(
        found.state()["meta_params"][:size], maml.state()["meta_params"], rtol=1e-3, atol=1e-4
    )
    moved = maml.state()["meta_params"] - build("maml", family).state()["meta_params"]
    assert moved.abs().max() > 0.01
    before = start(found)
    phase = collect_phases(found, family).phases[0]
    after = adapt(found, before, phase.trajectory).params.unflatten(0, (4, -1))
    expected = adapt(maml, start(maml), phase.trajectory).params
    torch.testing.assert_close(after, expected.unsqueeze(1).expand_as(after), rtol=1e-3, atol=1e-4)


class _FixedRate(SampledHypotheses):
    """The shared rate is not learned, as that of MAML is not."""

    def apply(self, inputs, step):
        return super().apply(inputs._replace(rule_params=inputs.rule_params.detach()), step)


def test_hypotheses_are_sampled_from_the_prior_and_act_in_their_share_of_the_rollouts():
    agent = build("platipus", WALK, hypotheses=4, initial_spread=0.3)
    policy = start(agent, 50)
    params = policy.params.unflatten(0, (50, 4))
    size = params.shape[-1]
    deviations = agent.state()["meta_params"][size:-1].exp()
    torch.testing.assert_close(deviations[:size], torch.full((size,), 0.3))
    torch.testing.assert_close(deviations[size:], torch.full((size,), 0.09))
    mean = agent.state()["meta_params"][:size]
    torch.testing.assert_close(params.mean((0, 1)), mean, rtol=0, atol=0.08)
    assert float((params - mean).std()) == pytest.approx(0.3, abs=0.01)
    assert params.std(1).min() > 0.01
    # Both rollouts of a hypothesis begin with the same distribution, and no others.
    phases = collect_phases(agent, WALK).phases
    batch = agent._batch(phases[0].trajectory)
    outputs = agent._network.outputs(phases[0].policy.params, batch.inputs)
    assert outputs.shape[1] == 16
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0, 0], outputs[0, 1])


def test_all_experience_of_a_task_shifts_all_of_its_hypotheses():
    options = {"hypotheses": 2, "inner_lr": 0.0, "shared_lr": 0.5, "posterior_share": 1.0}
    agent = build("platipus", WALK, **options)
    phase = collect_phases(agent, WALK).phases[0]
    policy, reward = phase.policy, phase.trajectory.reward.clone()
    shift = adapt(agent, policy, phase.trajectory).params - policy.params
    torch.testing.assert_close(shift[0::2], shift[1::2])
    reward[:, 0, 4:] *= torch.rand(4, generator=torch.Generator().manual_seed(0))
    changed = dataclasses.replace(phase.trajectory, reward=reward)
    other = adapt(agent, policy, changed).params - policy.params
    assert not torch.allclose(other[0], shift[0])  # the second hypothesis moved the first
    torch.testing.assert_close(other[2:], shift[2:])  # and none of another task


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hypotheses": 3}, "rollouts_per_task=20 does not divide into hypotheses=3 .remainder 2"),
        ({"hypotheses": 0}, "hypotheses=0 must"),
        ({"initial_spread": 0.0}, "initial_spread=0 makes the prior a point, so kl_coef=1e-05"),
        ({"posterior_share": 0.0}, "posterior_share=0.0 must"),
        ({"initial_spread": -1.0}, "initial_spread=-1.0 must"),
        ({"kl_coef": float("nan")}, "kl_coef=nan of PLATIPUSConfig must be a number"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PLATIPUSConfig(**options)
