"""A trial as a film: what is shown is what the engine lived, and nothing was changed by looking."""

import sys
from dataclasses import asdict

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import metarl
from metarl import registry
from metarl.cli import main as cli
from metarl.errors import ConfigError, RunFolderError
from metarl.rollout import collect
from metarl.training.run_folder import Progress, RunConfig, create_run
from metarl.video import record
from metarl.video.writer import Film

BANDIT, NAVIGATION = "metarl/BernoulliBandit-v0", "metarl/PointNavigation-v0"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    where = "tests.simple_agents:SteeringConfig"
    monkeypatch.setitem(registry._agents, "steering", where)
    return tmp_path


def saved_run(folder, agent, task, agent_options, task_options):
    """A run that has been saved before it learnt anything."""
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
def watched(monkeypatch):
    """What the engine lived while it was filmed, and the captions of the film."""
    lives, captions = [], []

    def spy(*arguments, watch, **options):
        lives.append(collect(*arguments, watch=watch, **options))
        unseen = collect(*arguments, **options)
        for name, column in vars(unseen).items():
            assert torch.equal(column, getattr(lives[-1], name))
        return lives[-1]

    add = Film.add
    monkeypatch.setattr(record, "collect", spy)
    monkeypatch.setattr(Film, "add", lambda film, p, c: (captions.append(c), add(film, p, c)))
    return lives, captions


def frames(path):
    with Image.open(path) as image:
        return image.n_frames


def expected_captions(lives, episodes):
    """Of lane 0: phase, episode, step, return of the episode and of all; slow and obvious."""
    found = []
    for phase, life in enumerate(lives):
        total, episode = 0.0, 0
        for first, reward, valid in zip(
            *(c[:, 0, 0].tolist() for c in (life.first, life.reward, life.valid)), strict=True
        ):
            if not valid:
                break
            if first:
                episode, step, of_episode = episode + 1, 0, 0.0
                found.append((phase, episode, 0, 0.0, total))
            step, of_episode, total = step + 1, of_episode + reward, total + reward
            found.append((phase, episode, step, of_episode, total))
        assert episode == episodes
    return found


def test_one_picture_for_each_opening_and_each_step(bandit, watched):
    lives, captions = watched
    path = metarl.record(bandit, size=150)
    assert path == bandit.path / "trial.gif"
    assert len(lives) == 1
    assert frames(path) == len(captions) == 6 + 6
    seen = [(0, c.episode, c.step, c.episode_return, c.total_return) for c in captions]
    np.testing.assert_allclose(seen, expected_captions(lives, 6), rtol=1e-6)
    assert {c.episodes for c in captions} == {6}
    assert {c.subject for c in captions} == {"RL², test task 0"}


def test_an_agent_that_adapts_its_parameters_is_shown_in_its_phases(steering, watched):
    lives, captions = watched
    path = metarl.record(steering, out="film.gif", size=150)
    names = ["before adapting", "after 1 adaptation step", "after 2 adaptation steps"]
    subjects = [f"steering at 1.0, test task 0, {name}" for name in names]
    assert list(dict.fromkeys(c.subject for c in captions)) == subjects
    seen = [
        (subjects.index(c.subject), c.episode, c.step, c.episode_return, c.total_return)
        for c in captions
    ]
    assert len(lives) == 3
    assert all(life.valid.shape[1:] == (1, 5) for life in lives)
    assert len({tuple(life.valid[:, 0, copy].tolist()) for life in lives for copy in range(5)}) > 1
    np.testing.assert_allclose(seen, expected_captions(lives, 2), rtol=1e-6)
    assert frames(path) == len(captions)


