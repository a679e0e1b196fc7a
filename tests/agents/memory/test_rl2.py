"""RL^2: its bookkeeping, and that what it learns is adaptation: each beside a negative control."""

import dataclasses

import pytest
import torch

import metarl
from metarl.agent import AgentContext
from metarl.agents.memory.rl2 import RL2, RL2Config
from metarl.errors import CheckpointError, ConfigError, NonFiniteError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import TaskFamily
from metarl.trajectory import Trajectory
from tests.simple_families import Countdown


def build(family: TaskFamily, **options: object) -> RL2:
    config = RL2Config(**{"num_tasks": 8, "hidden_size": 16, "iterations": 5} | options)
    setting = AgentContext(
        observation_space=family.observation_space,
        action_space=family.action_space,
        seeds=Seeds(0),
        device=torch.device("cpu"),
    )
    return config.build(setting)


def live(family: TaskFamily, agent: RL2, *, num_tasks: int = 8, seed: int = 0) -> Trajectory:
    tasks = family.sample_tasks(num_tasks, Seeds(seed).torch("tasks"))
    return collect(
        family, tasks, agent.start(num_tasks), episodes=family.trial_episodes, seeds=Seeds(seed)
    )


@pytest.mark.parametrize("core", ["gru", "lstm", "attention", "none"])
@pytest.mark.parametrize("task", ["metarl/BernoulliBandit-v0", "metarl/PointNavigation-v0"])
def test_the_learner_sees_exactly_the_policy_that_acted(core, task):
    family = metarl.make_family(task)
    agent = build(family, memory=core)
    life = live(family, agent)
    network = agent.start(8).network
    with torch.no_grad():
        raw, _ = network(network.encode(life.percepts()).flatten(1, 2))
        log_prob, _ = network.head.evaluate(raw, life.action.flatten(1, 2))
    lived = life.valid.flatten(1, 2)
    torch.testing.assert_close(
        log_prob[lived], life.log_prob.flatten(1, 2)[lived], rtol=1e-5, atol=1e-5
    )


def test_what_was_lived_is_learnt_from_in_the_units_it_was_lived_in():
    family = metarl.make_family("metarl/PointNavigation-v0")
    agent = build(family, normalise_inputs=True, learning_rate=1e-12, num_epochs=1)
    scale = agent.start(8).network.scale
    for seed in range(3):  # the units of the first life are none, those of later ones differ
        life = live(family, agent, seed=seed)
        before = float(scale.count)
        assert agent.update([life])["approximate_kl"] < 1e-6
        assert float(scale.count) == before + life.steps
    assert scale.mean[-1] < -0.1  # rewards are


def test_the_return_runs_on_over_episodes_and_ends_with_the_trial():
    family = Countdown(limit=3)
    agent = build(family, gamma=0.5, gae_lambda=1.0, num_tasks=8)
    life = live(family, agent)
    batch, _ = agent._prepare(life)
    target = agent.start(8).network.value.unscaled(batch.target)
    for lane in range(8):
        expected, tail = [], 0.0
        for reward, valid in zip(
            reversed(life.reward[:, lane, 0].tolist()),
            reversed(life.valid[:, lane, 0].tolist()),
            strict=True,
        ):
            tail = reward + 0.5 * tail if valid else 0.0
            expected.append(tail)
        lived = life.valid[:, lane, 0]
        wanted = torch.tensor(expected[::-1])[lived]
        torch.testing.assert_close(target[:, lane][lived], wanted, rtol=1e-4, atol=1e-2)


def test_what_idle_lanes_hold_changes_nothing():
    family = Countdown(limit=4)
    agents = [build(family), build(family)]
    life = live(family, agents[0])
    assert not bool(life.valid.all())  # there are idle lanes
    idle = ~life.valid
    changed = dataclasses.replace(
        life,
        obs=life.obs.masked_fill(idle.unsqueeze(-1), 77.0),
        action=life.action.masked_fill(idle, 2),
        log_prob=life.log_prob.masked_fill(idle, -3.0),
    )
    agents[0].update([life])
    agents[1].update([changed])
    for name, value in agents[0].state().items():
        torch.testing.assert_close(agents[1].state()[name], value, rtol=1e-5, atol=1e-6)


