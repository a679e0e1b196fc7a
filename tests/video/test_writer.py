"""Tests of captions, and of writing videos as GIF and MP4."""

import itertools
import sys

import numpy as np
import pytest
from PIL import Image

from metarl.errors import ConfigError, RunFolderError
from metarl.video import writer
from metarl.video.writer import Caption, Video, require_ending, write_video


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


def grey_frame(level, height=30, width=40):
    return np.full((height, width, 3), level, np.uint8)


def gif_frames(path):
    """All frames of a GIF, [n, H, W, 3], and their durations in ms."""
    with Image.open(path) as image:
        frames, durations = [], []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.array(image.convert("RGB")))
            durations.append(image.info["duration"])
        return np.stack(frames), durations


def test_captions_show_episode_step_and_returns():
    assert caption().lines == (
        ("episode 2 of 3, step 17", "return -3.46"),
        ("RL², test task 0", "all episodes 1234.6"),
    )
    assert caption(episodes=1).lines[1] == ("RL², test task 0", "")
    assert caption(episode_return=16.0).lines[0][1] == "return 16"
    assert caption(episode_return=float("nan")).lines[0][1] == "return nan"
    assert caption(episode_return=float("inf")).lines[0][1] == "return inf"


@pytest.mark.parametrize("size", [150, 400])
def test_a_gif_holds_every_frame_below_its_caption(tmp_path, size):
    video = Video(size)
    levels = [0, 100, 100, 200]  # two equal frames differ in their captions only
    for step, level in enumerate(levels):
        video.add(grey_frame(level), caption(step=step))
    write_video(video, tmp_path / "deep" / "video.gif", fps=20)
    frames, durations = gif_frames(tmp_path / "deep" / "video.gif")
    assert len(video) == len(frames) == 4
    assert durations == [50, 50, 50, 1550]
    height = size * 30 // 40
    assert frames.shape[2] == size
    assert 0 < frames.shape[1] - height < 0.25 * size
    for frame, level in zip(frames, levels, strict=True):
        assert (frame[-height + 1 : -1] == level).all()
    strips = frames[:, : -height - 1]
    assert strips.min() < 60  # there is text
    for before, after in itertools.pairwise(strips):
        assert (before != after).any()
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "video.gif"]


def test_sides_are_even_and_long_subjects_are_shortened():
    video = Video(201)
    video.add(grey_frame(0, 31, 67), caption(subject="a very long label " * 9))
    (frame,) = video
    assert [side % 2 for side in frame.shape[:2]] == [0, 0]
    video.add(grey_frame(0, 31, 67), caption(subject="a very long label " * 10))
    _, other = video
    assert (frame == other).all()


def test_the_callback_is_called_for_each_frame_added_and_read():
    ticks = []
    video = Video(150, lambda: ticks.append(len(video)))
    video.add(grey_frame(0), caption())
    video.add(grey_frame(1), caption())
    assert ticks == [1, 2]
    assert len(list(video)) == 2
    assert len(ticks) == 4


@pytest.mark.parametrize("obstacle", ["a file", "a folder"])
def test_the_error_names_a_path_that_is_not_writable(tmp_path, obstacle):
    video = Video(150)
    video.add(grey_frame(0), caption())
    if obstacle == "a file":
        (tmp_path / "x").write_text("")
        path = tmp_path / "x" / "video.gif"
    else:
        path = tmp_path / "video.gif"
        path.mkdir()
    with pytest.raises(RunFolderError, match=r"video\.gif cannot be written .* another path"):
        write_video(video, path, 10)
    assert not list(tmp_path.glob("*partial*"))


def test_unknown_endings_are_refused(tmp_path):
    require_ending(tmp_path / "video.GIF")
    with pytest.raises(ConfigError, match=r"video\.png is not a video.*\.gif or \.mp4"):
        require_ending(tmp_path / "video.png")


def test_mp4_requires_optional_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'metarl-suite\[video\]'.*GIF"):
        require_ending(tmp_path / "video.mp4")
    monkeypatch.setattr(writer, "find_spec", lambda name: name)
    require_ending(tmp_path / "video.mp4")


def test_an_mp4_holds_every_frame_and_repeats_the_last(tmp_path, monkeypatch):
    """Uses a stand-in for imageio, which may not be installed."""
    written = []

    class Writer:
        def __init__(self, path, **options):
            self.path, self.options = path, options

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.path.write_bytes(b"video")

        def append_data(self, frame):
            written.append(frame)

    stand_in = type(sys)("imageio")
    stand_in.get_writer = Writer
    monkeypatch.setitem(sys.modules, "imageio", stand_in)
    counter = type(sys)("imageio_ffmpeg")
    counter.count_frames_and_secs = lambda path: (len(written), 1.0)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", counter)
    video = Video(150)
    for step in range(3):
        video.add(grey_frame(step), caption(step=step))
    write_video(video, tmp_path / "video.mp4", fps=10)
    assert (tmp_path / "video.mp4").read_bytes() == b"video"
    assert len(written) == 3 + 15
    assert all((frame == written[2]).all() for frame in written[2:])
    assert (written[1] != written[2]).any()

    def unreadable(path):
        raise RuntimeError("moov atom not found")

    # On a full disk ffmpeg ends early, and nobody is told.
    for torn in (lambda path: (2, 0.2), unreadable):
        counter.count_frames_and_secs = torn
        with pytest.raises(RunFolderError, match=r"only [02] of 18 frames .* free some space"):
            write_video(video, tmp_path / "video.mp4", fps=10)
        assert (tmp_path / "video.mp4").read_bytes() == b"video"


def test_a_real_mp4_has_the_expected_frame_count(tmp_path):
    pytest.importorskip("imageio")
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    video = Video(150)
    for step in range(4):
        video.add(grey_frame(60 * step), caption(step=step))
    write_video(video, tmp_path / "video.mp4", fps=10)
    frames, seconds = ffmpeg.count_frames_and_secs(str(tmp_path / "video.mp4"))
    assert frames == 4 + 15
    assert seconds == pytest.approx(1.9, abs=0.1)
