"""Gymnasium environments as families: conversion of tasks, options, batched envs, errors."""

import copy
import gc
import weakref

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import metarl
from metarl import plugins, registry
from metarl.bridges.gym_family import EnvFamily
from metarl.cli import main as cli
from metarl.errors import ConfigError, TaskContractError, TaskError
from metarl.noise import LaneNoise, lane_keys
from metarl.seeding import Seeds
from metarl.tasks.family import as_tasks, draw_tasks
from tests.simple_families import Recorder
from tests.training.test_loop import Interrupting, assert_equal_runs


class Lever(gymnasium.Env):
    """Three levers; the task is the one that pays.

    And a second paragraph.
    """

    observation_space = spaces.Dict({"b": spaces.Box(0, 9, (2,)), "a": spaces.Discrete(2)})
    action_space = spaces.Discrete(3, start=1)
    task_space = spaces.Discrete(6, start=1)
    trial_episodes = 3

    def __init__(self, pay: float = 1.0, levers: int = 3, name="x", table=None, render_mode=None):
        self.pay, self.task, self.resets = pay, None, []

    def sample_task(self, np_random, split):
        return 1 + np_random.integers(3) + 3 * (split == "test")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        task = (options or {}).get("task", self.task)
        self.task = self.sample_task(self.np_random, "train") if task is None else task
        self.resets.append((seed, None if task is None else int(task)))
        self.count = 0
        return self._obs(), {}

    def _obs(self):
        return {"a": self.count % 2, "b": np.full(2, self.count, np.float32)}

    def step(self, action):
        assert action in self.action_space
        self.count += 1
        reward = self.pay * float(action == (int(self.task) - 1) % 3 + 1)
        return self._obs(), reward, bool(reward), False, {"success": bool(reward)}


@pytest.fixture
def register():
    """Registers environments for the duration of a test."""
    made = []

    def run(cls=Lever, name="Lever", **spec):
        task_id = f"door/{name}-v0"
        gymnasium.register(task_id, entry_point=cls, **{"max_episode_steps": 4, **spec})
        made.append(task_id)
        return task_id

    yield run
    for task_id in made:
        del gymnasium.registry[task_id]


@pytest.fixture
def family(register):
    family = metarl.make_family(register())
    yield family
    family.close()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def opened(family, tasks, seed=0, **options):
    """A batched env of the family, in the tasks [L]."""
    return family.open_env(tasks, LaneNoise(lane_keys(seed, len(tasks))), **options)


def test_properties_of_a_family(family):
    assert isinstance(family, EnvFamily)
    assert family.observation_space.shape == (4,)  # one-hot of two, and two numbers
    assert family.action_space == spaces.Discrete(3)
    assert family.task_space == spaces.Discrete(6, start=1)
    assert (family.episode_steps, family.trial_episodes, family.max_lanes) == (4, 3, 250)
    assert family.defines_success
    assert not family.task_is_observable
    assert not family.splits_share_tasks
    assert type(family).__doc__.startswith("Three levers; the task is the one that pays.")
    (floor,) = family.references(2).values()
    assert (floor.role, floor.label) == ("floor", "random")


def test_constructor_arguments_with_plain_defaults_are_options(register):
    task_id = register(kwargs={"levers": 4})
    family = metarl.make_family(task_id, pay=2)
    assert {name: getattr(family, name) for name in ("pay", "levers", "name")} == {
        "pay": 2,
        "levers": 4,
        "name": "x",
    }
    assert registry.name_of(family) == (task_id, {"pay": 2, "levers": 4, "name": "x"})
    assert metarl.make_family(task_id, pay=2) == family
    assert family.make_env().unwrapped.pay == 2
    for name in ("table", "render_mode", "lever"):
        with pytest.raises(ConfigError, match=f"has no option '{name}'.* pay, levers, name"):
            metarl.make_family(task_id, **{name: 1})


def test_declarations_of_the_environment_become_those_of_the_family(register):
    declared = type("Declared", (Lever,), {"splits_share_tasks": True, "task_is_observable": True})
    family = metarl.make_family(register(declared))
    assert family.splits_share_tasks
    assert family.task_is_observable


