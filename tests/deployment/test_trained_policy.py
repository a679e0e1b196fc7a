"""A trained policy in a loop of its user: percepts, noise, adaptation and misuse."""

from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import metarl
from metarl.deployment.trained_policy import TrainedPolicy, load_policy
from metarl.errors import ConfigError, NonFiniteError, PolicyUseError, ShapeError
from metarl.rollout import RolloutSpec, collect, rollout_phases
from metarl.seeding import Seeds
from metarl.training.loop import train
from tests.simple_agents import Steering, SteeringConfig
from tests.simple_families import Countdown, Recorder

SMALL = {"num_tasks": 8, "iterations": 1, "progress": False}
FEW_SHOT = {"shots": 5, "queries": 5, "rewarded": "queries"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A small run of each kind of agent."""
    folder = tmp_path_factory.mktemp("runs")

    def small(agent, task, **options):
        name = f"{agent}-{options.get('memory', '')}-{task.partition('/')[2]}"
        return train(agent, task, out=folder / name, **{**SMALL, **options})

    return {
        "gru": small("rl2", "metarl/TMaze-v0", hidden_size=8),
        "attention": small("rl2", "metarl/BernoulliBandit-v0", hidden_size=8, memory="attention"),
        "box": small("rl2", "metarl/PointNavigation-v0", hidden_size=8),
        "maml": small("maml", "metarl/PointNavigation-v0", hidden_sizes=(8,), rollouts_per_task=4),
        "platipus": small(
            "platipus", "metarl/PointNavigation-v0", hidden_sizes=(8,), rollouts_per_task=4
        ),
        "pearl": small("pearl", "metarl/PointNavigation-v0", hidden_size=8),
        "meta_lstm": small(
            "meta_lstm",
            "metarl/Sinusoid-v0",
            hidden_sizes=(8,),
            rollouts_per_task=5,
            adapt_each_rollout=True,
            estimator="supervised",
            task_options=FEW_SHOT,
        ),
    }


class OneLane:
    """The trajectory's environment again, with NumPy arrays: what `act` chose before is checked."""

    def __init__(self, trajectory, policy):
        self.trajectory, self.policy = trajectory, policy

    def replay(self, space):
        """Feeds observations and outcomes of all lanes to the policy; compares its actions."""
        flat = {
            name: getattr(self.trajectory, name).flatten(1, 2).numpy()
            for name in ("obs", "action", "reward", "terminated", "truncated", "valid")
        }
        for step in range(len(flat["obs"])):
            action = self.policy.act(flat["obs"][step])
            expected = flat["action"][step]
            if isinstance(space, spaces.Box):
                expected = np.clip(expected, space.low, space.high)
            active = flat["valid"][step]
            np.testing.assert_array_equal(action[active], expected[active])
            self.policy.observe(
                *(flat[name][step] for name in ("reward", "terminated", "truncated"))
            )


@pytest.mark.parametrize("name", ["gru", "attention", "box", "pearl"])
def test_actions_are_those_of_the_engine_bit_for_bit(runs, name):
    run = runs[name]
    policy, family = load_policy(run), run.config.make_family()
    agent = run.make_agent(family)
    run.load(agent)
    tasks = family.sample_tasks(6, Seeds(1).torch("tasks"))
    batch = rollout_phases(
        agent,
        family,
        tasks,
        adaptation_steps=0,
        spec=RolloutSpec(episodes=family.trial_episodes),
        seeds=Seeds(5),
    )
    policy.begin_trial(6, seed=5)
    OneLane(batch.trajectories[0], policy).replay(family.action_space)


@pytest.mark.parametrize("rollouts", [1, 4])
@pytest.mark.parametrize("name", ["maml", "platipus", "meta_lstm"])
def test_adaptation_equals_that_of_the_engine_bit_for_bit(runs, name, rollouts):
    run = runs[name]
    policy, family = load_policy(run), run.config.make_family()
    agent = run.make_agent(family)
    run.load(agent)
    tasks = family.sample_tasks(3, Seeds(1).torch("tasks"))
    spec = RolloutSpec(episodes=2, rollouts_per_task=rollouts)
    batch = rollout_phases(agent, family, tasks, adaptation_steps=2, spec=spec, seeds=Seeds(5))
    policy.begin_trial(3 * rollouts, rollouts_per_task=rollouts, seed=5)
    for phase, trajectory in enumerate(batch.trajectories):
        if phase:
            policy.adapt()
            policy.begin_episode()  # the engine resets before each phase
        OneLane(trajectory, policy).replay(family.action_space)


def test_a_rollout_that_adapts_to_itself_does_not_depend_on_how_many_there_are(runs):
    """One environment, a task of each lane, and rollouts of one task: as the training's or not."""
    policy, lanes = load_policy(runs["meta_lstm"]), 3
    generator = np.random.default_rng(0)
    obs = generator.uniform((-5, -5, 1, 0), (5, 5, 1, 1), (10, lanes, 4)).astype(np.float32)

    def params(choose, **options):
        policy.begin_trial(**options)
        for step in range(10):
            policy.act(choose(obs[step]))
            policy.observe(*(choose(np.full(lanes, each)) for each in (0.0, False, step == 9)))
        policy.adapt()
        policy.act(choose(obs[0]))
        return policy._trial.policy.params

    own, joined = (
        params(lambda x: x, num_envs=lanes),
        params(lambda x: x, num_envs=lanes, rollouts_per_task=lanes),
    )
    assert len(own) == lanes
    torch.testing.assert_close(joined, own)
    assert (own[0] - own[1]).abs().max() > 1e-4
    for lane in range(lanes):
        torch.testing.assert_close(params(lambda x, lane=lane: x[lane])[0], own[lane])


def test_trials_differ_without_a_seed_and_are_equal_with_one(runs):
    policy = load_policy(runs["box"])
    obs = np.zeros((4, 2), dtype=np.float32)

    def first_actions(**options):
        policy.begin_trial(4, **options)
        return policy.act(obs)

    assert (first_actions() != first_actions()).all()
    np.testing.assert_array_equal(first_actions(seed=3), first_actions(seed=3))
    again = load_policy(runs["box"])
    again.begin_trial(4)
    assert not np.array_equal(again.act(obs), first_actions())


def test_the_most_likely_action_does_not_depend_on_the_noise(runs):
    for name, size in (("box", 2), ("gru", None), ("maml", 2)):
        policy = load_policy(runs[name])
        width = size or policy._family.observation_space.shape[0]
        actions = []
        for seed in range(5):
            policy.begin_trial(seed=seed)
            actions.append(policy.act(np.ones(width, dtype=np.float32), deterministic=True))
        assert all(np.array_equal(actions[0], other) for other in actions), name


def test_a_policy_without_a_most_likely_action_says_so():
    policy = TrainedPolicy(Steering(SteeringConfig()), SteeringConfig(), goals())
    policy.begin_trial()
    with pytest.raises(PolicyUseError, match=r"SteeringPolicy has no method `greedy`"):
        policy.act(np.zeros(2, dtype=np.float32), deterministic=True)


def goals():
    return metarl.make_family("metarl/PointNavigation-v0")


def test_single_and_vector_environments_of_gymnasium(runs):
    policy = load_policy(runs["box"])
    env = gymnasium.make("metarl/PointNavigation-v0")
    obs, _ = env.reset(seed=1)
    policy.begin_trial()
    for _ in range(150):  # more than one episode
        action = policy.act(obs)
        assert env.action_space.contains(action)
        obs, reward, terminated, truncated, _ = env.step(action)
        policy.observe(reward, terminated, truncated)
        if terminated or truncated:
            obs, _ = env.reset()
    envs = gymnasium.make_vec("metarl/PointNavigation-v0", num_envs=3, autoreset_mode="SameStep")
    obs, _ = envs.reset(seed=1)
    policy.begin_trial(envs)
    for _ in range(150):
        obs, *outcome, _ = envs.step(policy.act(obs))
        policy.observe(*outcome)


class Words(gymnasium.Env):
    """A Dict observation and actions that start at 3; each episode has two steps."""

    observation_space = spaces.Dict(
        {"place": spaces.Discrete(3), "size": spaces.Box(-1, 1, (1, 2))}
    )
    action_space = spaces.Discrete(2, start=3)
    task_space = spaces.Discrete(2)
    trial_episodes = 2

    def __init__(self):
        self.given, self.task = [], 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.task = (options or {}).get("task", self.task)
        self.steps = 0
        return self._obs(), {}

    def _obs(self):
        return {"place": np.int64(self.steps), "size": np.full((1, 2), 0.5, dtype=np.float32)}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        return self._obs(), float(action == 3 + self.task), self.steps == 2, False, {}


@pytest.fixture
def words():
    gymnasium.register("tests/Words-v0", Words, max_episode_steps=5)
    yield "tests/Words-v0"
    del gymnasium.registry["tests/Words-v0"]


def test_dict_observations_and_shifted_actions_as_gymnasium_gives_them(words, tmp_path):
    run = train("rl2", words, out=tmp_path / "run", hidden_size=8, **SMALL)
    policy, family = load_policy(run), run.config.make_family()
    agent = run.make_agent(family)
    run.load(agent)
    tasks = torch.zeros(3, dtype=torch.int64)
    trajectory = collect(
        family,
        tasks,
        agent.start(3, None),
        episodes=2,
        seeds=Seeds(4).child("phase", 0),
    )
    envs = SyncVectorEnv(
        [lambda: gymnasium.make(words)] * 3, autoreset_mode=AutoresetMode.SAME_STEP
    )
    obs, _ = envs.reset(options={"task": 0})
    policy.begin_trial(envs, seed=4)
    for step in range(4):
        action = policy.act(obs)
        np.testing.assert_array_equal(action - 3, trajectory.action[step, :, 0].numpy())
        obs, reward, terminated, truncated, _ = envs.step(action)
        np.testing.assert_array_equal(reward, trajectory.reward[step, :, 0].numpy())
        policy.observe(reward, terminated, truncated)
    env = gymnasium.make(words)
    policy.begin_trial()
    action = policy.act(env.reset()[0])
    assert env.action_space.contains(action)
    policy.observe(0.0, False, False)
    with pytest.raises(ShapeError, match=r"expected that of one environment with Dict"):
        policy.act({"place": 1})


def test_an_agent_that_reads_next_observations_is_given_them():
    family = goals()
    policy = TrainedPolicy(Steering(SteeringConfig()), SteeringConfig(), family)
    assert policy.needs_next_observation
    policy.begin_trial()
    obs = np.zeros(2, dtype=np.float32)
    policy.act(obs)
    with pytest.raises(PolicyUseError, match=r"pass the observation that step\(\) returned"):
        policy.observe(-1.0, False, False)
    best = np.array([0.3, -0.2], dtype=np.float32)
    policy.observe(5.0, False, True, best)
    policy.adapt()
    np.testing.assert_allclose(policy._trial.policy.aim[0], best)


def test_an_unfinished_episode_is_not_learned_from(runs):
    """One lane is in the middle of an episode: the engine's steps without it decide."""
    policy = load_policy(runs["maml"])
    family = goals()
    agent = runs["maml"].make_agent(family)
    runs["maml"].load(agent)
    tasks = family.sample_tasks(1, Seeds(1).torch("tasks"))
    spec = RolloutSpec(episodes=2, rollouts_per_task=2)
    (phase,) = rollout_phases(
        agent, family, tasks, adaptation_steps=0, spec=spec, seeds=Seeds(5)
    ).phases
    policy.begin_trial(2, rollouts_per_task=2, seed=5)
    OneLane(phase.trajectory, policy).replay(family.action_space)
    for _ in range(3):  # of a third episode
        policy.act(np.zeros((2, 2), dtype=np.float32))
        policy.observe(*np.zeros((3, 2)))
    recorded = policy._trial.recording.trajectory(1)
    for name in ("obs", "action", "log_prob", "reward", "terminated", "first", "valid"):
        assert torch.equal(getattr(recorded, name), getattr(phase.trajectory, name)), name
    policy.adapt()
    # The rest of the episode that had begun belongs to no phase.
    zeros, ones = np.zeros(2), np.ones(2)
    policy.act(np.full((2, 2), 0.1, dtype=np.float32))
    policy.observe(zeros, zeros, ones)
    with pytest.raises(PolicyUseError, match="Lane 0 has finished no episode"):
        policy.adapt()
    policy.act(np.full((2, 2), 0.2, dtype=np.float32))
    policy.observe(ones, zeros, ones)
    (only,) = policy._trial.recording.trajectory(1).obs
    torch.testing.assert_close(only, torch.full((1, 2, 2), 0.2))


def test_a_reset_before_the_end_truncates_the_episode(runs):
    obs, zeros, no = np.zeros((2, 2), dtype=np.float32), np.zeros(2), np.zeros(2, dtype=bool)
    policy = load_policy(runs["maml"])
    policy.begin_trial(2)
    policy.act(obs)
    with pytest.raises(PolicyUseError, match="before the last action was observed"):
        policy.begin_episode()
    policy.observe(zeros, np.array([False, True]), no)
    policy.begin_episode()
    policy.act(obs)
    assert policy._trial.percept.first_of_episode.all()
    assert policy._trial.percept.previous_truncated.tolist() == [True, False]
    policy.observe(zeros, no, ~no)
    recorded = policy._trial.recording.trajectory(2)
    assert recorded.truncated[:, :, 0].tolist() == [[True, False], [True, True]]
    assert recorded.first.all()


@pytest.mark.parametrize("tasks_and_rollouts", [(3, 1), (1, 3)])
def test_lanes_are_tasks_or_rollouts_of_one(runs, tasks_and_rollouts):
    tasks, rollouts = tasks_and_rollouts
    policy = load_policy(runs["maml"])
    policy.begin_trial(3, rollouts_per_task=rollouts)
    assert len(policy._trial.policy.params) == tasks


def test_wrong_use_is_one_clear_error(runs):
    policy = load_policy(runs["box"])
    obs, zero = np.zeros(2, dtype=np.float32), (0.0, False, False)
    for call in (lambda: policy.act(obs), lambda: policy.observe(*zero), policy.adapt):
        with pytest.raises(PolicyUseError, match=r"was called before begin_trial\(\)"):
            call()
    policy.begin_trial()
    with pytest.raises(PolicyUseError, match=r"no action to observe: call act\(\) first"):
        policy.observe(*zero)
    policy.act(obs)
    with pytest.raises(PolicyUseError, match=r"act\(\) was called twice"):
        policy.act(obs)
    policy.observe(*zero)
    with pytest.raises(PolicyUseError, match="no action to observe"):
        policy.observe(*zero)
    with pytest.raises(PolicyUseError, match=r"RL² adapts in its memory.*Leave the call out"):
        policy.adapt()
    gradient = load_policy(runs["maml"])
    gradient.begin_trial()
    with pytest.raises(PolicyUseError, match="Nothing was observed since"):
        gradient.adapt()
    gradient.act(obs)
    with pytest.raises(PolicyUseError, match="before the last action was observed"):
        gradient.adapt()


def test_wrong_shapes_and_numbers_are_one_clear_error(runs):
    policy = load_policy(runs["box"])
    policy.begin_trial()
    with pytest.raises(ShapeError, match=r"one environment with Box.*shape \[3\]"):
        policy.act(np.zeros(3, dtype=np.float32))
    with pytest.raises(ShapeError, match="give their number to begin_trial"):
        policy.act(np.zeros((4, 2), dtype=np.float32))
    with pytest.raises(NonFiniteError, match=r"observation of lane 0 is \[nan, 0.0\]"):
        policy.act(np.array([np.nan, 0.0]))
    policy.act(np.zeros(2, dtype=np.float32))  # the errors before changed nothing
    with pytest.raises(ShapeError, match="reward must be one number"):
        policy.observe([1.0, 2.0], False, False)
    with pytest.raises(NonFiniteError, match="reward of lane 0 is nan"):
        policy.observe(np.nan, False, False)
    policy.begin_trial(4)
    policy.act(np.zeros((4, 2), dtype=np.float32))
    with pytest.raises(ShapeError, match="terminated must be 4 numbers, one for each lane"):
        policy.observe(np.zeros(4), False, False)


def test_begin_trial_refuses_what_it_cannot_step(runs):
    policy = load_policy(runs["box"])
    with pytest.raises(ConfigError, match="rollouts_per_task=3 does not divide the 4"):
        policy.begin_trial(4, rollouts_per_task=3)
    with pytest.raises(ConfigError, match="num_envs=0 must be greater"):
        policy.begin_trial(0)
    envs = SyncVectorEnv([lambda: gymnasium.make("metarl/PointNavigation-v0")] * 2)
    with pytest.raises(ConfigError, match=r"NEXT_STEP.*SAME_STEP"):
        policy.begin_trial(envs)


def test_a_step_that_terminates_and_is_truncated_counts_as_terminated():
    class Seen(Recorder):
        def greedy(self):
            return self

    recorder = Seen()

    @dataclass
    class Agent:
        evaluation_steps = 0

        def start(self, num_tasks, noise):
            return recorder

    policy = TrainedPolicy(Agent(), SteeringConfig(episodes=2), Countdown())
    policy.begin_trial()
    for _ in range(2):
        policy.act(np.zeros(2, dtype=np.float32))
        policy.observe(1.5, True, True)
    first, second = recorder.seen
    assert (bool(first.first_of_trial), bool(second.first_of_trial)) == (True, False)
    assert bool(second.first_of_episode)
    assert bool(second.previous_terminated)
    assert not bool(second.previous_truncated)
    assert float(second.previous_reward) == 1.5
    assert int(second.previous_action) == 0


def mean_and_error(returns):
    """Mean over tasks and its standard error."""
    return returns.mean(), returns.std() / len(returns) ** 0.5


@pytest.mark.learning
def test_returns_of_a_loop_equal_those_of_an_evaluation_for_rl2(tmp_path):
    task = "metarl/BernoulliBandit-v0"
    run = train("rl2", task, num_tasks=256, iterations=60, out=tmp_path / "run", progress=False)
    (curve,) = metarl.evaluate(run, num_tasks=2000, references=False)
    policy, num = load_policy(run), 2000
    envs = gymnasium.make_vec(task, num_envs=num, autoreset_mode="SameStep")
    tasks = envs.unwrapped.sample_task(np.random.default_rng(3), "test")

    def total(forget):
        obs, _ = envs.reset(seed=7, options={"task": tasks})
        policy.begin_trial(envs)
        rewards = np.zeros(num)
        for _ in range(10):
            obs, reward, *flags, _ = envs.step(policy.act(obs))
            policy.observe(reward, *flags)
            rewards += reward
            if forget:
                policy.begin_trial(envs)
        return rewards

    (loop, one), (expected, two) = (
        mean_and_error(total(False)),
        mean_and_error(curve.returns.sum(0)),
    )
    bound = 4 * np.hypot(one, two)
    assert abs(loop - expected) < bound
    assert expected - total(True).mean() > bound  # without its memory it is far off


def test_returns_of_a_loop_equal_those_of_an_evaluation_where_each_rollout_adapts(
    tmp_path, monkeypatch
):
    """In one environment, where the training had five rollouts of each task."""
    monkeypatch.chdir(tmp_path)  # the evaluation writes there
    agent, trials = "zoo:meta-lstm-sinusoid", 60
    (curve,) = metarl.evaluate(
        agent, num_tasks=300, references=False, agent_options={"evaluation_steps": 1}
    )
    policy, env = load_policy(agent), gymnasium.make("metarl/Sinusoid-v0", **FEW_SHOT)
    env.reset(seed=3)
    returns = np.zeros((2, trials))
    for trial in range(trials):
        task = env.unwrapped.sample_task(env.np_random, "test")
        obs, _ = env.reset(options={"task": task})
        policy.begin_trial()
        for episode in range(2):
            ended = False
            while not ended:
                obs, reward, terminated, truncated, _ = env.step(policy.act(obs))
                policy.observe(reward, terminated, truncated)
                returns[episode, trial] += reward
                ended = terminated or truncated
            if episode == 0:
                policy.adapt()
            obs, _ = env.reset()
    (before, one), (after, two) = map(mean_and_error, returns)
    for loop, error, expected in ((before, one, curve.returns[0]), (after, two, curve.returns[1])):
        assert abs(loop - expected.mean()) < 4 * np.hypot(error, mean_and_error(expected)[1])
    assert after - before > 4 * np.hypot(one, two)  # it is adapted


@pytest.mark.learning
def test_returns_of_a_loop_equal_those_of_an_evaluation_for_maml(tmp_path):
    task = "metarl/PointNavigation-v0"
    options = {"num_tasks": 20, "rollouts_per_task": 10, "iterations": 8, "inner_lr": 0.3}
    run = train("maml", task, out=tmp_path / "run", progress=False, **options)
    (curve,) = metarl.evaluate(
        run, num_tasks=100, references=False, agent_options={"evaluation_steps": 1}
    )
    policy, tasks, rollouts = load_policy(run), 100, 10
    envs = gymnasium.make_vec(task, num_envs=tasks * rollouts, autoreset_mode="SameStep")
    goals = envs.unwrapped.sample_task(np.random.default_rng(3), "test")[:tasks]
    obs, _ = envs.reset(seed=7, options={"task": goals.repeat(rollouts, 0)})
    policy.begin_trial(envs, rollouts_per_task=rollouts)
    means = []
    for phase in range(2):
        if phase:
            policy.adapt()
        rewards, running = np.zeros(tasks * rollouts), np.ones(tasks * rollouts, dtype=bool)
        while running.any():
            obs, reward, terminated, truncated, _ = envs.step(policy.act(obs))
            policy.observe(reward, terminated, truncated)
            rewards += reward * running
            running &= ~(terminated | truncated)
        means.append(mean_and_error(rewards.reshape(tasks, rollouts).mean(1)))
    for (loop, one), expected in zip(means, curve.returns, strict=True):
        assert abs(loop - expected.mean()) < 4 * np.hypot(one, mean_and_error(expected)[1])
    assert abs(means[1][0] - means[0][0]) > 4 * np.hypot(means[0][1], means[1][1])
