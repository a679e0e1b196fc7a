"""Inner steps and their derivatives: against plain autograd, differences, and each other."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jvp as jvp_by_autograd

from metarl.agents.gradient import maml_by_definition as definition
from metarl.agents.gradient.inner_loop import Adaptation, InnerLoop
from metarl.agents.gradient.inner_rules import (
    GradientDescent,
    InnerRule,
    LearnedRates,
    LearningRateSchedule,
    RuleInputs,
    RuleOutputs,
)
from metarl.agents.gradient.outer_loop import MetaProblem, surrogate_loss
from metarl.agents.gradient.pg_batch import PGBatch
from metarl.errors import ShapeError
from metarl.networks.action_heads import ActionHead
from tests.adaptation_by_definition import (
    Case,
    derivative_by_differences,
    gradient_by_autograd,
    tasks_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")

EXACT = {"rtol": 1e-9, "atol": 1e-11}

CASES = [
    Case(box=box, estimator=estimator, learned_rates=learned, inner_steps=steps)
    for box in (False, True)
    for estimator in ("score", "lvc", "dice", "loaded_dice")
    for learned in (False, True)
    for steps in (1, 2)
] + [
    Case(inner_steps=0),
    Case(box=True, inner_steps=2, learn_constants=False),
    Case(box=True, estimator="lvc", learned_rates=True, inner_steps=2, learn_constants=False),
    Case(inner_steps=2, first_order=True),
    Case(box=True, estimator="dice", learned_rates=True, inner_steps=2, first_order=True),
    Case(inner_steps=2, hidden_sizes=()),
    Case(inner_steps=3, later_lr_scale=0.5, later_lr_decay=0.6),
    Case(box=True, learned_rates=True, inner_steps=2, later_lr_scale=0.5, multi_step_loss=True),
    Case(inner_steps=2, multi_step_loss=True, shared_advantage_scale=True),
    Case(inner_steps=0, multi_step_loss=True, shared_advantage_scale=True),
    Case(box=True, inner_steps=1, hidden_sizes=(3,)),
]


def name(case: Case) -> str:
    changed = [
        f"{field.name}={getattr(case, field.name)}"
        for field in dataclasses.fields(case)
        if getattr(case, field.name) != field.default
    ]
    return " ".join([*changed, type(case).__name__.removesuffix("Case")]).strip() or "plain"


def adapt(case: Case, meta_params: Tensor, batches: list[PGBatch]) -> Adaptation:
    return Adaptation(case.inner(), meta_params, batches)


def meta_gradient(case: Case, meta_params: Tensor, batches: list[PGBatch]) -> tuple[float, Tensor]:
    """Of the adapted policies' return."""
    problem = case.problem(batches)
    return problem.meta_gradient(surrogate_loss, problem.adapt(meta_params))


def directions(size: int, count: int = 5) -> Tensor:
    """Random ones, [count, Q]."""
    return torch.randn(count, size, generator=torch.manual_seed(0)).double()


def cotangents(here: Adaptation) -> list[Tensor]:
    """Random derivatives by the distributions' parameters in every phase, [M, N, R] each."""
    return [
        torch.randn(dist_params.shape, generator=torch.manual_seed(1)).double()
        for dist_params in here.dist_params
    ]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_steps_and_meta_gradient_are_those_of_plain_autograd(case):
    meta_params, batches = case.meta_params(), case.batches()
    params = adapt(case, meta_params, batches).params
    torch.testing.assert_close(params, case.adapted(meta_params, batches), **EXACT)
    if case.inner_steps:
        assert (params - meta_params[: case.size]).norm() > 0.1  # the steps have an effect

    loss, gradient = meta_gradient(case, meta_params, batches)
    expected, by_hand = gradient_by_autograd(
        lambda at: case.expected_return(at, batches), meta_params
    )
    assert loss == pytest.approx(expected)
    torch.testing.assert_close(gradient, by_hand, **EXACT)
    # The gradient reaches the initial parameters and the rates.
    assert all(part.norm() > 1e-3 for part in gradient.split(case.size))


