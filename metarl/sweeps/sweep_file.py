"""Reading the TOML file of a sweep: the settings of a training, and the values that are tried."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from metarl.agent import AgentConfig
from metarl.errors import ConfigError, MetaRLError
from metarl.evaluation.options import EvaluationOptions
from metarl.field_types import field_hints, require_known, union_members
from metarl.modules import require_imported
from metarl.options import option_names, typed_options
from metarl.registry import agent_config, family_class
from metarl.results.reading import quoted
from metarl.results.sweeps import Metric
from metarl.sweeps.space import (
    Choice,
    Range,
    Setting,
    Space,
    grid,
    random_settings,
    require_distinct,
    setting_name,
)
from metarl.sweeps.tpe import require_optuna
from metarl.sweeps.work import FINAL_SEED, require_other_tasks
from metarl.training.job import TrainingJob, training_job
from metarl.training.options import RunOptions
from metarl.training.settings_file import TrainingFile, checked_training, read_toml
from metarl.validation import require_positive

Search: TypeAlias = Literal["grid", "random", "tpe"]
_OWN = ("seeds", "search", "trials", "search_seed", "metric")
"""entries of the file above its tables"""
_FIXED_BY_SWEEP = {"seed": "seeds = [...]", "out": "--out", "resume": "the same command again"}
_EVALUATION = ("num_tasks", "seed", "split", "episodes")
_RANGE = ("min", "max", "log")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All settings of a sweep."""

    path: Path
    job: TrainingJob
    """with the fixed options; each run changes the swept ones, the seed and the folder"""
    space: Space
    plain_space: Mapping[str, Any]
    """as in the file"""
    seeds: Sequence[int]
    search: Search = "grid"
    trials: int | None = None
    """number of settings; None for a grid"""
    search_seed: int = 0
    metric: Metric = "last"
    evaluation: EvaluationOptions

    def configured(self, setting: Setting) -> AgentConfig:
        """The config of the agent with the values of a setting.

        Raises:
            ConfigError: a value is out of range, or the values do not fit each other.
        """
        try:
            return replace(self.job.config, **setting)
        except MetaRLError as error:
            raise ConfigError(f"The setting {setting_name(setting)}: {error}") from error

    def first_settings(self) -> list[Setting]:
        """The settings that are known before any is trained: none of a search by TPE."""
        if self.search == "tpe":
            return []
        if self.search == "random":
            assert self.trials is not None
            return random_settings(self.space, self.trials, self.search_seed)
        return grid(self.space)


def read_sweep(path: Path) -> Sweep:
    """Reads the file of a sweep, and checks every name and value in it.

    Raises:
        ConfigError: it cannot be read, or an entry is unknown, missing, or of another type.
        UnknownNameError: there is no such agent, task or preset.
        RunFolderError: it names a module that is not imported.
    """
    content = read_toml(path, "a TOML file with what the runs share and what differs")
    require_known(str(path), content, _known_entries())
    own = {name: content.pop(name) for name in _OWN if name in content}
    swept, evaluate = (_table(path, content, name) for name in ("sweep", "evaluate"))
    file = checked_training(content, path)
    for name, kind in ((file.agent, "agent"), (file.task, "task")):
        require_imported(name, kind)
    sweep = Sweep(
        path=path,
        job=_fixed_job(file),
        space=_space(file, swept),
        plain_space=swept,
        evaluation=_evaluation(evaluate),
        **_own_entries(path, own),
    )
    _require_search(sweep)
    return sweep


def _known_entries() -> list[str]:
    tables = ("agent_options", "task_options", "run", "sweep", "evaluate")
    return ["agent", "task", "preset", *_OWN, *tables]


