"""One trial of a run's agent as a video.

Lane 0 is recorded: the first rollout of the single task.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from metarl.agent import Agent
from metarl.evaluation.options import EvaluationOptions
from metarl.field_types import overridden
from metarl.rollout import RolloutSpec, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.batched_env import BatchedEnv, Transition
from metarl.tasks.family import TaskDistribution, draw_tasks
from metarl.tasks.rendering import RenderableEnv, as_renderable, require_rendering
from metarl.training.process import torch_threads
from metarl.training.progress import progress_counter
from metarl.training.run_folder import Run, as_run
from metarl.training.torch_defaults import torch_defaults
from metarl.training.zoo import results_path
from metarl.validation import as_device
from metarl.video.options import VideoOptions
from metarl.video.writer import Caption, Video, require_ending, write_video

DRAWN_TASKS = EvaluationOptions.num_tasks
"""number of tasks from which one is chosen: as in an evaluation, so that equal seeds and indices
are equal tasks"""


class RecordedEnv:
    """A batched env that adds a frame of lane 0 to a video at episode starts and after steps."""

    def __init__(
        self, env: RenderableEnv, video: Video, *, episodes: int, subject: str, every: int = 1
    ) -> None:
        self._env, self._video, self._every = env, video, every
        self._episodes, self._subject = episodes, subject
        self._episode, self._step = 0, 0
        self._episode_return, self._total_return = 0.0, 0.0

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """Like the wrapped env's."""
        obs = self._env.reset(lanes)
        if lanes is None or bool(lanes[0]):
            self._episode, self._step, self._episode_return = self._episode + 1, 0, 0.0
            self._add_frame()
        return obs

    def step(self, action: Tensor) -> Transition:
        """Like the wrapped env's."""
        last = self._env.step(action)
        reward = float(last.reward[0])
        self._step += 1
        self._episode_return += reward
        self._total_return += reward
        if self._step % self._every == 0 or bool(last.terminated[0] | last.truncated[0]):
            self._add_frame()
        return last

    def _add_frame(self) -> None:
        if self._episode > self._episodes:  # lane 0 is finished, and idle until all lanes are
            return
        caption = Caption(
            subject=self._subject,
            episode=self._episode,
            episodes=self._episodes,
            step=self._step,
            episode_return=self._episode_return,
            total_return=self._total_return,
        )
        self._video.add(self._env.frame(), caption)


@torch_defaults()
def record(
    run: Run | str | os.PathLike[str],
    *,
    modules: Sequence[str] = (),
    options: VideoOptions | None = None,
    **overrides: Any,
) -> Path:
    """Records a video of one trial of the final agent of a run, in an unseen task.

    There is one frame at each episode start and one after each step (or each n-th, `every`), with
    the episode, the step, the return of the episode so far and that of the trial in its caption. An
    agent that adapts its parameters is shown before and after each adaptation step, in one of its
    rollouts.

    Args:
        run: a run or its folder.
        modules: modules that define the task or the agent and that you trust; see `load_run`.
        options: which trial, and how it is written; by default made from `overrides`.
        overrides: fields of `VideoOptions`, such as `num=3, out="trial.mp4"`. The ending of `out`
            selects the format, `.gif` or `.mp4`. Task `num` is that of an evaluation with the same
            seed and the default number of tasks, but with other noise.

    Returns:
        The file written.

    Raises:
        RunFolderError: there is no run in this folder, or the video cannot be written.
        CheckpointError: the run is not trained yet, or its checkpoint is broken or of another run.
        ConfigError: the family does not render, a number is out of range, the ending is unknown,
            or the packages that write MP4 are not installed.
    """
    options = overridden(options, VideoOptions(), overrides)
    run = as_run(run, modules=modules)
    path = results_path(run.path) / "trial.gif" if options.out is None else Path(options.out)
    require_ending(path)
    as_device(options.device)
    family = run.config.make_family()
    require_rendering(family)
    agent = run.make_agent(family, options.device)
    run.load(agent)
    num, seeds = options.num, Seeds(options.seed).child("evaluation")  # as in an evaluation
    drawn = draw_tasks(family, max(DRAWN_TASKS, num + 1), seeds.torch("test tasks"), "test")
    config = run.config.make_agent_config()
    trial = _RecordedTrial(
        family=family.with_rendering(),
        task=drawn[num : num + 1].to(options.device),
        subject=f"{config.label}, test task {num}",
        episodes=options.episodes or config.episodes or family.trial_episodes,
        rollouts_per_task=config.rollouts_per_task,
        keep_next_obs=config.reads_next_obs,
        every=options.every,
        seeds=seeds.child("recording", num),
    )
    most = (agent.evaluation_steps + 1) * trial.episodes * (family.episode_steps + 1)
    title = f"recording {run.path.name}"
    counter = progress_counter(title, 2 * most, enabled=options.progress)
    with torch_threads(1), counter as tick:
        video = Video(options.size, tick)
        trial.roll_out(agent, video)
        write_video(video, path, options.fps)
    return path


@dataclass(frozen=True, kw_only=True)
class _RecordedTrial:
    """A trial in one task, in which an agent is recorded."""

    family: TaskDistribution
    task: Tensor  # [1, ...]
    subject: str
    episodes: int  # of each phase
    rollouts_per_task: int
    keep_next_obs: bool
    every: int
    seeds: Seeds

    def roll_out(self, agent: Agent, video: Video) -> None:
        """Adds the phases before and after each adaptation step to the video."""
        steps = agent.evaluation_steps

        def record_env(env: BatchedEnv, phase: int) -> BatchedEnv:
            subject = f"{self.subject}, {_phase_name(phase)}" if steps else self.subject
            renderable = as_renderable(env)
            return RecordedEnv(
                renderable, video, episodes=self.episodes, subject=subject, every=self.every
            )

        spec = RolloutSpec(
            episodes=self.episodes,
            rollouts_per_task=self.rollouts_per_task,
            keep_next_obs=self.keep_next_obs,
            wrap_env=record_env,
        )
        rollout_phases(
            agent, self.family, self.task, adaptation_steps=steps, spec=spec, seeds=self.seeds
        )


def _phase_name(step: int) -> str:
    if not step:
        return "before adapting"
    return f"after {step} adaptation step{'s' * (step != 1)}"
