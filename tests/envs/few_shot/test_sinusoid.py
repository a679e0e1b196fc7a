"""Sine waves against a plain loop, contents of observations, and returns in closed form."""

import math

import numpy as np
import pytest
import torch

from metarl.envs.few_shot.sinusoid import RANGES, Sinusoid, sine_wave
from metarl.errors import ConfigError
from metarl.noise import LaneNoise
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import draw_tasks
from metarl.tasks.tensor_env import TensorEnv


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noise_of(lanes):
    return LaneNoise.of(Seeds(0), "noise", lanes)


def roll_out(name, num_tasks, *, seed=0, **options):
    family = Sinusoid(**options)
    tasks = draw_tasks(family, num_tasks, Seeds(seed).torch("tasks"), "test")
    policy = family.references(1)[name].build(tasks)
    return tasks, collect(family, tasks, policy, episodes=1, seeds=Seeds(seed), keep_next_obs=True)


def mean_is(values, expected, *, deviations=4):
    """Whether the mean over independent lanes equals `expected` within its standard error."""
    values = values.double()
    return (
        abs(float(values.mean()) - expected) < deviations * float(values.std()) / len(values) ** 0.5
    )


@pytest.mark.parametrize("show_values", [True, False])
@pytest.mark.parametrize("rewarded", ["all", "queries"])
@pytest.mark.parametrize("ranges", ["maml", "meta-sgd"])
def test_every_lane_equals_a_plain_loop_over_points(ranges, rewarded, show_values):
    family = Sinusoid(ranges=ranges, shots=3, queries=2, rewarded=rewarded, show_values=show_values)
    tasks, rng = family.sample_tasks(6, seeded(0)), np.random.default_rng(0)
    env = TensorEnv(family, tasks, noise_of(6))
    obs = env.reset()
    for step in range(5):
        action = rng.normal(0, 5, (6, 1)).astype(np.float32)
        last = env.step(torch.as_tensor(action))
        for lane in range(6):
            amplitude, frequency, phase = tasks[lane].double().tolist()
            x, _, _, query = obs[lane].double().tolist()
            assert query == (step >= 3)
            y = amplitude * math.sin(frequency * x + phase)
            cost = (min(max(float(action[lane, 0]), -5), 5) - y) ** 2
            penalised = rewarded == "all" or step >= 3
            assert float(last.reward[lane]) == pytest.approx(-cost if penalised else 0, abs=1e-4)
            shown = show_values and step < 3
            observed = last.next_obs[lane, 1:].tolist()
            assert observed == pytest.approx([y * shown, float(shown), float(step >= 2)], abs=1e-5)
        assert last.terminated.tolist() == [step == 4] * 6
        assert not last.truncated.any()
        obs = last.next_obs
    assert not obs[:, 0].any()  # no point is left


def test_the_value_shown_is_never_that_of_the_point_it_is_shown_with():
    family = Sinusoid(shots=4, queries=3)
    tasks = family.sample_tasks(500, seeded(0))
    env, differs = TensorEnv(family, tasks, noise_of(500)), []
    obs = env.reset()
    for _ in range(7):
        value = sine_wave(tasks, obs[:, 0])
        differs.append(((obs[:, 1] - value).abs() > 1e-6).all())
        obs = env.step(torch.zeros(500, 1)).next_obs
    assert all(differs)


def test_tasks_are_uniform_over_their_ranges_in_both_splits():
    for ranges, bounds in RANGES.items():
        family = Sinusoid(ranges=ranges)
        for split in ("train", "test"):
            tasks = draw_tasks(family, 20_000, seeded(0), split)
            for column, (low, high) in zip(tasks.T, bounds, strict=True):
                assert mean_is(column, (low + high) / 2) or low == high
                assert float(column.var()) == pytest.approx((high - low) ** 2 / 12, rel=0.05)
                assert float(column.min()) == pytest.approx(low, abs=0.01)
                assert float(column.max()) == pytest.approx(high, abs=0.01)


def test_every_episode_draws_new_points_from_the_whole_range():
    family = Sinusoid()
    tasks = family.sample_tasks(2, seeded(0))
    noise = noise_of(2)
    first, second = (family.reset(tasks, noise).x for _ in range(2))
    assert not (first == second).any()
    x = family.reset(tasks[:1].expand(5000, 3), noise_of(5000)).x
    assert mean_is(x[:, 0], 0)
    assert float(x.var()) == pytest.approx(100 / 12, rel=0.02)


