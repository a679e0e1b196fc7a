"""Nothing goes in, two thousand made-up written characters come out, each drawn several times.

They stand in for Omniglot (Lake et al. 2015), without a download: a class is a few strokes, and
every image of it draws these with a slightly other hand.

Axes: `C` classes, `I` images of each, `S` strokes, `G` pixels along an edge.
"""

import numpy as np
from numpy.typing import NDArray

CLASSES, IMAGES, STROKES, EDGE = 2000, 20, 3, 8
"""of characters, of drawings of each, of strokes of each, and pixels along an edge"""
POINTS = 10
"""points of ink along a stroke"""
PEN = 0.2
"""width of a stroke: deviation of the ink around it, where the paper reaches from -1 to 1"""
REACH = 0.75
"""control points of the strokes lie within this distance of the middle, per coordinate"""
TREMBLE, TURN, STRETCH, SHIFT = 0.06, 0.15, 0.1, 0.06
"""deviations between drawings: of control points, in radians, of the size, of the place"""
CLASSES_AT_ONCE = 50


def draw_glyphs() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images [C * I, G, G] in [0, 1] and labels [C * I]; the same at every call."""
    # A generator of its own, always from its start: what the name stands for never changes.
    random = np.random.default_rng(20161)
    controls = random.uniform(-REACH, REACH, (CLASSES, 1, STROKES, 3, 2))
    hand = _by_another_hand(controls, random)
    parts = [
        _ink(hand[start : start + CLASSES_AT_ONCE]) for start in range(0, CLASSES, CLASSES_AT_ONCE)
    ]
    images = np.concatenate(parts).reshape(CLASSES * IMAGES, EDGE, EDGE)
    return images, np.arange(CLASSES).repeat(IMAGES)


def _by_another_hand(
    controls: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    """Control points [C, 1, S, 3, 2] of the classes -> those of every image, [C, I, S, 3, 2]."""
    each = (len(controls), IMAGES, 1, 1)
    points = controls + random.normal(0, TREMBLE, (*each[:2], STROKES, 3, 2))
    angle = random.normal(0, TURN, each)
    size = 1 + random.normal(0, STRETCH, (*each, 2))
    shift = random.normal(0, SHIFT, (*each, 2))
    x, y = np.moveaxis(points * size, -1, 0)
    turned = (np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y)
    return np.stack(turned, -1) + shift


def _ink(controls: NDArray[np.float64]) -> NDArray[np.float32]:
    """Control points [C, I, S, 3, 2] of quadratic Bezier curves -> images [C, I, G, G].

    Every point of a curve leaves ink exp(-distance^2 / (2 PEN^2)), and the darkest point counts.
    """
    t = np.linspace(0, 1, POINTS)
    weights = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], -1)  # Bernstein polynomials
    curve = np.einsum("pk,ciskd->cispd", weights, controls)
    points = curve.reshape(*controls.shape[:2], -1, 2)
    grid = np.linspace(-1, 1, EDGE)
    along = np.exp(-((points[..., None] - grid) ** 2) / (2 * PEN**2)).astype(np.float32)
    # A Gaussian is a product of one for each coordinate; rows run along y.
    ink: NDArray[np.float32] = (along[..., 1, :, None] * along[..., 0, None, :]).max(2)
    return ink
