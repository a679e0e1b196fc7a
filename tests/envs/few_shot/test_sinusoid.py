"""Sine waves beside a plain one-lane loop, what the observation tells, and known expectations."""

import math

import numpy as np
import pytest
import torch

from metarl.envs.few_shot.sinusoid import RANGES, Sinusoid, sine_wave
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import TensorEnv, draw_tasks


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def live(name, num_tasks, *, seed=0, **options):
    family = Sinusoid(**options)
    tasks = draw_tasks(family, num_tasks, Seeds(seed).torch("tasks"), "test")
    policy = family.references(1)[name].build(tasks)
    return tasks, collect(family, tasks, policy, episodes=1, seeds=Seeds(seed))


def about(values, expected, *, deviations=4):
    """Whether the mean over independent lanes is what it should be."""
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
    world = TensorEnv(family, tasks, seeded(1))
    obs = world.reset()
    for step in range(5):
        action = rng.normal(0, 5, (6, 1)).astype(np.float32)
        last = world.step(torch.as_tensor(action))
        for lane in range(6):
            amplitude, frequency, phase = tasks[lane].double().tolist()
            x, _, _, query = obs[lane].double().tolist()
            assert query == (step >= 3)
            y = amplitude * math.sin(frequency * x + phase)
            cost = (min(max(float(action[lane, 0]), -5), 5) - y) ** 2
            paid = rewarded == "all" or step >= 3
            assert float(last.reward[lane]) == pytest.approx(-cost if paid else 0, abs=1e-4)
            told = show_values and step < 3
            shown = last.obs[lane, 1:].tolist()
            assert shown == pytest.approx([y * told, float(told), float(step >= 2)], abs=1e-5)
        assert last.terminated.tolist() == [step == 4] * 6
        assert not last.truncated.any()
        obs = last.obs
    assert not obs[:, 0].any()  # no point is left


def test_the_value_shown_is_never_that_of_the_point_it_is_shown_with():
    family = Sinusoid(shots=4, queries=3)
    tasks = family.sample_tasks(500, seeded(0))
    world, seen = TensorEnv(family, tasks, seeded(1)), []
    obs = world.reset()
    for _ in range(7):
        here = sine_wave(tasks, obs[:, 0])
        seen.append(((obs[:, 1] - here).abs() > 1e-6).all())
        obs = world.step(torch.zeros(500, 1)).obs
    assert all(seen)


def test_tasks_fill_their_ranges_in_both_splits_and_lie_in_the_task_space():
    for ranges, bounds in RANGES.items():
        family = Sinusoid(ranges=ranges)
        for split in ("train", "test"):
            tasks = draw_tasks(family, 20_000, seeded(0), split)
            for column, (low, high) in zip(tasks.T, bounds, strict=True):
                assert about(column, (low + high) / 2) or low == high
                assert float(column.var()) == pytest.approx((high - low) ** 2 / 12, rel=0.05)
                assert float(column.min()) == pytest.approx(low, abs=0.01)
                assert float(column.max()) == pytest.approx(high, abs=0.01)


def test_every_episode_draws_other_points_from_the_whole_range():
    family = Sinusoid()
    tasks = family.sample_tasks(2, seeded(0))
    generator = seeded(1)
    first, second = (family.reset(tasks, generator).x for _ in range(2))
    assert not (first == second).any()
    x = family.reset(tasks[:1].expand(5000, 3), generator).x
    assert about(x[:, 0], 0)
    assert float(x.var()) == pytest.approx(100 / 12, rel=0.02)


def test_floors_cost_what_the_integrals_say():
    # Phases run over half a turn, where sin^2 has mean 1/2, so E y^2 = E amplitude^2 / 2.
    square = (0.1**2 + 0.1 * 5 + 5**2) / 3 / 2
    assert round(square, 3) == 4.252
    _, zero = live("zero", 4000)
    assert about(zero.reward.mean((0, 2)), -square)
    # The prediction is U[-5, 5], independent of the wave: its variance comes on top.
    _, random = live("random", 4000)
    assert about(random.reward.mean((0, 2)), -(square + 100 / 12))
    # E[y | x] = 2 E amplitude / pi cos x, and E cos^2 x = 1/2 + sin(10) / 20.
    explained = (2 * 2.55 / math.pi) ** 2 * (0.5 + math.sin(10) / 20)
    _, prior = live("prior", 4000)
    assert about(prior.reward.mean((0, 2)), -(square - explained))
    assert -(square - explained) == pytest.approx(-3.006, abs=1e-3)


