import dataclasses

import pytest
import torch
from torch import Tensor

import metarl
from metarl.agent import PolicyOutput
from metarl.errors import ConfigError, NonFiniteError, TaskContractError, TaskError
from metarl.rollout import adaptation_phases, collect
from metarl.seeding import Seeds
from metarl.trajectory import Percept, Trajectory
from tests.simple_families import Countdown, Recorder

SEEDS = Seeds(0)


def live_by_hand(task: int, limit: int, episodes: int) -> dict[str, list[float]]:
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
        assert torch.equal(getattr(one, field.name), getattr(two, field.name)), field.name


def test_lanes_of_different_episode_lengths_live_as_each_would_alone():
    tasks, limit, episodes = torch.tensor([1, 2, 3, 4, 7]), 4, 3
    life = collect(Countdown(limit=limit), tasks, Recorder(), episodes=episodes, seeds=SEEDS)
    assert life.reward.shape == (12, 5, 1)
    for lane, task in enumerate(tasks.tolist()):
        alone = live_by_hand(task, limit, episodes)
        lived = len(alone["reward"])
        assert life.valid[:, lane, 0].tolist() == [True] * lived + [False] * (12 - lived)
        assert life.reward[:, lane, 0].tolist() == alone["reward"] + [0.0] * (12 - lived)
        assert life.first[:lived, lane, 0].tolist() == alone["first"]
        assert life.obs[:lived, lane, 0, 1].tolist() == alone["obs"]
        ends = life.terminated | life.truncated
        assert ends[:lived, lane, 0].tolist() == alone["ends"]
        assert not ends[lived:, lane].any()
        assert not life.first[lived:, lane].any()


def test_a_time_limit_truncates_and_the_goal_terminates():
    life = collect(Countdown(limit=4), torch.tensor([4, 7]), Recorder(), episodes=1, seeds=SEEDS)
    assert life.terminated[-1].flatten().tolist() == [True, False]
    assert life.truncated[-1].flatten().tolist() == [False, True]
    assert life.success[-1].flatten().tolist() == [True, False]


def test_next_obs_is_taken_before_the_reset():
    life = collect(Countdown(limit=4), torch.tensor([2]), Recorder(), episodes=2, seeds=SEEDS)
    assert life.obs[:, 0, 0, 1].tolist() == [0, 1, 0, 1]
    assert life.next_obs[:, 0, 0, 1].tolist() == [1, 2, 1, 2]


def test_it_stops_when_all_lanes_have_lived():
    life = collect(Countdown(limit=100), torch.tensor([2, 3]), Recorder(), episodes=2, seeds=SEEDS)
    assert len(life.reward) == 6


def test_the_last_reward_of_a_one_step_episode_reaches_the_memory():
    policy = Recorder()
    life = collect(Countdown(), torch.tensor([1]), policy, episodes=3, seeds=SEEDS)
    assert bool(life.terminated.all())  # every step is an episode of its own
    rewards = [float(percept.previous_reward) for percept in policy.seen]
    assert rewards == [0.0, 110.0, 111.0]
    assert [bool(percept.previous_terminated) for percept in policy.seen] == [False, True, True]
    assert [bool(percept.first_of_episode) for percept in policy.seen] == [True, True, True]
    assert [bool(percept.first_of_trial) for percept in policy.seen] == [True, False, False]


def test_a_learner_reads_the_percepts_that_the_policy_saw():
    policy = Recorder()
    life = collect(
        Countdown(), torch.tensor([1, 3, 7]), policy, episodes=2, rollouts_per_task=2, seeds=SEEDS
    )
    bulk = life.percepts()
    for field in dataclasses.fields(Percept):
        seen = torch.stack([getattr(percept, field.name) for percept in policy.seen])
        mask = life.valid.view(*life.valid.shape, *[1] * (seen.ndim - 3)).expand_as(seen)
        assert torch.equal(seen[mask], getattr(bulk, field.name)[mask]), field.name


def test_equal_seeds_give_equal_lives_and_others_do_not():
    family, tasks = metarl.make_family("metarl/BernoulliBandit-v0"), torch.rand(50, 5)

    def live(seed: int) -> Trajectory:
        return collect(family, tasks, Recorder(noise=True), episodes=10, seeds=Seeds(seed))

    assert_same(live(1), live(1))
    assert not torch.equal(live(1).reward, live(2).reward)
    assert not torch.equal(live(1).action, live(2).action)


def test_two_policies_given_equal_seeds_meet_the_same_world_noise():
    family = metarl.make_family("metarl/BernoulliBandit-v0", arms=3)
    same_arms = torch.rand(200, 1).expand(200, 3)  # then only the noise decides
    one, two = (
        collect(family, same_arms, policy, episodes=10, seeds=SEEDS)
        for policy in (Recorder(), Recorder(noise=True))
    )
    assert not torch.equal(one.action, two.action)
    assert torch.equal(one.reward, two.reward)


