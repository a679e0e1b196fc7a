"""The meta-training loop: trains an agent on a task family and writes a run folder."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from metarl.agent import Agent, AgentConfig, MetaBatch
from metarl.errors import MetaRLError
from metarl.noise import LaneNoise
from metarl.registry import agent_config, find_preset, make_family, name_of, resolve_family
from metarl.results.learning_curves import MetricsFile
from metarl.rollout import RolloutSpec, RolloutStorage, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution, draw_tasks
from metarl.training import process
from metarl.training.options import RunOptions
from metarl.training.progress import TrainingProgress
from metarl.training.run_folder import (
    Progress,
    Run,
    RunConfig,
    create_run,
    load_run,
    require_same,
)
from metarl.validation import as_device, require_known


def train(
    agent: str,
    task: str | TaskDistribution,
    *,
    task_options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    config: AgentConfig | None = None,
    run: RunOptions | None = None,
    **options: Any,
) -> Run:
    """Meta-trains an agent on the `train` split of a family.

    Args:
        agent: its registered name, such as "rl2".
        task: a family, or the id of one.
        task_options: options of the family when `task` is an id.
        preset: name of tuned hyper-parameters for this agent and family; its task options apply
            where `task` is an id and `task_options` does not override them.
        config: the agent's hyper-parameters; by default made from `preset` and `options`.
        run: where and how; by default made from `options`.
        options: fields of the agent's config and of `RunOptions`, such as `num_tasks=512, seed=3`.

    Returns:
        The run, whose folder holds settings, metrics and the final checkpoint.

    Raises:
        UnknownNameError: unknown agent, task or option.
        ConfigError: an option is out of range.
        RunFolderError: the run folder exists, is resumed with other settings, or another process
            is training in it.
        NonFiniteError: the environment or the learner produced NaN; the last checkpoint stays.
        KeyboardInterrupt: Ctrl-C, after the current iteration was finished and saved.
    """
    if not isinstance(task, str):
        task, task_options = name_of(resolve_family(task, task_options))
    if preset is not None:
        found = find_preset(agent, task, preset)
        options = {**found.agent_options, **options}
        task_options = {**found.task_options, **(task_options or {})}
    config, run = _settings(agent, config, run, options)
    family = make_family(task, **(task_options or {}))
    description = RunConfig(
        agent=agent,
        agent_options=asdict(config),
        task=task,
        task_options=asdict(family),  # type: ignore[call-overload]
        seed=run.seed,
    )
    process.keep_freed_memory()
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    path = Path(run.out or description.default_path)
    as_device(run.device)
    folder = load_run(path) if run.resume and path.exists() else None
    if folder is not None:
        require_same(folder, description)
    # Built before the folder is made: an option that does not fit leaves no empty folder behind.
    learner = config.build(description.context(family, run.device, training=True))
    _require_room_for_a_trial(learner, config, family, run.device)
    folder = folder or create_run(path, description)
    with folder.locked():
        start = folder.load(learner) if folder.checkpoint.exists() else Progress()
        _Training(family, config, learner, folder, run).run(start)
    return folder


def _require_room_for_a_trial(
    agent: Agent, config: AgentConfig, family: TaskDistribution, device: str
) -> None:
    """Raises `ConfigError` where the agent's memory holds fewer steps than a trial has."""
    horizon = (config.episodes or family.trial_episodes) * family.episode_steps
    policy = agent.start(1, LaneNoise.of(Seeds(0), "start", 1, device=device))
    policy.initial_memory(1, horizon)


