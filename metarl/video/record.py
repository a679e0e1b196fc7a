"""A run goes in, one trial of its agent as a film comes out.

What is filmed is lane 0: the first copy of the one task that is lived in.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from metarl.agent import Agent, Policy
from metarl.errors import ConfigError
from metarl.rollout import adaptation_phases, collect
from metarl.seeding import Seeds
from metarl.tasks.batched_env import BatchedEnv, Transition
from metarl.tasks.family import TaskDistribution, draw_tasks
from metarl.tasks.rendering import RenderableEnv, filmed, require_rendering
from metarl.training.progress import counted
from metarl.training.run_folder import Run, load_run
from metarl.trajectory import Trajectory
from metarl.validation import as_device, require_between, require_positive
from metarl.video.writer import Caption, Film, require_ending, write_film

DRAWN_TASKS = 1000
"""tasks that one is chosen from, as many as an evaluation lives in unless told otherwise: so equal
seeds and numbers are equal tasks there and here"""
SMALLEST, LARGEST = 120, 2000
"""pixels of a picture: texts need some, and the memory is not endless"""


class Camera:
    """A world that is filmed: lane 0, where an episode opens and after each step of its trial."""

    def __init__(self, world: RenderableEnv, film: Film, *, episodes: int, subject: str) -> None:
        self._world, self._film = world, film
        self._episodes, self._subject = episodes, subject
        self._episode, self._step = 0, 0
        self._episode_return, self._total_return = 0.0, 0.0

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """As that of the world."""
        obs = self._world.reset(lanes)
        if lanes is None or bool(lanes[0]):
            self._episode, self._step, self._episode_return = self._episode + 1, 0, 0.0
            self._shoot()
        return obs

    def step(self, action: Tensor) -> Transition:
        """As that of the world."""
        last = self._world.step(action)
        reward = float(last.reward[0])
        self._step += 1
        self._episode_return += reward
        self._total_return += reward
        self._shoot()
        return last

    def _shoot(self) -> None:
        if self._episode > self._episodes:  # lives on, idle, until all lanes have lived
            return
        caption = Caption(
            subject=self._subject,
            episode=self._episode,
            episodes=self._episodes,
            step=self._step,
            episode_return=self._episode_return,
            total_return=self._total_return,
        )
        self._film.add(self._world.frame(), caption)


def record(
    run: Run | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    num: int = 0,
    seed: int = 0,
    episodes: int | None = None,
    fps: float = 10.0,
    size: int = 400,
    device: str = "cpu",
    progress: bool = False,
) -> Path:
    """Films one trial of the final agent of a run, in a task that it has never seen.

    There is one picture where each episode opens, and one after each step; above it are written
    the episode, the step, the return of the episode so far and that of the trial. An agent that
    adapts its parameters is shown before and after each adaptation step, in one of its copies.

    Args:
        run: a run or its folder.
        out: where to; the ending says which kind, `.gif` or `.mp4`. By default `trial.gif` in the
            run's folder.
        num: which task of the test split. Task 3 is that of an evaluation with the same seed in
            as many tasks as it has by default; but the luck is another.
        seed: of the task and the trial; independent of the training seed.
        episodes: episodes of each phase; by default what the agent was trained with.
        fps: pictures per second.
        size: pixels of the longer side of what the family draws.
        device: torch device to live on.
        progress: show a progress bar.

    Returns:
        The file written.

    Raises:
        RunFolderError: no run is there, or the film cannot be written.
        CheckpointError: the run has not learnt yet, or its checkpoint is broken or foreign.
        ConfigError: the family draws no pictures, a number is out of range, the ending is unknown,
            or what writes MP4 is not installed.
    """
    run = run if isinstance(run, Run) else load_run(run)
    path = run.path / "trial.gif" if out is None else Path(out)
    require_positive("episodes", episodes)
    if num < 0:
        raise ConfigError(f"num={num} must not be negative: tasks are numbered from 0 on.")
    require_between("fps", fps, 0.1, 50)  # what a GIF can say and a browser will play
    require_between("size", size, SMALLEST, LARGEST)
    require_ending(path)
    as_device(device)
    family = run.config.make_family()
    require_rendering(family)
    agent = run.make_agent(family, device)
    run.load(agent)
    drawn = draw_tasks(family, max(DRAWN_TASKS, num + 1), _seeds(seed).torch("test tasks"), "test")
    config = run.config.make_agent_config()
    trial = _Trial(
        family=family.with_rendering(),
        task=drawn[num : num + 1].to(device),
        subject=f"{config.label}, test task {num}",
        episodes=episodes or config.episodes or family.trial_episodes,
        rollouts_per_task=config.rollouts_per_task,
        seeds=_seeds(seed).child("recording", num),
    )
    most = (agent.evaluation_steps + 1) * trial.episodes * (family.episode_steps + 1)
    with counted(f"filming {run.path.name}", 2 * most, enabled=progress) as tick:
        film = Film(size, tick)
        trial.live(agent, film)
        write_film(film, path, fps)
    return path


def _seeds(seed: int) -> Seeds:
    """Those of an evaluation, so that equal numbers are equal tasks."""
    return Seeds(seed).child("evaluation")


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """What is filmed: one task, and how an agent lives in it."""

    family: TaskDistribution
    task: Tensor  # [1, ...]
    subject: str
    episodes: int  # of each phase
    rollouts_per_task: int
    seeds: Seeds

    def live(self, agent: Agent, film: Film) -> None:
        """Before and after each adaptation step, if there are any."""
        steps = agent.evaluation_steps

        def live_phase(policy: Policy, step: int) -> Trajectory:
            subject = f"{self.subject}, {_phase_name(step)}" if steps else self.subject

            def watch(world: BatchedEnv) -> BatchedEnv:
                return Camera(filmed(world), film, episodes=self.episodes, subject=subject)

            return collect(
                self.family,
                self.task,
                policy,
                episodes=self.episodes,
                rollouts_per_task=self.rollouts_per_task,
                seeds=self.seeds.child("phase", step),
                watch=watch,
            )

        adaptation_phases(agent, 1, live_phase, steps)


def _phase_name(step: int) -> str:
    if not step:
        return "before adapting"
    return f"after {step} adaptation step{'s' * (step != 1)}"
