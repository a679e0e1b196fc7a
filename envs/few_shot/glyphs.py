"""Synthetic handwritten characters: 2000 classes, each drawn several times.

They replace Omniglot (Lake et al. 2015) without a download: a class is a few strokes, and each of
its images draws them with slight variations.

Axes: `C` classes, `I` images of each, `S` strokes, `G` pixels along an edge.
"""

import numpy as np
from numpy.typing import NDArray

CLASSES, IMAGES, STROKES, EDGE = 2000, 20, 3, 8
"""number of classes, images per class, strokes per class, and pixels along an edge"""
STROKE_POINTS = 10
"""points sampled along a stroke"""
PEN_WIDTH = 0.2
"""standard deviation of the ink around a stroke; images reach from -1 to 1"""
CONTROL_RANGE = 0.75
"""largest absolute coordinate of a class's control points"""
JITTER, ROTATION, SCALING, SHIFT = 0.06, 0.15, 0.1, 0.06
"""standard deviations within a class: of control points, angle (radians), size and position"""
CLASSES_PER_CHUNK = 50


def draw_glyphs() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images [C * I, G, G] in [0, 1] and labels [C * I]; the same at every call."""
    # A fixed seed, so that the data set is always the same.
    random = np.random.default_rng(20161)
    controls = random.uniform(-CONTROL_RANGE, CONTROL_RANGE, (CLASSES, 1, STROKES, 3, 2))
    varied = _varied(controls, random)
    parts = [
        _ink(varied[start : start + CLASSES_PER_CHUNK])
        for start in range(0, CLASSES, CLASSES_PER_CHUNK)
    ]
    images = np.concatenate(parts).reshape(CLASSES * IMAGES, EDGE, EDGE)
    return images, np.arange(CLASSES).repeat(IMAGES)


def _varied(controls: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Control points [C, 1, S, 3, 2] of the classes -> those of every image, [C, I, S, 3, 2]."""
    each = (len(controls), IMAGES, 1, 1)
    points = controls + random.normal(0, JITTER, (*each[:2], STROKES, 3, 2))
    angle = random.normal(0, ROTATION, each)
    size = 1 + random.normal(0, SCALING, (*each, 2))
    shift = random.normal(0, SHIFT, (*each, 2))
    x, y = np.moveaxis(points * size, -1, 0)
    rotated = (np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y)
    return np.stack(rotated, -1) + shift


def _ink(controls: NDArray[np.float64]) -> NDArray[np.float32]:
    """Control points [C, I, S, 3, 2] of quadratic Bezier curves -> images [C, I, G, G].

    A pixel is the maximum over curve points of exp(-distance^2 / (2 PEN_WIDTH^2)).
    """
    t = np.linspace(0, 1, STROKE_POINTS)
    weights = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], -1)  # Bernstein polynomials
    curve = np.einsum("pk,ciskd->cispd", weights, controls)
    points = curve.reshape(*controls.shape[:2], -1, 2)
    grid = np.linspace(-1, 1, EDGE)
    along = np.exp(-((points[..., None] - grid) ** 2) / (2 * PEN_WIDTH**2)).astype(np.float32)
    # A Gaussian is the product of one per coordinate; rows run along y.
    ink: NDArray[np.float32] = (along[..., 1, :, None] * along[..., 0, None, :]).max(2)
    return ink
