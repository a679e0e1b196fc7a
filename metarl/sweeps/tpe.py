"""Settings suggested by the tree-structured Parzen estimator of Optuna, which is an extra.

Source: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", NeurIPS.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from metarl.extras import require_extra
from metarl.seeding import Seeds
from metarl.sweeps.space import ATTEMPTS, Choice, Range, Setting, Space

SUGGESTIONS = 5
"""attempts at a new setting; then one is drawn at random"""


class Trial(NamedTuple):
    """A setting that was tried."""

    setting: Setting
    score: float | None  # None: not known, because its runs are not trained, or have failed
    is_running: bool = False


def require_optuna() -> Any:
    """The package Optuna; `MissingPackageError` if it is not installed."""
    return require_extra(
        "optuna",
        "sweep",
        'search = "tpe" needs Optuna',
        otherwise='search = "random" needs no other package.',
    )


def suggest(space: Space, trials: Sequence[Trial], seed: int) -> Setting | None:
    """The setting to try after `trials`, to find a high score; None if all were tried.

    It depends on the arguments alone, so that a search that was interrupted needs no stored state.
    Settings that are running count as bad ones, so that processes side by side try different ones.

    Args:
        space: lists and ranges.
        trials: all so far.
        seed: of the search.
    """
    optuna = require_optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tried = [trial.setting for trial in trials]
    for attempt in range(ATTEMPTS):
        rng = Seeds(seed).numpy("tpe", len(trials), attempt)
        if attempt < SUGGESTIONS:
            found = _suggestion(optuna, space, trials, int(rng.integers(2**32)))
        else:  # the best settings are all tried
            found = {name: values.draw(rng) for name, values in space.items()}
        if found not in tried:
            return found
    return None


def _suggestion(optuna: Any, space: Space, trials: Sequence[Trial], word: int) -> Setting:
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=word, constant_liar=True)
    )
    distributions = {name: _distribution(optuna, values) for name, values in space.items()}
    states = optuna.trial.TrialState
    for trial in trials:
        state = states.COMPLETE
        if trial.score is None:
            state = states.RUNNING if trial.is_running else states.FAIL
        study.add_trial(
            optuna.trial.create_trial(
                params=_indices(space, trial.setting),
                distributions=distributions,
                value=trial.score,
                state=state,
            )
        )
    found = study.ask(distributions).params
    return {name: _value(values, found[name]) for name, values in space.items()}


def _distribution(optuna: Any, values: Choice | Range) -> Any:
    kinds = optuna.distributions
    if isinstance(values, Choice):  # values may be lists, which Optuna does not take
        return kinds.CategoricalDistribution(range(len(values.values)))
    kind = kinds.IntDistribution if values.is_integer else kinds.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _indices(space: Space, setting: Setting) -> dict[str, Any]:
    """The setting as Optuna holds it: the index of a value in a list."""
    return {
        name: values.values.index(setting[name]) if isinstance(values, Choice) else setting[name]
        for name, values in space.items()
    }


def _value(values: Choice | Range, found: Any) -> Any:
    return values.values[found] if isinstance(values, Choice) else values.rounded(found)
