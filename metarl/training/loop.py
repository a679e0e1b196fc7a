"""The meta-training loop: trains an agent on a task family and writes a run folder."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from metarl.agent import Agent, AgentConfig, MetaBatch
from metarl.errors import ConfigError, MetaRLError, NonFiniteError, RunFolderError
from metarl.field_types import require_instance, require_known
from metarl.noise import LaneNoise
from metarl.options import plain_options
from metarl.registry import agent_config, find_preset, make_family, name_of, resolve_family
from metarl.rollout import RolloutSpec, RolloutStorage, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution, draw_tasks
from metarl.training import process
from metarl.training.callbacks import Callback, TrainingView
from metarl.training.interruption import StopRequest, stop_between_iterations
from metarl.training.memory_needed import require_memory
from metarl.training.options import RunOptions
from metarl.training.progress import ProgressDisplay, TrainingProgress
from metarl.training.record import TrainingRecord
from metarl.training.rollback import Rollback, with_halved_rate
from metarl.training.run_folder import Progress, Run, open_run
from metarl.training.run_settings import RunConfig
from metarl.training.torch_defaults import torch_defaults
from metarl.training.warm_start import origin_of, take_weights
from metarl.validation import as_device


@torch_defaults()
def train(
    agent: str,
    task: str | TaskDistribution,
    *,
    task_options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    config: AgentConfig | None = None,
    run: RunOptions | None = None,
    callbacks: Sequence[Callback] = (),
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
        callbacks: called at the start, after each iteration and at the end; see `Callback`.
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
    job = training_job(
        agent,
        task,
        task_options=task_options,
        preset=preset,
        config=config,
        run=run,
        callbacks=callbacks,
        **options,
    )
    title, iterations = job.path.name, job.config.iterations
    return run_job(job, TrainingProgress([title], iterations, enabled=job.options.progress))


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """All settings of one training; another process can carry it out."""

    agent: str
    config: AgentConfig
    task: str
    """id of the family"""
    task_options: Mapping[str, Any]
    """all options of the family"""
    options: RunOptions
    callbacks: Sequence[Callback] = ()

    @property
    def description(self) -> RunConfig:
        """What defines the run."""
        return RunConfig(
            agent=self.agent,
            agent_options=plain_options(self.config),
            task=self.task,
            task_options=self.task_options,
            seed=self.options.seed,
            init_from=self.options.init_from,
        )

    @property
    def path(self) -> Path:
        """The run folder."""
        return Path(self.options.out or self.description.default_path)

    def open_folder(self) -> Run:
        """The run that this job starts or continues; writes nothing.

        Raises:
            RunFolderError: the folder holds a run that is not to be resumed, or has other settings,
                or other files.
        """
        return open_run(self.path, self.description, resume=self.options.resume)

    def make_family(self) -> TaskDistribution:
        """The family that the agent is trained on."""
        return make_family(self.task, **self.task_options)

    def new_agent(self, family: TaskDistribution, rollbacks: int = 0) -> Agent:
        """An untrained agent, whose learning rate was halved `rollbacks` times.

        Raises:
            ConfigError: the options of agent, family and device do not fit each other.
        """
        as_device(self.options.device)
        context = self.description.context(family, self.options.device, training=True)
        config = with_halved_rate(self.config, rollbacks) if rollbacks else self.config
        agent = config.build(context)
        _require_room(agent, self.config, family, self.options.device)
        return agent

    def first_agent(self, family: TaskDistribution, rollbacks: int = 0) -> Agent:
        """The agent of the first iteration: untrained, or with the weights of another run.

        Raises:
            ConfigError: as `new_agent`, or the other run has other spaces.
            CheckpointError: its weights do not fit.
        """
        agent = self.new_agent(family, rollbacks)
        if self.options.init_from is not None:
            take_weights(agent, self.config.label, family, self.options.init_from)
        return agent


def training_job(
    agent: str,
    task: str | TaskDistribution,
    *,
    task_options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    config: AgentConfig | None = None,
    run: RunOptions | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> TrainingJob:
    """The job that `train` carries out; arguments and errors are those of `train`."""
    require_instance("task_options", task_options or {}, Mapping, "a mapping of options by name")
    if not isinstance(task, str):
        task, task_options = name_of(resolve_family(task, task_options))
    if preset is not None:
        found = find_preset(agent, task, preset)
        options = {**found.agent_options, **options}
        task_options = {**found.task_options, **(task_options or {})}
    config, run = _settings(agent, config, run, options)
    family = make_family(task, **(task_options or {}))
    return TrainingJob(
        agent=agent,
        config=config,
        task=task,
        task_options=plain_options(family),
        options=run,
        callbacks=_require_callbacks(callbacks),
    )


def _require_callbacks(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    given = callbacks if isinstance(callbacks, Sequence) else (callbacks,)
    if wrong := [each for each in given if not isinstance(each, Callback)]:
        raise ConfigError(
            f"callbacks must be a list of instances of classes derived from metarl.Callback; got "
            f"{wrong[0]!r}."
        )
    return tuple(given)


def run_job(job: TrainingJob, display: ProgressDisplay) -> Run:
    """Trains, and shows every iteration on `display`.

    A display that raises an error ends the training after the iteration, which is saved.
    """
    process.keep_freed_memory()
    config, options = job.config, job.options
    with process.torch_threads(options.threads), torch_defaults():
        family, folder = job.make_family(), job.open_folder()
        if options.on_nan == "rollback":
            with_halved_rate(config, 0)  # an agent without one is refused here
        # Built before the folder is made: an option that does not fit leaves no empty folder.
        learner = (job.new_agent if folder.is_started else job.first_agent)(family)
        with folder.locked():
            folder = job.open_folder()  # until now it could change
            if folder.is_started:
                start = folder.load_newest_sound(learner)
                folder.prolong()
                if start.rollbacks:
                    state, learner = learner.state(), job.new_agent(family, start.rollbacks)
                    learner.load_state(state)
            else:
                folder.start(origin_of(options.init_from))
                start = Progress()
            rollback = None
            if options.on_nan != "stop":
                rollback = Rollback(folder, options, partial(job.first_agent, family))
            _Training(family, job, learner, folder, rollback, display).run(start)
    return folder


def _require_room(agent: Agent, config: AgentConfig, family: TaskDistribution, device: str) -> None:
    """Raises `ConfigError` where a trial is too long for the agent's memory, or all for the RAM."""
    horizon = (config.episodes or family.trial_episodes) * family.episode_steps
    require_memory(
        family,
        phases=agent.adaptation_steps + 1,
        steps=horizon,
        num_tasks=config.num_tasks,
        rollouts_per_task=config.rollouts_per_task,
        keep_next_obs=config.reads_next_obs,
        device=device,
    )
    policy = agent.start(1, LaneNoise.of(Seeds(0), "start", 1, device=device))
    policy.initial_memory(1, horizon)


