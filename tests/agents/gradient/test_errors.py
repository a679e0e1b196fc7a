"""Agents that adapt by gradient steps: errors, and that a failure leaves an agent unchanged."""

import dataclasses

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agents.gradient import outer_loop, proximal
from metarl.agents.gradient.meta_sgd import MetaSGDConfig
from metarl.errors import CheckpointError, ConfigError, NonFiniteError
from metarl.registry import agent_config
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.trajectory import Trajectory
from tests.gradient_rollouts import (
    AGENTS,
    BANDIT,
    WALK,
    adapt,
    assert_same,
    build,
    collect_phases,
    context_of,
    first_trajectory,
    start,
    train,
    with_last_trajectory,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("maml", {"adaptation_steps": -1}, "adaptation_steps=-1 must lie between 0 and 1000000.0"),
        ("maml", {"evaluation_steps": -1}, "evaluation_steps=-1 must lie between 0 and 1000000.0"),
        ("maml", {"inner_lr": -0.1}, "inner_lr=-0.1 must lie between 0 and 1000000.0"),
        ("maml", {"inner_lr": float("nan")}, "inner_lr=nan of MAMLConfig must be a number"),
        ("maml", {"inner_lr": float("inf")}, "inner_lr=inf must lie between"),
        ("maml", {"later_lr_scale": -1.0}, "later_lr_scale=-1.0 must lie between 0 and 1000000.0"),
        ("maml", {"later_lr_decay": 1.5}, "later_lr_decay=1.5 must lie between 0.0 and 1.0"),
        ("maml", {"curvature_rollouts": 0}, "curvature_rollouts=0 must be greater than zero"),
        ("maml", {"gamma": 1.5}, "gamma=1.5 must lie between 0.0 and 1.0"),
        ("maml", {"gae_lambda": -0.5}, "gae_lambda=-0.5 must lie between 0.0 and 1.0"),
        ("maml", {"initial_std": 0.0}, "initial_std=0.0 must be greater than zero"),
        ("maml", {"hidden_sizes": ()}, r"hidden_sizes=\(\) must be sizes from 1 on"),
        ("maml", {"hidden_sizes": (8, 0)}, r"hidden_sizes=\(8, 0\) must be sizes from 1 on"),
        ("maml", {"estimator": "reinforce"}, "estimator='reinforce' of .* one of 'score', 'lvc'"),
        ("maml", {"activation": "gelu"}, "activation='gelu' of .* one of 'tanh', 'relu'"),
        ("maml", {"num_tasks": 0}, "num_tasks=0 must be greater than zero"),
        ("maml", {"max_kl": 0.0}, "max_kl=0.0 must be greater than zero"),
        ("maml", {"damping": -1.0}, "damping=-1.0 must lie between 0.0 and 1000000.0"),
        ("maml", {"conjugate_gradient_steps": 0}, "conjugate_gradient_steps=0 must be greater"),
        ("maml", {"line_search_steps": 0}, "line_search_steps=0 must be greater than zero"),
        ("maml", {"line_search_shrink": 1.0}, "line_search_shrink=1.0 must lie between"),
        ("promp", {"clip_range": 0.0}, "clip_range=0.0 must be greater than zero"),
        ("promp", {"num_epochs": 0}, "num_epochs=0 must be greater than zero"),
        ("promp", {"learning_rate": -1.0}, "learning_rate=-1.0 must be greater than zero"),
        ("promp", {"target_kl": 0.0}, "target_kl=0.0 must be greater than zero"),
        (
            "promp",
            {"initial_kl_coef": -1.0},
            "initial_kl_coef=-1.0 must lie between 0.0 and 1000000.0",
        ),
        (
            "emaml",
            {"exploration_coef": -1.0},
            "exploration_coef=-1.0 must lie between 0.0 and 1000000.0",
        ),
        ("meta_sgd", {"max_inner_lr": 0.0}, "max_inner_lr=0.0 must be greater than zero"),
        ("meta_sgd", {"inner_lr": 2.0}, "inner_lr=2.0 is the initial value of the learned rates"),
        ("maml", {"max_kl": float("inf")}, "max_kl=inf must be greater than zero, and finite"),
        ("reptile", {"adaptation_steps": 0}, "adaptation_steps=0 must be greater than zero"),
        ("emaml", {"adaptation_steps": 0}, "adaptation_steps=0 must be greater than zero"),
        ("reptile", {"outer_lr": 0.0}, "outer_lr=0.0 must be greater than zero"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        agent_config(name)(**options)
    assert MetaSGDConfig(inner_lr=1.0).max_inner_lr == 1.0  # the bound itself is allowed


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"move": spaces.Discrete(2)}),
        spaces.MultiBinary(3),
        spaces.Discrete(3, start=1),
        spaces.Box(-1.0, 1.0, (2, 2)),
    ],
)
def test_action_spaces_without_an_action_head_are_refused(space):
    with pytest.raises(ConfigError, match=r"No action head serves|must (start at 0|be vectors)"):
        build("maml", context=context_of(BANDIT, action_space=space))