def test_the_environment_draws_the_tasks_of_each_split(family):
    train, test = (draw_tasks(family, 50, seeded(0), split) for split in ("train", "test"))
    assert set(train.tolist()) == {1, 2, 3}
    assert set(test.tolist()) == {4, 5, 6}
    assert torch.equal(train, family.sample_tasks(50, seeded(0)))
    assert not torch.equal(train, family.sample_tasks(50, seeded(1)))


class DictTasks(Lever):
    """Tasks in a Dict space, and no `sample_task`."""

    sample_task = None
    task_space = spaces.Dict(
        {
            "mass": spaces.Box(0.1, 0.3, (), np.float64),
            "goal": spaces.Tuple((spaces.Discrete(3, start=2), spaces.Box(-1, 1, (2, 1)))),
        }
    )


def test_dict_and_tuple_tasks_are_flattened_and_unflattened(register):
    family = metarl.make_family(register(DictTasks))
    # In the order of Gymnasium's Dict: goal (one-hot of three, two numbers), mass.
    assert family.task_space.shape == (6,)
    tasks = draw_tasks(family, 20, seeded(3), "train")
    unflattened = family.env_tasks(tasks)
    assert all(family.env_task_space.contains(task) for task in unflattened)
    flattened = [spaces.flatten(family.env_task_space, task) for task in unflattened]
    np.testing.assert_allclose(np.stack(flattened), tasks.numpy(), rtol=1e-6)
    assert len({float(task["mass"]) for task in unflattened}) == 20
    assert {int(task["goal"][0]) for task in unflattened} == {2, 3, 4}
    assert torch.equal(tasks, family.sample_tasks(20, seeded(3)))
    bound = as_tasks(family, np.float64([[0, 1, 0, 1, -1, 0.1]]))  # 0.1 in float32 is more than 0.1
    assert family.env_task_space.contains(family.env_tasks(bound)[0])


def test_numbers_and_lists_are_accepted_for_arrays(register):
    class Numbers(DictTasks):
        def sample_task(self, np_random, split):
            return {"mass": 0.2, "goal": (3, [[0.5], [-0.5]])}

    family = metarl.make_family(register(Numbers))
    assert family.sample_tasks(1, seeded(0)).tolist() == [pytest.approx([0, 1, 0, 0.5, -0.5, 0.2])]


@pytest.mark.parametrize("bad", [7, {"mass": 0.2}, {"mass": 9.0, "goal": (2, [[0.0], [0.0]])}])
def test_sampled_tasks_outside_the_space_are_refused(register, bad):
    class Outside(DictTasks):
        def sample_task(self, np_random, split):
            return copy.deepcopy(bad)

    with pytest.raises(TaskContractError, match=r"sample_task of door/Lever-v0 returned .* not in"):
        metarl.make_family(register(Outside)).sample_tasks(1, seeded(0))


def test_given_tasks_are_checked(family):
    with pytest.raises(TaskError, match=r"Task 1 of 2 is 7, outside the task space Discrete\(6"):
        as_tasks(family, [1, 7])


def test_environments_that_cannot_be_families_are_refused(register):
    bare = type("Bare", (Lever,), {"task_space": None})
    with pytest.raises(TaskContractError, match=r"no task_space.*metarl.register_varied_env"):
        metarl.make_family(register(bare, "Bare")).task_space  # noqa: B018
    loose = type("Loose", (Lever,), {"task_space": spaces.Sequence(spaces.Discrete(2))})
    with pytest.raises(TaskContractError, match=r"Gymnasium space of fixed size; got Sequence"):
        metarl.make_family(register(loose, "Loose")).task_space  # noqa: B018
    endless = metarl.make_family(register(Lever, "Endless", max_episode_steps=None))
    with pytest.raises(
        TaskContractError, match=r"has no time limit.*max_episode_steps=.*episode_s"
    ):
        endless.episode_steps  # noqa: B018
    odd = type("Odd", (Lever,), {"action_space": spaces.MultiDiscrete([2, 2])})
    with pytest.raises(ConfigError, match=r"Actions must be Discrete or .* got MultiDiscrete"):
        metarl.make_family(register(odd, "Odd")).action_space  # noqa: B018
    unsized = type("Unsized", (Lever,), {"observation_space": spaces.Sequence(spaces.Discrete(2))})
    with pytest.raises(ConfigError, match=r"Observations in Sequence.* have no fixed size"):
        metarl.make_family(register(unsized, "Unsized")).observation_space  # noqa: B018
    gymnasium.register("door/Vector-v0", vector_entry_point="nowhere:Nothing")
    try:
        with pytest.raises(ConfigError, match=r"has no entry_point for single environments"):
            metarl.make_family("door/Vector-v0")
    finally:
        del gymnasium.registry["door/Vector-v0"]