class _Training:
    """The loop over meta-iterations, with its record."""

    def __init__(
        self,
        family: TaskDistribution,
        job: TrainingJob,
        agent: Agent,
        run: Run,
        rollback: Rollback | None,
        display: ProgressDisplay,
    ) -> None:
        self._family = family
        self._config, self._options, self._callbacks = job.config, job.options, job.callbacks
        self._description = job.description
        self._agent = agent
        self._run = run
        self._rollback = rollback
        self._display = display
        self._progress = Progress()
        self._seeds = Seeds(job.options.seed).child("training")
        self._storage = RolloutStorage()
        self._is_ahead = False  # True while the agent may have learned what is not recorded

    def run(self, progress: Progress) -> None:
        """Trains from `progress` to the last iteration.

        Whatever fails in an environment or a learner, all completed iterations are kept. An update
        interrupted half-way (second Ctrl-C) falls back to the last checkpoint.
        """
        self._progress = progress
        with self._display, stop_between_iterations() as stop:
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
        self._display.show_iteration(saved.iteration)
        settings = asdict(self._description)
        recorded = TrainingRecord(
            path, keep=saved.iteration, env_steps=saved.env_steps, settings=settings
        )
        with recorded as record, self._callbacks_open():
            is_stopped = False
            try:
                while self._progress.iteration < iterations and not (stop or is_stopped):
                    after, row = self._iteration(self._progress)
                    record.write(row)
                    self._progress, self._is_ahead = after, False
                    self._display.show(row)
                    is_stopped = self._call_back(row)
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

    @contextmanager
    def _callbacks_open(self) -> Iterator[None]:
        """Within it all callbacks are started; at the end those that were are ended."""
        with ExitStack() as stack:
            for each in self._callbacks:
                each.on_start(self._view())
                stack.callback(self._end_callback, each)
            yield

    def _end_callback(self, callback: Callback) -> None:
        callback.on_end(self._view())

    def _call_back(self, row: Mapping[str, float]) -> bool:
        """Whether a callback stops the training after this iteration; all are called."""
        if not self._callbacks:
            return False
        view = self._view()
        answers = [each.on_iteration(view, row) for each in self._callbacks]
        return any(answers)

    def _view(self) -> TrainingView:
        return TrainingView(
            run=self._run,
            agent=self._agent,
            family=self._family,
            config=self._config,
            options=self._options,
            progress=self._progress,
            callbacks=self._callbacks,
        )

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
    wanted = f"{kind.__name__}(...), the hyper-parameters of {agent}"
    require_instance("config", config or kind(), kind, wanted)
    require_instance("run", run or RunOptions(), RunOptions, "metarl.RunOptions(...)")
    of_run = {name: value for name, value in options.items() if name in RunOptions.__annotations__}
    of_agent = {name: value for name, value in options.items() if name not in of_run}
    known = [field.name for field in fields(kind)]
    require_known(agent, of_agent, known, RunOptions.__annotations__)
    if config is None:
        config = kind(**of_agent)
    elif of_agent:
        config = replace(config, **of_agent)
    return config, replace(run or RunOptions(), **of_run)
