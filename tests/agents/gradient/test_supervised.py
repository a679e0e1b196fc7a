"""Learning from right actions that observations show: the supervised estimator and its options."""

import dataclasses

import numpy as np
import pytest
import torch

import metarl
from metarl.agents.gradient import maml_by_definition as definition
from metarl.agents.gradient.outer_loop import MetaProblem, supervised_loss
from metarl.errors import ConfigError
from tests.gradient_rollouts import (
    AGENTS,
    BANDIT,
    build,
    collect_phases,
    context_of,
    train,
)

SINUSOID = metarl.make_family("metarl/Sinusoid-v0", shots=4, queries=3)
IMAGES = metarl.make_family("metarl/FewShotClassification-v0", ways=3, shots=2, queries=2)
FAMILIES = {"sinusoid": SINUSOID, "images": IMAGES}
SERVED = [name for name in AGENTS if name not in ("emaml", "promp")]


def supervised(name, family, **options):
    context = dataclasses.replace(context_of(family), shown_targets=family.shown_targets)
    return build(name, family, context, estimator="supervised", initial_std=0.1, **options)


@pytest.mark.parametrize("kind", FAMILIES)
def test_shown_targets_are_the_right_actions_of_the_support(kind):
    family = FAMILIES[kind]
    tasks = family.sample_tasks(50, torch.Generator().manual_seed(0), "test")
    oracle = family.references(1)["oracle"].build(tasks)
    trajectory = metarl.collect(family, tasks, oracle, episodes=2, seeds=metarl.Seeds(0))
    right, shown = family.shown_targets.read(trajectory.obs[1:])
    support = family.episode_steps - (3 if kind == "sinusoid" else 2)
    in_support = [t % family.episode_steps < support for t in range(len(shown))]
    assert torch.equal(shown, torch.tensor(in_support)[:, None, None].expand_as(shown))
    torch.testing.assert_close(right[shown], trajectory.action[:-1][shown], rtol=1e-4, atol=1e-5)
    # Without what is shown, the same points or images give the same observation.
    hidden = trajectory.obs.clone()
    hidden[..., family.shown_targets.components] = 0.0
    assert not hidden[support + 1, ..., family.shown_targets.components].any()
    assert hidden[..., 0].any()


def test_the_loss_is_that_of_each_head():
    agent = supervised("maml", SINUSOID)
    phase = collect_phases(agent, SINUSOID).phases[0]
    batch = agent._batch(phase.trajectory)
    loss = agent._inner.loss_at(phase.policy.params, batch)
    for n in range(4):
        squared = []
        for b in range(8):
            for t in range(4):  # the shots
                x = batch.inputs.view(7, 8, 4, 4)[t, b, n]
                outputs = agent._network.outputs(phase.policy.params, x.expand(1, 4, 4))
                right = float(phase.trajectory.obs[t + 1, n, b, 1]) / 5.0
                squared.append((float(outputs[0, n, 0]) - right) ** 2)
        assert float(loss.loss[n]) == pytest.approx(np.mean(squared) / 2, rel=1e-4)
    agent = supervised("maml", IMAGES)
    phase = collect_phases(agent, IMAGES).phases[0]
    batch = agent._batch(phase.trajectory)
    loss = agent._inner.loss_at(phase.policy.params, batch)
    logits = batch.over_time(agent._network.outputs(phase.policy.params, batch.inputs))
    labels = phase.trajectory.obs[1:7, ..., -4:-1]
    log_prob = (logits[:6].log_softmax(-1) * labels).sum(-1)
    torch.testing.assert_close(loss.loss, -log_prob.mean((0, 2)))


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("name", ["maml", "meta_lstm", "platipus"])
def test_the_meta_gradient_is_that_of_plain_autograd(name, kind):
    family = FAMILIES[kind]
    agent = supervised(name, family, gradient_steps=2, hidden_sizes=(4,))
    batch = collect_phases(agent, family)
    steps = [step for cache in batch.caches for step in cache]
    assert len(steps) == 2
    assert steps[0].batch is steps[1].batch
    problem = MetaProblem(
        agent._inner,
        [*(step.batch for step in steps), agent._batch(batch.trajectories[-1])],
        start_noise=batch.phases[0].policy.start_noise,
    )
    meta_params = agent.state()["meta_params"]
    here = problem.adapt(meta_params)
    torch.testing.assert_close(here.params, batch.phases[1].policy.params)
    _, found = problem.meta_gradient(supervised_loss, here)
    _, expected = definition.meta_gradient(problem, supervised_loss, meta_params)
    size = agent._network.size
    torch.testing.assert_close(found[:size], expected[:size], rtol=1e-3, atol=1e-5)
    assert found[:size].norm() > 1e-3