def test_permuting_tasks_permutes_lives():
    tasks, order = torch.tensor([1, 2, 3, 4, 7]), torch.tensor([3, 1, 4, 0, 2])
    straight = collect(Countdown(), tasks, Recorder(), episodes=2, seeds=SEEDS)
    permuted = collect(Countdown(), tasks[order], Recorder(), episodes=2, seeds=SEEDS)
    assert torch.equal(straight.reward[:, order], permuted.reward)


def test_tasks_in_one_batch_live_as_in_batches_of_one():
    together = collect(Countdown(), torch.tensor([2, 4]), Recorder(), episodes=2, seeds=SEEDS)
    for lane, task in enumerate((2, 4)):
        alone = collect(Countdown(), torch.tensor([task]), Recorder(), episodes=2, seeds=SEEDS)
        assert torch.equal(together.reward[: len(alone.reward), lane], alone.reward[:, 0])


class PerTask:
    """Parameters of its own for each task, [N, D, A]: one batched product acts in all lanes."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def initial_memory(self, num_tasks, copies):
        return None

    def act(self, percept, memory, generator):
        logits = torch.bmm(percept.obs, self.weight)
        log_probs = logits.log_softmax(-1)
        action = log_probs.argmax(-1)
        log_prob = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return PolicyOutput(action, log_prob, memory)


def test_policies_may_carry_parameters_of_their_own_for_each_task():
    weight = torch.zeros(3, 2, 3)
    for task, favourite in enumerate((2, 0, 1)):
        weight[task, 0, favourite] = 1.0
    life = collect(
        Countdown(),
        torch.tensor([4, 5, 6]),
        PerTask(weight),
        episodes=1,
        rollouts_per_task=6,
        seeds=SEEDS,
    )
    assert life.action.shape == (4, 3, 6)
    assert (life.action == torch.tensor([2, 0, 1]).view(1, 3, 1)).all()


class Halving:
    """An agent of two adaptation steps: its policy is a number that `adapt` halves."""

    adaptation_steps = 2
    evaluation_steps = 2

    def start(self, num_tasks):
        return 8.0

    def adapt(self, policy, experience):
        assert experience == f"lived {policy}"
        return policy / 2


def test_adaptation_alternates_living_and_learning():
    phases = adaptation_phases(Halving(), 3, lambda policy, step: f"lived {policy}", steps=2)
    assert phases == ["lived 8.0", "lived 4.0", "lived 2.0"]


@pytest.mark.parametrize(("name", "value"), [("episodes", 0), ("rollouts_per_task", -1)])
def test_counts_that_are_not_positive_are_refused(name, value):
    counts = {"episodes": 1, "rollouts_per_task": 1} | {name: value}
    with pytest.raises(ConfigError, match=f"{name}={value} must be greater than zero"):
        collect(Countdown(), torch.tensor([1]), Recorder(), seeds=SEEDS, **counts)


def test_tasks_outside_the_space_are_refused():
    with pytest.raises(TaskError, match=r"Task 1 of 2 is 11, outside the task space Discrete"):
        collect(Countdown(), torch.tensor([1, 11]), Recorder(), episodes=1, seeds=SEEDS)


def test_a_reward_that_turns_nan_is_named_with_task_and_step():
    message = r"Countdown gave a non-finite reward \(nan\) in task 1 = 3, copy 0, step 1 "
    with pytest.raises(NonFiniteError, match=message):
        collect(Countdown(break_at=2), torch.tensor([1, 3]), Recorder(), episodes=2, seeds=SEEDS)


def test_nan_in_a_lane_whose_life_is_over_is_no_error():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class BreaksOnceOver(Countdown):
        def observe(self, task, state):
            obs = super().observe(task, state)
            return obs.masked_fill((state.elapsed >= 2).unsqueeze(-1) & (obs == 1.0), torch.nan)

    life = collect(BreaksOnceOver(), torch.tensor([1, 3]), Recorder(), episodes=1, seeds=SEEDS)
    assert life.steps == 4
    assert bool(life.next_obs.isfinite().all())  # no learner need know


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
def test_a_family_that_breaks_its_promise_is_told_so(broken, message):
    def changed(name, value):
        return broken.get(name, lambda same: same)(value)

    class Broken(Countdown):
        def observe(self, task, state):
            return changed("obs", super().observe(task, state))

        def step(self, task, state, action, generator):
            state, reward, terminated = super().step(task, state, action, generator)
            return state, changed("reward", reward), changed("terminated", terminated)

    with pytest.raises(TaskContractError, match=message):
        collect(Broken(), torch.tensor([1, 3]), Recorder(), episodes=1, seeds=SEEDS)


def test_a_policy_that_turns_nan_is_blamed_itself():
    class Diverged(Recorder):
        def act(self, percept, memory, generator):
            decision = super().act(percept, memory, generator)
            return decision._replace(log_prob=torch.full(memory.shape, torch.nan))

    with pytest.raises(NonFiniteError, match=r"The policy gave a non-finite log_prob \(nan\)"):
        collect(Countdown(), torch.tensor([1, 3]), Diverged(), episodes=1, seeds=SEEDS)
