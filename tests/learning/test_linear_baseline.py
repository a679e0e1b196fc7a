import math

import numpy as np
import pytest
import torch

from metarl.errors import ConfigError, NonFiniteError
from metarl.learning.linear_baseline import linear_values

N, M, D = 4, 60, 3


def experience(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random transitions in float64, a fifth of them invalid."""
    rng = np.random.default_rng(seed)
    return {
        "obs": torch.as_tensor(rng.normal(size=(N, M, D)) * [1.0, 4.0, 20.0]),
        "step": torch.as_tensor(rng.integers(0, 200, size=(N, M))),
        "returns": torch.as_tensor(rng.normal(size=(N, M)) * 30.0 + 5.0),
        "valid": torch.as_tensor(rng.random((N, M)) > 0.2),
    }


def ridge_by_definition(obs, step, returns, valid, *, ridge):
    """One task by least squares; the penalty is added as data: sqrt(ridge) w[i] = 0."""
    features = []
    for values, t in zip(obs.numpy(), step.numpy() / 100, strict=True):
        clipped = [min(max(x, -10.0), 10.0) for x in values]
        features.append([*clipped, *(x * x for x in clipped), t, t * t, t * t * t, 1.0])
    features, fitted = np.array(features), valid.numpy().astype(bool)
    penalty = math.sqrt(ridge) * np.eye(features.shape[1])
    system = np.concatenate((features[fitted], penalty))
    target = np.concatenate((returns.numpy()[fitted], np.zeros(len(penalty))))
    weights, *_ = np.linalg.lstsq(system, target, rcond=None)
    return torch.as_tensor(features @ weights)


@pytest.mark.parametrize("ridge", [1e-5, 1.0, 1e4])
def test_values_are_the_ridge_regression_of_each_task(ridge):
    data = experience()
    found = linear_values(**data, ridge=ridge)
    for task in range(N):
        alone = {name: value[task] for name, value in data.items()}
        expected = ridge_by_definition(**alone, ridge=ridge)
        torch.testing.assert_close(found[task], expected, rtol=0, atol=1e-7)


def test_the_default_ridge_and_the_type_of_the_returns():
    data = experience()
    torch.testing.assert_close(
        linear_values(**data), linear_values(**data, ridge=1e-5), rtol=0, atol=0
    )
    single = {name: value.float() for name, value in data.items()}
    found = linear_values(**single)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), linear_values(**data), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["obs", "step", "returns"])
def test_invalid_transitions_do_not_affect_the_fit(name):
    data = experience()
    valid, before = data["valid"], linear_values(**data)
    changed = data[name].clone()
    changed[~valid] += 7
    after = linear_values(**data | {name: changed})
    torch.testing.assert_close(after[valid], before[valid], rtol=0, atol=1e-9)
    changed[valid] += (torch.arange(int(valid.sum())) % 3).view(-1, *(1,) * (changed.ndim - 2))
    refitted = linear_values(**data | {name: changed})
    assert not torch.allclose(refitted[valid], before[valid], atol=1e-3)


def test_tasks_do_not_share_a_fit():
    data = experience()
    before = linear_values(**data)
    changed = data["returns"].clone()
    changed[1] *= -3
    after = linear_values(**data | {"returns": changed})
    others = [0, 2, 3]
    torch.testing.assert_close(after[others], before[others], rtol=0, atol=1e-9)
    torch.testing.assert_close(after[1], -3 * before[1])  # a fit is linear in the returns


def test_returns_that_are_cubic_in_time_are_fitted():
    data = experience()
    t = data["step"] / 100
    returns = 3 - 2 * t + 5 * t**2 - t**3
    values = linear_values(**data | {"returns": returns})
    torch.testing.assert_close(values, returns, rtol=0, atol=1e-3)
    fourth = returns + t**4
    error = linear_values(**data | {"returns": fourth}) - fourth
    assert error[data["valid"]].abs().max() > 0.1


def test_observations_are_clipped_at_ten():
    data = experience()
    clipped = linear_values(**data | {"obs": data["obs"].clamp(-10, 10)})
    assert data["obs"].abs().max() > 20
    torch.testing.assert_close(linear_values(**data), clipped, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["equal components", "constant", "zero", "huge", "binary"])
def test_redundant_components_leave_the_fit_finite_and_accurate(kind):
    data = experience()
    obs = data["obs"]
    degenerate = {
        "equal components": obs[..., :1].expand(-1, -1, D),
        "constant": torch.full_like(obs, 3.0),
        "zero": torch.zeros_like(obs),
        "huge": torch.full_like(obs, 1e30),
        "binary": (obs > 0).double(),  # equal to its square
    }
    data["obs"] = degenerate[kind]
    found = linear_values(**data)
    for task in range(N):
        alone = {name: value[task] for name, value in data.items()}
        expected = ridge_by_definition(**alone, ridge=1e-5)
        torch.testing.assert_close(found[task], expected, rtol=0, atol=1e-3)


def exactly_collinear() -> dict[str, torch.Tensor]:
    """Observations alternate between 0 and 1: all four features of two components are equal."""
    obs = (torch.arange(16) % 2).double().view(1, 16, 1).expand(2, -1, 2)
    return {
        "obs": obs,
        "step": torch.zeros(2, 16),
        "returns": torch.arange(32.0).double().view(2, 16),
        "valid": torch.ones(2, 16),
    }


def test_a_ridge_below_rounding_error_is_raised_until_a_fit_exists():
    # Sums of squares are 8, whose neighbour is 8 + 1.8e-15: a ridge of 1e-17 leaves them singular.
    data = exactly_collinear()
    features = data["obs"][0].repeat(1, 2)
    singular = features.T @ features + 1e-17 * torch.eye(4).double()
    assert not torch.linalg.solve_ex(singular, torch.ones(4).double())[0].isfinite().all()
    assert linear_values(**data, ridge=1e-17).isfinite().all()
    with pytest.raises(NonFiniteError, match="no finite fit"):
        linear_values(**data, ridge=1e-30)  # raised to 1e-25, still too small


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_error_for_returns_that_are_not_finite_names_the_task(value):
    data = experience()
    data["valid"][2, 5] = True
    data["returns"][2, 5] = value
    with pytest.raises(
        NonFiniteError, match=r"task 2 has no finite fit: returns between .*(nan|inf)"
    ):
        linear_values(**data)


def test_fewer_transitions_than_features_are_rejected():
    # two components: 2 * 2 + 4 = 8 weights
    data = {name: value[:, :8] for name, value in experience().items()}
    data["obs"] = data["obs"][..., :2]
    assert linear_values(**data).isfinite().all()
    data = {name: value[:, :7] for name, value in data.items()}
    with pytest.raises(
        ConfigError, match=r"8 weights .* 2 components.* 7 transitions .*Raise rollouts_per_task"
    ):
        linear_values(**data)