# Differences of DiCE's gradient miss the terms that DiCE adds at its own parameters only.
DIFFERENTIABLE = [case for case in CASES if case.estimator in ("score", "lvc")]


@pytest.mark.parametrize(
    "case", [case for case in DIFFERENTIABLE if not case.first_order], ids=name
)
def test_the_meta_gradient_is_that_of_central_differences(case):
    meta_params, batches = case.meta_params(), case.batches()
    problem = case.problem(batches)

    def objective(at: Tensor) -> Tensor:
        return surrogate_loss(problem, problem.adapt(at).dist_params)

    _, gradient = meta_gradient(case, meta_params, batches)
    changes = directions(len(meta_params))
    if not case.learn_constants:  # the agent leaves this derivative out
        constants = slice(case.size - 2, case.size)
        assert not gradient[constants].any()
        changes[:, constants] = 0
    found = [derivative_by_differences(objective, meta_params, change) for change in changes]
    torch.testing.assert_close(changes @ gradient, torch.stack(found), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "case",
    [case for case in DIFFERENTIABLE if not case.first_order and case.learn_constants],
    ids=name,
)
def test_forward_mode_is_the_derivative_of_the_outputs_of_every_phase(case):
    meta_params, batches = case.meta_params(), case.batches()
    here = adapt(case, meta_params, batches)
    phases = range(case.inner_steps + 1)
    for direction in directions(len(meta_params)):
        tangents = here.jvp(direction, phases)
        for phase in phases:
            found = derivative_by_differences(
                lambda at, k=phase: adapt(case, at, batches).dist_params[k], meta_params, direction
            )
            torch.testing.assert_close(tangents[phase], found, rtol=1e-6, atol=1e-8)
        (last,) = here.jvp(direction, [case.inner_steps])
        assert torch.equal(last, tangents[-1])


@pytest.mark.parametrize("case", CASES, ids=name)
def test_reverse_mode_is_the_transpose_of_forward_mode(case):
    meta_params, batches = case.meta_params(), case.batches()
    here = adapt(case, meta_params, batches)
    given = cotangents(here)
    gradient = here.meta_gradient(given)
    for direction in directions(len(meta_params)):
        tangents = here.jvp(direction, range(case.inner_steps + 1))
        forward = sum((one * two).sum() for one, two in zip(given, tangents, strict=True))
        torch.testing.assert_close(forward, gradient @ direction, **EXACT)


@dataclass(frozen=True)
class Momentum(InnerRule):
    """Momentum with learned decay and rate, whose step depends on all inputs of a rule.

    It writes no derivative.
    """

    state_of_params: bool = True

    def initial(self, size, generator):
        return torch.tensor([0.4, 0.6])

    def start(self, initial, rule_params, noise):
        start = initial if self.state_of_params else torch.zeros_like(initial)
        return RuleOutputs(initial, (0.3 * start.tanh(), start.square().mean(1)))

    def apply(self, inputs, step):
        decay, rate = inputs.rule_params
        velocity, level = inputs.state
        velocity = decay * velocity + inputs.gradient
        level = 0.5 * level + inputs.loss.tanh()
        change = rate / (step + 1) * (1 + level.sigmoid()).unsqueeze(1) * velocity
        return RuleOutputs(0.95 * inputs.params - change, (velocity, level))


@dataclass(frozen=True, kw_only=True)
class MomentumCase(Case):
    """A case under the rule above."""

    state_of_params: bool = True

    def inner(self) -> InnerLoop:
        return dataclasses.replace(super().inner(), rule=Momentum(self.state_of_params))

    def meta_params(self, seed: int = 0) -> Tensor:
        rule_params = Momentum().initial(self.size, torch.Generator()).double()
        return torch.cat((super().meta_params(seed), rule_params))


