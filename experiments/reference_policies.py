"""Measures reference policies of Bernoulli bandits and compares published and computed values.

    python experiments/reference_policies.py                     # half a minute on one CPU core
    python experiments/reference_policies.py --only bandit-5x10  # seconds; keeps the other rows

Nothing is trained. Every policy runs in 10,000 unseen bandits of each size, on the rollout engine,
with the tasks and the noise that `reproduce.py` uses. Expect every mean within .05 (10 pulls) or .4
(100 pulls) of its computed value. Writes `reference-policies.json` and its table,
`reference-policies.md`, into `experiments/results/`.
"""

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from reporting import NORMAL_95, half_interval, version, write_text

import metarl
from metarl.envs.bandits.bayes_optimum import bayes_optimal_value
from metarl.envs.bandits.multi_armed import BernoulliBandit

SIZES = {f"bandit-{arms}x{pulls}": (arms, pulls) for pulls in (10, 100) for arms in (5, 10, 50)}
"""arms and pulls by the name of the reproduction"""

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
"""column headings by name of the reference"""

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
"""expected total reward and its standard error, by another program"""

OPTIMA = ((2, 10, 6.0218), (2, 50, 31.9967), (5, 10, 6.65999), (10, 10, 6.71395))
"""arms, pulls and the exact Bayes optimum, by another computation"""

STEM = "reference-policies"

ABOUT = """\
# Reference policies of Bernoulli bandits

Total reward of a trial of policies without training, in {tasks:,} unseen tasks of each size. All
policies get the same tasks and the same noise. With evaluation seed {seed} and as many tasks, the
[reproductions](README.md) use the same tasks, too. Written by
`python experiments/reference_policies.py`; versions are in [the numbers](reference-policies.json).

In each cell: **measured** ± half the width of a 95% interval over tasks. P: published by Duan et
al. 2016 ([arXiv:1611.02779](https://arxiv.org/abs/1611.02779), table 1), means over 1,000 other
tasks. C: computed without rollouts; exactly for random (pulls / 2), the best arm (pulls x arms /
(arms + 1)) and, by the dynamic programme below, the Bayes optimum; for Gittins, the near-optimal
index of a finite horizon, by another program (simulated, with 95% error, for 100 pulls)."""

NOTES = """\
The joint error is 1.96 standard errors of both samples (the published sample is assumed to have
the measured variance) plus half a unit of rounding. With 10 arms and 100 pulls, where a mean over
1,000 tasks has a standard error of .36, the published Gittins is .98 below C as well, and the
baselines of a row may share their tasks. This suggests a sample of hard tasks rather than
different policies. Among this many means, one or two would differ by chance alone. Two policies are
not quite the same. The published Gittins index is for infinite discounted trials, the one here for
the remaining pulls (its exact expectation with 5 arms and 10 pulls is 6.65999, more than C). The
published UCB1 has a bonus tuned for each size; the bonus here is scaled by .2."""

OPTIMA_ABOUT = """\
## The exact optimum

The highest expected reward of a policy that does not know the task: by the project's dynamic
programme (`metarl.envs.bandits.bayes_optimum`), and the expected value by another computation.
Seconds are wall time on a shared machine."""

TASKS_PER_BATCH = 2500
"""tasks rolled out at once; changes no number"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measures reference policies of Bernoulli bandits."""

    tasks: int = 10_000
    """unseen bandits of each size"""
    seed: int = 1_000_000
    """seed of tasks and noise; by default that of the reproductions"""
    only: tuple[str, ...] = ()
    """names such as bandit-5x10; by default all sizes"""
    out: Path = Path(__file__).parent / "results"
    """folder of the two files"""
    threads: int = 1
    """CPU threads"""


def main(options: Options) -> None:
    """Measures one size after the other and writes both files after each."""
    if unknown := set(options.only) - set(SIZES):
        raise SystemExit(f"Unknown: {', '.join(sorted(unknown))}. Known: {', '.join(SIZES)}.")
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = kept_rows(options)
    optima = [solve(*optimum) for optimum in OPTIMA]
    for name in options.only or SIZES:
        rows[name] = measure(name, options)
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
        write_text(options.out / f"{STEM}.json", json.dumps(result, indent=2) + "\n")
        write_text(options.out / f"{STEM}.md", page(result))


