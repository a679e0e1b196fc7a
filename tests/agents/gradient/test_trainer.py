"""Agents that adapt by gradient steps: their bookkeeping."""

import dataclasses

import pytest
import torch

from metarl.agents.gradient import outer_loop
from metarl.agents.gradient.emaml import EMAMLConfig
from metarl.agents.gradient.maml import FOMAMLConfig, MAMLConfig
from metarl.agents.gradient.pretrained import PretrainedConfig
from metarl.agents.gradient.promp import ProMPConfig
from tests.gradient_rollouts import AGENTS, BANDIT, FAMILIES, WALK, assert_same, build, live, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("name", AGENTS)
def test_a_resumed_agent_is_the_one_that_never_stopped(name, kind):
    family = FAMILIES[kind]
    straight, stopped, resumed = (build(name, family) for _ in range(3))
    rows = train(straight, family, range(4))
    train(stopped, family, range(2))
    resumed.load_state(stopped.state())
    assert train(resumed, family, range(2, 4)) == rows[2:]
    assert_same(resumed.state(), straight.state())
    assert int(straight.state()["updates"]) == 4
    # Training moved something, and two iterations are not four.
    vectors = [agent.state()["vector"] for agent in (build(name, family), stopped, straight)]
    assert not torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[1], vectors[2])


@pytest.mark.parametrize("name", AGENTS)
def test_a_state_is_a_copy(name):
    agent = build(name)
    state = agent.state()
    before = {key: value.clone() for key, value in state.items()}
    train(agent, BANDIT, range(1))
    assert_same(state, before)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("name", AGENTS)
def test_the_learner_sees_exactly_the_policy_that_acted(name, kind):
    family = FAMILIES[kind]
    agent = build(name, family, adaptation_steps=2)
    phases = live(agent, family)
    problem = outer_loop.MetaProblem(agent._problem, [agent._lesson(phase) for phase in phases])
    raw = problem.adapt(agent.state()["vector"]).raw
    for step, phase in enumerate(phases):
        log_prob = problem.log_probs(raw, step)[phase.valid]
        torch.testing.assert_close(log_prob, phase.log_prob[phase.valid], rtol=1e-4, atol=1e-4)
    # Adapting changed what is said of the same decisions.
    problem = outer_loop.MetaProblem(agent._problem, [problem.lessons[0]])
    unadapted = problem.adapt(agent.state()["vector"]).raw
    assert not torch.allclose(raw[-1], unadapted[-1], atol=1e-4)


def test_adapting_changes_neither_the_policy_nor_the_agent():
    agent = build("meta_sgd")
    before, policy = agent.state(), agent.start(4)
    params = policy.params.clone()
    (phase,) = live(agent, steps=0)
    adapted = agent.adapt(policy, phase)
    assert torch.equal(policy.params, params)
    assert not torch.equal(adapted.params, params)
    assert (policy.adaptations, adapted.adaptations) == (0, 1)
    assert_same(agent.state(), before)


@pytest.mark.parametrize("trained", [0, 1, 2])
def test_all_steps_but_the_first_are_shorter(trained):
    agent = build("maml", adaptation_steps=trained, later_lr_scale=0.25, later_lr_decay=0.8)
    (phase,) = live(agent, steps=0)
    policy = agent.start(4)
    whole = agent.adapt(policy, phase).params - policy.params
    for adaptations, share in enumerate((1.0, 0.25, 0.2)):
        later = dataclasses.replace(policy, adaptations=adaptations)
        step = agent.adapt(later, phase).params - policy.params
        torch.testing.assert_close(step, share * whole, rtol=1e-4, atol=1e-6)
    assert whole.abs().max() > 0.01


def test_meta_sgd_begins_as_maml():
    plain, learnt = build("maml"), build("meta_sgd")
    phases = live(plain)
    for one, two in zip(phases, live(learnt), strict=True):
        torch.testing.assert_close(one.log_prob, two.log_prob)
    one, two = (agent.adapt(agent.start(4), phases[0]).params for agent in (plain, learnt))
    torch.testing.assert_close(one, two)


def test_learnt_rates_leave_their_start_and_stay_within_their_bounds():
    agent = build("meta_sgd", max_inner_lr=0.6, max_kl=0.5)
    size = agent.start(1).params.shape[1]
    train(agent, BANDIT, range(8))
    rates = agent.state()["vector"][size:]
    assert rates.shape == (size,)
    assert rates.min() >= 0.0
    assert rates.max() == pytest.approx(0.6)  # one has come to the bound
    assert (rates != 0.5).any()