MOMENTUM = [
    MomentumCase(inner_steps=steps, state_of_params=state, first_order=first_order)
    for steps in (0, 1, 2, 3)
    for state in (False, True)
    for first_order in (False, True)
] + [
    MomentumCase(inner_steps=2, box=True, estimator="lvc"),
    MomentumCase(inner_steps=2, box=True, learn_constants=False),
    MomentumCase(inner_steps=2, estimator="dice", multi_step_loss=True),
    MomentumCase(inner_steps=2, box=True, estimator="loaded_dice", first_order=True),
]


@pytest.mark.parametrize("case", CASES + MOMENTUM, ids=name)
def test_adaptation_and_its_derivatives_are_those_of_the_definition(case):
    meta_params, batches = case.meta_params(), case.batches()
    inner, problem = case.inner(), case.problem(batches)
    here = problem.adapt(meta_params)
    at = meta_params.clone().requires_grad_()
    params = definition.adapted_params(inner, at, batches)
    torch.testing.assert_close(here.params, params[-1].detach(), **EXACT)

    loss, gradient = problem.meta_gradient(surrogate_loss, here)
    expected, by_definition = definition.meta_gradient(problem, surrogate_loss, meta_params)
    assert loss == pytest.approx(expected)
    torch.testing.assert_close(gradient, by_definition, **EXACT)

    dist_params, given = definition.dist_params_of_phases(inner, at, batches), cotangents(here)
    (by_definition,) = torch.autograd.grad(dist_params, at, given)
    torch.testing.assert_close(here.meta_gradient(given), by_definition, **EXACT)

    for direction in directions(len(meta_params), 2):
        _, expected = jvp_by_autograd(
            lambda at: tuple(definition.dist_params_of_phases(inner, at, batches)),
            meta_params,
            direction,
        )
        tangents = here.jvp(direction, range(case.inner_steps + 1))
        torch.testing.assert_close(tangents, list(expected), **EXACT)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in MOMENTUM
        if not case.first_order and case.learn_constants and case.estimator in ("score", "lvc")
    ],
    ids=name,
)
def test_derivatives_of_a_rule_that_writes_none_are_those_of_central_differences(case):
    meta_params, batches = case.meta_params(), case.batches()
    problem = case.problem(batches)
    here = problem.adapt(meta_params)
    _, gradient = problem.meta_gradient(surrogate_loss, here)
    decay, rate = gradient[case.size :].tolist()
    assert bool(rate) == (case.inner_steps > 0)
    assert bool(decay) == (case.inner_steps > (0 if case.state_of_params else 1))
    for direction in directions(len(meta_params)):
        found = derivative_by_differences(
            lambda at: surrogate_loss(problem, problem.adapt(at).dist_params),
            meta_params,
            direction,
        )
        torch.testing.assert_close(gradient @ direction, found, rtol=1e-6, atol=1e-8)
        tangents = here.jvp(direction, range(case.inner_steps + 1))
        for phase, tangent in enumerate(tangents):
            found = derivative_by_differences(
                lambda at, k=phase: problem.adapt(at).dist_params[k], meta_params, direction
            )
            torch.testing.assert_close(tangent, found, rtol=1e-6, atol=1e-8)


def test_the_state_of_a_rule_reaches_the_meta_gradient():
    gradients = []
    for state_of_params in (False, True):
        case = MomentumCase(inner_steps=2, state_of_params=state_of_params)
        problem = case.problem(case.batches())
        here = problem.adapt(case.meta_params())
        gradients.append(problem.meta_gradient(surrogate_loss, here)[1])
    assert not torch.allclose(*gradients, rtol=0.01)


