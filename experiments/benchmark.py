"""Measures environment steps per second of rollouts and of training; medians of repetitions.

    python experiments/benchmark.py                    # about a minute on two CPU cores

The same task family, written as an ordinary environment, and stepped by two processes:

    python experiments/benchmark.py --task metarl/PointNavigation-v0 --lanes 512
    python experiments/benchmark.py --task plain_navigation:plain/PointNavigation-v0 --lanes 512
    python experiments/benchmark.py --task plain_navigation:plain/PointNavigation-v0 --workers 2

"env" is the family under random actions; "rollout" is the family with the agent's policy; "train"
is a rollout and an update (four epochs of four minibatches). Run it on an idle machine.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import tyro

import metarl


@dataclass(frozen=True, kw_only=True)
class Options:
    """Steps per second of environment, rollout and training."""

    task: str = "metarl/BernoulliBandit-v0"
    """task family"""
    agent: str = "rl2"
    """agent"""
    lanes: tuple[int, ...] = (64, 512, 2048)
    """environments stepped together"""
    repeats: int = 15
    """timed repetitions; the median is printed, with the quartiles"""
    threads: int = 1
    """CPU threads"""
    device: str = "cpu"
    """torch device"""
    workers: int | None = None
    """processes that step ordinary Gymnasium environments; by default this one does"""


def main(options: Options) -> None:
    """Prints one table."""
    metarl.keep_freed_memory()  # as `metarl.train` does
    torch.set_num_threads(options.threads)
    family = metarl.make_family(options.task)
    print(
        f"{options.agent} on {options.task}, torch {torch.__version__}, {options.device}, ", end=""
    )
    print(f"{torch.get_num_threads()} threads; steps/s, median (quartiles)")
    print(f"{'lanes':>8} {'env':>30} {'rollout':>30} {'train':>30}")
    for lanes in options.lanes:
        config = metarl.agent_config(options.agent)(num_tasks=lanes)
        runs = workloads(family, config, device=options.device, workers=options.workers)
        rates = [measure(run, options.repeats) for run in runs]
        print(f"{lanes:8d}", *(f"{rate:>30}" for rate in rates), flush=True)


class Workloads(NamedTuple):
    """Functions that each take environment steps and return their number."""

    env: Callable[[], int]
    """the family under random actions"""
    rollout: Callable[[], int]
    """the family with the agent's policy"""
    train: Callable[[], int]
    """a rollout and an update"""


def workloads(
    family: metarl.TaskDistribution,
    config: metarl.AgentConfig,
    *,
    device: str | torch.device = "cpu",
    workers: int | None = None,
) -> Workloads:
    """Those of a new agent, with as many lanes as its meta-batch has tasks.

    Args:
        family: the tasks.
        config: of the agent.
        device: of environment and agent.
        workers: processes that step ordinary Gymnasium environments; None: this one does.
    """
    device, lanes, seeds = torch.device(device), config.num_tasks, metarl.Seeds(0)
    agent = config.build(
        metarl.AgentContext(
            observation_space=family.observation_space,
            action_space=family.action_space,
            seeds=seeds,
            device=device,
        )
    )
    tasks = family.sample_tasks(lanes, seeds.torch("tasks", device=device))
    random = family.references(1)["random"].build(tasks)
    storage = metarl.RolloutStorage()  # as `metarl.train` does

    def roll_out(policy: metarl.Policy) -> metarl.Trajectory:
        return metarl.collect(
            family,
            tasks,
            policy,
            episodes=family.trial_episodes,
            seeds=seeds,
            workers=workers,
            storage=storage,
        )

    def start() -> metarl.Policy:
        return agent.start(lanes, metarl.LaneNoise.of(seeds, "start", lanes, device=device))

    spec = metarl.RolloutSpec(
        episodes=family.trial_episodes,
        workers=workers,
        keep_next_obs=config.reads_next_obs,
    )

    def train() -> int:
        batch = metarl.rollout_phases(
            agent,
            family,
            tasks,
            adaptation_steps=agent.adaptation_steps,
            spec=spec,
            seeds=seeds,
            storage=storage,
        )
        agent.update(batch)
        return sum(trajectory.steps for trajectory in batch.trajectories)

    return Workloads(
        env=lambda: roll_out(random).steps,
        rollout=lambda: roll_out(start()).steps,
        train=train,
    )


def measure(workload: Callable[[], int], repeats: int) -> str:
    """Median and quartiles of steps per second, after two warm-up calls."""
    rates = []
    for repeat in range(repeats + 2):
        started = time.perf_counter()
        steps = workload()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if repeat >= 2:
            rates.append(steps / (time.perf_counter() - started))
    low, median, high = statistics.quantiles(rates, n=4)
    return f"{median:,.0f} ({low:,.0f}-{high:,.0f})"


if __name__ == "__main__":
    main(tyro.cli(Options))
