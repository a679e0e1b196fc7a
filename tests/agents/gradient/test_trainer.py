"""The trainer of agents that adapt by gradient steps: state, caches, options and metrics."""

import dataclasses

import pytest
import torch

import metarl
from metarl.agents.gradient import agent as agent_module
from metarl.agents.gradient import outer_loop
from metarl.agents.gradient.emaml import EMAMLConfig
from metarl.agents.gradient.inner_loop import InnerLoop
from metarl.agents.gradient.inner_rules import InnerRule, RuleOutputs
from metarl.agents.gradient.maml import FOMAMLConfig, MAMLConfig
from metarl.agents.gradient.outer_loop import MetaProblem
from metarl.agents.gradient.pretrained import PretrainedConfig
from metarl.agents.gradient.promp import ProMPConfig
from metarl.native import library, stacked
from tests.gradient_rollouts import (
    AGENTS,
    BANDIT,
    FAMILIES,
    WALK,
    adapt,
    assert_same,
    build,
    collect_phases,
    first_trajectory,
    start,
    train,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("name", AGENTS)
def test_a_resumed_agent_equals_one_that_was_not_interrupted(name, kind):
    family = FAMILIES[kind]
    straight, stopped, resumed = (build(name, family) for _ in range(3))
    rows = train(straight, family, range(4))
    train(stopped, family, range(2))
    resumed.load_state(stopped.state())
    assert train(resumed, family, range(2, 4)) == rows[2:]
    assert_same(resumed.state(), straight.state())
    assert int(straight.state()["updates"]) == 4
    # Training changed something, and two iterations differ from four.
    agents = build(name, family), stopped, straight
    meta_params = [agent.state()["meta_params"] for agent in agents]
    assert not torch.equal(meta_params[0], meta_params[1])
    assert not torch.equal(meta_params[1], meta_params[2])


@pytest.mark.parametrize("name", AGENTS)
def test_a_state_is_a_copy(name):
    agent = build(name)
    state = agent.state()
    before = {key: value.clone() for key, value in state.items()}
    train(agent, BANDIT, range(1))
    assert_same(state, before)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("name", AGENTS)
def test_the_learner_recomputes_the_policy_that_acted(name, kind):
    family = FAMILIES[kind]
    agent = build(name, family, adaptation_steps=2)
    phases = collect_phases(agent, family).phases
    batches = [agent._batch(phase.trajectory) for phase in phases]
    noise = phases[0].policy.start_noise
    problem = MetaProblem(agent._inner, batches, start_noise=noise)
    dist_params = problem.adapt(agent.state()["meta_params"]).dist_params
    for step, batch in enumerate(batches):
        valid = batch.valid > 0
        log_prob = problem.log_probs(dist_params, step)[valid]
        torch.testing.assert_close(log_prob, batch.log_prob[valid], rtol=1e-4, atol=1e-4)
    # Adapting changed the distributions at the same samples.
    unadapted = (
        MetaProblem(agent._inner, batches[:1], start_noise=noise)
        .adapt(agent.state()["meta_params"])
        .dist_params
    )
    assert not torch.allclose(dist_params[-1], unadapted[-1], atol=1e-4)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("name", AGENTS)
def test_an_update_with_cached_inner_steps_equals_one_without_bit_for_bit(monkeypatch, name, kind):
    family = FAMILIES[kind]
    options = {} if name == "pretrained" else {"adaptation_steps": 2}
    cached, computed = build(name, family, **options), build(name, family, **options)

    def without_known(inner, batches, *, known, **others):
        return MetaProblem(inner, batches, **others)

    def with_known(inner, batches, *, known, **others):
        assert len(known) == cached.adaptation_steps
        return MetaProblem(inner, batches, known=known, **others)

    for seed in range(2):
        reports = []
        for agent, make in ((cached, with_known), (computed, without_known)):
            with monkeypatch.context() as patched:
                patched.setattr(agent_module, "MetaProblem", make)
                reports.append(agent.update(collect_phases(agent, family, seed=seed)))
        assert reports[0] == reports[1]
        assert_same(cached.state(), computed.state())


def test_the_inner_loss_is_computed_once_per_phase_at_the_parameters_that_acted(monkeypatch):
    agent = build("maml", adaptation_steps=2)
    loss_at, calls = InnerLoop.loss_at, []

    def counted(inner, params, batch):
        calls.append(params)
        return loss_at(inner, params, batch)

    monkeypatch.setattr(InnerLoop, "loss_at", counted)
    batch = collect_phases(agent)
    assert len(calls) == 2
    report = agent.update(batch)
    for phase in batch.phases[:-1]:
        assert sum(torch.equal(params, phase.policy.params) for params in calls) == 1
    # All other calls are candidates of the line search.
    assert len(calls) == 2 + 2 * report["line_search_tried"]


def test_adapting_changes_neither_the_policy_nor_the_agent():
    agent = build("meta_sgd")
    before, policy = agent.state(), start(agent)
    params = policy.params.clone()
    adapted = adapt(agent, policy, first_trajectory(agent))
    assert torch.equal(policy.params, params)
    assert not torch.equal(adapted.params, params)
    assert (policy.inner_steps, adapted.inner_steps) == (0, 1)
    assert_same(agent.state(), before)


@pytest.mark.parametrize("trained", [0, 1, 2])
def test_all_steps_but_the_first_are_shorter(trained):
    agent = build("maml", adaptation_steps=trained, later_lr_scale=0.25, later_lr_decay=0.8)
    trajectory, policy = first_trajectory(agent), start(agent)
    whole = adapt(agent, policy, trajectory).params - policy.params
    for inner_steps, share in enumerate((1.0, 0.25, 0.2)):
        later = dataclasses.replace(policy, inner_steps=inner_steps)
        step = adapt(agent, later, trajectory).params - policy.params
        torch.testing.assert_close(step, share * whole, rtol=1e-4, atol=1e-6)
    assert whole.abs().max() > 0.01


class Accumulating(InnerRule):
    """Steps along the sum of all gradients so far: a rule with a state."""

    def start(self, initial, rule_params, noise):
        return RuleOutputs(initial, (torch.zeros_like(initial),))

    def apply(self, inputs, step):
        total = inputs.state[0] + inputs.gradient
        return RuleOutputs(inputs.params - 0.5 * total, (total,))


def test_a_policy_carries_the_state_of_the_inner_rule(monkeypatch):
    monkeypatch.setattr(MAMLConfig, "inner_rule", lambda config: Accumulating())
    agent = build("maml", adaptation_steps=2)
    batch = collect_phases(agent)
    params = [phase.policy.params for phase in batch.phases]
    gradients = [step.loss.gradient for steps in batch.caches for step in steps]
    torch.testing.assert_close(params[1], params[0] - 0.5 * gradients[0])
    torch.testing.assert_close(params[2], params[1] - 0.5 * (gradients[0] + gradients[1]))
    meta_params = agent.state()["meta_params"]
    problem = MetaProblem(agent._inner, [agent._batch(each) for each in batch.trajectories])
    assert torch.equal(problem.adapt(meta_params).params, params[2])


def test_meta_sgd_starts_as_maml():
    plain, learned = build("maml"), build("meta_sgd")
    phases = collect_phases(plain).phases
    for one, two in zip(phases, collect_phases(learned).phases, strict=True):
        torch.testing.assert_close(one.trajectory.log_prob, two.trajectory.log_prob)
    trajectory = phases[0].trajectory
    one, two = (adapt(agent, start(agent), trajectory).params for agent in (plain, learned))
    torch.testing.assert_close(one, two)


def test_learned_rates_change_and_stay_within_their_bounds():
    agent = build("meta_sgd", max_inner_lr=0.6, max_kl=0.5)
    size = start(agent, 1).params.shape[1]
    train(agent, BANDIT, range(8))
    rates = agent.state()["meta_params"][size:]
    assert rates.shape == (size,)
    assert rates.min() >= 0.0
    assert rates.max() == pytest.approx(0.6)  # one has reached the bound
    assert (rates != 0.5).any()


def test_reptile_with_one_task_and_one_step_moves_to_the_adapted_parameters():
    agent = build("reptile", num_tasks=1, adaptation_steps=1, outer_lr=1.0)
    batch, before = collect_phases(agent, num_tasks=1), start(agent, 1).params
    agent.update(batch)
    torch.testing.assert_close(start(agent, 1).params, batch.phases[1].policy.params)
    assert not torch.equal(start(agent, 1).params, before)


def test_fixed_deviations_are_neither_adapted_nor_learned():
    for learn_std in (True, False):
        agent = build("maml", WALK, initial_std=0.5, learn_std=learn_std)
        batch = collect_phases(agent, WALK)
        adapted = batch.phases[1].policy.params[:, -2:]
        report = agent.update(batch)
        assert report["standard_deviation"] == pytest.approx(0.5)
        learned = start(agent, 1).params[:, -2:]
        for found in (adapted, learned):
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
def test_every_option_has_an_effect(name, options):
    plain, changed = (build(name, WALK, adaptation_steps=3, **more) for more in ({}, options))
    for agent in (plain, changed):
        train(agent, WALK, range(2))
    learned = zip(plain.state().values(), changed.state().values(), strict=True)
    assert not all(torch.allclose(one, two, atol=1e-5) for one, two in learned)


def test_the_exploration_coefficient_reaches_the_objective():
    assert EMAMLConfig(exploration_coef=0.3).outer_loss() == outer_loop.ExplorationLoss(0.3)


@pytest.mark.parametrize("name", AGENTS)
def test_metrics_are_finite_and_describe_every_inner_step(name):
    agent = build(name, WALK)
    (report,) = train(agent, WALK, range(1))
    assert all(value == value and abs(value) != float("inf") for value in report.values())
    assert report["grad_norm"] > 0
    for step in range(1, agent.adaptation_steps + 1):
        assert report[f"inner_kl_{step}"] > 0
        assert report[f"inner_gradient_norm_{step}"] > 0
    assert f"inner_kl_{agent.adaptation_steps + 1}" not in report


def test_evaluation_may_take_more_steps_than_training():
    agent = build("pretrained")
    assert (agent.adaptation_steps, agent.evaluation_steps) == (0, 3)
    assert len(collect_phases(agent, steps=agent.evaluation_steps).phases) == 4


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
def test_variants_that_are_different_agents_have_different_labels(config, label):
    assert config.label == label


@pytest.mark.skipif(metarl.compiled_library() is None, reason="everything is computed in torch")
def test_the_compiled_library_has_all_threads(monkeypatch):
    seen = []
    share_out = stacked.share_out

    def watched(*arguments) -> None:
        seen.append((torch.get_num_threads(), library.threads()))
        share_out(*arguments)

    agent = build("maml", WALK)
    batch = collect_phases(agent, WALK)
    monkeypatch.setattr(stacked, "share_out", watched)
    torch.set_num_threads(2)
    try:
        adapt(agent, start(agent), batch.trajectories[0])
        adapted = len(seen)
        agent.update(batch)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert 0 < adapted < len(seen)
    assert set(seen) == {(1, 2)}
