"""Training with several seeds at once, each in a process of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from metarl.agent import AgentConfig
from metarl.errors import ConfigError, SeedsError
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution
from metarl.training.callbacks import Callback
from metarl.training.children import TRAINED, Children, Ended, available_cores
from metarl.training.interruption import stop_between_iterations
from metarl.training.job import TrainingJob, training_job
from metarl.training.launcher import require_one_process
from metarl.training.options import RunOptions
from metarl.training.progress import TrainingProgress
from metarl.training.run_folder import Run, load_run
from metarl.training.torch_defaults import torch_defaults


@torch_defaults()
def train_seeds(
    agent: str,
    task: str | TaskDistribution,
    *,
    seeds: Sequence[int],
    task_options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    config: AgentConfig | None = None,
    run: RunOptions | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> list[Run]:
    """Meta-trains an agent with several seeds, as many at once as there are CPU cores.

    Each seed is trained in a process of its own, by `threads` threads, and its run equals that of
    `train` with this seed. Where the seed of one run fails, the others go on. Call this from code
    that is guarded by `if __name__ == "__main__":`, because each process imports the script again.

    Args:
        agent: as in `train`, like all arguments but `seeds`.
        task: a family, or the id of one.
        seeds: one for each run.
        task_options: options of the family when `task` is an id.
        preset: name of tuned hyper-parameters for this agent and family.
        config: the agent's hyper-parameters.
        run: where and how; `out` is the parent of the folders `seed0`, `seed1`, ... With `resume`,
            existing runs go on and others are started.
        callbacks: copied to the process of each seed, so they must be picklable.
        options: fields of the agent's config and of `RunOptions`, except `seed`.

    Returns:
        The runs, in the order of the seeds.

    Raises:
        ConfigError: a seed is no whole number, there is none, one occurs twice, `seed` is given,
            too, or an option is out of range.
        RunFolderError: a run folder exists, or is resumed with other settings.
        SeedsError: some seeds have failed; names them with their errors. The runs of the others
            are complete.
        KeyboardInterrupt: Ctrl-C, after all runs have finished their iterations and saved them. A
            second one ends them at once.
        SystemExit: SIGTERM or SIGHUP, likewise, with code 143 or 129.
    """
    require_one_process("train_seeds")
    if "seed" in options or (run is not None and run.seed != RunOptions().seed):
        raise ConfigError("Got `seed` and `seeds`. One seed is trained by `train`; omit `seed`.")
    whole = training_job(
        agent,
        task,
        task_options=task_options,
        preset=preset,
        config=config,
        run=run,
        callbacks=callbacks,
        **options,
    )
    return train_jobs(seed_jobs(whole, seeds))


def train_jobs(jobs: Sequence[TrainingJob]) -> list[Run]:
    """Carries out jobs that differ in their seeds alone; errors are those of `train_seeds`."""
    are_started = [job.open_folder().is_started for job in jobs]
    first = jobs[0]
    make = first.new_agent if all(are_started) else first.first_agent
    make(first.make_family())  # reports what would fail for every seed
    titles = [f"seed {job.options.seed}" for job in jobs]
    display = TrainingProgress(titles, first.config.iterations, enabled=first.options.progress)
    limit = max(1, available_cores() // first.options.threads)
    queue = _JobList(jobs)
    with stop_between_iterations() as stop, Children(queue, display, limit=limit) as children:
        children.run(stop)
    ended = queue.ended
    if sum(end == TRAINED for end in ended.values()) < len(jobs):
        stop.raise_if_set()
    errors = {
        jobs[at].options.seed: end.error for at, end in ended.items() if end.error is not None
    }
    if errors:
        trained = [job.path for at, job in enumerate(jobs) if ended[at] == TRAINED]
        raise SeedsError(_failure_message(errors, len(trained)), trained=trained)
    return [load_run(job.path) for job in jobs]


def seed_jobs(whole: TrainingJob, seeds: Sequence[int]) -> list[TrainingJob]:
    """The job with each of the seeds.

    Raises:
        ConfigError: a seed is no whole number, there is none, one occurs twice, or one is negative.
    """
    whole_numbers = isinstance(seeds, (list, tuple, range)) and all(
        isinstance(seed, (int, np.integer)) for seed in seeds
    )
    if not whole_numbers or not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds={seeds!r} must be different whole numbers, one for each run.")
    out, jobs = whole.options.out, []
    for seed in seeds:
        folder = None if out is None else Path(out) / f"seed{Seeds(seed).root}"
        jobs.append(replace(whole, options=replace(whole.options, seed=seed, out=folder)))
    return jobs


class _JobList:
    """The jobs in order, and how those that were started ended."""

    def __init__(self, jobs: Sequence[TrainingJob]) -> None:
        self._waiting = iter(enumerate(jobs))
        self.ended: dict[int, Ended] = {}

    def next_job(self) -> tuple[int, TrainingJob] | None:
        return next(self._waiting, None)

    def end(self, line: int, ended: Ended) -> None:
        self.ended[line] = ended


def _failure_message(errors: Mapping[int, str], trained: int) -> str:
    reasons = "".join(f"\nSeed {seed}: {error}" for seed, error in sorted(errors.items()))
    return (
        f"{len(errors)} of {len(errors) + trained} seeds failed; {trained} were trained to the "
        f"end.{reasons}\nRemove the cause, and train the same seeds again with `resume`, which "
        "keeps what was trained."
    )
