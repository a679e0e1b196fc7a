"""What the reference policies of Bernoulli bandits earn here, beside published and computed values.

    python experiments/reference_policies.py                     # half a minute on one CPU core
    python experiments/reference_policies.py --only bandit-5x10  # seconds; keeps the other rows

Nobody is trained. Every policy lives 10,000 unseen bandits of each size through the engine, in the
very tasks and under the very luck in which `reproduce.py` measures agents. Expect every mean within
.05 (10 pulls) or .4 (100 pulls) of its computed value. Writes `reference-policies.json` and its
table, `reference-policies.md`, into `experiments/results/`.
"""

import json
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import metarl  # isort: skip  (before torch, whose waiting threads it teaches to sleep)
import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from metarl.envs.bandits.bayes_optimum import bayes_optimal_value
from metarl.envs.bandits.multi_armed import BernoulliBandit

SIZES = {f"bandit-{arms}x{pulls}": (arms, pulls) for pulls in (10, 100) for arms in (5, 10, 50)}
"""arms and pulls, under the names that `reproduce.py` gives them"""

POLICIES = {
    "random": "random",
    "thompson": "Thompson",
    "optimistic_thompson": "optimistic Thompson",
    "greedy": "greedy",
    "ucb1": "UCB1",
    "gittins": "Gittins",
    "bayes_optimal": "exact Bayes optimum",
    "best_arm": "best arm",
}
"""names of references, and what heads their columns"""

PUBLISHED_NAMES = ("random", "gittins", "thompson", "ucb1", "greedy")
PUBLISHED = {
    "bandit-5x10": (5.0, 6.6, 5.7, 6.7, 6.6),
    "bandit-10x10": (5.0, 6.6, 5.5, 6.7, 6.6),
    "bandit-50x10": (5.1, 6.5, 5.2, 6.6, 6.5),
    "bandit-5x100": (49.9, 78.3, 74.7, 78.0, 74.8),
    "bandit-10x100": (49.9, 82.8, 76.7, 82.4, 77.1),
    "bandit-50x100": (49.8, 85.2, 64.5, 84.3, 78.0),
}
"""total reward in the order of `PUBLISHED_NAMES`; Duan et al. 2016, arXiv:1611.02779, table 1"""
PUBLISHED_TASKS = 1000
PUBLISHED_ROUNDING = 0.05

GITTINS = {
    "bandit-5x10": (6.654, 0.0),
    "bandit-10x10": (6.713, 0.0),
    "bandit-50x10": (6.714, 0.0),
    "bandit-5x100": (78.59, 0.05),
    "bandit-10x100": (83.78, 0.04),
    "bandit-50x100": (85.56, 0.03),
}
"""expected total reward and its standard error, computed by another program"""

OPTIMA = ((2, 10, 6.0218), (2, 50, 31.9967), (5, 10, 6.65999), (10, 10, 6.71395))
"""arms, pulls and the exact Bayes optimum, computed beforehand"""

STEM = "reference-policies"

ABOUT = """\
# Reference policies of Bernoulli bandits

Total reward of a trial, of policies that nobody trains: lived through the engine in {tasks:,}
unseen tasks of each size, all of them in the same tasks under the same luck. With evaluation seed
{seed} and as many tasks, the [reproductions](README.md) beside this page measure agents in the
very same ones. Written by `python experiments/reference_policies.py`; versions are in [the
numbers](reference-policies.json).

In each cell: **ours** ± half the width of a 95% interval over tasks. P: published by Duan et al.
2016 ([arXiv:1611.02779](https://arxiv.org/abs/1611.02779), table 1), means over 1,000 tasks of
their own. C: computed without the engine; exactly for random (pulls / 2), the best arm (pulls x
arms / (arms + 1)) and, by the dynamic programme below, the Bayes optimum; for Gittins, the
near-optimal index of a finite horizon, by another program (simulated, with 95% error, for 100
pulls)."""

NOTES = """\
The joint error is 1.96 standard errors of both samples, theirs taken to vary as ours do, and half
a digit of rounding. With 10 arms and 100 pulls, where a mean over 1,000 tasks has a standard
error of .36, the published Gittins is .98 below C as well, and the baselines of a row may share
their tasks: that looks like a sample of hard tasks rather than like other policies. One or two of
so many would differ by luck alone. Not quite the same are Gittins, theirs for endless discounted
trials, ours for the pulls that are left (summed over all luck, ours earns 6.65999 with 5 arms and
10 pulls, more than C), and UCB1, whose bonus they tune for each size; ours is scaled by .2."""