def test_the_task_is_that_of_an_evaluation(folder, watched):
    # Normal numbers, because of those the first ones depend on how many are drawn.
    bandit = saved_run(folder, "rl2", "metarl/GaussianBandit-v0", {"hidden_size": 8}, {"pulls": 6})
    lives, tasks = [], []

    def spy(family, task, policy, **options):
        tasks.append(task)
        lives.append(options["episodes"])
        return collect(family, task, policy, **options)

    record.collect = spy  # put back by `watched`
    metarl.record(bandit, num=3, seed=5, episodes=2, size=150)
    metarl.evaluate(bandit, seed=5, references=False)
    (row,) = (log for log in metarl.results.step_log.read_trials(bandit.path / "trials.csv"))
    lived_in = row.parameter[row.task == 3][0]
    assert tasks[0][0].tolist() == pytest.approx(lived_in.tolist())
    assert lives == [2]


def test_equal_seeds_are_equal_films_and_others_are_not(bandit):
    films = [
        metarl.record(bandit, out=f"{name}.gif", size=150, **options).read_bytes()
        for name, options in [("a", {}), ("b", {}), ("c", {"seed": 1}), ("d", {"num": 1})]
    ]
    assert films[0] == films[1]
    assert len(set(films)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": -1}, "num=-1 must not be negative"),
        ({"fps": 0}, "fps=0 must lie between 0.1 and 50"),
        ({"fps": float("nan")}, "fps=nan must lie between"),
        ({"size": 100}, "size=100 must lie between 120 and 2000"),
        ({"episodes": 0}, "episodes=0 must be greater than zero"),
        ({"out": "film.avi"}, r"film\.avi is no film"),
        ({"device": "abacus"}, "device='abacus' cannot be used"),
    ],
)
def test_impossible_options_are_refused(bandit, options, message):
    with pytest.raises(ConfigError, match=message):
        metarl.record(bandit, **options)
    assert not list(bandit.path.glob("trial*"))


@pytest.fixture
def unseen(folder):
    metarl.register_family("lab/Unseen-v0", "tests.simple_families:Countdown")
    yield saved_run(folder, "rl2", "lab/Unseen-v0", {"hidden_size": 8}, {})
    del gymnasium.registry["lab/Unseen-v0"]


def test_a_family_without_pictures_is_refused(unseen, capsys):
    with pytest.raises(ConfigError, match="Countdown draws no pictures"):
        metarl.record(unseen)
    assert cli.main(["record", "run"]) == 2
    said = capsys.readouterr().err
    assert "Countdown draws no pictures" in said
    assert "Traceback" not in said


def test_no_run_is_refused():
    with pytest.raises(RunFolderError, match="nowhere is not a run folder"):
        metarl.record("nowhere")


def test_the_command_writes_a_film_and_says_where(steering, capsys):
    assert cli.main(["record", "run", "--no-progress", "--size", "150", "--episodes", "1"]) == 0
    assert capsys.readouterr().out == "run/trial.gif\n"
    one = frames("run/trial.gif")
    words = ["--out", "deep/film.gif", "--num", "2", "--seed", "3", "--fps", "25"]
    assert cli.main(["record", "run", *words, "--size", "150"]) == 0
    assert capsys.readouterr().out == "deep/film.gif\n"
    assert frames("deep/film.gif") > one
    with Image.open("deep/film.gif") as image:
        assert image.info["duration"] == 40
        assert image.width == 150


def test_help_explains_the_options(capsys):
    assert cli.main(["record", "--help"]) == 0
    said = capsys.readouterr().out
    for text in ("--out", "film.mp4", "--num INT", "--fps FLOAT", "pictures per second"):
        assert text in said


class Lamp(gymnasium.Env):
    """As bright as the step is late; a task environment that renders itself."""

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


def test_an_ordinary_environment_is_filmed_as_it_renders_itself(tmp_path):
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
        metarl.bridges.gym_family.env_family.cache_clear()
    with Image.open(path) as film:
        shades = []
        for frame in range(film.n_frames):
            film.seek(frame)
            shades.append(film.convert("RGB").getpixel((film.width // 2, film.height - 30))[0])
    # Two episodes: an opening and three steps each.
    expected = [0, 50, 100, 150] * 2
    assert np.abs(np.subtract(shades[: len(expected)], expected)).max() <= 12
