"""Measures untrained policies in tabular MDPs and compares published and computed values.

    python experiments/tabular_references.py      # two minutes on one CPU core

Every policy runs ten episodes in each of the 10,000 unseen MDPs that `reproduce.py` uses. Expect
the total of a trial within .6 of its computed value. Writes `tabular-references.md` into
`experiments/results/`.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from reporting import EVALUATION_SEED, half_interval, version, write_text

import metarl

TASK = "metarl/TabularMDP-v0"
FLOOR = "random"
PUBLISHED = {
    "random": 100.1,
    "greedy_at_zero": 134.8,
    "epsilon_greedy_at_zero": 132.8,
    "psrl_at_zero": 138.1,
    "opsrl_at_zero": 144.1,
}
"""total of ten episodes, means over 1,000 tasks; Duan et al. 2016, arXiv:1611.02779, table 2"""
COMPUTED = {
    "random": 100.0,
    "greedy": 154.0,
    "greedy_at_zero": 136.2,
    "psrl": 134.2,
    "psrl_at_zero": 138.8,
    "oracle": 218.4,
}
"""computed by another program; standard errors up to .6"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measures policies without training in tabular MDPs."""

    tasks: int = 10_000
    """unseen MDPs"""
    out: Path = Path(__file__).parent / "results"
    """folder of the page"""


def main(options: Options) -> None:
    """Evaluates all policies and writes the page."""
    family = metarl.make_family(TASK)
    names = [name for name in family.references(family.trial_episodes) if name != FLOOR]
    curves = metarl.evaluate_policy(
        family.references(family.trial_episodes)[FLOOR].build,
        family,
        agent=FLOOR,
        num_tasks=options.tasks,
        seed=EVALUATION_SEED,
        references=names,
        progress=True,
    )
    by_label = {known.label: name for name, known in family.references(10).items()}
    lines = [
        "# Policies without training in tabular MDPs",
        "",
        f"Total of ten episodes in {options.tasks:,} unseen tasks of `{TASK}`. All policies get",
        "the same tasks and the same noise. ±: half the width of a 95% interval over tasks.",
        "Replanning: at every step instead of every episode. Published: Duan et al. 2016",
        "([arXiv:1611.02779](https://arxiv.org/abs/1611.02779), table 2), 1,000 other tasks, and a",
        "prior mean reward of 0 instead of 1. Computed: by another program, standard errors up to",
        ".6. The [reproductions](README.md) use the same tasks, of evaluation seed",
        f"{EVALUATION_SEED}.",
        "Written by `python experiments/tabular_references.py`; versions: "
        + ", ".join(f"{name} {version(name)}" for name in ("metarl-suite", "torch"))
        + ".",
        "",
        "| policy | total | first episode | tenth episode | published | computed |",
        "|---|---|---|---|---|---|",
        *(row(curve, by_label.get(curve.label, FLOOR)) for curve in curves),
    ]
    path = options.out / "tabular-references.md"
    write_text(path, "\n".join(lines) + "\n")
    print("\n".join(lines), path, sep="\n")


def row(curve: metarl.Curve, name: str) -> str:
    """One line of the table."""
    total, first, last = curve.returns.sum(0), curve.returns[0], curve.returns[-1]
    cells = (
        curve.label,
        f"{total.mean():.2f} ± {half_interval(total):.2f}",
        f"{first.mean():.2f}",
        f"{last.mean():.2f}",
        str(PUBLISHED.get(name, "")),
        str(COMPUTED.get(name, "")),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(tyro.cli(Options))