@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.Box(0.0, 1.0, (8, 8))])
def test_observation_spaces_other_than_vectors_are_refused(space):
    with pytest.raises(ConfigError, match=r"Observations must be a Box vector \[D\]; got"):
        build("maml", context=context_of(BANDIT, observation_space=space))


@pytest.mark.parametrize("name", ["maml", "pretrained"])
def test_too_few_transitions_for_the_baseline_are_refused(name):
    agent = build(name)
    before, policy, batch = agent.state(), start(agent), collect_phases(agent)
    few = collect(BANDIT, batch.tasks, policy, episodes=1, rollouts_per_task=5, seeds=Seeds(0))
    with pytest.raises(
        ConfigError, match=r"has 6 weights .* 5 transitions .* Raise rollouts_per_task"
    ):
        adapt(agent, policy, few)
    with pytest.raises(ConfigError, match=r"Raise rollouts_per_task"):
        agent.update(with_last_trajectory(batch, few))
    assert_same(agent.state(), before)


def broken(trajectory: Trajectory, task: int, column: str, value: float) -> Trajectory:
    numbers = getattr(trajectory, column).clone()
    numbers[0, task, 3] = value
    return dataclasses.replace(trajectory, **{column: numbers})


# The last is finite, but the sum of two is not.
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38])
def test_an_error_about_rewards_that_are_not_finite_names_task_and_step(value):
    agent = build("maml", WALK, adaptation_steps=2)
    train(agent, WALK, range(2))
    before = agent.state()
    _, phase, _ = collect_phases(agent, WALK, seed=7).phases
    reward = phase.trajectory.reward.clone()
    reward[:, 2] = value
    with pytest.raises(
        NonFiniteError, match=r"task 2 .* after 2 meta-iterations, in inner step 2;"
    ):
        adapt(agent, phase.policy, dataclasses.replace(phase.trajectory, reward=reward))
    assert_same(agent.state(), before)


def test_an_error_about_an_inner_loss_that_is_not_finite_names_task_and_step():
    agent = build("promp")  # its inner loss reads the log-probabilities of the acting policy
    message = (
        r"inner loss is nan, .* after 0 meta-iterations, task 1, inner step 1\. .*inner_lr=0.5"
    )
    with pytest.raises(NonFiniteError, match=message):
        adapt(agent, start(agent), broken(first_trajectory(agent), 1, "log_prob", torch.nan))


def test_an_error_about_parameters_out_of_range_names_the_step():
    agent = build("maml", inner_lr=1e6, normalise_advantages=False)
    trajectory = first_trajectory(agent)
    large = dataclasses.replace(trajectory, reward=1e6 * trajectory.reward)
    message = r"left the range of \+-1e\+06 after 0 meta-iterations, in inner step 1\."
    with pytest.raises(NonFiniteError, match=message):
        adapt(agent, start(agent), large)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e25])
