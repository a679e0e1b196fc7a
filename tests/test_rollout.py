import dataclasses

import pytest
import torch
from torch import Tensor

import metarl
from metarl.agent import Adapted, PolicyOutput
from metarl.errors import ConfigError, NonFiniteError, TaskContractError, TaskError
from metarl.noise import LaneNoise
from metarl.rollout import RolloutSpec, RolloutStorage, collect, rollout_phases
from metarl.seeding import Seeds
from metarl.trajectory import Percept, Trajectory
from tests.simple_families import Countdown, Recorder

SEEDS = Seeds(0)


def episodes_by_hand(task: int, limit: int, episodes: int) -> dict[str, list[float]]:
    """One lane of Countdown under the policy 0, 1, 2, 0, ...: one step at a time."""
    log: dict[str, list[float]] = {name: [] for name in ("reward", "first", "ends", "obs")}
    step = 0
    for _ in range(episodes):
        for elapsed in range(min(task, limit)):
            log["obs"].append(elapsed)
            log["first"].append(elapsed == 0)
            log["reward"].append(100.0 * task + 10.0 * (elapsed + 1) + step % 3)
            log["ends"].append(elapsed + 1 == min(task, limit))
            step += 1
    return log


def assert_same(one: Trajectory, two: Trajectory) -> None:
    for field in dataclasses.fields(Trajectory):
        values = getattr(one, field.name), getattr(two, field.name)
        assert values == (None, None) or torch.equal(*values), field.name


def test_lanes_of_different_episode_lengths_run_as_each_would_alone():
    tasks, limit, episodes = torch.tensor([1, 2, 3, 4, 7]), 4, 3
    trajectory = collect(Countdown(limit=limit), tasks, Recorder(), episodes=episodes, seeds=SEEDS)
    assert trajectory.reward.shape == (12, 5, 1)
    ends = trajectory.terminated | trajectory.truncated
    for lane, task in enumerate(tasks.tolist()):
        alone = episodes_by_hand(task, limit, episodes)
        steps = len(alone["reward"])
        assert trajectory.valid[:, lane, 0].tolist() == [True] * steps + [False] * (12 - steps)
        assert trajectory.reward[:, lane, 0].tolist() == alone["reward"] + [0.0] * (12 - steps)
        assert trajectory.first[:steps, lane, 0].tolist() == alone["first"]
        assert trajectory.obs[:steps, lane, 0, 1].tolist() == alone["obs"]
        assert ends[:steps, lane, 0].tolist() == alone["ends"]
        assert not ends[steps:, lane].any()
        assert not trajectory.first[steps:, lane].any()


def test_a_time_limit_truncates_and_the_goal_terminates():
    tasks = torch.tensor([4, 7])
    trajectory = collect(Countdown(limit=4), tasks, Recorder(), episodes=1, seeds=SEEDS)
    assert trajectory.terminated[-1].flatten().tolist() == [True, False]
    assert trajectory.truncated[-1].flatten().tolist() == [False, True]
    assert trajectory.success[-1].flatten().tolist() == [True, False]


def test_next_obs_is_taken_before_the_reset():
    tasks = torch.tensor([2])
    plain = collect(Countdown(limit=4), tasks, Recorder(), episodes=2, seeds=SEEDS)
    assert plain.next_obs is None  # unless it is asked for
    trajectory = collect(
        Countdown(limit=4), tasks, Recorder(), episodes=2, seeds=SEEDS, keep_next_obs=True
    )
    assert trajectory.obs[:, 0, 0, 1].tolist() == [0, 1, 0, 1]
    assert trajectory.next_obs[:, 0, 0, 1].tolist() == [1, 2, 1, 2]


def test_it_stops_when_all_lanes_are_finished():
    tasks = torch.tensor([2, 3])
    trajectory = collect(Countdown(limit=100), tasks, Recorder(), episodes=2, seeds=SEEDS)
    assert len(trajectory.reward) == 6


