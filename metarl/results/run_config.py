"""Reading `config.json` of a run; options of older formats are renamed to the current names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.errors import RunFolderError
from metarl.results.reading import quoted, read_json
from metarl.text import control_within

FORMAT = "metarl-run-3"
"""current format of run folders and checkpoints; since 3 a checkpoint has a checksum"""
FORMATS = ("metarl-run-1", "metarl-run-2", FORMAT)
"""readable formats"""

FIELDS = {"agent": str, "agent_options": dict, "task": str, "task_options": dict, "seed": int}
"""settings of a run, and their types in JSON"""
OPTIONAL = ("init_from",)
"""texts that may be missing, as in runs of earlier versions"""
_WORDS = {str: "a text", dict: "a mapping", int: "a whole number"}

MAX_NAME = 300
"""characters of the name of an agent or a task"""

_RENAMED_IN_FORMAT_2 = {
    "copies": "rollouts_per_task",
    "core": "memory",
    "lam": "gae_lambda",
    "clip": "clip_range",
    "epochs": "num_epochs",
    "minibatches": "num_minibatches",
    "entropy_bonus": "entropy_coef",
    "final_entropy_bonus": "final_entropy_coef",
    "value_weight": "value_coef",
    "max_gradient_norm": "max_grad_norm",
    "inner_rate": "inner_lr",
    "later_rate": "later_lr_scale",
    "later_decay": "later_lr_decay",
    "highest_rate": "max_inner_lr",
    "meta_rate": "outer_lr",
    "initial_price": "initial_kl_coef",
    "exploration": "exploration_coef",
    "every_step": "multi_step_loss",
    "common_scale": "shared_advantage_scale",
    "curvature_copies": "curvature_rollouts",
}
_RENAMED_FOR_ALL_AGENTS = {"copies": "rollouts_per_task"}
_BUILT_IN = ("rl2", "maml", "fomaml", "emaml", "promp", "meta_sgd", "reptile", "pretrained")
"""agents of format 1 whose options were renamed; other agents may use the old names differently"""


def read_config(folder: Path) -> dict[str, Any]:
    """Agent, task, the options of both, and the seed, from a run's `config.json`.

    Raises:
        RunFolderError: the file is missing, broken, incomplete or of an unknown format.
    """
    path = folder / "config.json"
    return checked_config(read_json(path, "a run's config.json"), path)


def checked_config(config: Any, path: Path) -> dict[str, Any]:
    """The settings of a run, in the current format.

    Args:
        config: as parsed from JSON.
        path: of the file that holds it, for messages.

    Raises:
        RunFolderError: a setting is missing or of another type, the format is unknown, or a text
            holds control characters.
    """
    if not isinstance(config, dict):
        raise RunFolderError(f"{path} is not a run's config.json: it holds {quoted(config)}.")
    run_format = config.get("format")
    if run_format not in FORMATS:
        raise RunFolderError(
            f"{path} has format {quoted(run_format)}"
            f"{', of a newer version of metarl' * is_newer(run_format)}; this version reads "
            f"{', '.join(map(repr, FORMATS))}.{' Update metarl-suite.' * is_newer(run_format)}"
        )
    if missing := sorted(FIELDS.keys() - config.keys()):
        raise RunFolderError(
            f"{path} lacks {', '.join(missing)}; a run's config.json holds {', '.join(FIELDS)}."
        )
    for name, kind in FIELDS.items():
        value = config[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise RunFolderError(
                f"{path} has {name} = {quoted(value)}, where {_WORDS[kind]} is expected. The file "
                "was edited; restore it from a copy."
            )
    for name in ("agent", "task"):
        if len(config[name]) > MAX_NAME:
            raise RunFolderError(
                f"{path} has {name} = {quoted(config[name])} of {len(config[name]):,} characters; "
                f"a name has at most {MAX_NAME}."
            )
    kept = {name: config[name] for name in (*FIELDS, "format")}
    for name in OPTIONAL:
        kept[name] = config.get(name)
        if not isinstance(kept[name], str | None):
            raise RunFolderError(
                f"{path} has {name} = {quoted(kept[name])}, where a text is expected. The file was "
                "edited; restore it from a copy."
            )
    if (text := control_within(kept)) is not None:
        raise RunFolderError(
            f"{path} holds the text {quoted(text)}, whose control characters could steer a "
            "terminal. Names and options of a run have none."
        )
    return with_current_names(kept)


def is_newer(run_format: object) -> bool:
    """Whether a format is one of a later version."""
    name, _, number = str(run_format).rpartition("-")
    current_name, _, current = FORMAT.rpartition("-")
    return name == current_name and number.isdecimal() and int(number) > int(current)


def with_current_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings in the current format."""
    options = config["agent_options"]
    if config.get("format") == FORMATS[0]:
        options = _renamed(config["agent"], options)
    return {**config, "agent_options": options, "format": FORMAT}


def _renamed(agent: str, options: Mapping[str, Any]) -> dict[str, Any]:
    names = _RENAMED_IN_FORMAT_2 if agent in _BUILT_IN else _RENAMED_FOR_ALL_AGENTS
    renamed = {names.get(name, name): value for name, value in options.items()}
    if agent in _BUILT_IN and "hidden" in renamed:
        value = renamed.pop("hidden")
        renamed["hidden_sizes" if isinstance(value, list) else "hidden_size"] = value
    return renamed


_RENAMED_METRICS = {"gradient_norm": "grad_norm", "entropy_bonus": "entropy_coef"}


def current_metric_name(name: str) -> str:
    """The current name of a column of an older `metrics.csv`."""
    if name.startswith("first_policy_price_"):
        return name.replace("price", "kl_coef")
    return _RENAMED_METRICS.get(name, name)