def kept_rows(options: Options) -> dict[str, Any]:
    """The rows of the existing file that are kept."""
    path = options.out / f"{STEM}.json"
    if not options.only or not path.exists():
        return {}
    known = json.loads(path.read_text())
    if (known["test_tasks"], known["evaluation_seed"]) != (options.tasks, options.seed):
        raise SystemExit(
            f"{path} holds rows of {known['test_tasks']} tasks of seed "
            f"{known['evaluation_seed']}, not of {options.tasks} tasks of seed {options.seed}; one "
            "table shows one sample. Run all sizes (leave out --only), or choose another --out."
        )
    bandits: dict[str, Any] = known["bandits"]
    return bandits


def solve(arms: int, pulls: int, expected: float) -> dict[str, float]:
    """The exact optimum of one size, by dynamic programming, and the seconds that took."""
    started = time.perf_counter()
    value = round(bayes_optimal_value(arms, pulls), 6)
    seconds = round(time.perf_counter() - started, 3)
    return {"arms": arms, "pulls": pulls, "value": value, "expected": expected, "seconds": seconds}


def measure(name: str, options: Options) -> dict[str, Any]:
    """Measured, published and computed rewards of each policy in bandits of one size."""
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
                "interval": round(half_interval(total), 4),
                "published": published(name, policy),
                "computed": computed(name, policy),
            }
    seconds = round(time.perf_counter() - started, 1)
    return {"arms": arms, "pulls": pulls, "seconds": seconds, "policies": policies}


def total_rewards(
    family: BernoulliBandit, reference: metarl.Reference, num_tasks: int, seed: int
) -> NDArray[np.float64]:
    """Reward of a whole trial in each of N unseen tasks, [N].

    Random streams have the same addresses as in `metarl.evaluate`. So tasks and noise are the same
    for all policies here, and for the agents and references of any evaluation with the same seed.
    """
    seeds = metarl.Seeds(seed).child("evaluation")
    tasks = family.sample_tasks(num_tasks, seeds.torch("test tasks"), "test")
    totals = []
    for start in range(0, num_tasks, TASKS_PER_BATCH):
        batch = tasks[start : start + TASKS_PER_BATCH]
        trajectory = metarl.collect(
            family,
            batch,
            reference.build(batch),
            episodes=family.pulls,
            seeds=seeds.child("phase", 0),
            first_task=start,
        )
        totals.append(trajectory.reward.double().sum((0, 2)).numpy())
    return np.concatenate(totals)


def published(name: str, policy: str) -> float | None:
    """The published mean, or None."""
    return dict(zip(PUBLISHED_NAMES, PUBLISHED[name], strict=True)).get(policy)


def computed(name: str, policy: str) -> dict[str, float] | None:
    """The expected total reward and its standard error, where it is known without rollouts.

    An arm pays 1/2 on average, and the best of A uniform arms pays A / (A + 1).
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
        differences(bandits, tasks),
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
    """Measured, published and computed mean, one below the other."""
    parts = [f"**{policy['mean']:.2f}** ± {policy['interval']:.2f}"]
    if policy["published"] is not None:
        parts.append(f"P {policy['published']}")
    if known := policy["computed"]:
        error = f" ± {NORMAL_95 * known['error']:.2f}" if known["error"] else ""
        parts.append(f"C {known['value']:.{2 if error else 3}f}{error}")
    return "<br>".join(parts)


def differences(bandits: dict[str, Any], tasks: int) -> str:
    """Where the measured and the published mean differ by more than sampling and rounding error."""
    found, pairs = [], 0
    for bandit in bandits.values():
        for name, policy in bandit["policies"].items():
            if policy["published"] is None:
                continue
            pairs += 1
            difference = policy["mean"] - policy["published"]
            # The published sample is assumed to have the measured variance; it has fewer tasks.
            joint = policy["interval"] * (1 + tasks / PUBLISHED_TASKS) ** 0.5 + PUBLISHED_ROUNDING
            if abs(difference) > joint:
                size = f"{bandit['arms']} arms, {bandit['pulls']} pulls"
                found.append(f"{POLICIES[name]}, {size} ({difference:+.2f}, joint {joint:.2f})")
    text = f"Of {pairs} published means, {len(found)} differ by more than the joint error"
    return f"{text}: {'; '.join(found)}." if found else f"{text}."


if __name__ == "__main__":
    main(tyro.cli(Options))
