"""Runs all checks on a task environment and reports the findings."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metarl.bridges.gym_family import EnvFamily
from metarl.checks.batched_checks import BATCHED_CHECKS
from metarl.checks.check import Check, Finding
from metarl.checks.env_under_test import ActionFunction, EnvUnderTest
from metarl.checks.episode_checks import EPISODE_CHECKS, SEEDING_CHECKS
from metarl.checks.interface_checks import (
    close_works,
    reset_and_step_work,
    spaces_are_supported,
    tasks_lie_in_the_task_space,
)
from metarl.checks.parallel_checks import LANE_CHECKS
from metarl.checks.task_checks import TASK_CHECKS
from metarl.errors import ConfigError, TaskContractError
from metarl.field_types import checks_arguments
from metarl.registry import resolve_family
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution, TaskFamily

WIDTH = 96


class FailedChecksError(TaskContractError):
    """A task environment fails checks; the message is the report on these."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The findings of all checks."""

    task: str
    """id or class"""
    findings: tuple[Finding, ...]
    """one per check, in the order in which the checks ran"""

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings of the failed checks."""
        return tuple(finding for finding in self.findings if finding.verdict == "failed")

    def __str__(self) -> str:
        """One line per check, with an explanation if it failed."""
        return "\n".join([self.task, *map(_paragraph, self.findings), _counts(self)])


@checks_arguments("workers", "seed", "task_options")
def check_task(
    task: str | TaskDistribution,
    *,
    workers: int = 2,
    seed: int = 0,
    actions: ActionFunction | None = None,
    task_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Report:
    """Runs all checks and raises an error if one fails; for tests of your own environments.

    Args:
        task: id of an ordinary Gymnasium environment or of a task family, or the family itself.
        workers: worker processes to test; 0 tests none and saves a few seconds.
        seed: of all random draws; equal seeds give equal reports.
        actions: a function `(rng, action_space) -> actions` for environments in which random
            actions do not reach the states that matter. It returns or yields the actions of one
            rollout, which continues over episode ends and is cut after the time limit, or after 24
            steps if that is longer. Checks collect rollouts with these actions in addition to the
            built-in random ones. `rng` is a seeded `numpy.random.Generator`.
        task_options: options of the task, if `task` is an id, whatever their names.
        options: the same as keywords.

    Returns:
        The report, in which no check failed.

    Raises:
        FailedChecksError: checks failed; the message explains all of them.
        UnknownNameError: there is no such task.
        ConfigError: an option does not exist or is out of range, or `actions` raised an error or
            returned what is not in the action space.
    """
    report = run_checks(
        task,
        workers=workers,
        seed=seed,
        actions=actions,
        task_options={**(task_options or {}), **options},
    )
    if report.failed:
        failed = Report(task=report.task, findings=report.failed)
        raise FailedChecksError(str(failed))
    return report


@checks_arguments("workers", "seed", "task_options")
def run_checks(
    task: str | TaskDistribution,
    *,
    workers: int = 2,
    seed: int = 0,
    actions: ActionFunction | None = None,
    task_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Report:
    """The findings of all checks, failed ones included; for the arguments see `check_task`.

    Raises:
        UnknownNameError: there is no such task.
        ConfigError: an option does not exist or is out of range, or `actions` raised an error or
            returned what is not in the action space.
    """
    if workers < 0:
        raise ConfigError(f"workers={workers} must be 0 (test none) or more.")
    Seeds(seed)  # one that is none is no fault of the task
    family = resolve_family(task, {**(task_options or {}), **options})
    name = task if isinstance(task, str) else getattr(task, "task_id", type(task).__name__)
    if not isinstance(family, EnvFamily | TaskFamily):
        raise ConfigError(
            f"{type(family).__name__} is neither a Gymnasium environment nor a TaskFamily; only "
            "these can be checked."
        )
    env_under_test = EnvUnderTest(family, workers=workers, seed=seed, actions=actions)
    findings: dict[Check, Finding] = {}
    for check in all_checks(batched=isinstance(family, TaskFamily)):
        findings[check] = check.run(env_under_test, findings)
    return Report(task=name, findings=tuple(findings.values()))


def all_checks(*, batched: bool) -> tuple[Check, ...]:
    """All checks, each after those that it needs; `batched` includes those of a task family."""
    return (
        tasks_lie_in_the_task_space,
        *(BATCHED_CHECKS if batched else ()),
        spaces_are_supported,
        reset_and_step_work,
        close_works,
        *SEEDING_CHECKS,
        *TASK_CHECKS,
        *EPISODE_CHECKS,
        *LANE_CHECKS,
    )


def _paragraph(finding: Finding) -> str:
    head = f"  {finding.verdict:8} {finding.name}: {finding.requirement}"
    if finding.verdict != "failed":
        return f"{head} ({finding.details})" if finding.details else head
    lines = [head]
    for label, text in (("details", finding.details), ("why", finding.why), ("fix", finding.fix)):
        lines += textwrap.wrap(
            f"{label + ':':9}{text}",
            WIDTH,
            initial_indent=" " * 11,
            subsequent_indent=" " * 20,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _counts(report: Report) -> str:
    verdicts = [finding.verdict for finding in report.findings]
    counts = [f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts)]
    return f"{len(verdicts)} checks: {', '.join(counts)}."