def test_errors_of_the_floors_equal_their_integrals():
    # Phases cover half a period, where sin^2 has mean 1/2, so E y^2 = E amplitude^2 / 2.
    square = (0.1**2 + 0.1 * 5 + 5**2) / 3 / 2
    assert round(square, 3) == 4.252
    _, zero = roll_out("zero", 4000)
    assert mean_is(zero.reward.mean((0, 2)), -square)
    # The prediction is U[-5, 5] and independent of the wave, so its variance adds.
    _, random = roll_out("random", 4000)
    assert mean_is(random.reward.mean((0, 2)), -(square + 100 / 12))
    # E[y | x] = 2 E amplitude / pi cos x, and E cos^2 x = 1/2 + sin(10) / 20.
    explained = (2 * 2.55 / math.pi) ** 2 * (0.5 + math.sin(10) / 20)
    _, prior = roll_out("prior", 4000)
    assert mean_is(prior.reward.mean((0, 2)), -(square - explained))
    assert -(square - explained) == pytest.approx(-3.006, abs=1e-3)


def test_the_oracle_has_no_error():
    for ranges in RANGES:
        _, trajectory = roll_out("oracle", 300, ranges=ranges)
        assert trajectory.reward.abs().max() < 1e-10


def test_the_fit_needs_two_points_where_the_frequency_is_known():
    _, trajectory = roll_out("bayesian_fit", 1000)
    error = -trajectory.reward.mean((1, 2))
    assert error[0] > 2
    assert 0.5 < error[1] < 2
    assert (error[2:] < 5e-3).all()
    assert (error[4:] < 1e-4).all()


def test_the_fit_infers_an_unknown_frequency():
    _, trajectory = roll_out("bayesian_fit", 200, ranges="meta-sgd")
    assert -trajectory.reward[10:].mean() < 2e-3


def fitted_by_definition(obs, *, noise):
    """Bayesian linear regression in closed form (Bishop 3.49 to 3.51), for one lane."""
    square = (0.1**2 + 0.1 * 5 + 5**2) / 3 / 2
    mean = np.array([0, 2 * 2.55 / math.pi])
    precision = np.diag([1 / square, 1 / (square - mean[1] ** 2)])
    predictions, data = [], []
    for step, (x, value, shown, _) in enumerate(obs):
        if shown:
            data.append((np.array([math.sin(obs[step - 1, 0]), math.cos(obs[step - 1, 0])]), value))
        posterior, target = precision.copy(), precision @ mean
        for features, y in data:
            posterior += np.outer(features, features) / noise**2
            target = target + features * y / noise**2
        weights = np.linalg.solve(posterior, target)
        predictions.append(weights @ [math.sin(x), math.cos(x)])
    return predictions


def test_the_fit_is_bayesian_linear_regression():
    _, trajectory = roll_out("bayesian_fit", 20, shots=4, queries=2)
    for task in range(20):
        expected = fitted_by_definition(trajectory.obs[:, task, 0].double().numpy(), noise=1e-3)
        np.testing.assert_allclose(trajectory.action[:, task, 0, 0], expected, atol=2e-3)


def test_rollouts_of_a_thousand_tasks_stay_inside_the_spaces():
    for ranges in RANGES:
        tasks, trajectory = roll_out("random", 1000, ranges=ranges)
        family = Sinusoid(ranges=ranges)
        low, high = (torch.as_tensor(b) for b in (family.task_space.low, family.task_space.high))
        assert ((tasks >= low) & (tasks <= high)).all()
        space = family.observation_space
        for obs in (trajectory.obs, trajectory.next_obs):
            assert obs.isfinite().all()
            assert (obs >= torch.as_tensor(space.low)).all()
            assert (obs <= torch.as_tensor(space.high)).all()
        assert trajectory.reward.isfinite().all()
        assert trajectory.reward.min() >= -100
        assert trajectory.reward.max() <= 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_non_finite_action_gives_a_nan_reward(bad):
    family = Sinusoid()
    tasks, noise = family.sample_tasks(2, seeded(0)), noise_of(2)
    state = family.reset(tasks, noise)
    _, reward, _ = family.step(tasks, state, torch.tensor([[bad], [0.1]]), noise)
    assert reward.isnan().tolist() == [True, False]


def test_the_fit_is_a_reference_only_where_values_are_shown():
    assert "bayesian_fit" in Sinusoid().references(1)
    assert list(Sinusoid(show_values=False).references(1)) == [
        "random",
        "zero",
        "prior",
        "oracle",
    ]


def test_invalid_options_are_refused():
    with pytest.raises(ConfigError, match="shots=0 must be greater than zero"):
        Sinusoid(shots=0)
    with pytest.raises(ConfigError, match="queries=-1 must be greater than zero"):
        Sinusoid(queries=-1)
    with pytest.raises(ConfigError, match=r"ranges='reptile' of .* 'maml', 'meta-sgd'"):
        Sinusoid(ranges="reptile")
    with pytest.raises(ConfigError, match=r"rewarded='none' of .* 'all', 'queries'"):
        Sinusoid(rewarded="none")
