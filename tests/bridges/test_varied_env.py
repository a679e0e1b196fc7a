"""Gymnasium environments whose parameters vary: arguments, attributes, configure functions."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import metarl.checks.env_under_test
from metarl.bridges.varied_env import VariedEnv, register_varied_env
from metarl.errors import ConfigError
from metarl.networks.policies import UniformPolicy
from metarl.seeding import Seeds
from metarl.testing import run_checks


@pytest.fixture
def register():
    """Registers varied environments for the duration of a test."""
    made = []

    def run(env_id="CartPole-v1", name="Varied", **options):
        task_id = f"varied/{name}-v0"
        register_varied_env(task_id, env_id, **options)
        made.append(task_id)
        return task_id

    yield run
    for task_id in made:
        gymnasium.registry.pop(task_id)


def inertia(env, task):
    """Sets the attributes that depend on the mass and length of CartPole's pole."""
    env.total_mass = env.masspole + env.masscart
    env.polemass_length = env.masspole * env.length


def test_a_task_sets_attributes_and_then_calls_configure(register):
    task_id = register(
        attributes={"length": (0.25, 1.0), "masspole": (0.1, 0.4)},
        configure="tests.bridges.test_varied_env:inertia",
    )
    env = gymnasium.make(task_id)
    inner = env.unwrapped._env.unwrapped
    for length in (0.3, 0.75):
        env.reset(seed=0, options={"task": {"length": length, "masspole": np.float32(0.25)}})
        assert (inner.length, inner.masspole) == (length, 0.25)
        assert inner.polemass_length == 0.25 * length
        assert inner.total_mass == 1.25
        assert env.unwrapped.task == {"length": length, "masspole": 0.25}
        env.reset()
        env.reset(seed=1)
        assert inner.length == length


def test_transitions_equal_those_of_the_environment_with_these_parameters(register):
    env = gymnasium.make(register(attributes={"gravity": (5.0, 20.0)}))
    plain = gymnasium.make("CartPole-v1").unwrapped
    plain.gravity = 12.5
    one, _ = env.reset(seed=4, options={"task": {"gravity": 12.5}})
    two, _ = plain.reset(seed=4)
    assert np.array_equal(one, two)
    for action in (0, 1, 1, 0):
        one, two = env.step(action), plain.step(action)
        assert np.array_equal(one[0], two[0])
        assert one[1:] == two[1:]


def test_constructor_arguments_vary(register):
    env = gymnasium.make(register("MountainCar-v0", arguments={"goal_velocity": (0.0, 0.07)}))
    env.reset(seed=0, options={"task": {"goal_velocity": 0.05}})
    inner = env.unwrapped._env
    assert inner.unwrapped.goal_velocity == 0.05
    env.reset()
    assert env.unwrapped._env is inner  # only a new task makes a new environment
    env.reset(options={"task": {"goal_velocity": 0.01}})
    assert env.unwrapped._env.unwrapped.goal_velocity == 0.01


def test_a_new_environment_is_seeded_from_the_stream_of_the_old_one(register):
    task_id = register("MountainCar-v0", arguments={"goal_velocity": (0.0, 0.07)})
    initial = []
    for _ in range(2):
        env = gymnasium.make(task_id)
        env.reset(seed=3)
        obs, _ = env.reset(options={"task": {"goal_velocity": 0.05}})
        initial.append(obs.tolist())
    assert initial[0] == initial[1]


def test_without_a_given_task_the_seed_determines_the_task(register):
    task_id = register(attributes={"length": (0.25, 1.0)})
    drawn = []
    for seed in (1, 1, 2):
        env = gymnasium.make(task_id)
        env.reset(seed=seed)
        drawn.append(env.unwrapped.task["length"])
        assert drawn[-1] == env.unwrapped._env.unwrapped.length
    assert drawn[0] == drawn[1] != drawn[2]


def test_other_parameters_are_passed_to_configure(register):
    tasks = []
    task_id = register(others={"push": (1.0, 2.0)}, configure=lambda env, task: tasks.append(task))
    gymnasium.make(task_id).reset(options={"task": {"push": 1.5}})
    assert tasks == [{"push": 1.5}]


def test_the_family_of_a_varied_environment(register):
    family = metarl.make_family(
        register(attributes={"length": (0.25, 1.0), "gravity": (5.0, 20.0)}, trial_episodes=5)
    )
    assert isinstance(family.env_task_space, spaces.Dict)
    np.testing.assert_allclose(family.task_space.low, [5.0, 0.25])  # sorted by name
    np.testing.assert_allclose(family.task_space.high, [20.0, 1.0])
    assert (family.episode_steps, family.trial_episodes) == (500, 5)
    tasks = family.sample_tasks(200, torch.Generator().manual_seed(0))
    assert tasks.mean(0).tolist() == pytest.approx([12.5, 0.625], rel=0.1)
    data = metarl.collect(
        family, tasks[:2], UniformPolicy(family.action_space), episodes=2, seeds=Seeds(0)
    )
    assert float(data.reward.sum()) == data.steps  # reward 1 for each step
    family.close()