def test_the_last_reward_of_a_one_step_episode_reaches_the_memory():
    policy = Recorder()
    trajectory = collect(Countdown(), torch.tensor([1]), policy, episodes=3, seeds=SEEDS)
    assert bool(trajectory.terminated.all())  # every episode has one step
    rewards = [float(percept.previous_reward) for percept in policy.seen]
    assert rewards == [0.0, 110.0, 111.0]
    assert [bool(percept.previous_terminated) for percept in policy.seen] == [False, True, True]
    assert [bool(percept.first_of_episode) for percept in policy.seen] == [True, True, True]
    assert [bool(percept.first_of_trial) for percept in policy.seen] == [True, False, False]


def test_a_learner_reads_the_percepts_that_the_policy_read():
    policy = Recorder()
    trajectory = collect(
        Countdown(), torch.tensor([1, 3, 7]), policy, episodes=2, rollouts_per_task=2, seeds=SEEDS
    )
    bulk = trajectory.percepts()
    for field in dataclasses.fields(Percept):
        seen = torch.stack([getattr(percept, field.name) for percept in policy.seen])
        seen = seen.unflatten(1, (3, 2))
        mask = trajectory.valid.view(*trajectory.valid.shape, *[1] * (seen.ndim - 3)).expand_as(
            seen
        )
        assert torch.equal(seen[mask], getattr(bulk, field.name)[mask]), field.name


def test_equal_seeds_give_equal_trajectories_and_others_do_not():
    family, tasks = metarl.make_family("metarl/BernoulliBandit-v0"), torch.rand(50, 5)

    def trajectory(seed: int) -> Trajectory:
        return collect(family, tasks, Recorder(noise=True), episodes=10, seeds=Seeds(seed))

    assert_same(trajectory(1), trajectory(1))
    assert not torch.equal(trajectory(1).reward, trajectory(2).reward)
    assert not torch.equal(trajectory(1).action, trajectory(2).action)


def test_two_policies_with_equal_seeds_get_the_same_environment_noise():
    family = metarl.make_family("metarl/BernoulliBandit-v0", arms=3)
    same_arms = torch.rand(200, 1).expand(200, 3)  # only the noise decides
    one, two = (
        collect(family, same_arms, policy, episodes=10, seeds=SEEDS)
        for policy in (Recorder(), Recorder(noise=True))
    )
    assert not torch.equal(one.action, two.action)
    assert torch.equal(one.reward, two.reward)


def test_permuting_tasks_permutes_trajectories():
    tasks, order = torch.tensor([1, 2, 3, 4, 7]), torch.tensor([3, 1, 4, 0, 2])
    straight = collect(Countdown(), tasks, Recorder(), episodes=2, seeds=SEEDS)
    permuted = collect(Countdown(), tasks[order], Recorder(), episodes=2, seeds=SEEDS)
    assert torch.equal(straight.reward[:, order], permuted.reward)


class TestStorage:
    """Storage is reused without changing a number, and only where it fits."""

    FAMILY = metarl.make_family("metarl/BernoulliBandit-v0", arms=3, pulls=6)
    TASKS = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))

    def collect(self, seed, storage, **options):
        options = {"episodes": 6, "seeds": Seeds(seed), "storage": storage} | options
        return collect(self.FAMILY, self.TASKS, Recorder(noise=True), **options)

    def test_a_storage_changes_no_number_and_is_written_again(self):
        storage = RolloutStorage()
        first = self.collect(0, storage)
        memory = first.reward.data_ptr()
        copy = dataclasses.replace(first, reward=first.reward.clone(), obs=first.obs.clone())
        second = self.collect(1, storage)
        assert second.reward.data_ptr() == memory
        assert_same(second, self.collect(1, None))
        assert not torch.equal(copy.reward, second.reward)
        assert_same(self.collect(0, storage), self.collect(0, None))

    def test_slots_are_kept_apart(self):
        storage = RolloutStorage()
        first = self.collect(0, storage, slot=0)
        self.collect(1, storage, slot=1)
        assert_same(first, self.collect(0, None))

    def test_other_sizes_get_new_memory(self):
        storage = RolloutStorage()
        self.collect(0, storage)
        more = self.collect(1, storage, rollouts_per_task=2, episodes=3)
        assert more.reward.shape == (3, 5, 2)
        assert_same(more, self.collect(1, None, rollouts_per_task=2, episodes=3))


