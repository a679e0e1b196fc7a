"""Pictures with captions become files, whole or not at all."""

import itertools
import sys

import numpy as np
import pytest
from PIL import Image

from metarl.errors import ConfigError, RunFolderError
from metarl.video import writer
from metarl.video.writer import Caption, Film, require_ending, write_film


def caption(**changes):
    values = {
        "subject": "RL², test task 0",
        "episode": 2,
        "episodes": 3,
        "step": 17,
        "episode_return": -3.456,
        "total_return": 1234.56,
    }
    return Caption(**{**values, **changes})


def scene(level, height=30, width=40):
    return np.full((height, width, 3), level, np.uint8)


def pictures_of(path):
    """Every picture of a GIF, [n, H, W, 3], and how long each stays, in ms."""
    with Image.open(path) as image:
        seen, durations = [], []
        for number in range(image.n_frames):
            image.seek(number)
            seen.append(np.array(image.convert("RGB")))
            durations.append(image.info["duration"])
        return np.stack(seen), durations


def test_captions_say_where_and_how_much():
    assert caption().lines == (
        ("episode 2 of 3, step 17", "return -3.46"),
        ("RL², test task 0", "all episodes 1234.6"),
    )
    assert caption(episodes=1).lines[1] == ("RL², test task 0", "")
    assert caption(episode_return=16.0).lines[0][1] == "return 16"
    assert caption(episode_return=float("nan")).lines[0][1] == "return nan"
    assert caption(episode_return=float("inf")).lines[0][1] == "return inf"


@pytest.mark.parametrize("size", [150, 400])
def test_a_gif_holds_every_picture_below_its_caption(tmp_path, size):
    film = Film(size)
    levels = [0, 100, 100, 200]  # two alike: only the text tells them apart
    for step, level in enumerate(levels):
        film.add(scene(level), caption(step=step))
    write_film(film, tmp_path / "deep" / "film.gif", fps=20)
    seen, durations = pictures_of(tmp_path / "deep" / "film.gif")
    assert len(film) == len(seen) == 4
    assert durations == [50, 50, 50, 1550]
    height = size * 30 // 40
    assert seen.shape[2] == size
    assert 0 < seen.shape[1] - height < 0.25 * size
    for picture, level in zip(seen, levels, strict=True):
        assert (picture[-height + 1 : -1] == level).all()
    strips = seen[:, : -height - 1]
    assert strips.min() < 60  # there is text
    for before, after in itertools.pairwise(strips):
        assert (before != after).any()
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "film.gif"]


def test_sides_are_even_and_long_names_are_cut():
    film = Film(201)
    film.add(scene(0, 31, 67), caption(subject="a label without end " * 9))
    (picture,) = film
    assert [side % 2 for side in picture.shape[:2]] == [0, 0]
    film.add(scene(0, 31, 67), caption(subject="a label without end " * 10))
    _, other = film
    assert (picture == other).all()


def test_whoever_watches_is_told_of_each_picture_taken_and_read():
    ticks = []
    film = Film(150, lambda: ticks.append(len(film)))
    film.add(scene(0), caption())
    film.add(scene(1), caption())
    assert ticks == [1, 2]
    assert len(list(film)) == 2
    assert len(ticks) == 4


@pytest.mark.parametrize("there", ["a file", "a folder"])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path, there):
    film = Film(150)
    film.add(scene(0), caption())
    if there == "a file":
        (tmp_path / "x").write_text("")
        path = tmp_path / "x" / "film.gif"
    else:
        path = tmp_path / "film.gif"
        path.mkdir()
    with pytest.raises(RunFolderError, match=r"film\.gif: .*Choose another place with `out`"):
        write_film(film, path, 10)
    assert not list(tmp_path.glob("*partial*"))


def test_only_known_endings_are_films(tmp_path):
    require_ending(tmp_path / "film.GIF")
    with pytest.raises(ConfigError, match=r"film\.png is no film.*\.gif or \.mp4"):
        require_ending(tmp_path / "film.png")


def test_mp4_needs_what_writes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'metarl-suite\[video\]'.*GIF"):
        require_ending(tmp_path / "film.mp4")
    monkeypatch.setattr(writer, "find_spec", lambda name: name)
    require_ending(tmp_path / "film.mp4")


def test_an_mp4_gets_every_picture_and_stays_at_the_last(tmp_path, monkeypatch):
    """Beside a stand-in for imageio, which need not be installed."""
    written = []

    class Writer:
        def __init__(self, path, **options):
            self.path, self.options = path, options

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.path.write_bytes(b"film")

        def append_data(self, picture):
            written.append(picture)

    stand_in = type(sys)("imageio")
    stand_in.get_writer = Writer
    monkeypatch.setitem(sys.modules, "imageio", stand_in)
    film = Film(150)
    for step in range(3):
        film.add(scene(step), caption(step=step))
    write_film(film, tmp_path / "film.mp4", fps=10)
    assert (tmp_path / "film.mp4").read_bytes() == b"film"
    assert len(written) == 3 + 15
    assert all((picture == written[2]).all() for picture in written[2:])
    assert (written[1] != written[2]).any()


def test_a_real_mp4_has_as_many_pictures(tmp_path):
    pytest.importorskip("imageio")
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    film = Film(150)
    for step in range(4):
        film.add(scene(60 * step), caption(step=step))
    write_film(film, tmp_path / "film.mp4", fps=10)
    pictures, seconds = ffmpeg.count_frames_and_secs(str(tmp_path / "film.mp4"))
    assert pictures == 4 + 15
    assert seconds == pytest.approx(1.9, abs=0.1)
