"""Tests of recording a trial: the video shows the rollout, and recording does not change it."""

import sys
from dataclasses import asdict

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import metarl
from metarl import registry, rollout
from metarl.cli import main as cli
from metarl.errors import ConfigError, RunFolderError
from metarl.results.step_log import read_step_logs
from metarl.rollout import collect
from metarl.training.run_folder import Progress, RunConfig, create_run
from metarl.video.options import VideoOptions
from metarl.video.writer import Video

BANDIT, NAVIGATION = "metarl/BernoulliBandit-v0", "metarl/PointNavigation-v0"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    where = "tests.simple_agents:SteeringConfig"
    monkeypatch.setitem(registry._agents, "steering", where)
    return tmp_path


def saved_run(folder, agent, task, agent_options, task_options):
    """A run with the checkpoint of an untrained agent."""
    config = RunConfig(
        agent=agent,
        agent_options={**asdict(metarl.agent_config(agent)()), **agent_options},
        task=task,
        task_options=task_options,
        seed=0,
    )
    run = create_run(folder / "run", config)
    run.save(run.make_agent(config.make_family()), Progress())
    return run


@pytest.fixture
def bandit(folder):
    return saved_run(folder, "rl2", BANDIT, {"hidden_size": 8}, {"arms": 3, "pulls": 6})


@pytest.fixture
def steering(folder):
    options = {"rollouts_per_task": 5, "episodes": 2, "evaluation_steps": 2}
    return saved_run(folder, "steering", NAVIGATION, options, {"steps": 9})


@pytest.fixture
def recorded(monkeypatch):
    """The trajectories collected while recording, and the captions of the video."""
    trajectories, captions = [], []

    def spy(*arguments, wrap_env, **options):
        trajectories.append(collect(*arguments, wrap_env=wrap_env, **options))
        for name, column in vars(collect(*arguments, **options)).items():  # not recorded
            if column is not None:
                assert torch.equal(column, getattr(trajectories[-1], name))
        return trajectories[-1]

    add = Video.add
    monkeypatch.setattr(rollout, "collect", spy)
    monkeypatch.setattr(Video, "add", lambda video, f, c: (captions.append(c), add(video, f, c)))
    return trajectories, captions


def frame_count(path):
    with Image.open(path) as image:
        return image.n_frames


def expected_captions(trajectories, episodes):
    """Phase, episode, step, return of the episode and of the trial in lane 0, step by step."""
    found = []
    for phase, trajectory in enumerate(trajectories):
        columns = (trajectory.first, trajectory.reward, trajectory.valid)
        total, episode = 0.0, 0
        for first, reward, valid in zip(*(c[:, 0, 0].tolist() for c in columns), strict=True):
            if not valid:
                break
            if first:
                episode, step, of_episode = episode + 1, 0, 0.0
                found.append((phase, episode, 0, 0.0, total))
            step, of_episode, total = step + 1, of_episode + reward, total + reward
            found.append((phase, episode, step, of_episode, total))
        assert episode == episodes
    return found


def test_there_is_one_frame_for_each_episode_start_and_each_step(bandit, recorded):
    trajectories, captions = recorded
    path = metarl.record(bandit, size=150)
    assert path == bandit.path / "trial.gif"
    assert len(trajectories) == 1
    assert frame_count(path) == len(captions) == 6 + 6
    shown = [(0, c.episode, c.step, c.episode_return, c.total_return) for c in captions]
    np.testing.assert_allclose(shown, expected_captions(trajectories, 6), rtol=1e-6)
    assert {c.episodes for c in captions} == {6}
    assert {c.subject for c in captions} == {"RL², test task 0"}


def test_each_nth_step_is_kept_and_the_end_of_each_episode(folder, recorded):
    options = {"rollouts_per_task": 2, "episodes": 2, "evaluation_steps": 0}
    run = saved_run(folder, "steering", NAVIGATION, options, {"steps": 9})
    trajectories, captions = recorded
    path = metarl.record(run, size=150, every=4)
    expected = expected_captions(trajectories, 2)
    ends = [i for i, (*_, step, _, _) in enumerate(expected) if i and not step]
    ends = [i - 1 for i in [*ends, len(expected)]]
    kept = [one for i, one in enumerate(expected) if one[2] % 4 == 0 or i in ends]
    shown = [(0, c.episode, c.step, c.episode_return, c.total_return) for c in captions]
    np.testing.assert_allclose(shown, kept, rtol=1e-6)
    assert frame_count(path) == len(kept) < len(expected)


def test_an_agent_that_adapts_its_parameters_is_shown_in_each_phase(steering, recorded):
    trajectories, captions = recorded
    path = metarl.record(steering, out="trial.gif", size=150, seed=1)  # lane 0 ends early
    names = ["before adapting", "after 1 adaptation step", "after 2 adaptation steps"]
    subjects = [f"steering at 1.0, test task 0, {name}" for name in names]
    assert list(dict.fromkeys(c.subject for c in captions)) == subjects
    shown = [
        (subjects.index(c.subject), c.episode, c.step, c.episode_return, c.total_return)
        for c in captions
    ]
    assert len(trajectories) == 3
    valid = [trajectory.valid[:, 0] for trajectory in trajectories]
    assert all(lanes.shape[1:] == (5,) for lanes in valid)
    assert len({tuple(lane.tolist()) for lanes in valid for lane in lanes.T}) > 1
    np.testing.assert_allclose(shown, expected_captions(trajectories, 2), rtol=1e-6)
    assert frame_count(path) == len(captions)