def test_phases_of_a_storage_are_all_valid_until_the_next_meta_batch():
    spec, tasks, storage = RolloutSpec(episodes=2), torch.tensor([2, 3]), RolloutStorage()
    one, two = (
        rollout_phases(
            Counting(), Countdown(), tasks, adaptation_steps=2, spec=spec, seeds=SEEDS, storage=kept
        ).trajectories
        for kept in (storage, None)
    )
    for kept, fresh in zip(one, two, strict=True):
        assert_same(kept, fresh)


def test_batches_of_a_larger_set_of_tasks_run_as_the_whole():
    family = metarl.make_family("metarl/BernoulliBandit-v0", arms=3, pulls=6)
    tasks = torch.rand(7, 3, generator=torch.Generator().manual_seed(0))
    policy, options = Recorder(noise=True), {"episodes": 6, "seeds": SEEDS}
    whole = collect(family, tasks, policy, rollouts_per_task=2, **options)
    for start, end in ((0, 3), (3, 4), (4, 7)):
        part = collect(
            family, tasks[start:end], policy, rollouts_per_task=2, first_task=start, **options
        )
        assert torch.equal(part.action, whole.action[:, start:end])
        assert torch.equal(part.reward, whole.reward[:, start:end])
    fewer = collect(family, tasks, policy, rollouts_per_task=1, **options)
    assert torch.equal(fewer.reward, whole.reward[:, :, :1])


def test_episodes_of_a_fixed_length_are_rolled_out_as_others():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Fixed(Countdown):
        fixed_length = True

    tasks = torch.tensor([4, 7])  # both last until the limit
    fixed, plain = (
        collect(family(limit=4), tasks, Recorder(), episodes=3, seeds=SEEDS)
        for family in (Fixed, Countdown)
    )
    assert_same(fixed, plain)
    with pytest.raises(TaskContractError, match=r"every episode has 4 steps .* ended after 2"):
        collect(Fixed(limit=4), torch.tensor([2, 7]), Recorder(), episodes=3, seeds=SEEDS)


def test_tasks_in_one_batch_run_as_in_batches_of_one():
    together = collect(Countdown(), torch.tensor([2, 4]), Recorder(), episodes=2, seeds=SEEDS)
    for lane, task in enumerate((2, 4)):
        alone = collect(Countdown(), torch.tensor([task]), Recorder(), episodes=2, seeds=SEEDS)
        assert torch.equal(together.reward[: len(alone.reward), lane], alone.reward[:, 0])


