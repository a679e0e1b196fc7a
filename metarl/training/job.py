"""All settings of a training, checked, in a form that another process can take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from metarl.agent import Agent, AgentConfig
from metarl.errors import ConfigError
from metarl.field_types import kind_of, require_instance, require_known
from metarl.noise import LaneNoise
from metarl.options import plain_options
from metarl.ranks import ALONE, Ranks
from metarl.registry import agent_config, find_preset, make_family, name_of, resolve_family
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution, require_no_workers
from metarl.training.callbacks import Callback
from metarl.training.launcher import device_of_rank
from metarl.training.memory_needed import naming_allocation, require_memory
from metarl.training.options import RunOptions
from metarl.training.rollback import with_halved_rate
from metarl.training.run_folder import Run, open_run
from metarl.training.run_settings import RunConfig
from metarl.training.warm_start import take_weights
from metarl.validation import as_device


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
    ranks: Ranks = ALONE
    """the processes that carry it out together"""

    def on(self, ranks: Ranks) -> "TrainingJob":
        """The job as these ranks carry it out, each in an equal share of the tasks.

        Raises:
            ConfigError: the agent cannot be trained so, or the shares would be unequal.
        """
        if ranks.size > 1 and not self.config.trains_on_ranks:
            raise ConfigError(
                f"{self.config.label} cannot be trained by {ranks.size} processes together, "
                "because its learner does not sum over them. Train it without torchrun."
            )
        if self.config.num_tasks % ranks.size:
            raise ConfigError(
                f"num_tasks={self.config.num_tasks} does not divide into {ranks.size} equal shares "
                f"(remainder {self.config.num_tasks % ranks.size}), one for each process that "
                "torchrun has started. Use a multiple."
            )
        device = device_of_rank(self.options.device)
        return replace(self, ranks=ranks, options=replace(self.options, device=device))

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
        context = replace(context, ranks=self.ranks)
        config = with_halved_rate(self.config, rollbacks) if rollbacks else self.config
        require_no_workers(family, self.options.workers)
        _ = family.task_space  # raises an error where the environment has none
        with naming_allocation(f"The agent {self.agent} with these options"):
            agent = config.build(context)
        num_tasks = self.config.num_tasks // self.ranks.size
        _require_room(agent, self.config, num_tasks, family, self.options.device)
        return agent

    def first_agent(self, family: TaskDistribution, rollbacks: int = 0) -> Agent:
        """The agent of the first iteration: untrained, or with the weights of another run.

        Raises:
            ConfigError: as `new_agent`, or the other run has other spaces.
            CheckpointError: its weights do not fit.
        """
        agent = self.new_agent(family, rollbacks)
        if self.options.init_from is not None:
            take_weights(agent, self.description, family, self.options.init_from)
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
    if task_options is not None:
        require_instance("task_options", task_options, Mapping, "a mapping of options by name")
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
            f"{kind_of(wrong[0])}."
        )
    return tuple(given)


def _require_room(
    agent: Agent, config: AgentConfig, num_tasks: int, family: TaskDistribution, device: str
) -> None:
    """Raises `ConfigError` where a trial is too long for the agent's memory, or all for the RAM."""
    horizon = (config.episodes or family.trial_episodes) * family.episode_steps
    require_memory(
        family,
        phases=agent.adaptation_steps + 1,
        steps=horizon,
        num_tasks=num_tasks,
        rollouts_per_task=config.rollouts_per_task,
        keep_next_obs=config.reads_next_obs,
        device=device,
    )
    policy = agent.start(1, LaneNoise.of(Seeds(0), "start", 1, device=device))
    policy.initial_memory(1, horizon)


def _settings(
    agent: str, config: AgentConfig | None, run: RunOptions | None, options: Mapping[str, Any]
) -> tuple[AgentConfig, RunOptions]:
    """Sorts loose options into the agent's and the run's."""
    kind = agent_config(agent)
    wanted = f"{kind.__name__}(...), the hyper-parameters of {agent}"
    if config is not None:
        require_instance("config", config, kind, wanted)
    if run is not None:
        require_instance("run", run, RunOptions, "metarl.RunOptions(...)")
    of_run = {name: value for name, value in options.items() if name in RunOptions.__annotations__}
    of_agent = {name: value for name, value in options.items() if name not in of_run}
    known = [field.name for field in fields(kind)]
    require_known(agent, of_agent, known, RunOptions.__annotations__)
    if config is None:
        config = kind(**of_agent)
    elif of_agent:
        config = replace(config, **of_agent)
    return config, replace(run or RunOptions(), **of_run)
