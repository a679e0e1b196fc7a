"""Going back to an earlier state with half the learning rate, where a number became NaN.

The states to which a training goes back belong to fixed iterations, and the rollbacks are counted
in every checkpoint. So a run with rollbacks is as reproducible as another, and continued exactly.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TypeVar

from metarl.agent import Agent, AgentConfig
from metarl.errors import ConfigError, NonFiniteError
from metarl.training.options import RunOptions
from metarl.training.run_folder import Progress, Run, log

ROLLBACK_ITERATIONS = 10
"""a state is kept after every so many iterations; the first is that before training"""
_RATES = ("learning_rate", "final_learning_rate")

Config = TypeVar("Config", bound=AgentConfig)


def with_halved_rate(config: Config, times: int) -> Config:
    """The same options with the learning rate divided by two, `times` times.

    Raises:
        ConfigError: the agent has no option `learning_rate`.
    """
    names = {field.name for field in fields(config)}
    if "learning_rate" not in names:
        raise ConfigError(
            f"on_nan='rollback' halves the option learning_rate, and {config.label} has none: its "
            "steps have another measure. Leave on_nan at 'stop'."
        )
    rates = {name: getattr(config, name) / 2**times for name in _RATES if name in names}
    return replace(config, **rates)


class Rollback:
    """The state of the last good iteration of a run, in its folder."""

    def __init__(self, run: Run, options: RunOptions, build: Callable[[int], Agent]) -> None:
        """Holds what is needed to go back.

        Args:
            run: in whose folder the state is kept.
            options: of the run: the most rollbacks, and the checkpoints to keep.
            build: makes the agent before training, given how often its learning rate was halved.
        """
        self._run, self._options, self._build = run, options, build

    def keep(self, agent: Agent, progress: Progress) -> None:
        """Keeps the state, if it belongs to one of the fixed iterations."""
        if progress.iteration % ROLLBACK_ITERATIONS == 0:
            self._run.save_good_state(agent, progress)

    def go_back(self, error: NonFiniteError, progress: Progress) -> tuple[Agent, Progress]:
        """The agent and the progress from which training continues after `error`.

        Environment steps and seconds go on: what was thrown away was spent, too.

        Raises:
            NonFiniteError: `error`, if there was the last rollback before, or the kept state is of
                a later time.
        """
        count = progress.rollbacks + 1
        if count > self._options.max_rollbacks:
            raise error
        agent = self._build(count)
        kept = self._run.load_good_state(agent) or Progress()
        if kept.iteration > progress.iteration or kept.rollbacks > progress.rollbacks:
            raise error
        log.warning(
            "%s Rollback %d of %d: training goes back to iteration %d, with the learning rate "
            "halved.",
            *(error, count, self._options.max_rollbacks, kept.iteration),
        )
        progress = replace(progress, iteration=kept.iteration, rollbacks=count)
        self._run.save(agent, progress, keep=self._options.checkpoints)
        return agent, progress
