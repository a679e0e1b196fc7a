"""The replay: newest tasks, whole trials, and samples of one task alone."""

import pytest
import torch

from metarl.agents.off_policy.replay import TaskReplay
from metarl.errors import CheckpointError
from metarl.trajectory import Trajectory

CPU = torch.device("cpu")


def trials(lengths: list[list[list[int]]], first_task: int = 0) -> Trajectory:
    """Trials with the given lengths of episodes, by task and rollout.

    Observations are (task, rollout, step of the trial); the reward is 1000 task + step.
    """
    steps = max(sum(episodes) for task in lengths for episodes in task)
    lead = (steps, len(lengths), len(lengths[0]))
    flags = {name: torch.zeros(lead, dtype=torch.bool) for name in ("first", "valid", "terminated")}
    for n, task in enumerate(lengths):
        for b, episodes in enumerate(task):
            ends = torch.tensor(episodes).cumsum(0)
            flags["first"][torch.tensor([0, *ends[:-1]]), n, b] = True
            flags["valid"][: int(ends[-1]), n, b] = True
            flags["terminated"][ends - 1, n, b] = True
    grids = torch.meshgrid(*(torch.arange(size) for size in lead), indexing="ij")
    step, task, rollout = (grid.float() for grid in grids)
    task = task + first_task
    obs = torch.stack((task, rollout, step), -1)
    no = torch.zeros(lead, dtype=torch.bool)
    return Trajectory(
        obs=obs,
        next_obs=obs + torch.tensor([0.0, 0.0, 1.0]),
        action=step.unsqueeze(-1) * 2,
        log_prob=torch.zeros(lead),
        reward=1000 * task + step,
        truncated=no,
        success=no,
        **flags,
    )


def encode(action: torch.Tensor) -> torch.Tensor:
    return action / 2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(*batches: Trajectory, tasks: int = 4) -> TaskReplay:
    replay = TaskReplay(tasks, CPU)
    for batch in batches:
        replay.add(batch, encode)
    return replay


LENGTHS = [[[2, 3], [1, 1]], [[4, 1], [2, 2]], [[1, 2], [3, 3]]]
"""three tasks, two rollouts, two episodes"""


def test_transitions_come_from_all_rollouts_of_their_own_task_with_equal_weights():
    replay = filled(trials(LENGTHS))
    slots = torch.tensor([2, 0])
    batch = replay.transitions(slots, 20_000, generator())
    assert (batch.obs[..., 0] == slots[:, None]).all()
    for row, slot in enumerate(slots.tolist()):
        seen = batch.obs[row, :, 1] * 100 + batch.obs[row, :, 2]
        values, counts = seen.unique(return_counts=True)
        expected = [
            100.0 * b + t for b, episodes in enumerate(LENGTHS[slot]) for t in range(sum(episodes))
        ]
        assert values.tolist() == expected  # each valid transition, and no padding
        # standard error of a share: less than sqrt(.2 * .8 / 20,000) = .003
        torch.testing.assert_close(
            counts / 20_000, torch.full((len(expected),), 1 / len(expected)), rtol=0, atol=0.015
        )
    # All columns are of the same transition.
    step = batch.obs[..., 2]
    assert torch.equal(batch.action.squeeze(-1), step)
    assert torch.equal(batch.reward, 1000 * batch.obs[..., 0] + step)
    assert torch.equal(batch.next_obs[..., 2], step + 1)


def test_terminations_are_kept():
    batch = filled(trials(LENGTHS)).transitions(torch.tensor([0]), 500, generator())
    rollout, step = batch.obs[0, :, 1], batch.obs[0, :, 2]
    ends = torch.where(rollout == 0, (step == 1) | (step == 4), step <= 1)
    assert torch.equal(batch.terminated[0], ends)


