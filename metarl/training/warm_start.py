"""Weights of another run as the first ones of a training."""

import hashlib
from collections.abc import Mapping
from typing import Any

from metarl.agent import Agent, WarmStartAgent
from metarl.errors import CheckpointError, ConfigError
from metarl.tasks.family import TaskDistribution
from metarl.training.run_folder import load_run
from metarl.training.run_settings import RunConfig


def take_weights(agent: Agent, config: RunConfig, family: TaskDistribution, source: str) -> None:
    """Gives a new agent the weights that another run has learned.

    Args:
        agent: untrained; the options of its network must be those of the other run.
        config: its settings, for messages.
        family: that it will be trained on; its spaces must be those of the other run.
        source: folder of the other run.

    Raises:
        ConfigError: the spaces differ, or this agent cannot start from weights.
        CheckpointError: the other run is not trained, or its weights do not fit.
        RunFolderError: there is no run in this folder.
    """
    if not isinstance(agent, WarmStartAgent):
        raise ConfigError(
            f"{config.agent} cannot start from the weights of another run: it has no method "
            "`take_weights`. Leave init_from out."
        )
    run = load_run(source)
    other = run.config.make_family()
    for name in ("observation_space", "action_space"):
        theirs, ours = getattr(other, name), getattr(family, name)
        if theirs != ours:
            raise ConfigError(
                f"init_from={source!r} was trained on {run.config.family}, whose {name} is "
                f"{theirs}; here it is {ours}, and a network fits one only. Choose tasks or "
                "options with equal spaces, or train from the start."
            )
    trained = run.make_agent(other)
    run.load(trained)
    try:
        agent.take_weights(trained.state())
    except CheckpointError as error:
        raise CheckpointError(
            f"init_from={source!r} has weights that do not fit. {_difference(run.config, config)} "
            f"({error})"
        ) from error


def _difference(theirs: RunConfig, ours: RunConfig) -> str:
    """What differs between the settings of two runs, and may make their networks differ."""
    if theirs.agent != ours.agent:
        return f"They are of the agent {theirs.agent}, and this is {ours.agent}."
    options = ", ".join(
        f"{name}={value!r} (here {ours.agent_options[name]!r})"
        for name, value in theirs.agent_options.items()
        if name in ours.agent_options and value != ours.agent_options[name]
    )
    return f"Give the options of the network as there, where these differ: {options or 'none'}."


def origin_of(source: str | None) -> Mapping[str, Any]:
    """What identifies the weights, for `config.json`; nothing without a source."""
    if source is None:
        return {}
    run = load_run(source)
    iteration = run.load(run.make_agent(run.config.make_family())).iteration
    return {
        "run": source,
        "agent": run.config.agent,
        "task": run.config.family,
        "seed": run.config.seed,
        "iteration": iteration,
        "sha256": hashlib.sha256(run.checkpoint.read_bytes()).hexdigest(),
    }