def test_an_attribute_may_set_the_time_limit(register):
    limited = type("Limited", (Lever,), {"episode_steps": 7})
    assert metarl.make_family(register(limited, max_episode_steps=None)).episode_steps == 7


def test_the_task_of_a_lane_persists_over_the_episodes_of_a_trial(family):
    # Actions are 0, 1, 2, 0, ...; task k pays for action k - 1.
    policy = Recorder()
    tasks = torch.tensor([1, 3])
    data = metarl.collect(
        family, tasks, policy, episodes=2, rollouts_per_task=2, seeds=Seeds(0), keep_next_obs=True
    )
    rewards = data.reward[:, :, 0].T.tolist()
    assert data.reward.shape == (6, 2, 2)
    assert rewards == [[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 1]]
    assert data.valid[:, 0, 0].tolist() == [True] * 4 + [False] * 2
    assert torch.equal(data.success, data.terminated)
    assert data.first[:, 1, 1].tolist() == [True, False, False, True, False, False]
    assert data.next_obs[2, 1, 0].tolist() == [0, 1, 3, 3]  # the terminal observation
    assert data.obs[3, 1, 0].tolist() == [1, 0, 0, 0]
    pool = vars(family)["_pool"]
    for lane, env in enumerate(pool._block._lanes.envs):
        seeds, reset_tasks = zip(*env.unwrapped.resets, strict=True)
        assert isinstance(seeds[0], int)  # seeded once
        assert set(seeds[1:]) == {None}
        assert set(reset_tasks) == {(1, 1, 3, 3)[lane]}
    first_seeds = {env.unwrapped.resets[0][0] for env in pool._block._lanes.envs}
    assert len(first_seeds) == 4


@pytest.mark.parametrize("workers", [None, 2])
def test_a_lane_depends_on_no_other_lane(register, workers):
    family = metarl.make_family(register("tests.broken_envs:Lever", max_episode_steps=None))
    tasks = torch.tensor([0, 7, 3, 3, 5, 1])

    def rollout(some, first_task=0):
        policy = family.references(3)["random"].build(some)
        options = {"episodes": 3, "rollouts_per_task": 2, "workers": workers}
        return metarl.collect(
            family, some, policy, seeds=Seeds(0), first_task=first_task, **options
        )

    every, some = rollout(tasks), rollout(tasks[2:5], first_task=2)
    family.close()
    for name, column in vars(some).items():
        if column is not None:
            assert torch.equal(column, getattr(every, name)[:, 2:5]), name
    noise = every.obs[0, :, :, 1].flatten().tolist()
    assert len(set(noise)) == len(noise)


def test_every_trial_of_a_batched_env_has_other_seeds(family):
    env = opened(family, torch.tensor([1, 2]))
    seeds = []
    for _ in range(3):
        env.reset()
        seeds += [lane.unwrapped.resets[-1][0] for lane in vars(family)["_pool"]._block._lanes.envs]
    assert len(set(seeds)) == 6


def test_episodes_that_reach_the_time_limit_are_truncated(family):
    env = opened(family, torch.tensor([1, 2]))
    env.reset()
    for step in range(4):
        last = env.step(torch.tensor([2, 2]))
        assert last.truncated.tolist() == [step == 3] * 2
    assert not last.terminated.any()


def test_later_steps_do_not_change_returned_tensors(family):
    env = opened(family, torch.tensor([2, 2]))
    initial = env.reset()
    first = env.step(torch.tensor([2, 0]))
    kept = [value.clone() for value in (initial, *first)]
    env.step(torch.tensor([1, 1]))
    env.reset()
    for value, before in zip((initial, *first), kept, strict=True):
        assert torch.equal(value, before)


