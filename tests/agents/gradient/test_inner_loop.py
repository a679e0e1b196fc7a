"""Inner steps and their derivatives: against plain autograd, differences, and each other."""

import dataclasses

import pytest
import torch
from torch import Tensor

from metarl.agents.gradient.inner_loop import Adaptation, FixedRate, LearnedRates
from metarl.agents.gradient.outer_loop import MetaProblem, expected_return
from metarl.agents.gradient.pg_batch import PGBatch
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
    Case(box=box, estimator=estimator, learnt_rates=learnt, inner_steps=steps)
    for box in (False, True)
    for estimator in ("score", "lvc", "dice", "loaded_dice")
    for learnt in (False, True)
    for steps in (1, 2)
] + [
    Case(inner_steps=0),
    Case(box=True, inner_steps=2, learn_constants=False),
    Case(box=True, estimator="lvc", learnt_rates=True, inner_steps=2, learn_constants=False),
    Case(inner_steps=2, first_order=True),
    Case(box=True, estimator="dice", learnt_rates=True, inner_steps=2, first_order=True),
    Case(inner_steps=2, hidden_sizes=()),
    Case(inner_steps=3, later_lr_scale=0.5, later_lr_decay=0.6),
    Case(box=True, learnt_rates=True, inner_steps=2, later_lr_scale=0.5, multi_step_loss=True),
    Case(inner_steps=2, multi_step_loss=True, shared_advantage_scale=True),
    Case(inner_steps=0, multi_step_loss=True, shared_advantage_scale=True),
    Case(box=True, inner_steps=1, hidden_sizes=(3,)),
]


def name(case: Case) -> str:
    changed = [
        f"{field.name}={getattr(case, field.name)}"
        for field in dataclasses.fields(Case)
        if getattr(case, field.name) != field.default
    ]
    return " ".join(changed) or "plain"


def adapt(case: Case, vector: Tensor, lessons: list[PGBatch]) -> Adaptation:
    return Adaptation(case.problem(), vector, lessons)


def meta_gradient(case: Case, vector: Tensor, lessons: list[PGBatch]) -> tuple[float, Tensor]:
    """Of the adapted policies' return."""
    problem = case.meta_problem(lessons)
    return problem.differentiated(expected_return, problem.adapt(vector))


def directions(case: Case) -> Tensor:
    """Some random ones, [5, Q]."""
    return torch.randn(5, len(case.vector()), generator=torch.manual_seed(0)).double()


@pytest.mark.parametrize("case", CASES, ids=name)
def test_steps_and_meta_gradient_are_those_of_plain_autograd(case):
    vector, lessons = case.vector(), case.lessons()
    params = adapt(case, vector, lessons).params
    torch.testing.assert_close(params, case.adapted(vector, lessons), **EXACT)
    if case.inner_steps:
        assert (params - vector[: case.size]).norm() > 0.1  # there was something to differentiate

    loss, gradient = meta_gradient(case, vector, lessons)
    wanted, by_hand = gradient_by_autograd(lambda at: case.expected_return(at, lessons), vector)
    assert loss == pytest.approx(wanted)
    torch.testing.assert_close(gradient, by_hand, **EXACT)
    # Each block of the meta-parameters counts, the rates too.
    assert all(part.norm() > 1e-3 for part in gradient.split(case.size))


# The gradient of DiCE is right at its own point only: differences of it miss what DiCE adds.
DIFFERENTIABLE = [case for case in CASES if case.estimator in ("score", "lvc")]


@pytest.mark.parametrize(
    "case", [case for case in DIFFERENTIABLE if not case.first_order], ids=name
)
def test_the_meta_gradient_is_that_of_central_differences(case):
    vector, lessons = case.vector(), case.lessons()
    problem = case.meta_problem(lessons)

    def objective(at: Tensor) -> Tensor:
        return expected_return(problem, problem.adapt(at).raw)

    _, gradient = meta_gradient(case, vector, lessons)
    changes = directions(case)
    if not case.learn_constants:  # a derivative that the learner is told to leave out
        constants = slice(case.size - 2, case.size)
        assert not gradient[constants].any()
        changes[:, constants] = 0
    found = [derivative_by_differences(objective, vector, change) for change in changes]
    torch.testing.assert_close(changes @ gradient, torch.stack(found), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "case",
    [case for case in DIFFERENTIABLE if not case.first_order and case.learn_constants],
    ids=name,
)
def test_pushing_forward_is_the_derivative_of_what_the_adapted_policies_say(case):
    vector, lessons = case.vector(), case.lessons()
    here = adapt(case, vector, lessons)
    phases = range(case.inner_steps + 1)
    for direction in directions(case):
        pushed = here.jvp(direction, phases)
        for phase in phases:
            found = derivative_by_differences(
                lambda at, k=phase: adapt(case, at, lessons).raw[k], vector, direction
            )
            torch.testing.assert_close(pushed[phase], found, rtol=1e-6, atol=1e-8)
        (last,) = here.jvp(direction, [case.inner_steps])
        assert torch.equal(last, pushed[-1])


