"""The meta-training loop: trains an agent on a task family and writes a run folder."""

import operator
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from metarl.agent import Agent, AgentConfig, MetaBatch
from metarl.errors import ConfigError, MetaRLError, NonFiniteError, RunFolderError
from metarl.noise import LaneNoise
from metarl.registry import agent_config, find_preset, make_family, name_of, resolve_family
from metarl.rollout import RolloutSpec, RolloutStorage, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution, draw_tasks
from metarl.training import process
from metarl.training.interruption import StopRequest, stop_between_iterations
from metarl.training.progress import TrainingProgress
from metarl.training.record import TrainingRecord
from metarl.training.rollback import Rollback, with_halved_rate
from metarl.training.run_folder import KEPT_CHECKPOINTS, Progress, Run, RunConfig, open_run
from metarl.training.torch_defaults import torch_defaults
from metarl.validation import as_device, require_known, require_positive

OnNaN = Literal["stop", "rollback"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how to run. Equal seeds on the same device and threads give equal runs."""

    seed: int = 0
    """root of all randomness of the run"""
    out: Path | None = None
    """the run folder; by default runs/AGENT-TASK-seedSEED"""
    resume: bool = False
    """go on with the run folder if it exists, exactly as if it had never stopped"""
    device: str = "cpu"
    """torch device, such as cpu or cuda"""
    threads: int | None = None
    """CPU threads for torch; by default torch's own choice"""
    workers: int | None = None
    """processes that step ordinary Gymnasium environments; by default this one does"""
    worker_timeout: float | None = None
    """seconds after which a worker that does not answer counts as hung; by default ten minutes"""
    checkpoint_seconds: float = 60.0
    """wall time between checkpoints; the first is after one iteration, the last at the end"""
    checkpoints: int = KEPT_CHECKPOINTS
    """number of checkpoints that are kept; --resume falls back to an older one if one is broken"""
    on_nan: OnNaN = "stop"
    """what to do where a loss, a gradient or an environment gives NaN: `stop`, keeping what was
    completed, or `rollback`, which goes back at most ten iterations and halves the learning rate"""
    max_rollbacks: int = 3
    """rollbacks of the whole run, after which training stops"""
    progress: bool = True
    """show a progress bar; without a terminal, a line every minute"""

    def __post_init__(self) -> None:
        require_positive("threads", self.threads)
        require_positive("checkpoint_seconds", self.checkpoint_seconds)
        require_positive("checkpoints", self.checkpoints)
        require_positive("max_rollbacks", self.max_rollbacks)
        if self.on_nan not in get_args(OnNaN):
            raise ConfigError(
                f"on_nan={self.on_nan!r} must be {' or '.join(map(repr, get_args(OnNaN)))}."
            )
        require_positive("worker_timeout", self.worker_timeout)
        try:
            object.__setattr__(self, "seed", operator.index(self.seed))  # NumPy's, too
        except TypeError:
            raise ConfigError(f"seed={self.seed!r} must be a whole number.") from None


@torch_defaults()
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
        StoppedBySignal: SIGTERM or SIGHUP, likewise; a `SystemExit` with code 143 or 129.
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
    folder = open_run(path, description, resume=run.resume)
    # Built before the folder is made: an option that does not fit leaves no empty folder behind.
    context = description.context(family, run.device, training=True)
    if run.on_nan == "rollback":
        with_halved_rate(config, 0)  # an agent without one is refused here

    def build(rollbacks: int) -> Agent:
        return (with_halved_rate(config, rollbacks) if rollbacks else config).build(context)

    learner = build(0)
    _require_room_for_a_trial(learner, config, family, run.device)
    with folder.locked():
        folder = open_run(path, description, resume=run.resume)  # until now it could change
        if folder.is_started:
            start = folder.load_newest_sound(learner)
            if start.rollbacks:
                state, learner = learner.state(), build(start.rollbacks)
                learner.load_state(state)
        else:
            folder.start()
            start = Progress()
        rollback = Rollback(folder, run.max_rollbacks, build) if run.on_nan != "stop" else None
        _Training(family, config, learner, folder, run, rollback).run(start)
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
        rollback: Rollback | None,
    ) -> None:
        self._family = family
        self._config = config
        self._agent = agent
        self._run = run
        self._options = options
        self._rollback = rollback
        self._progress = Progress()
        self._seeds = Seeds(options.seed).child("training")
        self._storage = RolloutStorage()
        self._is_ahead = False  # True while the agent may have learned what is not recorded

    def run(self, progress: Progress) -> None:
        """Trains from `progress` to the last iteration.

        Whatever fails in an environment or a learner, all completed iterations are kept. An update
        interrupted half-way (second Ctrl-C) falls back to the last checkpoint.
        """
        self._progress = progress
        with stop_between_iterations() as stop:
            while True:
                try:
                    self._train(stop)
                    break
                except NonFiniteError as error:
                    if self._rollback is None:
                        raise
                    self._agent, self._progress = self._rollback.go_back(error, self._progress)
        stop.raise_if_set()

    def _train(self, stop: StopRequest) -> None:
        saved, saved_at = self._progress, time.monotonic()
        path, iterations = self._run.path, self._config.iterations
        bar = TrainingProgress(path.name, iterations, enabled=self._options.progress)
        bar.show_iteration(saved.iteration)
        with TrainingRecord(path, keep=saved.iteration) as record, bar:
            try:
                while self._progress.iteration < iterations and not stop:
                    after, row = self._iteration(self._progress)
                    record.write(row)
                    self._progress, self._is_ahead = after, False
                    bar.show(row)
                    if self._rollback is not None:
                        self._rollback.keep(self._agent, after)
                    elapsed = time.monotonic() - saved_at
                    if after.iteration == 1 or elapsed >= self._options.checkpoint_seconds:
                        self._save(record)
                        saved, saved_at = after, time.monotonic()
            except BaseException as error:
                if self._progress != saved and not self._is_ahead:
                    self._save_after(error, record)
                raise
            if self._progress != saved:
                self._save(record)

    def _save(self, record: TrainingRecord) -> None:
        record.sync()  # the rows of a checkpoint are on the disk before it is
        self._run.save(self._agent, self._progress, keep=self._options.checkpoints)

    def _save_after(self, error: BaseException, record: TrainingRecord) -> None:
        """Saves what was completed before an error, which stays the one that is reported."""
        try:
            self._save(record)
        except RunFolderError as second:
            if not isinstance(error, RunFolderError):
                error.add_note(f"metarl: the last iterations could not be saved: {second}")

    def _iteration(self, progress: Progress) -> tuple[Progress, dict[str, float]]:
        started = time.perf_counter()
        batch = self._collect_phases(progress.iteration)
        collected = time.perf_counter()
        self._is_ahead = True
        try:
            learned = self._agent.update(batch)
        except MetaRLError:  # by contract the agent is unchanged
            self._is_ahead = False
            raise
        ended = time.perf_counter()

        phases = batch.trajectories
        steps = sum(phase.steps for phase in phases)
        after = replace(
            progress,
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
        if self._rollback is not None:
            row["rollbacks"] = after.rollbacks
        return after, row | dict(learned)

    def _collect_phases(self, iteration: int) -> MetaBatch:
        seeds = self._seeds.child("iteration", iteration)
        drawn = draw_tasks(self._family, self._config.num_tasks, seeds.torch("tasks"), "train")
        spec = RolloutSpec(
            episodes=self.episodes,
            rollouts_per_task=self._config.rollouts_per_task,
            workers=self._options.workers,
            worker_timeout=self._options.worker_timeout,
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