SCHEDULE = LearningRateSchedule(later=0.4, decay=0.5)


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize(
    "rule", [GradientDescent(0.7, SCHEDULE), LearnedRates(0.7, 2.0, SCHEDULE)], ids=["one", "many"]
)
def test_handwritten_derivatives_of_a_rule_are_those_of_torch(rule, step):
    tasks, size = 3, 7
    generator = torch.Generator().manual_seed(0)

    def numbers() -> RuleInputs:
        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        rule_params = normal(len(rule.initial(size, generator)))
        return RuleInputs(rule_params, normal(tasks, size), normal(tasks, size), normal(tasks), ())

    inputs, tangents = numbers(), numbers()
    torch.testing.assert_close(
        rule.jvp(inputs, tangents, step), InnerRule.jvp(rule, inputs, tangents, step), **EXACT
    )
    outputs = RuleOutputs(numbers().params, ())
    torch.testing.assert_close(
        rule.vjp(inputs, outputs, step), InnerRule.vjp(rule, inputs, outputs, step), **EXACT
    )


@pytest.mark.parametrize(
    "case", [Case(inner_steps=2), Case(box=True, learned_rates=True)], ids=name
)
def test_an_objective_may_depend_on_every_phase(case):
    meta_params, batches = case.meta_params(), case.batches()
    problem = case.problem(batches)

    def total(dist_params: list[Tensor]) -> Tensor:
        return sum((k + 1) * each.sin().mean() for k, each in enumerate(dist_params))

    def by_hand(at: Tensor) -> Tensor:
        tasks = [case.phases(at, batches, task) for task in range(case.num_tasks)]
        dist_params = [
            torch.stack(
                [case.dist_params(params[k], data.inputs[:, n]) for n, params in enumerate(tasks)]
            )
            for k, data in enumerate(batches)
        ]
        return total(dist_params)

    loss, gradient = problem.meta_gradient(
        lambda _, dist_params: total(dist_params), problem.adapt(meta_params)
    )
    expected, derivative = gradient_by_autograd(by_hand, meta_params)
    assert loss == pytest.approx(expected)
    torch.testing.assert_close(gradient, derivative, **EXACT)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("box", [False, True])
def test_with_a_rate_of_zero_the_meta_gradient_is_the_plain_policy_gradient(box, learned):
    case = Case(box=box, learned_rates=learned, inner_steps=2)
    meta_params, batches = case.meta_params(), case.batches()
    if learned:
        meta_params[case.size :] = 0
    else:
        case = dataclasses.replace(case, rate=0.0)
    _, gradient = meta_gradient(case, meta_params, batches)
    plain = Case(box=box, inner_steps=0)
    start = meta_params[: case.size]
    _, by_hand = gradient_by_autograd(lambda at: plain.expected_return(at, batches[-1:]), start)
    torch.testing.assert_close(gradient[: case.size], by_hand, **EXACT)
    assert torch.equal(adapt(case, meta_params, batches).params, start.expand(3, -1))
    if learned:  # a rate of zero has a gradient
        assert (gradient[case.size :] != 0).all()


class LinearHead(ActionHead):
    """A made-up log-probability that is linear in the distribution's parameters."""

    outputs, constants = 2, 0

    def initial_constants(self):
        return torch.zeros(0)

    def sample(self, dist_params, generator):
        raise NotImplementedError

    def evaluate(self, dist_params, action):
        return (dist_params * action).sum(-1), torch.zeros(dist_params.shape[:-1])

    def supervised_loss(self, dist_params, target):
        raise NotImplementedError

    def kl_divergence(self, old, new):
        raise NotImplementedError

    def mode(self, dist_params):
        raise NotImplementedError

    def decode(self, features):
        raise NotImplementedError

    def encode(self, action):
        raise NotImplementedError


@pytest.mark.parametrize(("hidden_sizes", "curved"), [((), False), ((4,), True)])
def test_first_order_is_exact_only_where_the_inner_loss_has_no_curvature(hidden_sizes, curved):
    # Linear network, linear loss: the Hessian is zero. With a hidden layer it is not.
    case = Case(box=True, hidden_sizes=hidden_sizes, inner_steps=2)
    batches = case.batches()
    exact = case.inner()
    exact = dataclasses.replace(
        exact, head=LinearHead(), network=dataclasses.replace(exact.network, constants=0)
    )
    meta_params = 0.5 * torch.randn(exact.network.size, generator=torch.manual_seed(0)).double()
    gradients = []
    for inner in (exact, dataclasses.replace(exact, first_order=True)):
        problem = MetaProblem(inner, batches)
        gradients += [problem.meta_gradient(surrogate_loss, problem.adapt(meta_params))[1]]
    difference = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert (difference > 1e-2) == curved
    if not curved:
        torch.testing.assert_close(*gradients, **EXACT)