def test_the_task_is_that_of_an_evaluation(folder, monkeypatch):
    # Normal variates, because their first values depend on how many are drawn.
    bandit = saved_run(folder, "rl2", "metarl/GaussianBandit-v0", {"hidden_size": 8}, {"pulls": 6})
    calls = []

    def spy(family, tasks, policy, **options):
        calls.append((tasks, options["episodes"]))
        return collect(family, tasks, policy, **options)

    monkeypatch.setattr(rollout, "collect", spy)
    metarl.record(bandit, num=3, seed=5, episodes=2, size=150)
    ((tasks, episodes),) = calls
    assert episodes == 2
    metarl.evaluate(bandit, seed=5, references=False)
    (log,) = read_step_logs(bandit.path / "trials.csv")
    assert tasks[0].tolist() == pytest.approx(log.parameter[log.task == 3][0].tolist())


def test_equal_seeds_give_equal_videos_and_others_do_not(bandit):
    videos = [
        metarl.record(bandit, out=f"{name}.gif", size=150, **options).read_bytes()
        for name, options in [("a", {}), ("b", {}), ("c", {"seed": 1}), ("d", {"num": 1})]
    ]
    assert videos[0] == videos[1]
    assert len(set(videos)) == 3


def test_options_are_given_as_an_object_as_keywords_or_both(bandit):
    options = VideoOptions(out="a.gif", size=150, seed=3)
    one = metarl.record(bandit, options=options)
    two = metarl.record(bandit, options=options, out="b.gif")
    assert (one.name, two.name) == ("a.gif", "b.gif")
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": -1}, "num=-1 must not be negative"),
        ({"fps": 0}, "fps=0 must lie between 0.1 and 50"),
        ({"fps": float("nan")}, "fps=nan of VideoOptions must be a number"),
        ({"size": 100}, "size=100 must lie between 120 and 2000"),
        ({"episodes": 0}, "episodes=0 must be greater than zero"),
        ({"every": 0}, "every=0 must be greater than zero"),
        ({"out": "video.avi"}, r"video\.avi is not a video"),
        ({"device": "abacus"}, "device='abacus' cannot be used"),
    ],
)
def test_options_out_of_range_are_refused(bandit, options, message):
    with pytest.raises(ConfigError, match=message):
        metarl.record(bandit, **options)
    assert not list(bandit.path.glob("trial*"))


@pytest.fixture
def run_without_rendering(folder):
    metarl.register_family("lab/Blind-v0", "tests.simple_families:Countdown")
    yield saved_run(folder, "rl2", "lab/Blind-v0", {"hidden_size": 8}, {})
    del gymnasium.registry["lab/Blind-v0"]


def test_a_family_that_does_not_render_is_refused(run_without_rendering, capsys):
    with pytest.raises(ConfigError, match="Countdown does not render"):
        metarl.record(run_without_rendering)
    assert cli.main(["record", "run"]) == 2
    printed = capsys.readouterr().err
    assert "Countdown does not render" in printed
    assert "Traceback" not in printed


def test_a_folder_without_a_run_is_refused():
    with pytest.raises(RunFolderError, match="nowhere is not a run folder"):
        metarl.record("nowhere")


def test_the_command_writes_a_video_and_prints_its_path(steering, capsys):
    assert cli.main(["record", "run", "--no-progress", "--size", "150", "--episodes", "1"]) == 0
    assert capsys.readouterr().out == "run/trial.gif\n"
    one = frame_count("run/trial.gif")
    options = ["--out", "deep/trial.gif", "--num", "2", "--seed", "3", "--fps", "25"]
    assert cli.main(["record", "run", *options, "--size", "150"]) == 0
    assert capsys.readouterr().out == "deep/trial.gif\n"
    assert frame_count("deep/trial.gif") > one
    with Image.open("deep/trial.gif") as image:
        assert image.info["duration"] == 40
        assert image.width == 150


def test_help_explains_the_options(capsys):
    assert cli.main(["record", "--help"]) == 0
    printed = capsys.readouterr().out
    for text in ("--out", "trial.mp4", "--num INT", "--fps FLOAT", "frames per second"):
        assert text in printed


class Lamp(gymnasium.Env):
    """A task environment that renders frames, brighter with each step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    task_space = gymnasium.spaces.Discrete(2)
    trial_episodes = 2

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.clock += 1
        return np.zeros(1, np.float32), 1.0, False, False, {}

    def render(self):
        return np.full((60, 60, 3), 50 * self.clock, np.uint8)


def test_an_ordinary_environment_renders_its_own_frames(tmp_path):
    gymnasium.register("glass/Lamp-v0", Lamp, max_episode_steps=3)
    try:
        run = metarl.train(
            "rl2",
            "glass/Lamp-v0",
            num_tasks=4,
            iterations=1,
            num_minibatches=1,
            out=tmp_path / "run",
            progress=False,
        )
        path = metarl.record(run, progress=False)
    finally:
        del gymnasium.registry["glass/Lamp-v0"]
    with Image.open(path) as image:
        shades = []
        for frame in range(image.n_frames):
            image.seek(frame)
            shades.append(image.convert("RGB").getpixel((image.width // 2, image.height - 30))[0])
    # Two episodes: an initial frame and three steps each.
    expected = [0, 50, 100, 150] * 2
    assert np.abs(np.subtract(shades[: len(expected)], expected)).max() <= 12
