"""A run goes in, adaptation curves on unseen tasks come out, floor and ceiling beside them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from metarl.agent import AgentConfig
from metarl.errors import ConfigError, UnknownNameError
from metarl.evaluation.protocol import Schedule, Trials
from metarl.registry import require_known, suggestion
from metarl.results.curves import FILE_NAME, Curve, write_curves
from metarl.results.step_log import FILE_NAME as TRIALS_FILE_NAME
from metarl.results.step_log import TrialLog, write_trials
from metarl.tasks.family import Reference, Split, TaskDistribution
from metarl.training.progress import tracked
from metarl.training.run_folder import Run, load_run
from metarl.validation import as_device, require_positive


def evaluate(
    run: Run | str | os.PathLike[str],
    *,
    num_tasks: int = 1000,
    seed: int = 0,
    episodes: int | None = None,
    agent_options: Mapping[str, Any] | None = None,
    task_options: Mapping[str, Any] | None = None,
    split: Split = "test",
    references: bool | Sequence[str] = True,
    label: str | None = None,
    device: str = "cpu",
    workers: int | None = None,
    progress: bool = False,
) -> list[Curve]:
    """Lives the final agent of a run, and the family's floors and ceilings, in unseen tasks.

    Every agent meets the same tasks and the same world noise (given equal `seed`, `num_tasks` and
    copies), so that curves can be compared task by task. An agent that adapts its parameters is
    measured before and after each adaptation step, in each of its copies; floors and ceilings then
    live as many episodes in a row as it has lived by its last one, and are measured at the same
    ones.

    Writes `adaptation.csv` into the run, and `trials.csv` with every step of the episodes measured
    in the first few of those tasks.

    Args:
        run: a run or its folder.
        num_tasks: tasks drawn from `split`.
        seed: of tasks and trials; independent of the training seed.
        episodes: episodes per phase; by default what the agent was trained with.
        agent_options: options of the agent that shall differ from its training, such as
            `{"rollouts_per_task": 40, "evaluation_steps": 5}`.
        task_options: options of the family that shall differ from the training, such as
            `{"pulls": 200}`, to see how far what was learnt carries; spaces must stay as they were.
        split: "test", or "train" to look for a generalisation gap.
        references: names of floors, baselines and ceilings; True for those that the family shows
            by default, ["all"] for all that it has.
        label: how the legend calls the agent; by default what its configuration says.
        device: torch device to live on.
        workers: processes that step ordinary Gymnasium environments; by default this one does.
        progress: show a progress bar.

    Returns:
        The agent's curve, then one for each reference.

    Raises:
        RunFolderError: no run is there.
        CheckpointError: it has not learnt yet, its checkpoint is broken or foreign, or an option
            of the agent gives it another network.
        UnknownNameError: the family has no such reference, or none for lives so long.
        ConfigError: a number is not positive, the split unknown, the agent or the family has no
            such option, or options of the family change its spaces.
    """
    require_measurable(num_tasks, episodes, device, split)
    run = run if isinstance(run, Run) else load_run(run)
    # Made with the options of this evaluation, learnt with those of the training.
    now = _altered(run, agent_options or {}, task_options or {})
    family = now.config.make_family()
    trained, config = run.config.make_agent_config(), now.config.make_agent_config()
    agent = now.make_agent(family, device)
    run.load(agent)
    schedule = Schedule(
        steps=agent.evaluation_steps,
        rollouts_per_task=config.rollouts_per_task,
        episodes=episodes or config.episodes or family.trial_episodes,
    )
    trials = Trials(
        family=family,
        schedule=schedule,
        num_tasks=num_tasks,
        seed=seed,
        split=split,
        device=device,
        workers=workers,
    )
    chosen = select_references(family, schedule, references)

    curves, logs = [], []
    who: tuple[str, str, str]
    for name in tracked(["", *chosen], f"evaluating {run.path.name}", enabled=progress):
        if name:
            measured = trials.measured(trials.of_reference(chosen[name]))
            who = name, chosen[name].role, chosen[name].label
        else:
            measured = trials.measured(trials.of_agent(agent))
            who = run.config.agent, "agent", label or _label(trained, config)
        names = _names(now, trials, *who)
        curves.append(Curve(**names, **vars(measured.curve)))
        logs.append(TrialLog(**names, **measured.log))
    write_curves(run.path / FILE_NAME, curves)
    write_trials(run.path / TRIALS_FILE_NAME, logs)
    return curves


def require_measurable(num_tasks: int, episodes: int | None, device: str, split: str) -> None:
    """Raises `ConfigError` unless lives can be measured so."""
    require_positive("num_tasks", num_tasks)
    require_positive("episodes", episodes)
    as_device(device)
    if split not in ("train", "test"):
        raise ConfigError(f"split={split!r} must be 'train' or 'test'.")


def _altered(run: Run, agent: Mapping[str, Any], task: Mapping[str, Any]) -> Run:
    """The run as if it had been trained with some options of its agent and its tasks changed."""
    trained = run.config.make_agent_config()
    require_known(run.config.agent, agent, [field.name for field in fields(trained)])
    changed = replace(
        run.config,
        agent_options=asdict(replace(trained, **agent)),
        task_options={**run.config.task_options, **task},
    )
    if task:
        _require_equal_spaces(run.config.make_family(), changed.make_family(), task)
    return replace(run, config=changed)


def _require_equal_spaces(
    trained: TaskDistribution, lived: TaskDistribution, options: Mapping[str, Any]
) -> None:
    for name in ("observation_space", "action_space"):
        before, after = getattr(trained, name), getattr(lived, name)
        if before != after:
            changed = ", ".join(f"{option}={value!r}" for option, value in options.items())
            raise ConfigError(
                f"With {changed} the {name} is {after}, but the agent was trained with {before}: "
                "it cannot live there. Choose options that leave the spaces as they are, or train "
                "another agent."
            )


def _label(trained: AgentConfig, config: AgentConfig) -> str:
    """How a legend calls the agent: with the options that make it another than was trained."""
    changed = [
        f"{field.name}={getattr(config, field.name)}"
        for field in fields(config)
        if field.name not in ("rollouts_per_task", "episodes", "evaluation_steps")
        and getattr(config, field.name) != getattr(trained, field.name)
    ]
    return f"{trained.label} ({', '.join(changed)})" if changed else trained.label


def _names(run: Run, trials: Trials, agent: str, role: str, label: str) -> dict[str, Any]:
    return {
        "run": run.path.name if role == "agent" else "",
        "agent": agent,
        "role": role,
        "label": label,
        "family": run.config.family,
        "split": trials.split,
        "seed": trials.seed,
    }


def select_references(
    family: TaskDistribution, schedule: Schedule, wanted: bool | Sequence[str]
) -> Mapping[str, Reference]:
    """Those that can live as long as the agent."""
    known = family.references(schedule.longest)
    if isinstance(wanted, bool):
        return {name: known[name] for name in known if wanted and known[name].by_default}
    wanted = list(known) if list(wanted) == ["all"] else wanted
    for name in wanted:
        if name not in known:
            why = f"The family has no reference {name!r}.{suggestion(name, known)}"
            if name in family.references(schedule.episodes):
                why = (
                    f"The reference {name!r} does not live {schedule.longest:,} episodes in a "
                    f"row, as the agent has by the end: {schedule.steps} times "
                    f"{schedule.rollouts_per_task} x {schedule.episodes} before its adaptation "
                    f"steps and {schedule.episodes} after them. Name others, or evaluate fewer "
                    "steps or rollouts per task."
                )
            raise UnknownNameError(f"{why} Known: {', '.join(known) or 'none'}.")
    return {name: known[name] for name in wanted}
