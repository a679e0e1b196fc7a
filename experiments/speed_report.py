"""The arithmetic and the pages of a comparison of speed.

Rates are steps per second, one for each round; a ratio is formed within a round, because the speed
of a machine changes between rounds.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

ALONE = "alone"
"""the condition without other processes"""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and range of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of one number or more."""
        return cls(median=statistics.median(values), low=min(values), high=max(values))

    def text(self, pattern: str) -> str:
        """Such as 1.50 (1.20 to 1.90), each number in a format such as .2f."""
        low, high = format(self.low, pattern), format(self.high, pattern)
        return f"{self.median:{pattern}} ({low} to {high})"


def ratios(rates: Sequence[float], base: Sequence[float]) -> list[float]:
    """Rate over base rate, round by round."""
    return [rate / other for rate, other in zip(rates, base, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The rates of one worker in one job and under one condition."""

    job: str
    worker: str
    condition: str
    rates: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a comparison has measured, and how."""

    machine: Mapping[str, str]
    settings: Mapping[str, Any]
    versions: Mapping[str, Mapping[str, str]]
    """of each worker"""
    bases: Sequence[str]
    """workers that the others are compared with, those of peers first"""
    left_out: Sequence[str]
    """workers that could not be measured, and why"""
    measurements: Sequence[Measurement]

    def find(self, job: str, worker: str, condition: str) -> Measurement | None:
        """The one of these, if it was measured."""
        named = (job, worker, condition)
        found = [m for m in self.measurements if (m.job, m.worker, m.condition) == named]
        return found[0] if found else None

    def ratio(self, measurement: Measurement, *, worker: str, condition: str) -> Spread | None:
        """The ratio to another worker or condition in the same job, if that was measured."""
        base = self.find(measurement.job, worker, condition)
        return None if base is None else Spread.of(ratios(measurement.rates, base.rates))


def names(values: Sequence[str]) -> list[str]:
    """Without repetition, in the order of their first occurrence."""
    return list(dict.fromkeys(values))


def overview(report: Report) -> list[list[str]]:
    """Cells: a row for each job, a column for each worker; medians without other processes.

    In brackets the median ratio to the first base.
    """
    measured = [m for m in report.measurements if m.condition == ALONE]
    workers = names([m.worker for m in measured])
    table = [["steps per second", *workers]]
    for job in names([m.job for m in measured]):
        found = [report.find(job, worker, ALONE) for worker in workers]
        table.append([job, *("" if m is None else _short(report, m) for m in found)])
    return table


def _short(report: Report, measurement: Measurement) -> str:
    rate = f"{statistics.median(measurement.rates):,.0f}"
    for base in report.bases[:1]:
        ratio = report.ratio(measurement, worker=base, condition=ALONE)
        if ratio is not None and measurement.worker != base:
            return f"{rate} ({ratio.median:.2f})"
    return rate


def details(report: Report, condition: str) -> list[list[str]]:
    """Cells: a row for each job and worker; medians and ranges of rates and ratios.

    Args:
        report: all measurements.
        condition: the one to show; others than `ALONE` are compared with that, too.
    """
    itself = [] if condition == ALONE else ["its rate alone"]
    ratio_names = [f"ratio to {name}" for name in [*report.bases, *itself]]
    table = [["job", "worker", "steps per second", *ratio_names]]
    for m in report.measurements:
        if m.condition != condition:
            continue
        found = [report.ratio(m, worker=base, condition=condition) for base in report.bases]
        found += [report.ratio(m, worker=m.worker, condition=ALONE) for _ in itself]
        cells = ["" if ratio is None else ratio.text(".2f") for ratio in found]
        table.append([m.job, m.worker, Spread.of(m.rates).text(",.0f"), *cells])
    return table


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table, the headings first."""
    lines = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def page(report: Report) -> str:
    """The whole page: machine, settings, versions, tables."""
    versions = [
        f"- {worker}: {', '.join(f'{name} {value}' for name, value in known.items())}"
        for worker, known in report.versions.items()
    ]
    settings = ", ".join(f"{name} {value}" for name, value in report.settings.items())
    parts = [
        "# Speed of training, next to peers",
        "RL² on Bernoulli bandits with five arms, four epochs of four minibatches. Written by "
        "`experiments/benchmark_peers.py`; what it compares: [speed](../../docs/speed.md).",
        "\n".join(f"- {name}: {value}" for name, value in report.machine.items()),
        f"Settings: {settings}.",
        "\n".join([*versions, *(f"- left out: {reason}" for reason in report.left_out)]),
        f"Medians; in brackets the ratio to {report.bases[0]}." if report.bases else "Medians.",
        markdown(overview(report)),
        "Jobs are work, lanes, hidden size (where there is a network) and pulls of a trial.",
    ]
    for condition in names([m.condition for m in report.measurements]):
        parts += [
            f"## {condition[0].upper()}{condition[1:]}",
            "Median over the rounds (lowest to highest); ratios round by round.",
            markdown(details(report, condition)),
        ]
    return "\n\n".join(parts) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """All rates, and their medians and ranges."""
    rows = []
    for m in report.measurements:
        compared = {
            base: report.ratio(m, worker=base, condition=m.condition) for base in report.bases
        }
        rows.append(
            vars(m)
            | vars(Spread.of(m.rates))
            | {"ratios": {base: vars(ratio) for base, ratio in compared.items() if ratio}}
        )
    return {**vars(report), "measurements": rows}
