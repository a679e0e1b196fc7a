"""The meta-training loop: trains an agent on a task family and writes a run folder."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from metarl.agent import Agent, AgentConfig, MetaBatch
from metarl.errors import MetaRLError
from metarl.noise import LaneNoise
from metarl.registry import agent_config, find_preset, make_family, name_of, resolve_family
from metarl.results.learning_curves import MetricsFile
from metarl.rollout import RolloutSpec, RolloutStorage, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution, draw_tasks
from metarl.training import process
from metarl.training.interruption import stop_between_iterations
from metarl.training.options import RunOptions
from metarl.training.progress import ProgressDisplay, TrainingProgress
from metarl.training.run_folder import (
    Progress,
    Run,
    RunConfig,
    create_run,
    load_run,
    require_absent,
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
        SystemExit: SIGTERM or SIGHUP, likewise, with code 143 or 129.
    """
    job = training_job(
        agent, task, task_options=task_options, preset=preset, config=config, run=run, **options
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

    @property
    def description(self) -> RunConfig:
        """What defines the run."""
        return RunConfig(
            agent=self.agent,
            agent_options=asdict(self.config),
            task=self.task,
            task_options=self.task_options,
            seed=self.options.seed,
        )

    @property
    def path(self) -> Path:
        """The run folder."""
        return Path(self.options.out or self.description.default_path)

    def require_folder(self) -> None:
        """Raises `RunFolderError` unless the folder can be created, or is to be resumed."""
        if self.existing_run() is None:
            require_absent(self.path)

    def existing_run(self) -> Run | None:
        """The folder that is resumed, if there is one.

        Raises:
            RunFolderError: its settings are others.
        """
        if not (self.options.resume and self.path.exists()):
            return None
        folder = load_run(self.path)
        require_same(folder, self.description)
        return folder

    def make_family(self) -> TaskDistribution:
        """The family that the agent is trained on."""
        return make_family(self.task, **self.task_options)

    def new_agent(self, family: TaskDistribution) -> Agent:
        """An untrained agent.

        Raises:
            ConfigError: the options of agent, family and device do not fit each other.
        """
        as_device(self.options.device)
        context = self.description.context(family, self.options.device, training=True)
        agent = self.config.build(context)
        _require_room_for_a_trial(agent, self.config, family, self.options.device)
        return agent


def training_job(
    agent: str,
    task: str | TaskDistribution,
    *,
    task_options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    config: AgentConfig | None = None,
    run: RunOptions | None = None,
    **options: Any,
) -> TrainingJob:
    """The job that `train` carries out; arguments and errors are those of `train`."""
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
        task_options=asdict(family),  # type: ignore[call-overload]
        options=run,
    )


def run_job(job: TrainingJob, display: ProgressDisplay) -> Run:
    """Trains, and shows every iteration on `display`.

    A display that raises an error ends the training after the iteration, which is saved.
    """
    process.keep_freed_memory()
    with process.torch_threads(job.options.threads):
        family = job.make_family()
        folder = job.existing_run()
        # Built before the folder is made: an option that does not fit leaves no empty folder.
        agent = job.new_agent(family)
        folder = folder or create_run(job.path, job.description)
        with folder.locked():
            start = folder.load(agent) if folder.checkpoint.exists() else Progress()
            _Training(family, job.config, agent, folder, job.options, display).run(start)
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
        display: ProgressDisplay,
    ) -> None:
        self._family = family
        self._config = config
        self._agent = agent
        self._run = run
        self._options = options
        self._display = display
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
        saved = time.monotonic()
        self._display.show_iteration(progress.iteration)
        try:
            with self._display, stop_between_iterations() as stop:
                while progress.iteration < self._config.iterations and not stop:
                    progress, row = self._iteration(progress)
                    metrics.write(row)
                    for name, value in row.items():
                        events.add_scalar(name, value, progress.iteration)
                    self._display.show(row)
                    if time.monotonic() - saved >= self._options.checkpoint_seconds:
                        self._run.save(self._agent, progress)
                        saved = time.monotonic()
        finally:
            if not self._learning:
                self._run.save(self._agent, progress)
            metrics.close()
            events.close()
        if progress.iteration < self._config.iterations:
            stop.raise_if_set()

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
