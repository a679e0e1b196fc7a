"""Policy-gradient batches against slow definitions: episode by episode, lane by lane."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agent import ShownTargets
from metarl.agents.gradient.pg_batch import PGBatch, pg_batch, supervised_batch
from metarl.errors import ConfigError, NonFiniteError
from metarl.networks.action_heads import action_head
from metarl.trajectory import Trajectory
from tests.adaptation_by_definition import BOX, DISCRETE, Case

LENGTHS = [
    # of the episodes in each rollout of each task; lanes differ in length
    [[3, 1, 4], [2, 2, 2], [5, 5, 1], [1, 1, 1]],
    [[4, 4, 3], [1, 2, 1], [6, 2, 1], [3, 3, 3]],
    [[2, 1, 1], [2, 3, 4], [1, 6, 4], [5, 1, 2]],
]


def random_phase(
    dtype: torch.dtype = torch.float64, seed: int = 0, scale: float = 1.0
) -> Trajectory:
    """N = 3 tasks, B = 4 rollouts of 3 episodes each; zeros after the end of a lane."""
    generator = torch.Generator().manual_seed(seed)
    total = np.array(LENGTHS).sum(-1)
    time, (tasks, rollouts) = int(total.max()), total.shape
    first, ends = torch.zeros(2, time, tasks, rollouts, dtype=torch.bool)
    for task in range(tasks):
        for rollout in range(rollouts):
            start = 0
            for length in LENGTHS[task][rollout]:
                first[start, task, rollout] = ends[start + length - 1, task, rollout] = True
                start += length
    valid = torch.arange(time).view(-1, 1, 1) < torch.as_tensor(total)
    kind = torch.rand(ends.shape, generator=generator) < 0.5

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(time, tasks, rollouts, *shape, generator=generator, dtype=dtype)
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
    valid = phase.valid[:, task].numpy()
    rows = np.concatenate((x[valid], 1e-5**0.5 * np.eye(x.shape[-1])))
    target = np.concatenate((returns[valid], np.zeros(x.shape[-1])))
    return x @ np.linalg.lstsq(rows, target, rcond=None)[0]


def episodes(task: int, rollout: int) -> list[list[int]]:
    """Steps of every episode."""
    ends = np.cumsum([0, *LENGTHS[task][rollout]])
    return [list(range(*pair)) for pair in pairwise(ends)]


def batch_by_definition(
    phase: Trajectory, gamma: float, gae_lambda: float
) -> dict[str, np.ndarray]:
    """Discounted rewards and values, advantages [T, N, B], mean returns [N]; not normalised."""
    reward = phase.reward.double().numpy()
    names = ("advantage", "scaled_reward", "scaled_value")
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
                found["scaled_reward"][t, task, b] = discount * reward[t, task, b]
                found["scaled_value"][t, task, b] = discount * value[t, b]
        sums = [sum(reward[t, task, b] for t in episode) for b, episode in every]
        mean_return.append(np.mean(sums))
    return {**found, "episode_return": np.array(mean_return)}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 2e-4)])
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.9, 1.0), (0.95, 0.7), (1.0, 0.0)])
def test_a_batch_equals_its_definition_episode_by_episode(dtype, tolerance, gamma, gae_lambda):
    phase = random_phase(dtype)
    expected = batch_by_definition(phase, gamma, gae_lambda)
    data = pg_batch(phase, gamma=gamma, gae_lambda=gae_lambda, normalise=False)
    for name in ("advantage", "scaled_reward", "scaled_value"):
        got = getattr(data, name)
        assert got.dtype == dtype
        error = np.abs(got.double().numpy() - expected[name])[phase.valid.numpy()]
        assert error.max() < tolerance, name
    np.testing.assert_allclose(data.episode_return, expected["episode_return"], atol=tolerance)


def test_advantages_are_normalised_by_the_mean_and_deviation_of_each_task():
    phase = random_phase()
    expected = batch_by_definition(phase, 0.9, 0.8)
    data = pg_batch(phase, gamma=0.9, gae_lambda=0.8, normalise=True)
    for task in range(3):
        valid = phase.valid[:, task].numpy()
        raw = expected["advantage"][:, task][valid]
        got = data.advantage[:, task].numpy()[valid]
        np.testing.assert_allclose(got, (raw - raw.mean()) / raw.std(), rtol=0, atol=1e-6)
        for name in ("scaled_reward", "scaled_value"):  # divided, but not shifted
            got = getattr(data, name)[:, task].numpy()[valid]
            np.testing.assert_allclose(
                got, expected[name][:, task][valid] / raw.std(), rtol=0, atol=1e-6
            )


def test_the_deviation_undoes_the_normalisation():
    plain, divided = (
        pg_batch(random_phase(), gamma=0.9, gae_lambda=0.8, normalise=n) for n in (False, True)
    )
    assert plain.advantage_std.tolist() == [1.0, 1.0, 1.0]
    per_task = divided.advantage_std.view(1, -1, 1)
    torch.testing.assert_close(divided.scaled_reward * per_task, plain.scaled_reward)
    shift = divided.advantage * per_task - plain.advantage  # minus the mean of each task
    torch.testing.assert_close(shift, shift[:1, :, :1].expand_as(shift))
    assert len(divided.advantage_std.unique()) == 3


def test_fewer_rollouts_are_the_first_ones():
    data = pg_batch(random_phase(), gamma=0.9, gae_lambda=0.8, normalise=True)
    few = data.take_rollouts(3)
    assert few.inputs.shape == (11 * 3, 3, 2)
    assert torch.equal(few.over_time(few.inputs), data.over_time(data.inputs)[:, :, :3])
    for field in dataclasses.fields(PGBatch):
        one, two = getattr(few, field.name), getattr(data, field.name)
        if field.name in ("advantage_std", "episode_return"):
            assert torch.equal(one, two), field.name
        elif field.name not in ("inputs", "target", "shown"):
            assert torch.equal(one, two[:, :, :3]), field.name
    assert few.target is None


def test_groups_of_rollouts_become_tasks():
    trajectory, targets = (
        random_phase(),
        ShownTargets(slice(1, 2), lambda obs: (obs, obs[..., 0] > 0)),
    )
    for data in (
        pg_batch(trajectory, gamma=0.9, gae_lambda=0.8, normalise=True),
        supervised_batch(trajectory, targets),
    ):
        rollouts = data.valid.shape[2]
        split = data.split_rollouts(rollouts)
        assert data.split_rollouts(1) is data
        for field in dataclasses.fields(PGBatch):
            one, whole = getattr(split, field.name), getattr(data, field.name)
            if whole is None:
                assert one is None
                continue
            if field.name == "inputs":
                one, whole = split.over_time(one), data.over_time(whole)
            for task in range(data.valid.shape[1]):
                for rollout in range(rollouts):
                    group = task * rollouts + rollout
                    if field.name in ("advantage_std", "episode_return"):
                        assert one[group] == whole[task]
                    else:
                        assert torch.equal(one[:, group, 0], whole[:, task, rollout])


def test_normalised_advantages_do_not_depend_on_the_unit_of_rewards():
    small, large = (
        pg_batch(random_phase(scale=s), gamma=0.9, gae_lambda=1.0, normalise=True)
        for s in (1, 1000)
    )
    torch.testing.assert_close(small.advantage, large.advantage, rtol=0, atol=1e-6)
    torch.testing.assert_close(small.scaled_reward, large.scaled_reward, rtol=0, atol=1e-6)
    assert (large.episode_return != small.episode_return).all()


def test_tasks_do_not_affect_each_other():
    phase = random_phase()
    reward = phase.reward.clone()
    reward[:, 1] *= 5
    options = {"gamma": 0.9, "gae_lambda": 0.8, "normalise": False}
    one, two = (pg_batch(p, **options) for p in (phase, dataclasses.replace(phase, reward=reward)))
    for name in ("advantage", "scaled_reward", "scaled_value"):
        same = (getattr(one, name) == getattr(two, name)).all(2).all(0)
        assert same.tolist() == [True, False, True], name


def test_contents_of_finished_lanes_change_nothing():
    phase = random_phase()
    finished = ~phase.valid
    assert bool(finished.any())
    changed = dataclasses.replace(
        phase,
        obs=phase.obs.masked_fill(finished.unsqueeze(-1), 7.0),
        log_prob=phase.log_prob.masked_fill(finished, -3.0),
    )
    one, two = (pg_batch(p, gamma=0.9, gae_lambda=0.8, normalise=True) for p in (phase, changed))
    for name in ("advantage", "scaled_reward", "scaled_value"):
        assert torch.equal(getattr(one, name)[~finished], getattr(two, name)[~finished]), name
    assert torch.equal(one.episode_return, two.episode_return)
    torch.testing.assert_close(one.mean(one.advantage), two.mean(two.advantage))


def test_over_time_restores_the_axes_time_task_rollout():
    phase = random_phase()
    data = pg_batch(phase, gamma=0.9, gae_lambda=1.0, normalise=False)
    assert data.inputs.shape == (11 * 4, 3, 2)
    assert torch.equal(data.over_time(data.inputs), phase.obs)
    assert torch.equal(data.over_time(data.inputs[..., 0]), phase.obs[..., 0])


def test_a_mean_is_over_valid_transitions_of_each_task_then_over_tasks():
    data = pg_batch(random_phase(), gamma=0.9, gae_lambda=1.0, normalise=False)
    value = torch.arange(11.0).view(-1, 1, 1) + torch.tensor([0.0, 50.0, 900.0]).view(1, -1, 1)
    value = value.expand(11, 3, 4).double()
    each = []
    for task in range(3):
        valid = [float(value[t, task, b]) for b in range(4) for t in range(sum(LENGTHS[task][b]))]
        each.append(np.mean(valid))
    assert float(data.mean(value)) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("space", [DISCRETE, BOX])
def test_log_probabilities_and_divergence_belong_to_their_samples(space):
    head = action_head(space).double()
    case = Case(box=space is BOX)
    data = case.batches()[0]
    generator = torch.Generator().manual_seed(5)
    shape = (2, len(data.inputs), 3, head.outputs + head.constants)
    old, new = torch.randn(shape, generator=generator, dtype=torch.float64)
    log_probs = data.log_probs(head, new)
    kl = torch.zeros(5, 3, 4, dtype=torch.float64)
    for t, n, b in np.ndindex(5, 3, 4):
        at = (t * 4 + b, n)
        alone = head.evaluate(new[at], data.action[t, n, b])[0]
        torch.testing.assert_close(log_probs[t, n, b], alone)
        kl[t, n, b] = head.kl_divergence(old[at], new[at])
    torch.testing.assert_close(data.kl_divergence(head, old, new), data.mean(kl))


def test_too_few_transitions_for_the_baseline_are_refused():
    phase = random_phase()
    few = Trajectory(**{name: value[:1, :, :3] for name, value in phase.columns.items()})
    with pytest.raises(ConfigError, match=r"has 8 weights .* each task gives 3 transitions"):
        pg_batch(few, gamma=0.9, gae_lambda=1.0, normalise=True)


def test_a_reward_that_is_not_finite_is_an_error_that_names_the_task():
    phase = random_phase()
    reward = phase.reward.clone()
    reward[0, 2, 1] = torch.inf
    with pytest.raises(NonFiniteError, match=r"baseline of task 2 has no finite fit"):
        pg_batch(
            dataclasses.replace(phase, reward=reward), gamma=0.9, gae_lambda=1.0, normalise=True
        )


def test_all_numbers_of_a_batch_are_finite():
    data = pg_batch(random_phase(), gamma=0.9, gae_lambda=1.0, normalise=True)
    for field in dataclasses.fields(PGBatch):
        value = getattr(data, field.name)
        assert value is None or bool(value.isfinite().all()), field.name