def test_policies_do_not_read_what_is_shown_about_targets():
    agent = supervised("maml", SINUSOID)
    policy = collect_phases(agent, SINUSOID).phases[0].policy
    trajectory = collect_phases(agent, SINUSOID).trajectories[0]
    percept = trajectory.percepts()
    noise = metarl.LaneNoise.of(metarl.Seeds(0), "x", 32)

    def act(obs):
        lanes = dataclasses.replace(
            percept,
            **{name: value[2].flatten(0, 1) for name, value in vars(percept).items()}
            | {"obs": obs},
        )
        return policy.act(lanes, None, noise.at(0)).action

    obs = percept.obs[2].flatten(0, 1)
    changed = obs.clone()
    changed[:, 1:] = 3.0
    assert torch.equal(act(obs), act(changed))
    changed[:, 0] += 1.0
    assert not torch.equal(act(obs), act(changed))


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("name", SERVED)
def test_agents_train_resume_and_repeat(name, kind):
    family = FAMILIES[kind]
    straight, stopped, resumed = (supervised(name, family, gradient_steps=2) for _ in range(3))
    rows = train(straight, family, range(3))
    train(stopped, family, range(1))
    resumed.load_state(stopped.state())
    assert train(resumed, family, range(1, 3)) == rows[1:]


def test_each_rollout_adapts_to_itself():
    agent = supervised("maml", SINUSOID, adapt_each_rollout=True, rollouts_per_task=8)
    phases = collect_phases(agent, SINUSOID).phases
    assert len(phases[1].policy.params) == 32
    experience = phases[0].trajectory
    obs = experience.obs.clone()
    obs[1:, 0, 0, 1] += 1.0  # the values shown in one rollout
    changed = dataclasses.replace(experience, obs=obs)
    before = phases[1].policy.params
    after = agent.adapt(phases[0].policy, changed, torch.Generator()).policy.params
    moved = (before - after).abs().amax(1) > 1e-6
    assert moved.nonzero().flatten().tolist() == [0]


def test_it_is_refused_where_nothing_is_shown_or_rewards_are_needed():
    with pytest.raises(ConfigError, match="learns from right actions that observations show, and"):
        build("maml", BANDIT, estimator="supervised")
    for name in ("emaml", "promp"):
        with pytest.raises(ConfigError, match=r"does not serve .*, whose outer loss is made for"):
            supervised(name, SINUSOID)
    hidden = metarl.make_family("metarl/Sinusoid-v0", show_values=False)
    assert hidden.shown_targets is None
    with pytest.raises(ConfigError, match="multi_step_loss needs experience after every"):
        build("maml", SINUSOID, gradient_steps=2, multi_step_loss=True)


@pytest.mark.learning
@pytest.mark.usefixtures("one_thread")
def test_five_points_of_a_sine_wave_are_enough_after_learning(tmp_path):
    def errors(**options):
        run = metarl.train(
            "maml",
            "metarl/Sinusoid-v0",
            task_options={"shots": 5, "queries": 5, "rewarded": "queries"},
            num_tasks=20,
            rollouts_per_task=4,
            adapt_each_rollout=True,
            initial_std=0.02,
            learn_std=False,
            estimator="supervised",
            max_kl=1.0,
            damping=1e-4,
            hidden_sizes=(40, 40),
            out=tmp_path / str(options),
            progress=False,
            **{"iterations": 30, "inner_lr": 0.3, "evaluation_steps": 1} | options,
        )
        curve, *_ = metarl.evaluate(run, num_tasks=200, references=False)
        return -curve.returns.mean(1) / 5

    before, after = errors()
    assert after < 0.6 * before
    before, after = errors(inner_lr=0.0)  # the negative control
    assert after > 0.9 * before