def test_contexts_are_the_first_episodes_of_one_rollout():
    replay = filled(trials([[[2, 3, 1], [1, 1, 4]]]))
    context = replay.contexts(torch.zeros(6000, dtype=torch.int64), generator())
    assert context.obs.shape[1] == 5  # no context is longer, the last episode is in none
    count = context.observed.sum(1)
    steps = torch.arange(5)
    assert torch.equal(context.observed, steps < count[:, None])  # from the trial's start on
    assert torch.equal(context.obs[..., 2], steps.float().expand(6000, 5))
    assert (context.obs[..., 1] == context.obs[:, :1, 1]).all()  # one rollout
    rollout = context.obs[:, 0, 1]
    for number, allowed in ((0, [0, 2, 5]), (1, [0, 1, 2])):
        values, counts = count[rollout == number].unique(return_counts=True)
        assert values.tolist() == allowed
        torch.testing.assert_close(
            counts / 6000, torch.full((3,), 1 / 6), rtol=0, atol=0.03
        )  # equal weights


def test_trials_of_one_episode_have_empty_contexts():
    context = filled(trials([[[3]]])).contexts(torch.tensor([0, 0]), generator())
    assert context.obs.shape == (2, 0, 3)


def test_the_newest_tasks_are_kept():
    batches = [trials(LENGTHS, first_task=10 * i) for i in range(3)]
    replay = filled(*batches)
    assert replay.filled == 4
    drawn = replay.sample_tasks(400, generator())
    tasks = replay.transitions(drawn, 1, generator()).obs[:, 0, 0].unique()
    assert tasks.tolist() == [12.0, 20.0, 21.0, 22.0]


def test_a_longer_trial_makes_room_and_shorter_ones_keep_their_length():
    replay = filled(trials([[[1]]]), trials([[[5]]], first_task=1), trials([[[2]]], first_task=2))
    batch = replay.transitions(torch.tensor([0, 1, 2]), 300, generator())
    assert batch.obs[..., 2].amax(1).tolist() == [0.0, 4.0, 1.0]
    assert batch.obs[..., 0].unique(dim=1).squeeze(1).tolist() == [0.0, 1.0, 2.0]


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


@pytest.mark.parametrize("later", [[[[1, 1], [1, 1]]], [[[9, 9], [1, 1]]], LENGTHS])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_an_addition_can_be_undone(before, later):
    replay = filled(*(trials(LENGTHS, first_task=10 * i) for i in range(before)))
    state = replay.state()
    replay.undo(replay.add(trials(later, first_task=90), encode))
    assert_same(replay.state(), state)
    for one in (replay, other := TaskReplay(4, CPU)):
        if one is other:
            one.load_state(state)
        one.add(trials(later, first_task=90), encode)
    assert_same(replay.state(), other.state())


def test_a_replay_continues_from_its_state():
    one = filled(trials(LENGTHS), trials(LENGTHS, first_task=10))
    two = TaskReplay(4, CPU)
    two.load_state(one.state())
    for replay in (one, two):
        replay.add(trials([[[7, 1], [1, 1]]], first_task=20), encode)
    assert_same(one.state(), two.state())
    slots = torch.arange(4)
    assert torch.equal(
        one.transitions(slots, 9, generator()).obs, two.transitions(slots, 9, generator()).obs
    )
    assert torch.equal(one.contexts(slots, generator()).obs, two.contexts(slots, generator()).obs)


def test_the_state_of_an_empty_replay_can_be_loaded():
    replay = filled(trials(LENGTHS))
    replay.load_state(TaskReplay(4, CPU).state())
    assert replay.filled == 0


def test_a_replay_of_another_size_is_refused():
    state = filled(trials(LENGTHS), trials(LENGTHS)).state()
    replay = TaskReplay(5, CPU)
    with pytest.raises(CheckpointError, match=r"replay_tasks=5 and 6 tasks added it should hold 5"):
        replay.load_state(state)
    with pytest.raises(CheckpointError, match="does not fit this agent"):
        replay.load_state({})
    assert replay.filled == 0