def test_schedules_run_in_a_line_to_the_end_of_the_run():
    family = metarl.make_family("metarl/BernoulliBandit-v0", pulls=3)
    agent = build(
        family,
        iterations=3,
        learning_rate=0.01,
        final_learning_rate=0.002,
        entropy_coef=0.4,
        final_entropy_coef=0.0,
    )
    rows = [agent.update([live(family, agent)]) for _ in range(3)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(
        [0.01, 0.0073333, 0.0046667], rel=1e-4
    )
    assert [row["entropy_coef"] for row in rows] == pytest.approx(
        [0.4, 0.2666667, 0.1333333], rel=1e-4
    )


def test_gradients_are_clipped_by_norm():
    family = metarl.make_family("metarl/BernoulliBandit-v0", pulls=3)
    agent = build(family, max_grad_norm=1e-3)
    agent.update([live(family, agent)])
    gradients = [p.grad for p in agent.start(8).network.parameters() if p.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_a_non_finite_gradient_is_an_error_and_leaves_the_agent_as_it_was():
    family = metarl.make_family("metarl/BernoulliBandit-v0", pulls=3)
    agent = build(family)
    life = live(family, agent)
    before = agent.state()
    log_prob = life.log_prob.clone()
    log_prob[0, 3] = torch.nan  # one lane: other minibatches of the update have already stepped
    with pytest.raises(NonFiniteError, match=r"gradient of RL\^2 became nan .* in update 0"):
        agent.update([dataclasses.replace(life, log_prob=log_prob)])
    for name, value in agent.state().items():
        assert torch.equal(before[name], value), name


@pytest.mark.parametrize("core", ["gru", "lstm", "attention", "none"])
def test_an_agent_goes_on_from_its_state_as_if_it_had_never_stopped(core):
    family = metarl.make_family("metarl/PointNavigation-v0")
    options = {"memory": core, "separate_value": True, "normalise_inputs": True}
    one, two = build(family, **options), build(family, **options)
    one.update([live(family, one)])
    two.load_state(one.state())
    life = live(family, one, seed=1)
    one.update([life])
    two.update([life])
    for name, value in one.state().items():
        assert torch.equal(two.state()[name], value), name
    for name, parameter in one.start(8).network.named_parameters():
        assert bool((parameter.grad != 0).any()), name  # all of it learns


def test_a_checkpoint_of_another_width_is_refused():
    family = metarl.make_family("metarl/BernoulliBandit-v0")
    with pytest.raises(CheckpointError, match="does not fit this agent"):
        build(family, hidden_size=16).load_state(build(family, hidden_size=8).state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_tasks": 10},
            r"num_tasks=10 times rollouts_per_task=1 does not divide into num_minibatches=4",
        ),
        ({"gamma": 1.1}, "gamma=1.1 must lie between 0.0 and 1.0"),
        ({"num_tasks": -4}, "num_tasks=-4 must be greater than zero"),
        ({"episodes": 0}, "episodes=0 must be greater than zero"),
        (
            {"memory": "transformer"},
            "memory='transformer' is not one of gru, lstm, attention, none",
        ),
        (
            {"memory": "attention", "hidden_size": 30},
            "hidden_size=30 does not divide into the 4 heads",
        ),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be greater than zero"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        RL2Config(**options)


def train_on(family: TaskFamily, **options: object) -> torch.Tensor:
    """Mean return of each episode of a trial, in unseen tasks, after a short training [E]."""
    config = {
        "num_tasks": 128,
        "hidden_size": 32,
        "iterations": 60,
        "learning_rate": 4e-3,
    } | options
    agent = build(family, **config)
    for iteration in range(config["iterations"]):
        agent.update([live(family, agent, num_tasks=config["num_tasks"], seed=iteration)])
    tasks = family.sample_tasks(2000, Seeds(1).torch("unseen"), "test")
    episodes = family.trial_episodes
    life = collect(family, tasks, agent.start(2000), episodes=episodes, seeds=Seeds(1))
    return life.episode_returns(episodes).mean((1, 2))


@pytest.mark.learning
@pytest.mark.parametrize("core", ["gru", "lstm", "attention"])
def test_one_paying_arm_is_found_by_memory(core):
    # Two arms, one pays always: the first pull is a guess (.5), the second can be sure (1).
    family = metarl.make_family("metarl/GoalBandit-v0", arms=2, pulls=4, p_goal=1.0, p_other=0.0)
    returns = train_on(family, memory=core)
    assert 0.45 <= returns[0] <= 0.55
    assert (returns[1:] >= 0.97).all()


@pytest.mark.learning
def test_without_memory_one_paying_arm_stays_a_guess():
    family = metarl.make_family("metarl/GoalBandit-v0", arms=2, pulls=4, p_goal=1.0, p_other=0.0)
    returns = train_on(family, memory="none")
    assert ((returns >= 0.45) & (returns <= 0.55)).all()


@pytest.mark.learning
def test_with_memory_cleared_at_every_step_bandits_gain_nothing_from_first_to_last_pull():
    family = metarl.make_family("metarl/BernoulliBandit-v0")
    with_memory = train_on(family, iterations=80)
    without = train_on(family, iterations=80, memory="none")
    # 2000 tasks: the standard error of a difference of two pulls is .5 * sqrt(2 / 2000) = .016
    assert with_memory[-1] - with_memory[0] > 0.1
    assert abs(without[-1] - without[0]) < 0.05
