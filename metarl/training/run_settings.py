"""What defines a run, and how the settings of two runs differ."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from metarl.agent import AgentConfig, AgentContext
from metarl.errors import ConfigError, MetaRLError, RunFolderError
from metarl.field_types import require_known
from metarl.modules import require_imported, split_module
from metarl.options import option_names, plain_options, typed_options
from metarl.registry import agent_config, make_family
from metarl.results.adaptation_curves import describe_family
from metarl.results.reading import quoted, shortened
from metarl.results.run_config import FORMAT
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What defines a run: equal configurations give equal runs on one machine."""

    agent: str
    agent_options: Mapping[str, Any]
    task: str
    task_options: Mapping[str, Any]
    seed: int
    init_from: str | None = None
    """another run, whose learned weights were the first ones of this one"""
    format: str = FORMAT

    @property
    def default_path(self) -> Path:
        """Such as runs/rl2-BernoulliBandit-v0-seed3."""
        agent, task = split_module(self.agent)[1], self.task.rpartition("/")[2]
        return Path("runs") / f"{agent}-{task}-seed{self.seed}"

    @property
    def family(self) -> str:
        """The task and its options, such as metarl/BernoulliBandit-v0 (arms=5, pulls=10)."""
        return describe_family(self.task, self.task_options)

    def make_family(self) -> TaskDistribution:
        """The family that the agent is trained on.

        Raises:
            RunFolderError: it is defined in a module that is not imported, and not of a plugin; or
                the options have unexpected types.
        """
        require_imported(self.task, "task")
        with naming("The options of this run", f"the task {quoted(self.task)}"):
            return make_family(self.task, **self.task_options)

    def context(
        self, family: TaskDistribution, device: torch.device | str, *, training: bool = False
    ) -> AgentContext:
        """What the agent of this run is built for; references are listed for `training` only."""
        episodes = self.agent_options.get("episodes") or family.trial_episodes
        return AgentContext(
            observation_space=family.observation_space,
            action_space=family.action_space,
            seeds=Seeds(self.seed).child("agent"),
            device=torch.device(device),
            shown_targets=family.shown_targets,
            references=partial(family.references, episodes) if training else None,
        )

    def make_agent_config(self) -> AgentConfig:
        """The agent's hyper-parameters.

        Raises:
            RunFolderError: the agent no longer has one of the options, or it is defined in a module
                that is not imported, and not of a plugin.
        """
        require_imported(self.agent, "agent")
        kind = agent_config(self.agent)
        with naming("The settings of this run", f"the agent {quoted(self.agent)}", ConfigError):
            require_known(self.agent, self.agent_options, option_names(kind))
            return kind(**typed_options(kind, self.agent_options))


@contextmanager
def naming(settings: str, owner: str, *more: type[MetaRLError]) -> Iterator[None]:
    """Converts the errors that settings of unexpected types cause, and `more`, to one message."""
    try:
        yield
    except MetaRLError as error:
        if isinstance(error, more):
            raise _misfit(settings, owner, error) from error
        raise
    # RuntimeError and MemoryError: torch cannot allocate as much.
    except (TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise _misfit(settings, owner, error) from error
    except MemoryError as error:
        raise _misfit(settings, owner, error) from error


def _misfit(settings: str, owner: str, error: Exception) -> RunFolderError:
    return RunFolderError(
        f"{settings} do not fit {owner} of this version of metarl: {shortened(error)} Use the "
        "version named in config.json, or restore the file from a copy."
    )


def prolonged(stored: RunConfig, given: RunConfig) -> RunConfig:
    """`stored` with the iterations of `given`, if these are more."""
    old, new = (one.agent_options.get("iterations") for one in (stored, given))
    if not (isinstance(old, int) and isinstance(new, int) and new > old):
        return stored
    return replace(stored, agent_options={**stored.agent_options, "iterations": new})


def difference_of(stored: RunConfig, given: RunConfig) -> str:
    """The settings that differ, such as "hidden_size = 8 instead of 64"; empty if all are equal.

    An option that did not exist when a run was started has its default. More iterations are no
    difference, because a run may be prolonged.
    """
    stored = prolonged(stored, given)
    difference = _differences(asdict(stored), asdict(given))
    try:
        return difference and _differences(_complete(stored), _complete(given))
    except MetaRLError:  # of another agent or family
        return difference


def _complete(config: RunConfig) -> dict[str, Any]:
    """All settings, with defaults for those left out."""
    agent_options = plain_options(config.make_agent_config())
    task_options = plain_options(config.make_family())
    return {**asdict(config), "agent_options": agent_options, "task_options": task_options}


def _differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    found = []
    for name in dict.fromkeys([*stored, *given]):
        old, new = stored.get(name), given.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [inner] if (inner := _differences(old, new)) else []
        elif json.dumps(old) != json.dumps(new):  # through JSON, where tuples are lists
            found.append(f"{name} = {quoted(old)} instead of {quoted(new)}")
    return ", ".join(found)