class _Training:
    """The loop over meta-iterations, with its record."""

    def __init__(
        self,
        family: TaskDistribution,
        config: AgentConfig,
        agent: Agent,
        run: Run,
        options: RunOptions,
    ) -> None:
        self._family = family
        self._config = config
        self._agent = agent
        self._run = run
        self._options = options
        self._seeds = Seeds(options.seed).child("training")
        self._storage = RolloutStorage()
        self._learning = False  # while True, the agent may be half-way through an update

    def run(self, progress: Progress) -> None:
        """Trains from `progress` to the last iteration.

        Whatever fails in an environment or a learner, all completed iterations are kept. An update
        interrupted half-way (second Ctrl-C) falls back to the last checkpoint.
        """
        from torch.utils.tensorboard import SummaryWriter  # NOTE: takes seconds to import

        metrics = MetricsFile(self._run.path / "metrics.csv", keep=progress.iteration)
        events = SummaryWriter(str(self._run.path), purge_step=progress.iteration + 1)
        bar = TrainingProgress(
            self._run.path.name, self._config.iterations, enabled=self._options.progress
        )
        saved = time.monotonic()
        bar.show_iteration(progress.iteration)
        try:
            with bar, _interrupt_between_iterations() as interrupted:
                while progress.iteration < self._config.iterations and not interrupted.is_set():
                    progress, row = self._iteration(progress)
                    metrics.write(row)
                    for name, value in row.items():
                        events.add_scalar(name, value, progress.iteration)
                    bar.show(row)
                    if time.monotonic() - saved >= self._options.checkpoint_seconds:
                        self._run.save(self._agent, progress)
                        saved = time.monotonic()
        finally:
            if not self._learning:
                self._run.save(self._agent, progress)
            metrics.close()
            events.close()
        if interrupted.is_set() and progress.iteration < self._config.iterations:
            raise KeyboardInterrupt

    def _iteration(self, progress: Progress) -> tuple[Progress, dict[str, float]]:
        started = time.perf_counter()
        batch = self._collect_phases(progress.iteration)
        collected = time.perf_counter()
        self._learning = True
        try:
            learned = self._agent.update(batch)
        except MetaRLError:  # by contract the agent is unchanged
            self._learning = False
            raise
        self._learning = False
        ended = time.perf_counter()

        phases = batch.trajectories
        steps = sum(phase.steps for phase in phases)
        after = Progress(
            iteration=progress.iteration + 1,
            env_steps=progress.env_steps + steps,
            seconds=progress.seconds + ended - started,
        )
        returns = [phase.episode_returns(self.episodes).mean((1, 2)) for phase in phases]
        row = {
            "iteration": after.iteration,
            "env_steps": after.env_steps,
            "seconds": after.seconds,
            "first_episode_return": float(returns[0][0]),
            "last_episode_return": float(returns[-1][-1]),
            "trial_return": float(returns[-1].sum()),
            "steps_per_second": steps / (ended - started),
            "rollout_steps_per_second": steps / (collected - started),
        }
        return after, row | dict(learned)

    def _collect_phases(self, iteration: int) -> MetaBatch:
        seeds = self._seeds.child("iteration", iteration)
        drawn = draw_tasks(self._family, self._config.num_tasks, seeds.torch("tasks"), "train")
        spec = RolloutSpec(
            episodes=self.episodes,
            rollouts_per_task=self._config.rollouts_per_task,
            workers=self._options.workers,
            keep_next_obs=self._config.reads_next_obs,
        )
        return rollout_phases(
            self._agent,
            self._family,
            drawn.to(self._options.device),
            adaptation_steps=self._agent.adaptation_steps,
            spec=spec,
            seeds=seeds,
            storage=self._storage,
            training=True,
        )

    @property
    def episodes(self) -> int:
        """E, episodes of one phase."""
        return self._config.episodes or self._family.trial_episodes


def _settings(
    agent: str, config: AgentConfig | None, run: RunOptions | None, options: Mapping[str, Any]
) -> tuple[AgentConfig, RunOptions]:
    """Sorts loose options into the agent's and the run's."""
    kind = agent_config(agent)
    of_run = {name: value for name, value in options.items() if name in RunOptions.__annotations__}
    of_agent = {name: value for name, value in options.items() if name not in of_run}
    known = [field.name for field in fields(kind)]
    require_known(agent, of_agent, known, RunOptions.__annotations__)
    if config is None:
        config = kind(**of_agent)
    elif of_agent:
        config = replace(config, **of_agent)
    return config, replace(run or RunOptions(), **of_run)


@contextmanager
def _interrupt_between_iterations() -> Iterator[threading.Event]:
    """Within it the first Ctrl-C only sets the event; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(signal_number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
