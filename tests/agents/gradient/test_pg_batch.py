"""What a phase teaches, against slow definitions: episode by episode, lane by lane."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.gradient.pg_batch import PGBatch, lesson
from metarl.errors import ConfigError, NonFiniteError
from metarl.networks.action_heads import action_head
from metarl.trajectory import Trajectory
from tests.adaptation_by_definition import BOX, DISCRETE, Case

LENGTHS = [
    # of the episodes in each copy of each task: they differ, and so do the lives
    [[3, 1, 4], [2, 2, 2], [5, 5, 1], [1, 1, 1]],
    [[4, 4, 3], [1, 2, 1], [6, 2, 1], [3, 3, 3]],
    [[2, 1, 1], [2, 3, 4], [1, 6, 4], [5, 1, 2]],
]


def live(dtype: torch.dtype = torch.float64, seed: int = 0, scale: float = 1.0) -> Trajectory:
    """N = 3 tasks in B = 4 copies of 3 episodes each; idle lanes hold zeros."""
    generator = torch.Generator().manual_seed(seed)
    total = np.array(LENGTHS).sum(-1)
    time, (tasks, copies) = int(total.max()), total.shape
    first, ends = torch.zeros(2, time, tasks, copies, dtype=torch.bool)
    for task in range(tasks):
        for copy in range(copies):
            start = 0
            for length in LENGTHS[task][copy]:
                first[start, task, copy] = ends[start + length - 1, task, copy] = True
                start += length
    valid = torch.arange(time).view(-1, 1, 1) < torch.as_tensor(total)
    kind = torch.rand(ends.shape, generator=generator) < 0.5

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(time, tasks, copies, *shape, generator=generator, dtype=dtype)
        return drawn * valid.view(*valid.shape, *(1,) * len(shape))

    return Trajectory(
        obs=normal(2),
        action=torch.randint(0, 3, valid.shape, generator=generator) * valid,
        log_prob=normal() - 1,
        reward=scale * normal(),
        next_obs=normal(2),
        terminated=ends & kind,
        truncated=ends & ~kind,
        first=first,
        success=torch.zeros_like(first),
        valid=valid,
    )


def baseline_by_definition(phase: Trajectory, returns: np.ndarray, task: int) -> np.ndarray:
    """Ridge regression as least squares: a row of sqrt(ridge) for each weight; [T, B]."""
    obs = phase.obs[:, task].double().numpy().clip(-10, 10)
    step = np.zeros(obs.shape[:2])
    for t, b in np.ndindex(*step.shape):
        step[t, b] = 0 if phase.first[t, task, b] else step[t - 1, b] + 1
    time = step[..., None] / 100
    x = np.concatenate((obs, obs**2, time, time**2, time**3, np.ones_like(time)), -1)
    lived = phase.valid[:, task].numpy()
    rows = np.concatenate((x[lived], 1e-5**0.5 * np.eye(x.shape[-1])))
    target = np.concatenate((returns[lived], np.zeros(x.shape[-1])))
    return x @ np.linalg.lstsq(rows, target, rcond=None)[0]


def episodes(task: int, copy: int) -> list[list[int]]:
    """Steps of every episode."""
    ends = np.cumsum([0, *LENGTHS[task][copy]])
    return [list(range(*pair)) for pair in pairwise(ends)]


def lesson_by_definition(
    phase: Trajectory, gamma: float, gae_lambda: float
) -> dict[str, np.ndarray]:
    """Discounted rewards and values, advantages [T, N, B] and mean returns [N]; no normalising."""
    reward = phase.reward.double().numpy()
    names = ("advantage", "reward", "value")
    found = {name: np.zeros(reward.shape) for name in names}
    mean_return = []
    for task in range(len(LENGTHS)):
        every = [(b, episode) for b in range(4) for episode in episodes(task, b)]
        returns = np.zeros(reward[:, task].shape)
        for b, episode in every:
            for t in episode:
                later = [k for k in episode if k >= t]
                returns[t, b] = sum(gamma ** (k - t) * reward[k, task, b] for k in later)
        value = baseline_by_definition(phase, returns, task)
        for b, episode in every:
            for t in episode:
                for k in (k for k in episode if k >= t):
                    after = value[k + 1, b] if k + 1 in episode else 0.0
                    delta = reward[k, task, b] + gamma * after - value[k, b]
                    found["advantage"][t, task, b] += (gamma * gae_lambda) ** (k - t) * delta
                discount = gamma ** (t - episode[0])
                found["reward"][t, task, b] = discount * reward[t, task, b]
                found["value"][t, task, b] = discount * value[t, b]
        sums = [sum(reward[t, task, b] for t in episode) for b, episode in every]
        mean_return.append(np.mean(sums))
    return {**found, "episode_return": np.array(mean_return)}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 2e-4)])
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.9, 1.0), (0.95, 0.7), (1.0, 0.0)])
def test_it_is_what_the_definition_says_episode_by_episode(dtype, tolerance, gamma, gae_lambda):
    phase = live(dtype)
    wanted = lesson_by_definition(phase, gamma, gae_lambda)
    data = lesson(phase, gamma=gamma, gae_lambda=gae_lambda, normalise=False)
    for name in ("advantage", "reward", "value"):
        got = getattr(data, name)
        assert got.dtype == dtype
        error = np.abs(got.double().numpy() - wanted[name])[phase.valid.numpy()]
        assert error.max() < tolerance, name
    np.testing.assert_allclose(data.episode_return, wanted["episode_return"], atol=tolerance)


def test_normalised_by_the_mean_and_deviation_of_each_task():
    phase = live()
    wanted = lesson_by_definition(phase, 0.9, 0.8)
    data = lesson(phase, gamma=0.9, gae_lambda=0.8, normalise=True)
    for task in range(3):
        lived = phase.valid[:, task].numpy()
        raw = wanted["advantage"][:, task][lived]
        expected = (raw - raw.mean()) / raw.std()
        got = data.advantage[:, task].numpy()[lived]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
        for name in ("reward", "value"):  # in the same unit, but not shifted
            got = getattr(data, name)[:, task].numpy()[lived]
            np.testing.assert_allclose(
                got, wanted[name][:, task][lived] / raw.std(), rtol=0, atol=1e-6
            )


def test_the_deviation_says_how_to_undo_the_normalising():
    plain, divided = (lesson(live(), gamma=0.9, gae_lambda=0.8, normalise=n) for n in (False, True))
    assert plain.deviation.tolist() == [1.0, 1.0, 1.0]
    per_task = divided.deviation.view(1, -1, 1)
    torch.testing.assert_close(divided.reward * per_task, plain.reward)
    shift = divided.advantage * per_task - plain.advantage  # minus the mean of each task
    torch.testing.assert_close(shift, shift[:1, :, :1].expand_as(shift))
    assert len(divided.deviation.unique()) == 3


def test_fewer_copies_are_the_first_of_all():
    data = lesson(live(), gamma=0.9, gae_lambda=0.8, normalise=True)
    few = data.take_rollouts(3)
    assert few.inputs.shape == (11 * 3, 3, 2)
    assert torch.equal(few.over_time(few.inputs), data.over_time(data.inputs)[:, :, :3])
    for field in dataclasses.fields(PGBatch):
        one, two = getattr(few, field.name), getattr(data, field.name)
        if field.name in ("deviation", "episode_return"):
            assert torch.equal(one, two), field.name
        elif field.name != "inputs":
            assert torch.equal(one, two[:, :, :3]), field.name


def test_the_unit_of_rewards_is_nothing_to_normalised_advantages():
    small, large = (
        lesson(live(scale=s), gamma=0.9, gae_lambda=1.0, normalise=True) for s in (1, 1000)
    )
    torch.testing.assert_close(small.advantage, large.advantage, rtol=0, atol=1e-6)
    torch.testing.assert_close(small.reward, large.reward, rtol=0, atol=1e-6)
    assert (large.episode_return != small.episode_return).all()


def test_one_task_learns_nothing_from_another():
    phase = live()
    reward = phase.reward.clone()
    reward[:, 1] *= 5
    options = {"gamma": 0.9, "gae_lambda": 0.8, "normalise": False}
    one, two = (lesson(p, **options) for p in (phase, dataclasses.replace(phase, reward=reward)))
    for name in ("advantage", "reward", "value"):
        same = (getattr(one, name) == getattr(two, name)).all(2).all(0)
        assert same.tolist() == [True, False, True], name


def test_what_idle_lanes_saw_is_nothing():
    phase = live()
    idle = ~phase.valid
    assert bool(idle.any())
    changed = dataclasses.replace(
        phase,
        obs=phase.obs.masked_fill(idle.unsqueeze(-1), 7.0),
        log_prob=phase.log_prob.masked_fill(idle, -3.0),
    )
    one, two = (lesson(p, gamma=0.9, gae_lambda=0.8, normalise=True) for p in (phase, changed))
    for name in ("advantage", "reward", "value"):
        assert torch.equal(getattr(one, name)[~idle], getattr(two, name)[~idle]), name
    assert torch.equal(one.episode_return, two.episode_return)
    torch.testing.assert_close(one.mean(one.advantage), two.mean(two.advantage))


def test_axes_come_back_in_the_order_of_time_task_copy():
    phase = live()
    data = lesson(phase, gamma=0.9, gae_lambda=1.0, normalise=False)
    assert data.inputs.shape == (11 * 4, 3, 2)
    assert torch.equal(data.over_time(data.inputs), phase.obs)
    assert torch.equal(data.over_time(data.inputs[..., 0]), phase.obs[..., 0])


def test_a_mean_is_over_what_was_lived_in_a_task_and_then_over_tasks():
    data = lesson(live(), gamma=0.9, gae_lambda=1.0, normalise=False)
    value = torch.arange(11.0).view(-1, 1, 1) + torch.tensor([0.0, 50.0, 900.0]).view(1, -1, 1)
    value = value.expand(11, 3, 4).double()
    each = []
    for task in range(3):
        lived = [float(value[t, task, b]) for b in range(4) for t in range(sum(LENGTHS[task][b]))]
        each.append(np.mean(lived))
    assert float(data.mean(value)) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("space", [DISCRETE, BOX])
def test_log_probabilities_and_divergence_belong_to_their_decisions(space):
    head = action_head(space).double()
    case = Case(box=space is BOX)
    data = case.lessons()[0]
    generator = torch.Generator().manual_seed(5)
    shape = (2, len(data.inputs), 3, head.outputs + head.constants)
    old, new = torch.randn(shape, generator=generator, dtype=torch.float64)
    log_probs = data.log_probs(head, new)
    kl = torch.zeros(5, 3, 4, dtype=torch.float64)
    for t, n, b in np.ndindex(5, 3, 4):
        at = (t * 4 + b, n)
        alone = head.evaluate(new[at], data.action[t, n, b])[0]
        torch.testing.assert_close(log_probs[t, n, b], alone)
        kl[t, n, b] = head.divergence(old[at], new[at])
    torch.testing.assert_close(data.divergence(head, old, new), data.mean(kl))


def test_too_few_transitions_for_the_baseline_are_refused():
    phase = live()
    few = Trajectory(
        **{f.name: getattr(phase, f.name)[:1, :, :3] for f in dataclasses.fields(Trajectory)}
    )
    with pytest.raises(ConfigError, match=r"has 8 weights .* each task gives 3 transitions"):
        lesson(few, gamma=0.9, gae_lambda=1.0, normalise=True)


def test_a_reward_that_is_not_finite_is_an_error_that_names_the_task():
    phase = live()
    reward = phase.reward.clone()
    reward[0, 2, 1] = torch.inf
    with pytest.raises(NonFiniteError, match=r"baseline of task 2 has no finite fit"):
        lesson(dataclasses.replace(phase, reward=reward), gamma=0.9, gae_lambda=1.0, normalise=True)


def test_a_lesson_is_complete():
    data = lesson(live(), gamma=0.9, gae_lambda=1.0, normalise=True)
    for field in dataclasses.fields(PGBatch):
        assert bool(getattr(data, field.name).isfinite().all()), field.name