OPTIMA_ABOUT = """\
## The exact optimum

The most that anybody can expect who does not know the task: by the project's dynamic programme
(`metarl.envs.bandits.bayes_optimum`), and what it should be, computed beforehand. Seconds are wall
time on a machine that was shared."""

TASKS_PER_BATCH = 2500
"""as in `metarl.evaluate`: each batch draws streams of its own, so it is part of the seed"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Lives the reference policies of Bernoulli bandits."""

    tasks: int = 10_000
    """unseen bandits of each size"""
    seed: int = 1_000_000
    """of tasks and luck; by default that of the reproductions"""
    only: tuple[str, ...] = ()
    """names such as bandit-5x10; by default all sizes"""
    out: Path = Path(__file__).parent / "results"
    """where the two files go"""
    threads: int | None = None
    """CPU threads; by default torch's own choice"""


def main(options: Options) -> None:
    """Lives one size after the other and writes both files after each."""
    if unknown := set(options.only) - set(SIZES):
        raise SystemExit(f"Unknown: {', '.join(sorted(unknown))}. Known: {', '.join(SIZES)}.")
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = kept_rows(options)
    optima = [solved(*optimum) for optimum in OPTIMA]
    for name in options.only or SIZES:
        rows[name] = measured(name, options)
        print(f"{name}: {rows[name]['seconds']} seconds", flush=True)
        result = {
            "command": "python experiments/reference_policies.py",
            "test_tasks": options.tasks,
            "evaluation_seed": options.seed,
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("metarl-suite", "torch", "gymnasium", "numpy")},
            "bandits": {name: rows[name] for name in SIZES if name in rows},
            "optima": optima,
        }
        (options.out / f"{STEM}.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.out / f"{STEM}.md").write_text(page(result), encoding="utf-8")


def kept_rows(options: Options) -> dict[str, Any]:
    """The rows of the file that are not lived anew."""
    path = options.out / f"{STEM}.json"
    if not options.only or not path.exists():
        return {}
    known = json.loads(path.read_text())
    if (known["test_tasks"], known["evaluation_seed"]) != (options.tasks, options.seed):
        raise SystemExit(
            f"{path} holds rows of {known['test_tasks']} tasks of seed "
            f"{known['evaluation_seed']}, not of {options.tasks} tasks of seed {options.seed}; one "
            "table shows one sample. Live all sizes (leave out --only), or choose another --out."
        )
    bandits: dict[str, Any] = known["bandits"]
    return bandits


def solved(arms: int, pulls: int, expected: float) -> dict[str, float]:
    """The exact optimum of one size, by dynamic programming, and the seconds that took."""
    started = time.perf_counter()
    value = round(bayes_optimal_value(arms, pulls), 6)
    seconds = round(time.perf_counter() - started, 3)
    return {"arms": arms, "pulls": pulls, "value": value, "expected": expected, "seconds": seconds}


def measured(name: str, options: Options) -> dict[str, Any]:
    """What each policy earns in bandits of one size, with what others say it earns."""
    started = time.perf_counter()
    arms, pulls = SIZES[name]
    family = BernoulliBandit(arms=arms, pulls=pulls)
    references = family.references(pulls)
    policies = {}
    for policy in POLICIES:
        if policy in references:
            total = total_rewards(family, references[policy], options.tasks, options.seed)
            policies[policy] = {
                "label": references[policy].label,
                "mean": round(float(total.mean()), 4),
                "interval": round(float(1.96 * total.std(ddof=1) / len(total) ** 0.5), 4),
                "published": published(name, policy),
                "computed": computed(name, policy),
            }
    seconds = round(time.perf_counter() - started, 1)
    return {"arms": arms, "pulls": pulls, "seconds": seconds, "policies": policies}


def total_rewards(
    family: BernoulliBandit, reference: metarl.Reference, num_tasks: int, seed: int
) -> NDArray[np.float64]:
    """Reward of a whole trial in each task [N], unseen ones of an evaluation seed.

    Streams have the addresses that `metarl.evaluate` gives them. So tasks and luck are the same
    for all policies here, and for the agents and references of any evaluation of equal seed.
    """
    seeds = metarl.Seeds(seed).child("evaluation")
    tasks = family.sample_tasks(num_tasks, seeds.torch("test tasks"), "test")
    totals = []
    for start in range(0, num_tasks, TASKS_PER_BATCH):
        batch = tasks[start : start + TASKS_PER_BATCH]
        lived = metarl.collect(
            family,
            batch,
            reference.build(batch),
            episodes=family.pulls,
            seeds=seeds.child("batch", start).child("phase", 0),
        )
        totals.append(lived.reward.double().sum((0, 2)).numpy())
    return np.concatenate(totals)


def published(name: str, policy: str) -> float | None:
    """The published mean, if there is one."""
    return dict(zip(PUBLISHED_NAMES, PUBLISHED[name], strict=True)).get(policy)


def computed(name: str, policy: str) -> dict[str, float] | None:
    """The expected total reward and its standard error, where it can be known without living.

    Any arm pays 1/2 on average, and the best of A uniform ones A / (A + 1).
    """
    arms, pulls = SIZES[name]
    if policy == "gittins":
        value, error = GITTINS[name]
        return {"value": value, "error": error}
    if policy == "bayes_optimal":
        return {"value": round(bayes_optimal_value(arms, pulls), 5), "error": 0.0}
    exact = {"random": pulls / 2, "best_arm": pulls * arms / (arms + 1)}
    return {"value": round(exact[policy], 4), "error": 0.0} if policy in exact else None


def page(result: dict[str, Any]) -> str:
    """The result as a page of tables."""
    bandits, tasks = result["bandits"], result["test_tasks"]
    head = f"| pulls | arms | {' | '.join(POLICIES.values())} |"
    lines = [
        *ABOUT.format(tasks=tasks, seed=result["evaluation_seed"]).splitlines(),
        "",
        head,
        "|---" * head.count(" |") + "|",
        *map(row, bandits.values()),
        "",
        apart(bandits, tasks),
        "",
        *NOTES.splitlines(),
        "",
        *OPTIMA_ABOUT.splitlines(),
        "",
        "| arms | pulls | dynamic programme | expected | seconds |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['arms']} | {one['pulls']} | {one['value']} | {one['expected']} | "
        f"{one['seconds']} |"
        for one in result["optima"]
    ]
    return "\n".join(lines) + "\n"


def row(bandit: dict[str, Any]) -> str:
    """One size of bandit: a cell for each policy, empty where the family has no such policy."""
    cells = [
        cell(bandit["policies"][name]) if name in bandit["policies"] else "" for name in POLICIES
    ]
    return f"| {bandit['pulls']} | {bandit['arms']} | {' | '.join(cells)} |"


def cell(policy: dict[str, Any]) -> str:
    """Ours, published, computed, one below the other."""
    parts = [f"**{policy['mean']:.2f}** ± {policy['interval']:.2f}"]
    if policy["published"] is not None:
        parts.append(f"P {policy['published']}")
    if known := policy["computed"]:
        error = f" ± {1.96 * known['error']:.2f}" if known["error"] else ""
        parts.append(f"C {known['value']:.{2 if error else 3}f}{error}")
    return "<br>".join(parts)


def apart(bandits: dict[str, Any], tasks: int) -> str:
    """Where ours and the published mean differ by more than both samples and rounding explain."""
    found, pairs = [], 0
    for bandit in bandits.values():
        for name, policy in bandit["policies"].items():
            if policy["published"] is None:
                continue
            pairs += 1
            difference = policy["mean"] - policy["published"]
            # Their tasks vary as ours do, but there are fewer of them.
            joint = policy["interval"] * (1 + tasks / PUBLISHED_TASKS) ** 0.5 + PUBLISHED_ROUNDING
            if abs(difference) > joint:
                size = f"{bandit['arms']} arms, {bandit['pulls']} pulls"
                found.append(f"{POLICIES[name]}, {size} ({difference:+.2f}, joint {joint:.2f})")
    text = f"Of {pairs} published means, {len(found)} differ from ours by more than the joint error"
    return f"{text}: {'; '.join(found)}." if found else f"{text}."


if __name__ == "__main__":
    main(tyro.cli(Options))