class PerTask:
    """Separate parameters for each task, [N, D, A]: one batched product acts in all lanes."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def initial_memory(self, lanes, horizon):
        return None

    def act(self, percept, memory, noise):
        logits = torch.bmm(percept.obs.unflatten(0, (len(self.weight), -1)), self.weight)
        log_probs = logits.flatten(0, 1).log_softmax(-1)
        action = log_probs.argmax(-1)
        log_prob = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return PolicyOutput(action, log_prob, memory)


def test_policies_may_have_separate_parameters_for_each_task():
    weight = torch.zeros(3, 2, 3)
    for task, action in enumerate((2, 0, 1)):
        weight[task, 0, action] = 1.0
    trajectory = collect(
        Countdown(),
        torch.tensor([4, 5, 6]),
        PerTask(weight),
        episodes=1,
        rollouts_per_task=6,
        seeds=SEEDS,
    )
    assert trajectory.action.shape == (4, 3, 6)
    assert (trajectory.action == torch.tensor([2, 0, 1]).view(1, 3, 1)).all()


class Always:
    """Takes one action; returns noise as its log-probability."""

    def __init__(self, action: int) -> None:
        self.action = action

    def initial_memory(self, lanes, horizon):
        return None

    def act(self, percept, memory, noise):
        drawn = noise.uniform()
        return PolicyOutput(torch.full_like(drawn, self.action).long(), drawn, None)


class Counting:
    """Takes action k after k adaptation steps; records what it was passed."""

    adaptation_steps = evaluation_steps = 2

    def __init__(self) -> None:
        self.started: list[tuple[int, float]] = []
        self.adapted: list[tuple[Always, Trajectory, float]] = []

    def start(self, num_tasks, noise):
        self.started.append((num_tasks, noise.uniform()))
        return Always(0)

    def adapt(self, policy, experience, noise):
        self.adapted.append((policy, experience, noise.uniform()))
        return Adapted(Always(policy.action + 1), cache=f"of action {policy.action}")


def test_rollouts_and_adaptation_steps_alternate():
    agent, tasks = Counting(), torch.tensor([2, 3, 7])
    spec = RolloutSpec(episodes=2, rollouts_per_task=4)
    batch = rollout_phases(agent, Countdown(), tasks, adaptation_steps=2, spec=spec, seeds=SEEDS)
    assert torch.equal(batch.tasks, tasks)
    assert [phase.policy.action for phase in batch.phases] == [0, 1, 2]
    assert [int(each.action.max()) for each in batch.trajectories] == [0, 1, 2]
    assert batch.caches == ["of action 0", "of action 1"]
    assert batch.phases[2].cache is None
    assert [count for count, _ in agent.started] == [3]
    for phase, (policy, experience, _) in zip(batch.phases[:-1], agent.adapted, strict=True):
        assert policy is phase.policy
        assert experience is phase.trajectory
    for number, phase in enumerate(batch.phases):
        alone = collect(
            Countdown(),
            tasks,
            Always(number),
            episodes=2,
            rollouts_per_task=4,
            seeds=SEEDS.child("phase", number),
        )
        assert_same(phase.trajectory, alone)


def test_without_adaptation_steps_there_is_one_phase():
    agent, spec = Counting(), RolloutSpec(episodes=1)
    batch = rollout_phases(
        agent, Countdown(), torch.tensor([2]), adaptation_steps=0, spec=spec, seeds=SEEDS
    )
    assert len(batch.phases) == 1
    assert batch.caches == agent.adapted == []


def test_random_choices_of_an_agent_have_separate_streams_that_depend_on_the_seed():
    agents = []
    for seed in (0, 0, 1):
        agents.append(Counting())
        spec, tasks = RolloutSpec(episodes=1), torch.tensor([2])
        rollout_phases(
            agents[-1], Countdown(), tasks, adaptation_steps=2, spec=spec, seeds=Seeds(seed)
        )
    drawn = [[float(noise) for *_, noise in agent.started + agent.adapted] for agent in agents]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0] + drawn[2])) == 6


def test_random_choices_of_an_agent_belong_to_the_task():
    tasks, spec = torch.tensor([2, 3, 4, 5]), RolloutSpec(episodes=1)

    def drawn(chosen: slice) -> Tensor:
        agent, first = Counting(), chosen.start
        rollout_phases(
            agent,
            Countdown(),
            tasks[chosen],
            adaptation_steps=2,
            spec=spec,
            seeds=SEEDS,
            first_task=first,
        )
        return torch.stack([noise for *_, noise in agent.started + agent.adapted])

    torch.testing.assert_close(drawn(slice(1, 3)), drawn(slice(0, 4))[:, 1:3], rtol=0, atol=0)


def test_a_wrapper_is_put_around_the_env_of_each_phase():
    numbers = []

    def wrap(env, phase):
        numbers.append(phase)
        return env

    spec = RolloutSpec(episodes=1, wrap_env=wrap)
    rollout_phases(
        Counting(), Countdown(), torch.tensor([2]), adaptation_steps=2, spec=spec, seeds=SEEDS
    )
    assert numbers == [0, 1, 2]


@pytest.mark.parametrize(("name", "value"), [("episodes", 0), ("rollouts_per_task", -1)])
def test_counts_that_are_not_positive_are_refused(name, value):
    counts = {"episodes": 1, "rollouts_per_task": 1} | {name: value}
    with pytest.raises(ConfigError, match=f"{name}={value} must be greater than zero"):
        collect(Countdown(), torch.tensor([1]), Recorder(), seeds=SEEDS, **counts)


def test_tasks_outside_the_space_are_refused():
    with pytest.raises(TaskError, match=r"Task 1 of 2 is 11, outside the task space Discrete"):
        collect(Countdown(), torch.tensor([1, 11]), Recorder(), episodes=1, seeds=SEEDS)


def test_an_error_about_a_nan_reward_names_task_and_step():
    message = r"Countdown gave a non-finite reward \(nan\) in task 1 = 3, rollout 0, step 1 "
    with pytest.raises(NonFiniteError, match=message):
        collect(Countdown(break_at=2), torch.tensor([1, 3]), Recorder(), episodes=2, seeds=SEEDS)


def test_numbers_whose_sum_overflows_are_finite():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Rich(Countdown):
        def step(self, task, state, action, noise):
            state, reward, terminated = super().step(task, state, action, noise)
            return state, torch.full_like(reward, 3e38), terminated

    trajectory = collect(Rich(), torch.tensor([2, 3]), Recorder(), episodes=1, seeds=SEEDS)
    assert bool(trajectory.reward.isfinite().all())
    assert not bool(trajectory.reward.sum().isfinite())


def test_nan_in_a_finished_lane_is_no_error():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class BreaksOnceFinished(Countdown):
        def observe(self, task, state):
            obs = super().observe(task, state)
            return obs.masked_fill((state.elapsed >= 2).unsqueeze(-1) & (obs == 1.0), torch.nan)

    trajectory = collect(
        BreaksOnceFinished(),
        torch.tensor([1, 3]),
        Recorder(),
        episodes=1,
        seeds=SEEDS,
        keep_next_obs=True,
    )
    assert trajectory.steps == 4
    assert bool(trajectory.next_obs.isfinite().all())  # the lane was zeroed


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"reward": lambda r: r.long()}, r"reward of shape \[2\] and torch.int64; for 2 lanes"),
        ({"reward": lambda r: r.double()}, r"must be .* torch.float32"),
        ({"reward": lambda r: r.unsqueeze(-1)}, r"reward of shape \[2, 1\]"),
        ({"terminated": lambda t: t.float()}, r"terminated of shape .* torch.bool"),
        ({"obs": lambda o: o[:, 0]}, r"observation of shape \[2\] .* must be \[2, 2\]"),
    ],
)
def test_a_family_that_violates_its_contract_is_refused(broken, message):
    def changed(name, value):
        return broken.get(name, lambda same: same)(value)

    class Broken(Countdown):
        def observe(self, task, state):
            return changed("obs", super().observe(task, state))

        def step(self, task, state, action, noise):
            state, reward, terminated = super().step(task, state, action, noise)
            return state, changed("reward", reward), changed("terminated", terminated)

    with pytest.raises(TaskContractError, match=message):
        collect(Broken(), torch.tensor([1, 3]), Recorder(), episodes=1, seeds=SEEDS)


def test_a_policy_that_returns_nan_is_named_as_the_cause():
    class Diverged(Recorder):
        def act(self, percept, memory, noise):
            output = super().act(percept, memory, noise)
            return output._replace(log_prob=torch.full(memory.shape, torch.nan))

    with pytest.raises(NonFiniteError, match=r"The policy gave a non-finite log_prob \(nan\)"):
        collect(Countdown(), torch.tensor([1, 3]), Diverged(), episodes=1, seeds=SEEDS)


@dataclasses.dataclass(frozen=True)
class Estimating:
    """Estimates the number of its step, counted from 1, but for some steps."""

    missing: tuple[int, ...] = ()

    def initial_memory(self, lanes: int, horizon: int) -> Tensor:
        return torch.zeros(lanes)

    def act(self, percept: Percept, memory: Tensor, noise: LaneNoise) -> PolicyOutput:
        zeros = torch.zeros(len(memory))
        return PolicyOutput(zeros.long(), zeros, memory + 1)

    def value_estimate(self, memory: Tensor) -> Tensor | None:
        return None if int(memory[0]) in self.missing else memory


def test_estimates_are_kept_where_every_step_has_one():
    tasks, storage = torch.tensor([3, 3]), RolloutStorage()

    def value(policy: Estimating) -> Tensor | None:
        given = {"episodes": 2, "seeds": SEEDS, "storage": storage}
        return collect(Countdown(), tasks, policy, **given).value

    kept = value(Estimating())
    assert kept.squeeze(-1).tolist() == [[step, step] for step in range(1, 7)]
    for step in (1, 3, 6):
        assert value(Estimating(missing=(step,))) is None