def test_only_ended_lanes_may_be_reset(family):
    env = opened(family, torch.tensor([1, 2]))
    env.reset()
    env.step(torch.tensor([0, 0]))
    env.reset(torch.tensor([True, False]))
    with pytest.raises(ValueError, match="Only a lane whose episode has ended"):
        env.reset(torch.tensor([True, True]))


def test_environments_are_reused_by_the_next_trial_and_replaced_after_a_failure(register):
    class Fragile(Lever):
        broken = False

        def step(self, action):
            if Fragile.broken:
                raise ArithmeticError("the lever broke")
            return super().step(action)

    family = metarl.make_family(register(Fragile))
    tasks, action = torch.tensor([1, 2]), torch.tensor([1, 1])
    opened(family, tasks).reset()
    kept = vars(family)["_pool"]
    env = opened(family, tasks)
    assert vars(family)["_pool"] is kept
    initial, first = env.reset(), env.step(action)
    Fragile.broken = True
    with pytest.raises(ArithmeticError, match="the lever broke"):
        env.step(action)
    Fragile.broken = False
    again = opened(family, tasks)
    assert vars(family)["_pool"] is not kept
    assert torch.equal(again.reset(), initial)
    assert torch.equal(again.step(action).next_obs, first.next_obs)
    opened(family, torch.tensor([1])).reset()  # another size, another pool
    family.close()
    assert "_pool" not in vars(family)


def test_a_batched_env_cannot_be_stepped_after_the_family_opened_another(family):
    tasks, action = torch.tensor([1, 2]), torch.tensor([1, 1])
    for later in (tasks, torch.tensor([1])):  # reuses the environments, and makes new ones
        env = opened(family, tasks)
        env.reset()
        other = opened(family, later, 1)
        with pytest.raises(RuntimeError, match="used by a batched env that the same family opened"):
            env.step(action)
        with pytest.raises(RuntimeError, match="a family object each"):
            env.reset()
        other.reset()
        other.step(action[: len(later)])


def test_closed_environments_are_released(family):
    pools = []
    for lanes in (1, 2, 1, 2):
        opened(family, torch.ones(lanes, dtype=torch.int64)).reset()
        pools.append(weakref.ref(vars(family)["_pool"]))
    gc.collect()
    assert [pool() is None for pool in pools] == [True, True, True, False]
    last = pools[-1]()
    family.close()
    assert last.closed
    family.close()


def test_a_family_closes_its_environments_when_it_is_deleted(register):
    family = metarl.make_family(register())
    opened(family, as_tasks(family, [1])).reset()
    pool = vars(family)["_pool"]
    del family
    gc.collect()
    assert pool.closed


def test_integers_of_a_task_are_never_rounded(register):
    class Level(Lever):
        task_space = spaces.Dict(
            level=spaces.Tuple([spaces.Box(0, 2**31 - 1, (1,), np.int64)]), size=spaces.Box(0, 1)
        )
        least = 0

        def sample_task(self, np_random, split):
            level = self.least + 2 * np_random.integers(1000) + (split == "test")
            return {"level": (np.array([level]),), "size": np_random.random(1)}

    small = metarl.make_family(register(Level, "Small"))
    tasks = small.env_tasks(draw_tasks(small, 9, seeded(0), "test"))
    assert {int(task["level"][0][0]) % 2 for task in tasks} == {1}
    large = type("Large", (Level,), {"least": 2**25})  # float32 rounds odd to even
    family = metarl.make_family(register(large, "Large"))
    with pytest.raises(TaskContractError, match=r"integers that float32 cannot represent"):
        draw_tasks(family, 9, seeded(0), "test")


@pytest.mark.parametrize(
    ("frame", "got"), [(None, r"NoneType of shape \[\]"), (np.zeros((4, 5, 3)), "float64 of shape")]
)
def test_a_frame_of_another_type_or_shape_is_refused(register, frame, got):
    class Rendered(Lever):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

        def __init__(self, render_mode=None):
            super().__init__()
            self.render_mode = render_mode

        def render(self):
            return frame

    family = metarl.make_family(register(Rendered)).with_rendering()
    env = opened(family, torch.tensor([1]))
    env.reset()
    with pytest.raises(TaskContractError, match=rf"render\(\) of the environment returned {got}"):
        env.frame()