@pytest.mark.parametrize("case", CASES, ids=name)
def test_pulling_back_is_the_transpose_of_pushing_forward(case):
    vector, lessons = case.vector(), case.lessons()
    here = adapt(case, vector, lessons)
    phases = range(case.inner_steps + 1)
    seen = [torch.randn(each.shape, generator=torch.manual_seed(1)).double() for each in here.raw]
    back = here.vjp(seen)
    for direction in directions(case):
        pushed = here.jvp(direction, phases)
        forward = sum((one * two).sum() for one, two in zip(seen, pushed, strict=True))
        torch.testing.assert_close(forward, back @ direction, **EXACT)


@pytest.mark.parametrize("case", [Case(inner_steps=2), Case(box=True, learnt_rates=True)], ids=name)
def test_an_objective_may_look_at_every_phase(case):
    vector, lessons = case.vector(), case.lessons()
    problem = case.meta_problem(lessons)

    def look(raw: list[Tensor]) -> Tensor:
        return sum((k + 1) * each.sin().mean() for k, each in enumerate(raw))

    def by_hand(at: Tensor) -> Tensor:
        tasks = [case.phases(at, lessons, task) for task in range(case.num_tasks)]
        raw = [
            torch.stack([case.raw(params[k], data.inputs[:, n]) for n, params in enumerate(tasks)])
            for k, data in enumerate(lessons)
        ]
        return look(raw)

    loss, gradient = problem.differentiated(lambda _, raw: look(raw), problem.adapt(vector))
    wanted, derivative = gradient_by_autograd(by_hand, vector)
    assert loss == pytest.approx(wanted)
    torch.testing.assert_close(gradient, derivative, **EXACT)


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("box", [False, True])
def test_without_a_rate_the_meta_gradient_is_the_plain_policy_gradient(box, learnt):
    case = Case(box=box, learnt_rates=learnt, inner_steps=2)
    lessons = case.lessons()
    vector = case.vector()
    if learnt:
        vector[case.size :] = 0
    else:
        case = dataclasses.replace(case, rate=0.0)
    _, gradient = meta_gradient(case, vector, lessons)
    plain = Case(box=box, inner_steps=0)
    start = vector[: case.size]
    _, by_hand = gradient_by_autograd(lambda at: plain.expected_return(at, lessons[-1:]), start)
    torch.testing.assert_close(gradient[: case.size], by_hand, **EXACT)
    assert torch.equal(adapt(case, vector, lessons).params, start.expand(3, -1))
    if learnt:  # but a rate of zero has a gradient of its own
        assert (gradient[case.size :] != 0).all()


class LinearHead(ActionHead):
    """A made-up log-probability that is linear in what the network says."""

    outputs, constants = 2, 0

    def initial_constants(self):
        return torch.zeros(0)

    def sample(self, raw, generator):
        raise NotImplementedError

    def evaluate(self, raw, action):
        return (raw * action).sum(-1), torch.zeros(raw.shape[:-1])

    def divergence(self, old, new):
        raise NotImplementedError

    def encode(self, action):
        raise NotImplementedError


@pytest.mark.parametrize(("hidden_sizes", "bent"), [((), False), ((4,), True)])
def test_first_order_is_exact_only_where_the_inner_loss_has_no_curvature(hidden_sizes, bent):
    # A linear network under a linear loss: the Hessian vanishes. A hidden layer brings it back.
    case = Case(box=True, hidden_sizes=hidden_sizes, inner_steps=2)
    lessons = case.lessons()
    exact = case.problem()
    exact = dataclasses.replace(
        exact, head=LinearHead(), network=dataclasses.replace(exact.network, constants=0)
    )
    vector = 0.5 * torch.randn(exact.network.size, generator=torch.manual_seed(0)).double()
    gradients = []
    for inner in (exact, dataclasses.replace(exact, first_order=True)):
        problem = MetaProblem(inner, lessons)
        gradients += [problem.differentiated(expected_return, problem.adapt(vector))[1]]
    difference = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert (difference > 1e-2) == bent
    if not bent:
        torch.testing.assert_close(*gradients, **EXACT)


@pytest.mark.parametrize("estimator", ["score", "lvc", "dice", "loaded_dice"])
def test_estimators_agree_on_the_step_and_differ_in_its_derivative(estimator):
    plain = Case()
    vector, lessons = plain.vector(), plain.lessons()
    # Acting policy = learning policy, as after living, and DiCE's rewards are the advantages'.
    first = lessons[0]
    log_prob = torch.stack([plain.log_prob(vector, first, task) for task in range(3)], 1)
    lessons[0] = dataclasses.replace(first, log_prob=log_prob)
    other = dataclasses.replace(plain, estimator=estimator)
    same_step = torch.allclose(
        adapt(plain, vector, lessons).params, adapt(other, vector, lessons).params
    )
    same_gradient = torch.allclose(
        meta_gradient(plain, vector, lessons)[1], meta_gradient(other, vector, lessons)[1]
    )
    # DiCE is handed rewards where the others are handed advantages: here, unrelated numbers.
    assert same_step == (estimator != "dice")
    assert same_gradient == (estimator == "score")


