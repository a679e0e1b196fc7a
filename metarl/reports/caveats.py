"""What a reader of a report must know before trusting its numbers."""

from collections.abc import Iterator, Sequence

from metarl.errors import MetaRLError
from metarl.reports.runs import ReportedRun
from metarl.results.comparison import Comparison
from metarl.results.reading import shortened

FEW_TASKS = 100
"""below this number of test tasks, a 95% interval of the bootstrap is often too narrow"""
UNEQUAL = 1.1
"""ratio of environment steps from which trainings count as unequal"""


def caveats(runs: Sequence[ReportedRun], comparison: Comparison | None) -> list[str]:
    """One sentence or two on each."""
    return [
        *_unevaluated(runs),
        *_unfinished(runs),
        *_unequal_training(runs),
        *_tasks(runs, comparison),
        *(_agents(comparison) if comparison is not None else ()),
    ]


def _unevaluated(runs: Sequence[ReportedRun]) -> Iterator[str]:
    for run in runs:
        if not run.is_evaluated:
            yield (
                f"{run.name} has not been evaluated, so it has no adaptation curve and no row in "
                f"the table. Run: metarl evaluate {run.folder}"
            )


def _unfinished(runs: Sequence[ReportedRun]) -> Iterator[str]:
    for run in runs:
        if run.settings is not None and run.settings.is_unfinished:
            yield (
                f"{run.name} was evaluated before the end of its training, after "
                f"{run.settings.trained}."
            )
        elif run.learning is not None and run.learning.unfinished is not None:
            yield f"{run.name} is not trained to its end: {run.learning.unfinished}."
        if run.settings is not None and run.learning is not None:
            last = len(run.learning.values)
            if run.settings.iteration < last:
                yield (
                    f"{run.name} was evaluated after {run.settings.iteration} iterations, and "
                    f"trained for {last}. Run: metarl evaluate {run.folder}"
                )


def _unequal_training(runs: Sequence[ReportedRun]) -> Iterator[str]:
    steps = {run.name: run.learning.env_steps[-1] for run in runs if run.learning is not None}
    if steps and max(steps.values()) > UNEQUAL * min(steps.values()):
        listed = ", ".join(f"{name} {count:,.0f}" for name, count in steps.items())
        yield f"Unequal training, in environment steps: {listed}."


def _tasks(runs: Sequence[ReportedRun], comparison: Comparison | None) -> Iterator[str]:
    """Whether test tasks are unseen, and whether there are enough of them."""
    if comparison is not None:
        if comparison.split != "test":
            yield (
                f"Evaluated in tasks of the split {comparison.split!r}, which occur in training: "
                "this does not measure adaptation to unseen tasks."
            )
        if comparison.num_tasks < FEW_TASKS:
            yield (
                f"Only {comparison.num_tasks} tasks were evaluated. With fewer than {FEW_TASKS}, "
                "intervals are often too narrow: evaluate with a larger --num-tasks."
            )
    seen = set()
    for run in runs:
        if run.config is None or (described := run.config.family) in seen:
            continue
        seen.add(described)
        try:
            if run.family.splits_share_tasks:
                yield f"{described}: test tasks occur in training, by design of the family."
        except (MetaRLError, ImportError) as error:
            yield (
                f"Whether training and test tasks of {described} are shared is not known: "
                f"{shortened(error)}"
            )


def _agents(comparison: Comparison) -> Iterator[str]:
    agents = [row for row in comparison.rows if row.role == "agent"]
    if single := [row.label for row in agents if row.num_runs == 1]:
        yield (
            f"One training seed only: {'; '.join(single)}. The interval covers the variation "
            "between tasks, and not that between trainings, which is often larger."
        )
    if not comparison.several and len({row.episodes for row in agents}) > 1:
        listed = "; ".join(f"{row.label} {row.episodes}" for row in agents)
        yield (
            "Last episodes are after unequal experience in the task, in episodes: "
            f"{listed}. Compare after the same with metarl compare --at."
        )
