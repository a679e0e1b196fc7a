"""Model cards of runs, in the form of Hugging Face, and folders to share."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl.agent import WarmStartAgent
from metarl.errors import ConfigError, RunFolderError
from metarl.field_types import checks_arguments
from metarl.options import plain_options
from metarl.registry import make_family
from metarl.results.adaptation_curves import describe_family
from metarl.results.bootstrap import Estimate
from metarl.results.comparison import Comparison, compare
from metarl.results.evaluation_files import is_evaluated
from metarl.results.evaluation_settings import EvaluationSettings, read_settings
from metarl.results.files import as_folder_error, json_text, write_text
from metarl.results.reading import read_json
from metarl.tasks.family import TaskFamily
from metarl.text import visible
from metarl.training.run_folder import WEIGHTS_ONLY, Progress, Run, as_run
from metarl.training.torch_defaults import torch_defaults
from metarl.training.zoo import results_path

CARD_FILE = "README.md"
"""name of a card inside its folder, as Hugging Face wants it"""


@checks_arguments("share")
@torch_defaults()
def write_card(
    run: Run | str | os.PathLike[str],
    *,
    share: str | os.PathLike[str] | None = None,
    modules: Sequence[str] = (),
) -> Path:
    """Writes a model card: what was trained, how, and what the last evaluation measured.

    With `share`, a new folder gets `config.json`, the card, and a checkpoint of the weights alone,
    without the optimiser: what others need to use the agent. Training does not go on in it; another
    one can start from it (`init_from`).

    Args:
        run: a run or its folder.
        share: the new folder; by default the card is written into the run folder.
        modules: modules that define the task or the agent and that you trust; see `load_run`.

    Returns:
        The path of the card.

    Raises:
        RunFolderError: there is no run in this folder, or the new folder exists.
        CheckpointError: the run is not trained yet, or its checkpoint is broken.
        ConfigError: the agent has no weights apart from its optimiser.
    """
    run = as_run(run, modules=modules)
    family = run.config.make_family()
    agent = run.make_agent(family)
    progress = run.load(agent)
    folder = results_path(run.path) if share is None else Path(share)
    card = model_card(run, progress, folder.resolve().name)
    if share is not None:
        if not isinstance(agent, WarmStartAgent):
            raise ConfigError(
                f"{run.config.agent} has no method `take_weights`, which tells its weights from "
                "its optimiser. Share the run folder itself."
            )
        trained = agent.state()
        fresh = run.make_agent(family)
        assert isinstance(fresh, WarmStartAgent)
        fresh.take_weights(trained)
        _make_folder(run, folder)
        Run(path=folder, config=run.config).save(fresh, progress, keep=1)
    with as_folder_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CARD_FILE, card)
    return folder / CARD_FILE


def _make_folder(run: Run, folder: Path) -> None:
    if folder.exists():
        raise RunFolderError(f"{folder} exists; a folder to share is made new. Choose another.")
    content = {**read_json(run.path / "config.json", "a run's config.json"), WEIGHTS_ONLY: True}
    text = json_text(folder / "config.json", content)
    with as_folder_error(folder):
        folder.mkdir(parents=True)
    write_text(folder / "config.json", text)


def model_card(run: Run, progress: Progress, name: str) -> str:
    """The text of a card, in Markdown with a header of YAML.

    Args:
        run: the run.
        progress: of its checkpoint.
        name: title of the card.
    """
    config = run.config.make_agent_config()
    content = read_json(run.path / "config.json", "a run's config.json")
    settings = read_settings(run.path)
    comparison = None
    # An evaluation of another state of the agent says nothing about this one.
    if settings is not None and settings.iteration == progress.iteration:
        comparison = compare([run.path]) if is_evaluated(run.path) else None
    parts = [
        _header(run, config.label, comparison, _evaluated_family(run, settings)),
        f"# {name}",
        f"{config.label}, meta-trained on `{run.config.family}` with metarl.",
        _usage(run, name),
        _training(run, progress, content),
        _evaluation(progress, settings, comparison),
    ]
    return visible("\n\n".join(parts) + "\n", lines=True)


def _evaluated_family(run: Run, settings: EvaluationSettings | None) -> str:
    """The family with the options of the evaluation."""
    changed = {} if settings is None else settings.task_options
    return describe_family(run.config.task, {**run.config.task_options, **changed})


def _header(run: Run, label: str, comparison: Comparison | None, family: str) -> str:
    """The YAML that Hugging Face reads; JSON texts are valid YAML."""
    tags = ["meta-reinforcement-learning", "reinforcement-learning", run.config.agent]
    lines = ["library_name: metarl-suite", "tags:", *(f"- {json.dumps(tag)}" for tag in tags)]
    if comparison is not None:
        row = next(row for row in comparison.rows if row.role == "agent")
        lines += ["model-index:", f"- name: {json.dumps(label, ensure_ascii=False)}", "  results:"]
        lines += ["  - task: {type: reinforcement-learning}", "    dataset:"]
        lines += [f"      name: {json.dumps(family)}"]
        lines += [f"      type: {json.dumps(run.config.task)}", "    metrics:"]
        lines += ["    - type: mean_return_of_the_last_episode"]
        lines += [f"      value: {float(row.last.mean):.4g}"]
    return "\n".join(["---", *lines, "---"])


def _usage(run: Run, name: str) -> str:
    """Code that runs where the folder is: a trial in one environment."""
    config, family = run.config.make_agent_config(), run.config.make_family()
    adapts = run.make_agent(family).evaluation_steps > 0
    each = config.episodes or family.trial_episodes
    episodes = each * (config.rollouts_per_task if adapts and config.joins_rollouts else 1)
    episodes *= 1 + adapts
    changed = {name.partition("task.")[2]: value for name, value in _changed(run).items()}
    options = "".join(f", {name}={_literal(value)}" for name, value in changed.items() if name)
    sample = 'sample_task(env.np_random, "test")'
    if not isinstance(family, TaskFamily):
        sample = "task_space.sample()"
    seen = ", observation" if adapts and config.reads_next_obs else ""
    lines = [
        "import gymnasium",
        "import metarl",
        "",
        f"policy = metarl.load_policy({json.dumps(name, ensure_ascii=False)})  # this folder",
        f"env = gymnasium.make({json.dumps(run.config.task)}{options})",
        f"task = env.unwrapped.{sample}",
        'observation, _ = env.reset(options={"task": task})  # the task stays in later episodes',
        "policy.begin_trial()",
        f"for episode in range(1, {episodes + 1}):",
        "    ended = False",
        "    while not ended:",
        "        action = policy.act(observation)",
        "        observation, reward, terminated, truncated, _ = env.step(action)",
        f"        policy.observe(reward, terminated, truncated{seen})",
        "        ended = terminated or truncated",
    ]
    if adapts:
        lines += [
            f"    if episode == {episodes // 2}:",
            "        policy.adapt()  # to these episodes; as often as wanted",
        ]
    return "\n".join(["```python", *lines, "    observation, _ = env.reset()", "```"])


def _literal(value: Any) -> str:
    """Of Python, with the quotes that formatters want."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _training(run: Run, progress: Progress, content: Any) -> str:
    changed = _changed(run)
    versions = content.get("versions") if isinstance(content, dict) else None
    versions = versions if isinstance(versions, dict) else {}
    rows = {
        "command": "`metarl train --config config.json --out NEW`",
        "seed": run.config.seed,
        "iterations": progress.iteration,
        "environment steps": f"{progress.env_steps:,}",
        "minutes": f"{progress.seconds / 60:.1f}",
        "options that differ from the defaults": ", ".join(
            f"`{option}={value}`" for option, value in changed.items()
        )
        or "none",
        "versions": ", ".join(f"{package} {number}" for package, number in versions.items()),
    }
    if run.config.init_from is not None:
        rows["started from the weights of"] = run.config.init_from
    return "## Training\n\n" + _table(("", ""), [(key, str(value)) for key, value in rows.items()])


