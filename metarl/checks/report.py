"""A task goes in, what it keeps and breaks comes out as a report."""

import textwrap
from dataclasses import dataclass
from typing import Any

from metarl.bridges.gym_family import EnvFamily
from metarl.checks.batched_checks import FAMILY_PROMISES
from metarl.checks.episode_checks import LIFE_PROMISES, SAFETY_PROMISES
from metarl.checks.framework import Finding, Subject
from metarl.checks.parallel_checks import LANE_PROMISES
from metarl.checks.task_checks import ADAPTATION_PROMISES, TASK_PROMISES
from metarl.errors import ConfigError, TaskContractError
from metarl.registry import make_family
from metarl.tasks.family import TaskDistribution, TaskFamily

WIDTH = 96


class BrokenPromisesError(TaskContractError):
    """A task environment breaks promises; the message is the report on these."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found about every promise."""

    task: str
    """id or class"""
    findings: tuple[Finding, ...]
    """one for each promise, in the order in which they were examined"""

    @property
    def broken(self) -> tuple[Finding, ...]:
        """Those that need mending."""
        return tuple(finding for finding in self.findings if finding.verdict == "broken")

    def __str__(self) -> str:
        """One line per promise, with an explanation where it is broken."""
        return "\n".join([self.task, *map(_paragraph, self.findings), _verdict(self)])


def check_task(
    task: str | TaskDistribution, *, workers: int = 2, seed: int = 0, **options: Any
) -> Report:
    """Raises an error unless the task environment keeps all promises; for your own tests.

    Args:
        task: id of an ordinary Gymnasium environment or of a task family, or the family itself.
        workers: processes that are tried beside this one; 0 saves the seconds that they cost.
        seed: of all that is drawn; equal seeds are equal examinations.
        options: options of the task, where `task` is an id.

    Returns:
        The report, in which nothing is broken.

    Raises:
        BrokenPromisesError: promises are broken; all of them are explained.
        UnknownNameError: there is no such task.
        ConfigError: an option does not exist or is out of range.
    """
    report = examine_task(task, workers=workers, seed=seed, **options)
    if report.broken:
        broken = Report(task=report.task, findings=report.broken)
        raise BrokenPromisesError(str(broken))
    return report


def examine_task(
    task: str | TaskDistribution, *, workers: int = 2, seed: int = 0, **options: Any
) -> Report:
    """The findings about every promise; `check_task` explains the arguments.

    Raises:
        UnknownNameError: there is no such task.
        ConfigError: an option does not exist or is out of range.
    """
    if workers < 0:
        raise ConfigError(f"workers={workers} must be 0 (try none) or more.")
    if isinstance(task, str):
        family, name = make_family(task, **options), task
    else:
        if options:
            raise ConfigError(
                f"Options {', '.join(options)} go with the id of a task, but the task was given "
                "itself; build it with these options."
            )
        family, name = task, getattr(task, "task_id", type(task).__name__)
    if not isinstance(family, EnvFamily | TaskFamily):
        raise ConfigError(
            f"{type(family).__name__} is neither a Gymnasium environment nor a TaskFamily, and "
            "only these can be examined."
        )
    first, *others = TASK_PROMISES
    batched = FAMILY_PROMISES if isinstance(family, TaskFamily) else ()
    promises = [first, *batched, *others, *LIFE_PROMISES, *ADAPTATION_PROMISES]
    promises += [*SAFETY_PROMISES, *LANE_PROMISES]
    subject, findings = Subject(family, workers=workers, seed=seed), list[Finding]()
    for promise in promises:
        findings.append(promise.examine(subject, findings))
    return Report(task=name, findings=tuple(findings))


def _paragraph(finding: Finding) -> str:
    head = f"  {finding.verdict:8} {finding.name}"
    if finding.verdict != "broken":
        note = f" ({finding.seen})" if finding.seen else ""
        return f"{head}: {finding.promised}{note}"
    parts = [("seen", finding.seen), ("why", finding.why), ("mend", finding.mend)]
    lines = [f"{head}: {finding.promised}"]
    for name, text in parts:
        lines += textwrap.wrap(
            f"{name + ':':6}{text}",
            WIDTH,
            initial_indent=" " * 11,
            subsequent_indent=" " * 17,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _verdict(report: Report) -> str:
    kinds = [finding.verdict for finding in report.findings]
    counted = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
    return f"{len(kinds)} promises: {', '.join(counted)}."