@pytest.mark.parametrize("estimator", ["score", "lvc", "dice", "loaded_dice"])
def test_estimators_agree_on_the_step_and_differ_in_its_derivative(estimator):
    plain = Case()
    meta_params, batches = plain.meta_params(), plain.batches()
    # The acting policy is the learning policy, as in training.
    first = batches[0]
    log_prob = torch.stack([plain.log_prob(meta_params, first, task) for task in range(3)], 1)
    batches[0] = dataclasses.replace(first, log_prob=log_prob)
    other = dataclasses.replace(plain, estimator=estimator)
    same_step = torch.allclose(
        adapt(plain, meta_params, batches).params, adapt(other, meta_params, batches).params
    )
    same_gradient = torch.allclose(
        meta_gradient(plain, meta_params, batches)[1], meta_gradient(other, meta_params, batches)[1]
    )
    # DiCE reads rewards where the others read advantages: here, unrelated numbers.
    assert same_step == (estimator != "dice")
    assert same_gradient == (estimator == "score")


@pytest.mark.parametrize(
    "case", [Case(inner_steps=2), Case(box=True, learned_rates=True), MOMENTUM[-4]], ids=name
)
def test_permuting_tasks_permutes_adapted_parameters_and_leaves_the_meta_gradient(case):
    meta_params, batches, order = case.meta_params(), case.batches(), [2, 0, 1]
    permuted = tasks_of(batches, order)
    straight, other = (adapt(case, meta_params, each) for each in (batches, permuted))
    torch.testing.assert_close(straight.params[order], other.params, **EXACT)
    assert not torch.allclose(straight.params, other.params)
    one, two = (meta_gradient(case, meta_params, each) for each in (batches, permuted))
    torch.testing.assert_close(one[1], two[1], **EXACT)


@pytest.mark.parametrize(
    "case", [Case(inner_steps=2), Case(box=True, learned_rates=True), MOMENTUM[-4]], ids=name
)
def test_tasks_in_one_batch_adapt_as_each_would_alone(case):
    meta_params, batches = case.meta_params(), case.batches()
    together = adapt(case, meta_params, batches).params
    losses, gradients = [], []
    for task in range(3):
        alone = tasks_of(batches, [task])
        params = adapt(case, meta_params, alone).params
        torch.testing.assert_close(params[0], together[task], **EXACT)
        loss, gradient = meta_gradient(case, meta_params, alone)
        losses.append(loss)
        gradients.append(gradient)
    loss, gradient = meta_gradient(case, meta_params, batches)
    assert loss == pytest.approx(sum(losses) / 3)
    torch.testing.assert_close(gradient, torch.stack(gradients).mean(0), **EXACT)


@pytest.mark.parametrize("box", [False, True])
def test_equal_rates_are_one_rate(box):
    one = Case(box=box, inner_steps=2)
    many = dataclasses.replace(one, learned_rates=True)
    batches, start = one.batches(), one.meta_params()
    meta_params = torch.cat((start, torch.full((one.size,), one.rate, dtype=torch.float64)))
    torch.testing.assert_close(
        adapt(many, meta_params, batches).params, adapt(one, start, batches).params, **EXACT
    )
    _, gradient = meta_gradient(many, meta_params, batches)
    torch.testing.assert_close(gradient[: one.size], meta_gradient(one, start, batches)[1], **EXACT)
    unequal = meta_params.clone()
    unequal[one.size] *= 2
    _, other = meta_gradient(many, unequal, batches)
    assert not torch.allclose(other[: one.size], gradient[: one.size])


