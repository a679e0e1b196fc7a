"""`sweep`: trains every setting of a file with every seed, and compares the settings."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from metarl.errors import ConfigError, RunFolderError
from metarl.field_types import checks_arguments
from metarl.modules import import_trusted
from metarl.results.adaptation_curves import describe_family
from metarl.results.files import as_folder_error
from metarl.results.sweeps import (
    SWEEP_FILE,
    TABLE_FILE,
    Metric,
    SweepRecord,
    SweepTable,
    read_record,
    sweep_table,
    write_sweep,
    write_sweep_table,
)
from metarl.sweeps.figure import write_figure
from metarl.sweeps.queue import SweepQueue, swept_setting
from metarl.sweeps.ray_tasks import RayTasks
from metarl.sweeps.sweep_file import Sweep, read_sweep
from metarl.sweeps.work import TrainAndEvaluate
from metarl.training.children import Children
from metarl.training.executor import Executor, Work, available_cores
from metarl.training.interruption import stop_between_iterations
from metarl.training.job import TrainingJob
from metarl.training.progress import TrainingProgress
from metarl.training.torch_defaults import torch_defaults
from metarl.validation import require_positive

LOCK_FILE = "sweep.lock"
RETRIES = 1
"""further attempts at a run that has failed"""


@checks_arguments("file", "out", "processes", "ray", "retries", "progress")
@torch_defaults()
def sweep(
    file: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    processes: int | None = None,
    ray: str | None = None,
    retries: int = RETRIES,
    progress: bool = True,
    modules: Sequence[str] = (),
) -> SweepTable:
    """Trains an agent with many settings and seeds, and compares the settings.

    Each run is that of `train` with its settings and seed, in the folder `OUT/SETTING/seedK`. It is
    then evaluated in tasks for choosing. The same call goes on where an earlier one has ended: runs
    that are trained and evaluated are kept, others are resumed. Call this from code that is guarded
    by `if __name__ == "__main__":`, because each process imports the script again.

    Args:
        file: TOML file of the sweep; `docs/sweeps.md` describes it.
        out: folder of the sweep; by default `runs/NAME` for `NAME.toml`.
        processes: runs at once; by default as many as there are CPU cores for their threads.
        ray: a Ray cluster that carries out the runs: "local" starts one on this machine, "auto"
            finds the one that runs there, anything else is an address. Its machines need metarl,
            and share the file system of `out`.
        retries: how often a run that has failed is resumed.
        progress: show a progress bar.
        modules: modules that define the task or the agent and that you trust; see `load_run`.

    Returns:
        The table of the settings, best first, with the runs that have failed. It is also written
        as `sweep.csv`, and drawn as `sweep.png`.

    Raises:
        ConfigError: the file holds something unexpected, a setting is out of range, or there is no
            such cluster.
        UnknownNameError: there is no such agent, task or preset.
        RunFolderError: the folder holds other files, or runs with other settings.
        ClusterError: the Ray cluster was lost; the same call goes on.
        KeyboardInterrupt: Ctrl-C, after all runs have finished their iterations and saved them. A
            second one ends them at once.
        SystemExit: SIGTERM or SIGHUP, likewise, with code 143 or 129.
    """
    require_positive("processes", processes)
    if retries < 0:
        raise ConfigError(f"retries={retries} must be 0 or more.")
    path = Path(file)
    import_trusted(modules, path.parent)
    plan = read_sweep(path)
    folder = sweep_folder(path, out)
    record = _record(plan, folder)
    display = TrainingProgress([], 0, enabled=progress)
    queue = SweepQueue(plan, folder, record, display, retries=retries)
    _require_valid(queue.waiting_jobs, plan.metric)
    with _executor(plan, queue, display, processes, ray) as executor, _locked(folder):
        write_sweep(folder, queue.record)
        with stop_between_iterations() as stop:
            executor.run(stop)
        stop.raise_if_set()
        table = replace(sweep_table(folder, queue.record), failures=queue.failed_folders)
        write_sweep_table(folder / TABLE_FILE, table)
        write_figure(folder, table)
    return table


def _executor(
    plan: Sweep,
    queue: SweepQueue,
    display: TrainingProgress,
    processes: int | None,
    address: str | None,
) -> Executor:
    """Processes of this machine, or tasks of a cluster if an address is given."""
    options = plan.job.options
    evaluation = replace(
        plan.evaluation, device=options.device, threads=options.threads, workers=options.workers
    )
    work: Work = TrainAndEvaluate(evaluation)
    if address is not None:
        return RayTasks(
            queue, display, address=address, options=options, limit=processes, work=work
        )
    limit = processes or max(1, available_cores() // options.threads)
    return Children(queue, display, limit=limit, work=work)


def sweep_folder(file: Path, out: str | os.PathLike[str] | None) -> Path:
    """The folder of a sweep."""
    return Path("runs") / file.stem if out is None else Path(out)


def _record(plan: Sweep, folder: Path) -> SweepRecord:
    """What is tried: with TPE the settings that the folder has, too."""
    record = SweepRecord(
        agent=plan.job.agent,
        family=describe_family(plan.job.task, plan.job.task_options),
        seeds=list(plan.seeds),
        search=plan.search,
        space=plan.plain_space,
        search_seed=plan.search_seed,
        metric=plan.metric,
        split=plan.evaluation.split,
        evaluation_seed=plan.evaluation.seed,
        num_tasks=plan.evaluation.num_tasks,
        settings=[swept_setting(plan, folder, setting) for setting in plan.first_settings()],
    )
    if not (folder / SWEEP_FILE).exists():
        is_other = folder.exists() and not folder.is_dir()
        if is_other or (folder.exists() and {p.name for p in folder.iterdir()} - {LOCK_FILE}):
            raise RunFolderError(
                f"{folder} exists, and is not the folder of a sweep. Choose another with --out."
            )
        return record
    before = read_record(folder)
    if plan.search != "tpe":
        return record
    for name in ("search", "space", "search_seed", "metric"):
        if getattr(before, name) != getattr(record, name):
            raise RunFolderError(
                f"{folder} holds a search with {name} = {getattr(before, name)!r} instead of "
                f"{getattr(record, name)!r}, and each setting of it follows from those before. "
                "Restore that value, or choose another folder with --out."
            )
    return replace(record, settings=before.settings)


def _require_valid(jobs: Sequence[TrainingJob], metric: Metric) -> None:
    """Raises the error of a job that cannot start, before any is started."""
    built: set[str] = set()
    for job in jobs:
        is_started = job.open_folder().is_started
        if (name := job.path.parent.name) not in built:  # seeds differ in nothing that can fail
            built.add(name)
            agent = (job.new_agent if is_started else job.first_agent)(job.make_family())
            if metric == "total" and agent.evaluation_steps and job.config.rollouts_per_task > 1:
                raise ConfigError(
                    f'metric = "total" needs the return of every episode, but {job.agent} is '
                    "measured between its adaptation steps only. Use "
                    'metric = "last".'
                )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A context in which no other process sweeps in this folder; makes it if needed."""
    with as_folder_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(folder / LOCK_FILE, timeout=0).acquire()
        except Timeout as error:
            raise RunFolderError(
                f"Another process sweeps in {folder}. Wait until it has ended, or choose another "
                "folder with --out."
            ) from error
    with lock:
        yield