def test_the_oracle_is_never_wrong():
    for ranges in RANGES:
        _, lived = live("oracle", 300, ranges=ranges)
        assert lived.reward.abs().max() < 1e-10


def test_two_points_tell_the_fit_the_whole_wave_where_the_frequency_is_known():
    _, lived = live("bayesian_fit", 1000)
    cost = -lived.reward.mean((1, 2))
    assert cost[0] > 2
    assert 0.5 < cost[1] < 2
    assert (cost[2:] < 5e-3).all()
    assert (cost[4:] < 1e-4).all()


def test_the_fit_finds_the_frequency_too():
    _, lived = live("bayesian_fit", 200, ranges="meta-sgd")
    assert -lived.reward[10:].mean() < 2e-3


def fitted_by_definition(obs, *, noise):
    """Bayesian linear regression in closed form (Bishop 3.49 to 3.51), for one lane."""
    square = (0.1**2 + 0.1 * 5 + 5**2) / 3 / 2
    mean = np.array([0, 2 * 2.55 / math.pi])
    precision = np.diag([1 / square, 1 / (square - mean[1] ** 2)])
    predictions, seen = [], []
    for step, (x, value, told, _) in enumerate(obs):
        if told:
            seen.append((np.array([math.sin(obs[step - 1, 0]), math.cos(obs[step - 1, 0])]), value))
        posterior, target = precision.copy(), precision @ mean
        for features, y in seen:
            posterior += np.outer(features, features) / noise**2
            target = target + features * y / noise**2
        weights = np.linalg.solve(posterior, target)
        predictions.append(weights @ [math.sin(x), math.cos(x)])
    return predictions


def test_the_fit_is_bayesian_linear_regression():
    _, lived = live("bayesian_fit", 20, shots=4, queries=2)
    for task in range(20):
        expected = fitted_by_definition(lived.obs[:, task, 0].double().numpy(), noise=1e-3)
        np.testing.assert_allclose(lived.action[:, task, 0, 0], expected, atol=2e-3)


def test_lives_of_a_thousand_tasks_stay_inside_the_spaces():
    for ranges in RANGES:
        tasks, lived = live("random", 1000, ranges=ranges)
        family = Sinusoid(ranges=ranges)
        low, high = (torch.as_tensor(b) for b in (family.task_space.low, family.task_space.high))
        assert ((tasks >= low) & (tasks <= high)).all()
        space = family.observation_space
        for obs in (lived.obs, lived.next_obs):
            assert obs.isfinite().all()
            assert (obs >= torch.as_tensor(space.low)).all()
            assert (obs <= torch.as_tensor(space.high)).all()
        assert lived.reward.isfinite().all()
        assert lived.reward.min() >= -100
        assert lived.reward.max() <= 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_an_action_that_is_not_finite_is_not_hidden(bad):
    family = Sinusoid()
    tasks = family.sample_tasks(2, seeded(0))
    state = family.reset(tasks, seeded(0))
    _, reward, _ = family.step(tasks, state, torch.tensor([[bad], [0.1]]), seeded(0))
    assert reward.isnan().tolist() == [True, False]


def test_a_fit_is_only_offered_where_values_are_shown():
    assert "bayesian_fit" in Sinusoid().references(1)
    assert list(Sinusoid(show_values=False).references(1)) == [
        "random",
        "zero",
        "prior",
        "oracle",
    ]


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="shots=0 must be greater than zero"):
        Sinusoid(shots=0)
    with pytest.raises(ConfigError, match="queries=-1 must be greater than zero"):
        Sinusoid(queries=-1)
    with pytest.raises(ConfigError, match="ranges='reptile' must be one of maml, meta-sgd"):
        Sinusoid(ranges="reptile")
    with pytest.raises(ConfigError, match="rewarded='none' must be one of all, queries"):
        Sinusoid(rewarded="none")
