"""The runs of a sweep in the order in which they are started, with further attempts at failed ones.

Everything that the order depends on is on the disk or in the file of the sweep, so that a sweep
that was interrupted goes on as if it had never stopped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from metarl.results.sweeps import (
    SweepRecord,
    SweptSetting,
    read_score,
    sweep_table,
    write_sweep,
)
from metarl.sweeps.space import Choice, Setting, Space, setting_name
from metarl.sweeps.sweep_file import Sweep
from metarl.sweeps.tpe import Trial, suggest
from metarl.training.executor import Ended
from metarl.training.job import TrainingJob
from metarl.training.progress import TrainingProgress

Run = tuple[str, int]
"""the name of a setting, and a seed"""


def job_of(sweep: Sweep, out: Path, setting: Setting, seed: int) -> TrainingJob:
    """The job of one run; `ConfigError` if the setting is refused by the agent."""
    folder = out / setting_name(setting) / f"seed{seed}"
    options = replace(sweep.job.options, seed=seed, out=folder)
    return replace(sweep.job, config=sweep.configured(setting), options=options)


def swept_setting(sweep: Sweep, out: Path, setting: Setting) -> SweptSetting:
    """The setting as the record holds it."""
    description = asdict(job_of(sweep, out, setting, sweep.seeds[0]).description)
    del description["seed"]
    return SweptSetting(name=setting_name(setting), options=setting, training=description)


class SweepQueue:
    """Runs that are neither trained nor failed; with TPE, settings are added as others end."""

    def __init__(
        self,
        sweep: Sweep,
        out: Path,
        record: SweepRecord,
        display: TrainingProgress,
        *,
        retries: int,
    ) -> None:
        self._sweep = sweep
        self._out = out
        self._display = display
        self._retries = retries
        self.record = record
        self.failures: dict[Run, str] = {}
        """the last error of each run that has failed more often than it is repeated"""
        self.num_trained = 0
        self._attempts: dict[Run, int] = {}
        self._active: dict[int, Run] = {}  # by line of the display
        self._waiting: list[Run] = []
        self._jobs: dict[Run, TrainingJob] = {}
        planned = sweep.trials if sweep.search == "tpe" and sweep.trials else len(record.settings)
        self._total = planned * len(sweep.seeds)
        self._line = display.add_run("all runs", self._total)
        for setting in record.settings:
            self._add(setting)
        self._show_all()

    def _add(self, setting: SweptSetting) -> None:
        for seed in self._sweep.seeds:
            if read_score(self._out, self.record, setting, seed) is not None:
                self.num_trained += 1
                continue
            values = _typed(self._sweep.space, setting.options)
            run = (setting.name, seed)
            self._jobs[run] = job_of(self._sweep, self._out, values, seed)
            self._waiting.append(run)

    @property
    def waiting_jobs(self) -> Sequence[TrainingJob]:
        """The jobs of all runs that wait."""
        return [self._jobs[run] for run in self._waiting]

    def next_job(self) -> tuple[int, TrainingJob] | None:
        """The next run, with its line; with TPE the next setting is asked for where none waits."""
        while not self._waiting:
            if not self._ask():
                return None
        run = self._waiting.pop(0)
        self._attempts[run] = self._attempts.get(run, 0) + 1
        name, seed = run
        job = self._jobs[run]
        line = self._display.add_run(f"{name} seed {seed}", job.config.iterations)
        self._active[line] = run
        return line, job

    def end(self, line: int, ended: Ended) -> None:
        """Counts a run; one that has failed waits again, behind all others."""
        run = self._active.pop(line)
        if ended.error is not None:
            if self._attempts[run] <= self._retries:
                self._waiting.append(run)
            else:
                self.failures[run] = ended.error
        elif not ended.stopped:
            self.num_trained += 1
            self._display.hide(line)
        self._show_all()

    @property
    def failed_folders(self) -> Mapping[str, str]:
        """The errors by run folder."""
        return {str(self._out / name / f"seed{s}"): e for (name, s), e in self.failures.items()}

    @property
    def counts(self) -> str:
        """Such as '7 of 12 runs are trained, 1 has failed'."""
        failed = len(self.failures)
        text = f", {failed} {'has' if failed == 1 else 'have'} failed" * bool(failed)
        return f"{self.num_trained} of {self._total} runs are trained{text}"

    def _show_all(self) -> None:
        failed = f"{len(self.failures)} failed" * bool(self.failures)
        self._display.show_numbers(self.num_trained, failed, run=self._line)

    def _ask(self) -> bool:
        """Adds the next setting of a search by TPE; returns whether there is one."""
        sweep, known = self._sweep, self.record.settings
        if sweep.search != "tpe" or len(known) >= (sweep.trials or 0):
            return False
        scores = {
            row.name: float(row.score.mean)
            for row in sweep_table(self._out, self.record).rows
            if row.score is not None
        }
        running = {name for name, _ in self._active.values()}
        trials = [
            Trial(
                _typed(sweep.space, one.options),
                None if one.name in running else scores.get(one.name),
                one.name in running,
            )
            for one in known
        ]
        found = suggest(sweep.space, trials, sweep.search_seed)
        if found is None:
            return False
        added = swept_setting(sweep, self._out, found)
        self.record = replace(self.record, settings=[*known, added])
        write_sweep(self._out, self.record)
        self._add(added)
        return True


def _typed(space: Space, options: Mapping[str, object]) -> Setting:
    """The options of a record as values of the space: JSON knows no tuples."""
    return {
        name: next((one for one in values.examples if _same(one, options[name])), options[name])
        if isinstance(values, Choice)
        else options[name]
        for name, values in space.items()
    }


def _same(value: object, stored: object) -> bool:
    return list(value) == stored if isinstance(value, tuple) else value == stored