def _changed(run: Run) -> dict[str, Any]:
    """Options of agent and task that are not the defaults of their classes."""
    config = run.config.make_agent_config()
    family, usual = run.config.make_family(), make_family(run.config.task)
    pairs = (
        ("", plain_options(config), plain_options(type(config)())),
        ("task.", plain_options(family), plain_options(usual)),
    )
    return {
        prefix + name: value
        for prefix, ours, defaults in pairs
        for name, value in ours.items()
        if value != defaults.get(name)
    }


def _evaluation(
    progress: Progress, settings: EvaluationSettings | None, comparison: Comparison | None
) -> str:
    if settings is None:
        return "## Evaluation\n\nThis run was not evaluated."
    if comparison is None:
        return (
            f"## Evaluation\n\nThe last evaluation was after {settings.iteration} iterations, "
            f"these weights are those after {progress.iteration}: evaluate the run again."
        )
    unfinished = settings.is_unfinished
    model = f"the agent after {settings.trained}" if unfinished else "the final model"
    lines = [
        f"{comparison.num_tasks:,} {comparison.split} tasks, evaluation seed {comparison.seed}; "
        f"{model}; mean return and its 95% interval."
    ]
    changed = dict(settings.agent_options)
    changed |= {f"task.{name}": value for name, value in settings.task_options.items()}
    if changed:
        options = (f"`{name}={value}`" for name, value in changed.items())
        lines.append(f"Options that differ from training: {', '.join(options)}.")
    return "\n\n".join(["## Evaluation", " ".join(lines), _numbers(comparison)])


def _numbers(comparison: Comparison) -> str:
    heads = ["", "episodes", "first episode", "last episode", "whole trial", "score"]
    if comparison.defines_success:
        heads += ["success in the first", "success in the last"]
    rows = []
    for row in comparison.rows:
        cells = [row.first, row.last, row.total, row.score]
        if comparison.defines_success:
            cells += [row.first_success, row.last_success]
        rows.append((row.label, str(row.episodes), *map(_cell, cells)))
    return _table(heads, rows)


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    mean, low, high = (f"{float(part):.2f}" for part in estimate)
    return f"{mean} [{low}, {high}]"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = []
    for cells in (heads, ["---"] * len(heads), *rows):
        escaped = [cell.replace("|", r"\|") for cell in cells]
        lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines)
