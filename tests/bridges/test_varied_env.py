"""Any Gymnasium environment whose numbers vary: arguments, attributes, and what follows."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import metarl.checks.framework
from metarl.bridges.gym_family import env_family
from metarl.bridges.varied_env import VariedEnv, register_varied_env
from metarl.errors import ConfigError
from metarl.networks.policies import UniformPolicy
from metarl.seeding import Seeds
from metarl.testing import examine_task


@pytest.fixture
def register():
    """Registers varied environments for the length of a test."""
    made = []

    def run(env_id="CartPole-v1", name="Varied", **options):
        task_id = f"varied/{name}-v0"
        register_varied_env(task_id, env_id, **options)
        made.append(task_id)
        return task_id

    yield run
    env_family.cache_clear()
    for task_id in made:
        gymnasium.registry.pop(task_id)


def inertia(env, task):
    """What depends on mass and length of CartPole's pole."""
    env.total_mass = env.masspole + env.masscart
    env.polemass_length = env.masspole * env.length


def test_attributes_are_those_of_the_task_and_what_follows_is_configured(register):
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


def test_the_life_is_that_of_the_environment_with_these_numbers(register):
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
    assert env.unwrapped._env is inner  # made anew for another task only
    env.reset(options={"task": {"goal_velocity": 0.01}})
    assert env.unwrapped._env.unwrapped.goal_velocity == 0.01


def test_luck_goes_on_when_the_environment_is_made_anew(register):
    task_id = register("MountainCar-v0", arguments={"goal_velocity": (0.0, 0.07)})
    openings = []
    for _ in range(2):
        env = gymnasium.make(task_id)
        env.reset(seed=3)
        obs, _ = env.reset(options={"task": {"goal_velocity": 0.05}})
        openings.append(obs.tolist())
    assert openings[0] == openings[1]


def test_a_task_that_nobody_gave_is_drawn_from_the_seed(register):
    task_id = register(attributes={"length": (0.25, 1.0)})
    drawn = []
    for seed in (1, 1, 2):
        env = gymnasium.make(task_id)
        env.reset(seed=seed)
        drawn.append(env.unwrapped.task["length"])
        assert drawn[-1] == env.unwrapped._env.unwrapped.length
    assert drawn[0] == drawn[1] != drawn[2]


def test_numbers_for_configure_alone(register):
    seen = []
    task_id = register(others={"push": (1.0, 2.0)}, configure=lambda env, task: seen.append(task))
    gymnasium.make(task_id).reset(options={"task": {"push": 1.5}})
    assert seen == [{"push": 1.5}]


def test_the_family_of_a_varied_environment(register):
    family = metarl.make_family(
        register(attributes={"length": (0.25, 1.0), "gravity": (5.0, 20.0)}, trial_episodes=5)
    )
    assert isinstance(family.own_task_space, spaces.Dict)
    np.testing.assert_allclose(family.task_space.low, [5.0, 0.25])  # by name
    np.testing.assert_allclose(family.task_space.high, [20.0, 1.0])
    assert (family.episode_steps, family.trial_episodes) == (500, 5)
    tasks = family.sample_tasks(200, torch.Generator().manual_seed(0))
    assert tasks.mean(0).tolist() == pytest.approx([12.5, 0.625], rel=0.1)
    lived = metarl.collect(
        family, tasks[:2], UniformPolicy(family.action_space), episodes=2, seeds=Seeds(0)
    )
    assert float(lived.reward.sum()) == lived.steps  # one for each step that the pole stands
    family.close()


def test_the_new_limit_holds_even_if_it_is_longer(register):
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


def test_what_cannot_vary_is_refused(register):
    with pytest.raises(ConfigError, match="Nothing varies: name constructor arguments"):
        register()
    for ends in [(1.0,), (2.0, 1.0), (0.0, np.inf), 3.0]:
        with pytest.raises(ConfigError, match=r"length=.* must be a range \(lowest, highest\)"):
            register(attributes={"length": ends})
    taken = register(attributes={"length": (0.25, 1.0)})
    with pytest.raises(ConfigError, match=f"The id '{taken}' is already registered"):
        register(attributes={"length": (0.25, 1.0)})
    with pytest.raises(gymnasium.error.NameNotFound):
        register("KartPole-v9", "Other", attributes={"length": (0.25, 1.0)})


def test_unknown_attributes_and_arguments_are_named(register):
    with pytest.raises(ConfigError, match=r"no attribute 'lenght'.*Did you mean 'length'.*gravity"):
        gymnasium.make(register(attributes={"lenght": (0.25, 1.0)}))
    with pytest.raises(ConfigError, match=r"no attribute 'tau.dt'"):
        gymnasium.make(register(name="Dotted", attributes={"tau.dt": (0.25, 1.0)}))
    env = gymnasium.make(register(name="Argument", arguments={"length": (0.25, 1.0)}))
    with pytest.raises(ConfigError, match=r"cannot be made with length: .*goes into `attributes`"):
        env.reset(seed=0)


def test_attributes_of_attributes_vary():
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
def test_varied_environments_keep_the_promises(register, env_id, variation, monkeypatch):
    monkeypatch.setattr(metarl.checks.framework, "MOST_SEARCHED", 1500)
    report = examine_task(register(env_id, **variation), workers=0)
    # No random action brings the car to the goal, where alone the task is felt.
    expected = ["task matters"] if env_id == "MountainCar-v0" else []
    assert [finding.name for finding in report.broken] == expected, str(report)
