import math

import numpy as np
import pytest
import torch

from metarl.learning.trust_region import Candidate, LineSearchResult, backtrack, conjugate_gradient


class CountedProduct:
    """A matrix-vector product that counts its calls."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix, self.products = matrix, 0

    def __call__(self, vector: torch.Tensor) -> torch.Tensor:
        self.products += 1
        return self.matrix @ vector


def positive_definite(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A random matrix with eigenvalues between .1 and 10, and a right-hand side."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = rotation * np.geomspace(0.1, 10.0, size) @ rotation.T
    return torch.as_tensor(matrix), torch.as_tensor(rng.normal(size=size))


@pytest.mark.parametrize("size", [1, 2, 8, 30])
@pytest.mark.parametrize("seed", range(3))
def test_the_solution_agrees_with_numpy(size, seed):
    matrix, b = positive_definite(size, seed)
    found = conjugate_gradient(CountedProduct(matrix), b, steps=100, tolerance=1e-12)
    expected = torch.as_tensor(np.linalg.solve(matrix.numpy(), b.numpy()))
    torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.product, b, rtol=0, atol=1e-10)
    assert found.residual <= 1e-12


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_products_are_limited_and_the_reported_residual_is_exact(steps):
    matrix, b = positive_definite(30, seed=0)
    counted = CountedProduct(matrix)
    found = conjugate_gradient(counted, b, steps=steps)
    assert counted.products == steps
    torch.testing.assert_close(found.product, matrix @ found.x)
    residual = (matrix @ found.x - b).norm() / b.norm()
    assert found.residual == pytest.approx(float(residual))
    assert found.residual > 1e-3  # not converged yet


def test_each_solution_is_optimal_in_its_krylov_space():
    # By definition: the minimum of x.A x / 2 - b.x among combinations of b, A b, ..., A^(k-1) b.
    matrix, b = positive_definite(8, seed=1)
    for steps in range(1, 6):
        space = torch.stack([torch.linalg.matrix_power(matrix, k) @ b for k in range(steps)], 1)
        space, _ = torch.linalg.qr(space)
        best = space @ torch.linalg.solve(space.T @ matrix @ space, space.T @ b)
        found = conjugate_gradient(CountedProduct(matrix), b, steps=steps)
        torch.testing.assert_close(found.x, best, rtol=0, atol=1e-9)


def test_it_stops_when_the_tolerance_is_reached():
    matrix, b = positive_definite(30, seed=2)
    exact, rough = CountedProduct(matrix), CountedProduct(matrix)
    conjugate_gradient(exact, b, steps=100, tolerance=1e-9)
    found = conjugate_gradient(rough, b, steps=100, tolerance=0.1)
    assert 1 < rough.products < exact.products
    assert 0.001 < found.residual <= 0.1
    identity = CountedProduct(torch.eye(5).double())  # solved by one product
    torch.testing.assert_close(conjugate_gradient(identity, b[:5], steps=100).x, b[:5])
    assert identity.products == 1


def test_a_zero_right_hand_side_needs_no_product():
    counted = CountedProduct(torch.eye(4))
    found = conjugate_gradient(counted, torch.zeros(4), steps=10)
    assert counted.products == 0
    assert found.x.tolist() == found.product.tolist() == [0.0] * 4
    assert found.residual == 0.0


def test_the_right_hand_side_is_not_modified():
    matrix, b = positive_definite(8, seed=3)
    before = b.clone()
    conjugate_gradient(CountedProduct(matrix), b, steps=10)
    assert torch.equal(b, before)


def test_values_that_are_not_finite_propagate_to_the_solution():
    found = conjugate_gradient(
        CountedProduct(torch.full((3, 3), math.nan)), torch.ones(3), steps=10
    )
    assert found.x.isnan().all()
    assert math.isnan(found.residual)


@pytest.mark.parametrize("curvature", [0.0, 1e-30])
def test_without_curvature_the_solution_is_zero(curvature):
    # 1e-10 * 1e-30 * 1e-10 is zero in single precision
    found = conjugate_gradient(
        CountedProduct(curvature * torch.eye(3)), torch.full((3,), 1e-10), steps=10
    )
    assert found.x.tolist() == [0.0] * 3
    assert found.residual == 1.0


class QuadraticLoss:
    """Loss (share - best)^2 and divergence 4 share^2 of a step; records the shares."""

    def __init__(self, best: float) -> None:
        self.best, self.shares = best, []

    def __call__(self, share: float) -> Candidate:
        self.shares.append(share)
        return Candidate((share - self.best) ** 2, 4 * share**2)


def test_the_longest_acceptable_step_is_taken():
    # The loss falls for shares below 2 * .4; the divergence allows them up to .5 = sqrt(1 / 4).
    quadratic = QuadraticLoss(best=0.4)
    found = backtrack(quadratic, loss=0.16, max_divergence=1.0, steps=10, shrink=0.8)
    assert quadratic.shares == pytest.approx([1.0, 0.8, 0.64, 0.512, 0.4096])
    assert found.share == pytest.approx(0.4096)
    assert found.candidate == QuadraticLoss(0.4)(found.share)
    assert found.tried == 5
    # Without the bound .64 is accepted; .8 is not, because the loss must decrease.
    found = backtrack(QuadraticLoss(0.4), loss=0.16, max_divergence=100.0, steps=10, shrink=0.8)
    assert (found.share, found.tried) == (pytest.approx(0.64), 3)


def test_an_acceptable_full_step_is_taken_first():
    found = backtrack(QuadraticLoss(1.0), loss=1.0, max_divergence=4.0, steps=10, shrink=0.5)
    # The divergence may equal the bound.
    assert found == LineSearchResult(1.0, Candidate(0.0, 4.0), 1)


@pytest.mark.parametrize("steps", [0, 1, 6])
def test_without_an_acceptable_candidate_no_step_is_taken(steps):
    quadratic = QuadraticLoss(best=-1.0)  # uphill from the start
    found = backtrack(quadratic, loss=1.0, max_divergence=100.0, steps=steps, shrink=0.5)
    assert found == LineSearchResult(0.0, Candidate(1.0, 0.0), steps)
    assert quadratic.shares == [0.5**k for k in range(steps)]


def test_a_candidate_of_equal_loss_is_rejected():
    found = backtrack(
        lambda share: Candidate(1.0, 0.0), loss=1.0, max_divergence=1.0, steps=2, shrink=0.5
    )
    assert found == LineSearchResult(0.0, Candidate(1.0, 0.0), 2)


@pytest.mark.parametrize(
    "broken",
    [
        Candidate(math.nan, 0.0),
        Candidate(0.0, math.nan),
        Candidate(math.nan, math.nan),
        Candidate(-math.inf, 0.0),
        Candidate(0.0, math.inf),
        Candidate(0.0, -math.inf),
    ],
)
def test_a_candidate_that_is_not_finite_is_rejected(broken):
    def evaluate(share: float) -> Candidate:
        return broken if share == 1.0 else Candidate(0.0, 0.0)

    found = backtrack(evaluate, loss=1.0, max_divergence=1.0, steps=3, shrink=0.5)
    assert found == LineSearchResult(0.5, Candidate(0.0, 0.0), 2)
    found = backtrack(lambda share: broken, loss=1.0, max_divergence=1.0, steps=3, shrink=0.5)
    assert found == LineSearchResult(0.0, Candidate(1.0, 0.0), 3)