def _table(path: Path, content: dict[str, Any], name: str) -> dict[str, Any]:
    value = content.pop(name, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{path} has {name} = {quoted(value)}, which must be a table, [{name}].")
    return value


def _own_entries(path: Path, own: Mapping[str, Any]) -> dict[str, Any]:
    if "seeds" not in own:
        raise ConfigError(
            f"{path} lacks seeds = [...], the seeds with which each setting is trained, such as "
            "[0, 1, 2, 3]; above the first table."
        )
    checked = typed_options(Sweep, own)
    seeds = checked["seeds"]
    if not seeds:
        raise ConfigError(f"{path} has seeds = [], which trains nothing. Name one seed or more.")
    require_distinct("seeds", seeds)
    for name in ("seeds", "search_seed"):
        numbers = checked.get(name, 0)
        for seed in numbers if name == "seeds" else [numbers]:
            if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
                raise ConfigError(f"{path} has {name} with {seed!r}; a seed is 0, 1, 2, ...")
    require_positive("trials", checked.get("trials"))
    return checked


def _fixed_job(file: TrainingFile) -> TrainingJob:
    config = agent_config(file.agent)
    of_run = set(option_names(RunOptions))
    for name in file.run:
        if name in _FIXED_BY_SWEEP:
            raise ConfigError(
                f"{file.path} has {name} under [run], which a sweep sets for each run: use "
                f"{_FIXED_BY_SWEEP[name]}."
            )
    require_known("a run", file.run, sorted(of_run))
    require_known(file.agent, file.agent_options, option_names(config), of_run)
    family, _ = family_class(file.task)
    require_known(file.task, file.task_options, option_names(family))
    options = typed_options(config, file.agent_options)
    run = RunOptions(**typed_options(RunOptions, file.run), resume=True)
    return training_job(
        file.agent,
        file.task,
        task_options=file.task_options,
        preset=file.preset,
        run=run,
        **options,
    )


def _space(file: TrainingFile, swept: Mapping[str, Any]) -> Space:
    if not swept:
        raise ConfigError(
            f"{file.path} has no [sweep], or an empty one. Name the options to try, such as "
            "learning_rate = [1e-3, 3e-3]."
        )
    config = agent_config(file.agent)
    for name in swept:
        _require_agent_option(file, name, option_names(config))
        if name in file.agent_options:
            raise ConfigError(
                f"{file.path} has {name} under [agent_options], where it is fixed, and under "
                "[sweep]. Remove one of the two."
            )
    return {name: _values(config, name, given) for name, given in swept.items()}


def _require_agent_option(file: TrainingFile, name: str, known: Sequence[str]) -> None:
    if name in known:
        return
    family, _ = family_class(file.task)
    if name in _OWN:
        raise ConfigError(
            f"{file.path} has {name} under [sweep], but it is no option of {file.agent}: write it "
            "above the first table."
        )
    if name in option_names(family) or name.startswith("task."):
        raise ConfigError(
            f"{file.path} has {name} under [sweep], an option of the task. Returns in different "
            "tasks cannot be compared: fix it under [task_options], and make a sweep for each "
            "value."
        )
    if name in option_names(RunOptions):
        raise ConfigError(
            f"{file.path} has {name} under [sweep], an option of the run, not of the agent. Fix it "
            "under [run]."
        )
    require_known(f"{file.path}, [sweep]: {file.agent}", [name], known)


def _values(config: type[AgentConfig], name: str, given: Any) -> Choice | Range:
    if isinstance(given, list):
        if not given:
            raise ConfigError(f"{name} = [] under [sweep] has no value to try. Name one or more.")
        values = tuple(typed_options(config, {name: value})[name] for value in given)
        require_distinct(name, values)
        return Choice(values)
    if isinstance(given, dict):
        return _range(config, name, given)
    raise ConfigError(
        f"{name} = {given!r} under [sweep] must be a list of values, or a range such as "
        "{ min = 1e-4, max = 1e-2, log = true }. One value is fixed under [agent_options]."
    )


def _range(config: type[AgentConfig], name: str, given: Mapping[str, Any]) -> Range:
    require_known(f"The range {name}", given, _RANGE)
    kinds = union_members(field_hints(config)[name])
    ends = [given.get(end) for end in ("min", "max")]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        raise ConfigError(f"{name} = {dict(given)} must have the numbers min and max.")
    if not {int, float} & set(kinds):
        raise ConfigError(f"{name} is no number, so it has no range: list its values.")
    is_integer = float not in kinds
    low, high = (typed_options(config, {name: end})[name] for end in ends)
    if not is_integer:
        low, high = float(low), float(high)
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{name} has log = {log!r}, which must be true or false.")
    if not low < high:
        raise ConfigError(f"{name} has min = {low} and max = {high}; min must be the lower one.")
    if log and low <= 0:
        raise ConfigError(f"{name} has min = {low}; with log = true it must be greater than zero.")
    return Range(low=low, high=high, log=log, is_integer=is_integer)


def _evaluation(given: Mapping[str, Any]) -> EvaluationOptions:
    require_known("[evaluate]", given, _EVALUATION)
    values = typed_options(EvaluationOptions, given)
    default = {"split": "train", "seed": FINAL_SEED + 1, "num_tasks": 1000}
    evaluation = EvaluationOptions(**{**default, **values}, references=("none",))
    require_other_tasks(evaluation)
    return evaluation


def _require_search(sweep: Sweep) -> None:
    """Checks the kind of the search, and every value before any is trained."""
    if sweep.search == "tpe":
        require_optuna()
    if (sweep.trials is None) != (sweep.search == "grid"):
        raise ConfigError(
            'search = "grid" tries all values, so omit trials.'
            if sweep.search == "grid"
            else f'search = "{sweep.search}" needs trials = N, the number of settings.'
        )
    first = {name: values.examples[0] for name, values in sweep.space.items()}
    for name, values in sweep.space.items():
        for value in values.examples if sweep.search == "tpe" else ():
            sweep.configured({**first, name: value})
