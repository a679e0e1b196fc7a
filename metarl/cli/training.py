"""The training of `metarl train`: one run, or one for each of several seeds."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.cli.terminal import (
    INTERRUPTED,
    SUCCESS,
    has_option,
    print_error,
    print_text,
    shell_command,
)
from metarl.errors import ConfigError, RunFolderError, SeedsError
from metarl.options import plain_options
from metarl.training.launcher import is_first_rank, require_one_process

if TYPE_CHECKING:
    from metarl.training.callbacks import Callback
    from metarl.training.run_folder import Run

# NOTE: functions import the modules that they need when they run, so that --help is fast.

SEEDS_HELP = {
    "help": "train several seeds side by side, such as 0 1 2, each in a process of its own, as "
    "many at once as there are CPU cores for their threads; --out is the parent of their folders"
}
"""metadata of the field `seeds`"""
EVALUATE_HELP = {
    "help": "evaluate the agent in 100 held-out tasks before training and after every so many "
    "iterations; the rows are in evaluation_curve.csv, and training does not change"
}
"""metadata of the field `evaluate_every`"""

TRACK_HELP = {
    "help": "log metrics, evaluations and settings to wandb, mlflow or both: --track wandb mlflow; "
    "WANDB_MODE=offline keeps them on this machine, as MLflow does without MLFLOW_TRACKING_URI"
}
"""metadata of the field `track`"""


def run_training(agent: str, task: str, options: Any, arguments: Sequence[str]) -> int:
    """Trains, and prints a summary; returns the exit code.

    Args:
        agent: its name.
        task: id of the family.
        options: with the fields `agent`, `run`, `task`, `seeds`, `evaluate_every` and `track`.
        arguments: the command line after `metarl train`.
    """
    if options.seeds:
        return _train_seeds(agent, task, options, arguments)
    from metarl.training.interruption import StoppedBySignal
    from metarl.training.loop import train
    from metarl.training.run_settings import RunConfig

    task_options = plain_options(options.task)
    config = RunConfig(
        agent=agent,
        agent_options=plain_options(options.agent),
        task=task,
        task_options=task_options,
        seed=options.run.seed,
    )
    # The folder is chosen here, so that it is known if the run is interrupted.
    folder = options.run.out or config.default_path
    run_options = dataclasses.replace(options.run, out=folder)
    try:
        run = train(
            agent,
            task,
            task_options=task_options,
            config=options.agent,
            run=run_options,
            callbacks=_callbacks(options),
        )
    except (KeyboardInterrupt, StoppedBySignal) as stop:
        if not is_first_rank():
            return _exit_code(stop)
        return _report_interruption([folder], arguments, stop)
    if is_first_rank():
        print_text(_training_summary(run))
        _print_tracked([run.path], options)
        _print_evaluation([run.path])
    return SUCCESS


def _train_seeds(agent: str, task: str, options: Any, arguments: Sequence[str]) -> int:
    require_one_process("--seeds")
    if has_option(arguments, "--seed"):
        raise ConfigError(
            "Got --seed and --seeds. Give --seed for one run, or --seeds for one run of each."
        )
    from metarl.training.interruption import StoppedBySignal
    from metarl.training.job import training_job
    from metarl.training.run_folder import load_run
    from metarl.training.seeds import seed_jobs, train_jobs

    chosen = plain_options(options.task)
    job = training_job(
        agent,
        task,
        task_options=chosen,
        config=options.agent,
        run=options.run,
        callbacks=_callbacks(options),
    )
    jobs = seed_jobs(job, options.seeds)
    folders = [job.path for job in jobs]
    try:
        train_jobs(jobs)
    except (KeyboardInterrupt, StoppedBySignal) as stop:
        return _report_interruption(folders, arguments, stop)
    except SeedsError as error:
        for folder in error.trained:
            print_text(_training_summary(load_run(folder)))
        raise
    for folder in folders:
        print_text(_training_summary(load_run(folder)))
    _print_tracked(folders, options)
    _print_evaluation(folders)
    return SUCCESS


def _callbacks(options: Any) -> "list[Callback]":
    made: list[Callback] = []
    if "wandb" in options.track:
        from metarl.tracking.wandb_tracker import WandbTracker

        made.append(WandbTracker())
    if "mlflow" in options.track:
        from metarl.tracking.mlflow_tracker import MlflowTracker

        made.append(MlflowTracker())
    if options.evaluate_every is not None:
        from metarl.evaluation.periodic import PeriodicEvaluation
        from metarl.validation import require_positive

        require_positive("evaluate_every", options.evaluate_every)
        made.append(PeriodicEvaluation(options.evaluate_every))
    return made


def _report_interruption(
    folders: Sequence[Path], arguments: Sequence[str], stop: BaseException
) -> int:
    """Prints how to go on, and returns the exit code; raises `stop` where nothing was saved."""
    from metarl.training.checkpoint import checkpoint_paths

    saved = [folder for folder in folders if checkpoint_paths(folder)]
    if not saved:
        raise stop
    again = () if has_option(arguments, "--resume") else ("--resume",)
    command = shell_command("train", *arguments, *again)
    runs = "The run is" if len(folders) == 1 else f"{len(saved)} of {len(folders)} runs are"
    where = ", ".join(map(str, saved))
    with contextlib.suppress(OSError):  # after SIGHUP the terminal may be gone
        print_error(f"Interrupted. {runs} saved in {where}; continue with\n  {command}")
    return _exit_code(stop)


def _exit_code(stop: BaseException) -> int:
    return stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else INTERRUPTED


def _training_summary(run: "Run") -> str:
    from metarl.results.learning_curves import read_metrics

    try:
        *_, last = read_metrics(run.path / "metrics.csv")
        measured = (
            f"{int(last['iteration'])} iterations, "
            f"{int(last['env_steps']):,} steps, {float(last['seconds']):.0f} s; return in training "
            f"{float(last['first_episode_return']):.3f} in the first episode of a task, "
            f"{float(last['last_episode_return']):.3f} in the last"
        )
    except (RunFolderError, KeyError, ValueError):  # it was edited or removed; the run is whole
        measured = "its metrics.csv does not tell the return in training"
    return (
        f"Trained {run.config.agent} on {run.config.task}, seed {run.config.seed}: {measured}.\n"
        f"The run is in {run.path}."
    )


def _print_tracked(folders: Sequence[Path], options: Any) -> None:
    if not options.track:
        return
    from metarl.tracking.tracker import tracked_urls

    for url in (url for folder in folders for url in tracked_urls(folder)):
        print_text(f"It is tracked at {url}")


def _print_evaluation(folders: Sequence[Path]) -> None:
    commands = "".join(f"\n  {shell_command('evaluate', folder)}" for folder in folders)
    print_text(f"Evaluate {'it' if len(folders) == 1 else 'them'} in test tasks:{commands}")
