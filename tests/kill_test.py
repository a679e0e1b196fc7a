"""Kills trainings with SIGKILL at random moments and resumes them, by hand and in the tests.

    python tests/kill_test.py --kills 60 --seed 1

Each run is killed a few times, half of the times in its first 0.15 s, and then completed. Its
final checkpoint and its metrics must equal, bit for bit, those of the run that was never killed.
"""

import argparse  # noqa: I001  (metarl before torch: it bounds how long waiting threads spin)
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import metarl
import torch
from metarl.training.checkpoint import read_checkpoint

TASK = "metarl/BernoulliBandit-v0"
AGENTS: Mapping[str, Mapping[str, Any]] = {
    "rl2": {"num_tasks": 8, "hidden_size": 8, "iterations": 60},
    "maml": {"num_tasks": 4, "rollouts_per_task": 6, "hidden_sizes": (8,), "iterations": 60},
}
COMMON = {"task_options": {"arms": 3, "pulls": 5}, "checkpoint_seconds": 0.02, "progress": False}
TIMED = {"seconds", "steps_per_second", "rollout_steps_per_second"}
EARLY_SECONDS = 0.15
"""within which half of the kills happen: while folder, settings and first checkpoint are made"""
MOST_KILLS = 3
"""of one run"""


def train(agent: str, out: Path) -> None:
    """Trains, or goes on; the last checkpoint and the metrics are what is compared."""
    metarl.train(agent, TASK, out=out, resume=True, threads=1, **COMMON, **AGENTS[agent])


def start(agent: str, out: Path) -> int:
    """Starts a training in a new process, which has imported everything; returns its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        train(agent, out)
        code = 0
    finally:
        os._exit(code)


def kill_after(number: int, seconds: float) -> bool:
    """Kills a process unless it ends before; whether it was killed. Fails if it ended badly."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            assert status == 0, f"a training ended with status {status}"
            return False
        time.sleep(0.001)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return True


def stage(folder: Path) -> str:
    """How far a killed run had come."""
    if (folder / "checkpoint.safetensors").exists():
        return "with a checkpoint"
    return "with settings" if (folder / "config.json").exists() else "without settings"


def difference(one: Path, two: Path) -> str:
    """The first difference between two complete runs; empty if there is none."""
    states = [read_checkpoint(path / "checkpoint.safetensors").state for path in (one, two)]
    if states[0].keys() != states[1].keys():
        return "the checkpoints have other tensors"
    for name, value in states[0].items():
        if not torch.equal(value, states[1][name]):
            return f"{name} differs"
    rows = [
        [{k: v for k, v in row.items() if k not in TIMED} for row in metarl.read_metrics(path)]
        for path in (one / "metrics.csv", two / "metrics.csv")
    ]
    return "" if rows[0] == rows[1] else "the metrics differ"


def kill_and_resume(agent: str, folder: Path, whole: Path, kills: int, seed: int) -> Counter[str]:
    """Kills runs `kills` times altogether; returns how far they had come.

    Args:
        agent: name of the agent.
        folder: an empty folder for the runs.
        whole: the run that was never killed.
        kills: number of kills.
        seed: of the moments.

    Raises:
        AssertionError: a run could not be resumed, or differs.
    """
    moments, stages = random.Random(seed), Counter[str]()
    began = time.monotonic()
    assert not kill_after(start(agent, folder / "timed"), 600)
    duration = time.monotonic() - began
    while stages.total() < kills:
        out, killed = folder / f"{stages.total()}", 0
        for _ in range(min(MOST_KILLS, kills - stages.total())):
            longest = EARLY_SECONDS if moments.random() < 1 / 2 else duration
            if not kill_after(start(agent, out), moments.uniform(0, longest)):
                break
            killed += 1
            stages[stage(out)] += 1
        assert not kill_after(start(agent, out), 600)
        problem = difference(whole, out)
        assert not problem, f"{agent}, killed {killed} times: {problem} ({out})"
        left = [path.name for path in out.iterdir() if path.name.startswith(".")]
        assert len(left) <= killed, f"drafts are left: {left}"
    return stages


def main() -> int:
    """Runs the test for both kinds of agents."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40, help="of each agent")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    torch.set_num_threads(1)  # before the first fork
    for agent in AGENTS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            train(agent, folder / "whole")
            stages = kill_and_resume(agent, folder, folder / "whole", options.kills, options.seed)
        print(f"{agent}: {stages.total()} kills, all resumed bit for bit; {dict(stages)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
