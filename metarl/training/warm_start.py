"""Weights of another run as the first ones of a training."""

import hashlib
from collections.abc import Mapping
from typing import Any

from metarl.agent import Agent, WarmStartAgent
from metarl.errors import ConfigError
from metarl.tasks.family import TaskDistribution
from metarl.training.run_folder import load_run


def take_weights(agent: Agent, label: str, family: TaskDistribution, source: str) -> None:
    """Gives a new agent the weights that another run has learned.

    Args:
        agent: untrained; the options of its network must be those of the other run.
        label: its name, for messages.
        family: that it will be trained on; its spaces must be those of the other run.
        source: folder of the other run.

    Raises:
        ConfigError: the spaces differ, or this agent cannot start from weights.
        CheckpointError: the other run is not trained, or its weights do not fit.
        RunFolderError: there is no run in this folder.
    """
    if not isinstance(agent, WarmStartAgent):
        raise ConfigError(
            f"{label} cannot start from the weights of another run: it has no method "
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
    agent.take_weights(trained.state())


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