def test_the_unit_of_rewards_changes_no_step(scale):
    agent = build("maml", WALK)
    trajectory, policy = first_trajectory(agent, WALK), start(agent)
    expected = adapt(agent, policy, trajectory).params
    scaled = dataclasses.replace(trajectory, reward=scale * trajectory.reward)
    if scale < 1:  # 1e-8 is added to the deviation, so that tiny differences are not blown up
        expected = policy.params
    torch.testing.assert_close(adapt(agent, policy, scaled).params, expected, rtol=1e-2, atol=1e-3)
    assert (adapt(agent, policy, trajectory).params - policy.params).abs().max() > 0.05


@pytest.mark.parametrize("column", ["log_prob", "reward"])
@pytest.mark.parametrize("name", [name for name in AGENTS if name != "reptile"])
def test_a_failed_update_leaves_the_agent_unchanged(name, column):
    agent = build(name)
    train(agent, BANDIT, range(2))
    before, batch = agent.state(), collect_phases(agent, seed=2)
    last = broken(batch.trajectories[-1], 1, column, torch.nan)
    message = r"(?s)finite.* after 2 meta-iterations; the agent is unchanged"
    with pytest.raises(NonFiniteError, match=message):
        agent.update(with_last_trajectory(batch, last))
    assert_same(agent.state(), before)
    train(agent, BANDIT, range(2, 3))  # training can continue
    undisturbed = build(name)
    train(undisturbed, BANDIT, range(3))
    assert_same(agent.state(), undisturbed.state())


@pytest.mark.parametrize(("name", "succeed"), [("promp", 2), ("maml", 1), ("reptile", 0)])
def test_a_failure_half_way_through_an_update_is_undone(monkeypatch, name, succeed):
    agent = build(name)
    train(agent, BANDIT, range(2))
    before, batch = agent.state(), collect_phases(agent, seed=2)
    calls = []

    def fails_at_last(value: Tensor, what: str) -> None:
        calls.append(what)
        if len(calls) > succeed:
            raise NonFiniteError("broken.")

    with monkeypatch.context() as patched:
        for module in (outer_loop, proximal):
            patched.setattr(module, "require_finite", fails_at_last)
        with pytest.raises(NonFiniteError, match=r"broken\. It was after 2 meta-iterations"):
            agent.update(batch)
    assert len(calls) == succeed + 1
    assert_same(agent.state(), before)
    agent.update(batch)
    undisturbed = build(name)
    train(undisturbed, BANDIT, range(3))
    assert_same(agent.state(), undisturbed.state())


@pytest.mark.parametrize("name", AGENTS)
def test_a_checkpoint_of_another_hidden_size_is_refused(name):
    agent = build(name, hidden_sizes=(16,))
    before = agent.state()
    other = build(name, hidden_sizes=(8,))
    train(other, BANDIT, range(1))
    with pytest.raises(
        CheckpointError, match=r"should hold \[\d+\] meta-parameters and has \[\d+\]"
    ):
        agent.load_state(other.state())
    assert_same(agent.state(), before)


def test_a_checkpoint_of_another_agent_is_refused():
    with pytest.raises(CheckpointError, match="meta-parameters and has none"):
        build("maml").load_state({"network.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"should hold \[\d+\] meta-parameters"):
        build("meta_sgd").load_state(build("maml").state())


def test_kl_coefficients_of_another_number_of_inner_steps_are_refused():
    agent, other = build("promp", adaptation_steps=1), build("promp", adaptation_steps=2)
    before = agent.state()
    with pytest.raises(
        CheckpointError, match="each of its 1 inner steps, and the checkpoint has 2"
    ):
        agent.load_state(other.state())
    with pytest.raises(CheckpointError, match="the checkpoint has none"):
        agent.load_state(build("maml").state())
    assert_same(agent.state(), before)