@pytest.mark.parametrize("case", [Case(inner_steps=2), Case(box=True, learnt_rates=True)], ids=name)
def test_permuting_tasks_permutes_adapted_parameters_and_leaves_the_meta_gradient(case):
    vector, lessons, order = case.vector(), case.lessons(), [2, 0, 1]
    straight, permuted = adapt(case, vector, lessons), adapt(case, vector, tasks_of(lessons, order))
    torch.testing.assert_close(straight.params[order], permuted.params, **EXACT)
    assert not torch.allclose(straight.params, permuted.params)
    one, two = (meta_gradient(case, vector, each) for each in (lessons, tasks_of(lessons, order)))
    torch.testing.assert_close(one[1], two[1], **EXACT)


@pytest.mark.parametrize("case", [Case(inner_steps=2), Case(box=True, learnt_rates=True)], ids=name)
def test_tasks_at_once_adapt_as_each_would_alone(case):
    vector, lessons = case.vector(), case.lessons()
    together = adapt(case, vector, lessons).params
    losses, gradients = [], []
    for task in range(3):
        alone = tasks_of(lessons, [task])
        torch.testing.assert_close(adapt(case, vector, alone).params[0], together[task], **EXACT)
        loss, gradient = meta_gradient(case, vector, alone)
        losses.append(loss)
        gradients.append(gradient)
    loss, gradient = meta_gradient(case, vector, lessons)
    assert loss == pytest.approx(sum(losses) / 3)
    torch.testing.assert_close(gradient, torch.stack(gradients).mean(0), **EXACT)


@pytest.mark.parametrize("box", [False, True])
def test_equal_rates_are_one_rate(box):
    one = Case(box=box, inner_steps=2)
    many = dataclasses.replace(one, learnt_rates=True)
    lessons, start = one.lessons(), one.vector()
    vector = torch.cat((start, torch.full((one.size,), one.rate, dtype=torch.float64)))
    torch.testing.assert_close(
        adapt(many, vector, lessons).params, adapt(one, start, lessons).params, **EXACT
    )
    _, gradient = meta_gradient(many, vector, lessons)
    torch.testing.assert_close(gradient[: one.size], meta_gradient(one, start, lessons)[1], **EXACT)
    unequal = vector.clone()
    unequal[one.size] *= 2
    _, other = meta_gradient(many, unequal, lessons)
    assert not torch.allclose(other[: one.size], gradient[: one.size])


def test_rates_are_kept_between_zero_and_the_highest():
    rule = LearnedRates(0.5, 2.0)
    assert rule.initial(3).tolist() == [0.5, 0.5, 0.5]
    assert rule.project(torch.tensor([-1.0, 0.0, 0.7, 2.0, 9.0])).tolist() == pytest.approx(
        [0.0, 0.0, 0.7, 2.0, 2.0]
    )
    assert FixedRate(0.5).project(FixedRate(0.5).initial(3)).shape == (0,)


def test_all_steps_but_the_first_are_scaled():
    case = Case(later_lr_scale=0.25, later_lr_decay=0.5)
    lessons, vector = case.lessons(), case.vector()
    problem = case.problem()
    params, own = vector.expand(3, -1).contiguous(), torch.zeros(0)
    slope = problem.slope(params, lessons[0])
    first, second, third = (problem.next_params(slope, own, step) - params for step in range(3))
    torch.testing.assert_close(second, 0.25 * first, **EXACT)
    torch.testing.assert_close(third, 0.125 * first, **EXACT)
    assert first.norm() > 0.1


def test_on_other_experience_the_parameters_are_the_same_and_the_derivatives_its_own():
    case = Case(box=True, inner_steps=2)
    vector, lessons, others = case.vector(), case.lessons(), case.lessons(seed=2)
    here, problem = adapt(case, vector, lessons), case.problem()
    there = here.on(others)
    assert torch.equal(here.params, there.params)
    (direction, *_) = directions(case)
    change = direction.expand(3, -1).contiguous()
    for slope, data in zip(here.slopes, others, strict=False):
        change = change - case.rate * problem.slope(slope.params, data).times_hessian(change)
    last = problem.network.forward(here.params, others[-1].inputs)
    wanted = problem.network.tangent(here.params, last, change)
    torch.testing.assert_close(there.jvp(direction, [2])[0], wanted, **EXACT)
    (before,), (again,) = (each.jvp(direction, [2]) for each in (here, here.on(lessons)))
    assert torch.equal(before, again)