def test_the_new_time_limit_may_be_longer_or_shorter(register):
    env = gymnasium.make(register("MountainCar-v0", "Long", others={"x": (0.0, 1.0)},
                                  max_episode_steps=250))  # fmt: skip
    env.reset(seed=0)
    steps = 1
    while not any(env.step(1)[2:4]):
        steps += 1
    assert steps == 250
    short = gymnasium.make(register("MountainCar-v0", "Short", others={"x": (0.0, 1.0)},
                                    max_episode_steps=3))  # fmt: skip
    short.reset(seed=0)
    assert [short.step(1)[3] for _ in range(3)] == [False, False, True]


def test_options_that_do_not_vary_are_passed_on(register):
    env = gymnasium.make(register(others={"x": (0.0, 1.0)}, sutton_barto_reward=True))
    assert env.unwrapped._env.unwrapped._sutton_barto_reward


def test_invalid_variations_are_refused(register):
    with pytest.raises(ConfigError, match="Nothing varies: name constructor arguments"):
        register()
    for ends in [(1.0,), (2.0, 1.0), (0.0, np.inf), 3.0]:
        with pytest.raises(ConfigError, match=r"length=.* must be a range \(lowest, highest\)"):
            register(attributes={"length": ends})
    taken = register(attributes={"length": (0.25, 1.0)})
    with pytest.raises(ConfigError, match=f"The id '{taken}' is already registered"):
        register(attributes={"length": (0.25, 2.0)})
    register_varied_env(taken, "CartPole-v1", attributes={"length": (0.25, 1.0)})  # the same
    with pytest.raises(ConfigError, match=r"CartPole-v1 has no option 'test_attributes'"):
        register(name="New", attributes={"length": (0.25, 1.0)}, test_attributes={})
    with pytest.raises(gymnasium.error.NameNotFound):
        register("KartPole-v9", "Other", attributes={"length": (0.25, 1.0)})


def test_errors_name_unknown_attributes_and_arguments(register):
    with pytest.raises(ConfigError, match=r"no attribute 'lenght'.*Did you mean 'length'.*gravity"):
        gymnasium.make(register(attributes={"lenght": (0.25, 1.0)}))
    with pytest.raises(ConfigError, match=r"no attribute 'tau.dt'"):
        gymnasium.make(register(name="Dotted", attributes={"tau.dt": (0.25, 1.0)}))
    env = gymnasium.make(register(name="Argument", arguments={"length": (0.25, 1.0)}))
    with pytest.raises(ConfigError, match=r"cannot be made with length: .*goes into `attributes`"):
        env.reset(seed=0)


def test_nested_attributes_vary():
    class Inner(gymnasium.Env):
        observation_space = action_space = spaces.Discrete(2)
        model = type("Model", (), {})()
        model.opt = type("Opt", (), {"timestep": 0.1})()

        def reset(self, *, seed=None, options=None):
            return 0, {}

    gymnasium.register("varied/Inner-v0", entry_point=Inner)
    try:
        variation = {
            "env_id": "varied/Inner-v0",
            "arguments": {},
            "attributes": {"model.opt.timestep": (0.0, 1.0)},
            "others": {},
            "configure": None,
            "trial_episodes": None,
        }
        env = VariedEnv(variation)
        env.reset(options={"task": {"model.opt.timestep": 0.5}})
        assert Inner.model.opt.timestep == 0.5
    finally:
        del gymnasium.registry["varied/Inner-v0"]


@pytest.mark.parametrize(
    ("env_id", "variation"),
    [
        ("CartPole-v1", {"attributes": {"length": (0.25, 1.0), "gravity": (5.0, 20.0)}}),
        ("MountainCar-v0", {"arguments": {"goal_velocity": (0.0, 0.07)}}),
        ("Pendulum-v1", {"arguments": {"g": (5.0, 15.0)}}),
    ],
)
def test_varied_environments_pass_the_checks(register, env_id, variation, monkeypatch):
    monkeypatch.setattr(metarl.checks.env_under_test, "MAX_SEARCH_STEPS", 1500)
    report = run_checks(register(env_id, **variation), workers=0)
    # The task has an effect only at the goal, which random actions do not reach.
    expected = ["the task matters"] if env_id == "MountainCar-v0" else []
    assert [finding.name for finding in report.failed] == expected, str(report)