def test_reptile_with_one_task_and_one_step_goes_where_the_task_went():
    agent = build("reptile", num_tasks=1, adaptation_steps=1, outer_lr=1.0)
    phases = live(agent, num_tasks=1)
    adapted = agent.adapt(agent.start(1), phases[0]).params
    before = agent.start(1).params
    agent.update(phases)
    torch.testing.assert_close(agent.start(1).params, adapted)
    assert not torch.equal(adapted, before)


def test_fixed_deviations_are_neither_adapted_nor_learnt():
    for learn_std in (True, False):
        agent = build("maml", WALK, initial_std=0.5, learn_std=learn_std)
        phases = live(agent, WALK)
        adapted = agent.adapt(agent.start(4), phases[0]).params[:, -2:]
        report = agent.update(phases)
        assert report["standard_deviation"] == pytest.approx(0.5)
        learnt = agent.start(1).params[:, -2:]
        for found in (adapted, learnt):
            assert bool((found == found.new_tensor(0.5).log()).all()) == (not learn_std)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("maml", {"inner_lr": 0.4}),
        ("maml", {"later_lr_scale": 0.9}),
        ("maml", {"later_lr_decay": 0.5}),
        ("maml", {"multi_step_loss": True}),
        ("maml", {"shared_advantage_scale": True}),
        ("maml", {"estimator": "lvc"}),
        ("maml", {"first_order": True}),
        ("maml", {"activation": "relu"}),
        ("maml", {"gamma": 0.5}),
        ("maml", {"gae_lambda": 0.5}),
        ("maml", {"normalise_advantages": False}),
        ("maml", {"max_kl": 0.02}),
        ("maml", {"conjugate_gradient_steps": 2}),
        ("maml", {"curvature_rollouts": 4}),
        ("maml", {"damping": 1e-5}),
        ("emaml", {"exploration_coef": 0.5}),
        ("meta_sgd", {"max_inner_lr": 0.5}),
        ("promp", {"clip_range": 0.001}),
        ("promp", {"num_epochs": 3}),
        ("promp", {"learning_rate": 0.1}),
        ("promp", {"target_kl": 1e-6}),
        ("promp", {"initial_kl_coef": 5.0}),
        ("reptile", {"outer_lr": 0.3}),
    ],
)
def test_every_option_reaches_what_it_names(name, options):
    plain, changed = (build(name, WALK, adaptation_steps=3, **more) for more in ({}, options))
    for agent in (plain, changed):
        train(agent, WALK, range(2))
    learnt = zip(plain.state().values(), changed.state().values(), strict=True)
    assert not all(torch.allclose(one, two, atol=1e-5) for one, two in learnt)


def test_the_first_policy_is_paid_not_fined_for_exploring():
    assert EMAMLConfig(exploration_coef=0.3).objective() == outer_loop.Exploration(0.3)


@pytest.mark.parametrize("name", AGENTS)
def test_what_is_reported_is_finite_and_says_how_far_the_inner_steps_went(name):
    agent = build(name, WALK)
    (report,) = train(agent, WALK, range(1))
    assert all(value == value and abs(value) != float("inf") for value in report.values())
    assert report["grad_norm"] > 0
    for step in range(1, agent.adaptation_steps + 1):
        assert report[f"inner_kl_{step}"] > 0
        assert report[f"inner_gradient_norm_{step}"] > 0
    assert f"inner_kl_{agent.adaptation_steps + 1}" not in report


def test_evaluation_may_show_more_steps_than_training():
    agent = build("pretrained")
    assert (agent.adaptation_steps, agent.evaluation_steps) == (0, 3)
    assert len(live(agent, steps=agent.evaluation_steps)) == 4


@pytest.mark.parametrize(
    ("config", "label"),
    [
        (MAMLConfig(), "MAML"),
        (MAMLConfig(first_order=True), "FOMAML"),
        (FOMAMLConfig(), "FOMAML"),
        (MAMLConfig(estimator="loaded_dice"), "MAML (loaded_dice)"),
        (ProMPConfig(), "ProMP"),
        (ProMPConfig(estimator="score"), "ProMP (score)"),
        (PretrainedConfig(), "pretrained"),
    ],
)
def test_variants_that_are_other_agents_have_other_labels(config, label):
    assert config.label == label
