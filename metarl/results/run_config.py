"""What `config.json` says of a run; options of older formats get the names that they have now."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.errors import RunFolderError

FORMAT = "metarl-run-2"
"""of run folders and checkpoints that are written now"""
FORMATS = ("metarl-run-1", FORMAT)
"""that can be read"""

FIELDS = ("agent", "agent_options", "task", "task_options", "seed")

_SINCE_FORMAT_2 = {
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
_OF_EVERY_AGENT = {"copies": "rollouts_per_task"}
_BUILT_IN = ("rl2", "maml", "fomaml", "emaml", "promp", "meta_sgd", "reptile", "pretrained")
"""agents of format 1 whose options were renamed; others may use these names for something else"""


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` says about the run: agent, task, the options of both, and the seed.

    Raises:
        RunFolderError: it is missing, broken, of an unknown format, or does not say all of that.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        written_in = config.get("format")
        missing = sorted(set(FIELDS) - config.keys())
    except (OSError, ValueError, AttributeError) as error:
        raise RunFolderError(f"{path} is not a run's config.json: {error}.") from error
    if written_in not in FORMATS:
        raise RunFolderError(
            f"{path} has format {written_in!r}; this version reads "
            f"{' and '.join(map(repr, FORMATS))}."
        )
    if missing:
        raise RunFolderError(f"{path} does not say {', '.join(missing)} of the run.")
    return with_present_names({name: config[name] for name in (*FIELDS, "format")})


def with_present_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings in the present format."""
    options = config["agent_options"]
    if config.get("format") == FORMATS[0]:
        options = _renamed(config["agent"], options)
    return {**config, "agent_options": options, "format": FORMAT}


def _renamed(agent: str, options: Mapping[str, Any]) -> dict[str, Any]:
    names = _SINCE_FORMAT_2 if agent in _BUILT_IN else _OF_EVERY_AGENT
    renamed = {names.get(name, name): value for name, value in options.items()}
    if agent in _BUILT_IN and "hidden" in renamed:
        value = renamed.pop("hidden")
        renamed["hidden_sizes" if isinstance(value, list) else "hidden_size"] = value
    return renamed


_METRICS = {"gradient_norm": "grad_norm", "entropy_bonus": "entropy_coef"}


def present_metric(name: str) -> str:
    """The present name of a column of an older `metrics.csv`."""
    if name.startswith("first_policy_price_"):
        return name.replace("price", "kl_coef")
    return _METRICS.get(name, name)
