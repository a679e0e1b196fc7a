"""Image sets: built in, registered or read from files; invalid ones are refused."""

import sys

import numpy as np
import pytest
import torch

from metarl.envs.few_shot import images
from metarl.envs.few_shot.classification import FewShotClassification
from metarl.envs.few_shot.glyphs import CLASSES, EDGE, IMAGES, PEN_WIDTH, _ink, draw_glyphs
from metarl.envs.few_shot.images import image_set, register_images, sorted_by_class
from metarl.errors import ConfigError


@pytest.fixture(autouse=True)
def no_registered_images(monkeypatch):
    monkeypatch.setattr(images, "_registered", {})


def stripes(count=12):
    """Distinct images of three classes."""
    return np.linspace(0, 1, count * 4).reshape(count, 2, 2), np.arange(count) % 3


def test_images_are_sorted_by_class_and_split():
    images, _ = stripes(8)
    labels = list("baccbaac")
    data = sorted_by_class(images, labels, ["b"])
    order = [1, 5, 6, 0, 4, 2, 3, 7]  # by label; the given order within a label
    np.testing.assert_array_equal(data.pixels, images.reshape(8, 4)[order].astype(np.float32))
    assert data.class_of.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert data.first.tolist() == [0, 3, 5]
    assert data.count.tolist() == [3, 2, 3]
    assert data.classes("train").tolist() == [0, 2]
    assert data.classes("test").tolist() == [1]


def test_the_last_quarter_of_the_classes_is_held_out_by_default():
    data = sorted_by_class(np.zeros((8, 3)), np.arange(8), None)
    assert data.classes("test").tolist() == [6, 7]
    assert data.classes("train").tolist() == [0, 1, 2, 3, 4, 5]


def test_integers_are_scaled_by_the_maximum_of_their_type():
    integers = np.array([[0, 51], [255, 102]], dtype=np.uint8)
    data = sorted_by_class(integers, [0, 1], [1])
    np.testing.assert_allclose(data.pixels, [[0, 0.2], [1, 0.4]], rtol=1e-6)
    assert data.pixels.dtype == torch.float32
    assert sorted_by_class(integers > 60, [0, 1], [1]).pixels.tolist() == [[0, 0], [1, 1]]


def test_every_image_is_recognised():
    data = image_set("glyphs")
    assert torch.equal(
        data.recognise(data.pixels.view(CLASSES, IMAGES, -1)).flatten(), data.class_of
    )


def test_tasks_use_registered_images_and_files(tmp_path):
    images, labels = stripes()
    register_images("stripes", images, labels, test_classes=[0, 2, 1][:2])
    with pytest.raises(ConfigError, match="the name is taken"):
        register_images("stripes", images, labels)
    with pytest.raises(ConfigError, match="the name is taken"):
        register_images("digits", images, labels)
    family = FewShotClassification(images="stripes", ways=1)
    assert set(family.sample_tasks(50, torch.Generator(), "test").flatten().tolist()) == {0, 2}
    path = tmp_path / "stripes.npz"
    np.savez(path, images=images, labels=labels, test_classes=[0, 2])
    from_file = image_set(str(path))
    for name, value in vars(image_set("stripes")).items():
        assert torch.equal(getattr(from_file, name), value), name


@pytest.mark.parametrize(
    ("images", "labels", "test_classes", "message"),
    [
        (np.zeros(3), [0, 1, 2], None, r"must be \[I, \.\.\.\].*got shape \[3\]"),
        (np.zeros((0, 3)), [], None, r"got shape \[0, 3\]"),
        (np.zeros((3, 2)), [0, 1], None, r"got 3 images and labels of shape \[2\]"),
        (np.full((2, 2), 1.5), [0, 1], None, r"Pixels must lie in \[0, 1\].*got 1.5 to 1.5"),
        (np.full((2, 2), np.nan), [0, 1], None, "Pixels must lie in"),
        (np.full((2, 2), -1), [0, 1], None, "Pixels must lie in"),
        (np.array([["a"], ["b"]]), [0, 1], None, "Images must be numbers"),
        (np.zeros((2, 2)), [0, 1], [2], "test class .*2.* has no image"),
    ],
)
def test_invalid_images_and_labels_are_refused(images, labels, test_classes, message):
    with pytest.raises(ConfigError, match=message):
        sorted_by_class(images, labels, test_classes)


def test_files_without_valid_images_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        image_set(str(tmp_path / "missing.npz"))
    np.savez(tmp_path / "other.npz", pictures=np.zeros(3))
    with pytest.raises(ConfigError, match=r"must hold the arrays images and labels.*pictures"):
        image_set(str(tmp_path / "other.npz"))
    objects = tmp_path / "objects.npz"
    np.savez(objects, images=np.array([{}, {}]), labels=[0, 1])
    with pytest.raises(ConfigError, match="cannot be read"):
        image_set(str(objects))


def test_glyphs_are_the_same_at_every_call_and_span_their_range():
    images, labels = draw_glyphs()
    assert images.shape == (CLASSES * IMAGES, EDGE, EDGE)
    assert labels.tolist() == np.repeat(np.arange(CLASSES), IMAGES).tolist()
    again, _ = draw_glyphs()
    assert np.array_equal(images, again)
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images.max((1, 2)) > 0.5).all()  # no image is blank
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_images_of_a_class_are_similar():
    data = image_set("glyphs")
    pixels = data.pixels.view(CLASSES, IMAGES, -1)
    within = (pixels[:, 0] - pixels[:, 1]).square().sum(1).mean()
    between = (pixels[1:, 0] - pixels[:-1, 1]).square().sum(1).mean()
    assert within < 0.6 * between


def test_ink_equals_its_definition():
    controls = np.random.default_rng(1).uniform(-0.75, 0.75, (2, 1, 3, 3, 2))
    grid, expected = np.linspace(-1, 1, EDGE), np.zeros((2, EDGE, EDGE))
    for glyph, row, column in np.ndindex(expected.shape):
        for first, middle, last in controls[glyph, 0]:
            for t in np.linspace(0, 1, 10):
                x, y = (1 - t) ** 2 * first + 2 * t * (1 - t) * middle + t**2 * last
                distance = (x - grid[column]) ** 2 + (y - grid[row]) ** 2
                ink = np.exp(-distance / (2 * PEN_WIDTH**2))
                expected[glyph, row, column] = max(expected[glyph, row, column], ink)
    np.testing.assert_allclose(_ink(controls)[:, 0], expected, atol=1e-6)


def test_digits_have_half_of_the_classes_for_training():
    pytest.importorskip("sklearn")
    data = image_set("digits")
    assert data.pixels.shape == (1797, 64)
    assert data.classes("train").tolist() == [0, 1, 2, 3, 4]
    assert data.classes("test").tolist() == [5, 6, 7, 8, 9]
    assert data.pixels.max() == 1
    FewShotClassification(images="digits")


def test_missing_scikit_learn_is_reported_with_its_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    images._digits.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'metarl-suite\[few-shot\]'"):
        image_set("digits")