def test_learned_rates_are_kept_between_zero_and_their_maximum():
    rule = LearnedRates(0.5, 2.0)
    assert rule.initial(3, torch.Generator()).tolist() == [0.5, 0.5, 0.5]
    assert rule.project(torch.tensor([-1.0, 0.0, 0.7, 2.0, 9.0])).tolist() == pytest.approx(
        [0.0, 0.0, 0.7, 2.0, 2.0]
    )
    plain = GradientDescent(0.5)
    assert plain.project(plain.initial(3, torch.Generator())).shape == (0,)


def test_all_steps_but_the_first_are_scaled():
    case = Case(later_lr_scale=0.25, later_lr_decay=0.5)
    inner, batches, meta_params = case.inner(), case.batches(), case.meta_params()
    params = meta_params.expand(3, -1).contiguous()
    inputs = inner.inputs(inner.loss_at(params, batches[0]), torch.zeros(0), ())
    first, second, third = (inner.rule.apply(inputs, step).params - params for step in range(3))
    torch.testing.assert_close(second, 0.25 * first, **EXACT)
    torch.testing.assert_close(third, 0.125 * first, **EXACT)
    assert first.norm() > 0.1


def test_on_other_experience_the_parameters_are_equal_and_the_derivatives_are_of_that_experience():
    case = Case(box=True, inner_steps=2)
    meta_params, batches, others = case.meta_params(), case.batches(), case.batches(seed=2)
    here, inner = adapt(case, meta_params, batches), case.inner()
    there = here.on(others)
    assert torch.equal(here.params, there.params)
    (direction, *_) = directions(len(meta_params))
    change = direction.expand(3, -1).contiguous()
    for loss, data in zip(here.losses, others, strict=False):
        change = change - case.rate * inner.loss_at(loss.params, data).hvp(change)
    last = inner.network.forward(here.params, others[-1].inputs)
    expected = inner.network.tangent(here.params, last, change)
    torch.testing.assert_close(there.jvp(direction, [2])[0], expected, **EXACT)
    (before,), (again,) = (each.jvp(direction, [2]) for each in (here, here.on(batches)))
    assert torch.equal(before, again)


@pytest.mark.parametrize(
    "case", [Case(inner_steps=2, box=True), MomentumCase(inner_steps=3)], ids=name
)
def test_known_inner_losses_change_nothing(case, monkeypatch):
    meta_params, batches = case.meta_params(), case.batches()
    problem = case.problem(batches)
    computed = problem.adapt(meta_params)
    problem = dataclasses.replace(problem, known=computed.losses)
    calls, given = [], cotangents(computed)
    monkeypatch.setattr(InnerLoop, "loss_at", lambda *args: calls.append(args))
    here = problem.adapt_here(meta_params)
    assert not calls
    assert torch.equal(here.params, computed.params)
    assert torch.equal(here.meta_gradient(given), computed.meta_gradient(given))


class WrongRule(InnerRule):
    """Returns what its contract excludes."""

    def __init__(self, outputs):
        self.outputs = outputs

    def apply(self, inputs, step):
        return self.outputs(inputs.params)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (lambda params: (params, ()), r"must return RuleOutputs\(params, state\); got \("),
        (lambda params: RuleOutputs(params[:, 1:], ()), r"must return parameters \[N, P\] = "),
        (lambda params: RuleOutputs(params, (params,)), r"a state of the axes .*\[\]; got \[\["),
        (lambda params: RuleOutputs(params, [params]), "got a list, not a tuple of tensors"),
        (lambda params: RuleOutputs(params, (1,)), r"got \['int'\]"),
    ],
)
def test_a_rule_that_returns_something_else_is_refused(outputs, message):
    case = Case()
    inner = dataclasses.replace(case.inner(), rule=WrongRule(outputs))
    with pytest.raises(ShapeError, match=message):
        Adaptation(inner, case.meta_params(), case.batches())