def test_a_negative_number_of_workers_is_refused(family):
    with pytest.raises(ConfigError, match=r"workers=-1 must be 0"):
        opened(family, torch.tensor([1]), workers=-1)


def test_there_is_no_random_reference_for_unbounded_actions(register):
    free = type("Free", (Lever,), {"action_space": spaces.Box(-np.inf, np.inf, (1,))})
    assert metarl.make_family(register(free)).references(1) == {}


def train(folder, task, **options):
    return metarl.train(
        "rl2", task, num_tasks=4, num_minibatches=2, hidden_size=4, iterations=4, out=folder,
        progress=False, **options,
    )  # fmt: skip


def test_a_resumed_run_equals_an_uninterrupted_run(register, tmp_path, monkeypatch):
    task = register()
    whole = train(tmp_path / "whole", task)
    with monkeypatch.context() as patch:
        Interrupting(patch, at=2)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", task)
    assert len(metarl.read_metrics(tmp_path / "cut" / "metrics.csv")) == 2
    assert_equal_runs(whole, train(tmp_path / "cut", task, resume=True))
    assert float(metarl.read_metrics(whole.path / "metrics.csv")[-1]["env_steps"]) > 0
    assert whole.config.task_options == {"pay": 1.0, "levers": 3, "name": "x"}


class Plugin:
    """The entry point of an installed package that registers a task."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def load(self):
        gymnasium.register(
            "plugin/Lever-v0",
            entry_point="tests.bridges.test_gym_family:Lever",
            max_episode_steps=4,
        )


def test_environments_of_plugin_packages_are_listed(monkeypatch, capsys):
    known = metarl.task_ids()
    monkeypatch.setattr(plugins, "loaded", set(plugins.loaded))
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [Plugin("lab", "tests.plugin_of_levers")]
    )
    try:
        plugins.load_plugins()
        assert set(metarl.task_ids()) - set(known) == {"plugin/Lever-v0"}
        assert cli.main(["list"]) == 0
        overview = capsys.readouterr().out
        assert cli.main(["list", "plugin/Lever-v0"]) == 0
        output = capsys.readouterr().out
    finally:
        del gymnasium.registry["plugin/Lever-v0"]
    (line,) = (line for line in overview.splitlines() if "plugin/Lever-v0" in line)
    assert line.endswith("  Three levers; the task is the one that pays.")
    for option in ("--task.pay 1.0", "--task.levers 3", "--task.name x"):
        assert f"\n    {option}" in output


class Known(gymnasium.Env):
    action_space = observation_space = task_space = spaces.Discrete(3)
    given: dict = {}  # noqa: RUF012  (set by the tests)

    def references(self, episodes):
        return self.given


def test_an_environment_has_floors_and_ceilings_of_its_own(monkeypatch):
    oracle = metarl.Reference(role="ceiling", label="oracle", build=lambda tasks: None)
    gymnasium.register("lab/Known-v0", Known, max_episode_steps=2)
    try:
        family = metarl.make_family("lab/Known-v0")
        monkeypatch.setattr(Known, "given", {"oracle": oracle})
        assert list(family.references(3)) == ["random", "oracle"]
        monkeypatch.setattr(Known, "given", {"oracle": lambda tasks: None})
        with pytest.raises(TaskContractError, match=r"must return metarl\.Reference objects"):
            family.references(3)
    finally:
        del gymnasium.registry["lab/Known-v0"]


class Counting(gymnasium.Env):
    action_space = task_space = spaces.Discrete(3)
    observation_space = spaces.Discrete(100**4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.int64(7), {}

    def step(self, action):
        return np.int64(7), 0.0, False, False, {}


def test_a_one_hot_of_a_hundred_million_numbers_is_refused_at_once(tmp_path, capsys):
    gymnasium.register("lab/Counting-v0", Counting, max_episode_steps=2)
    try:
        with pytest.raises(ConfigError, match="flattened to 100,000,000 numbers"):
            metarl.train("rl2", "lab/Counting-v0", out=tmp_path / "run", num_tasks=8, iterations=1)
        cli.main(["check", "lab/Counting-v0", "--workers", "0"])
    finally:
        del gymnasium.registry["lab/Counting-v0"]
    assert not (tmp_path / "run").exists()
    output = capsys.readouterr()
    assert "100,000,000 numbers" in output.out + output.err
