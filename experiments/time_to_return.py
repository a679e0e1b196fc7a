"""Seconds from the start of a process until RL² earns a given return in tasks that it never saw.

    python experiments/time_to_return.py

Bernoulli bandits of 5 arms and 10 pulls, 512 lanes, the agent's defaults; an optimal agent earns
6.64. Each seed is a process of its own, whose clock starts before Python does. Every five
iterations the agent is measured in 4,000 new tasks, off the clock.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    import metarl

LANES = 512
EVALUATION_SEED = 1_000_000
"""of the first held-out tasks"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Seconds to a held-out return, seed by seed."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """each in a process of its own, one after the other"""
    targets: tuple[float, ...] = (6.4, 6.6)
    """mean returns of a trial"""
    iterations: int = 300
    """after which the learning rate is 0"""
    num_tasks: int = 4_000
    """new tasks of each measurement"""
    child: bool = False
    """used by the script itself: measures the first seed in this process"""
    started: float = 0.0
    """used by the script itself: seconds since the epoch"""


def main(options: Options) -> None:
    """Starts a process for each seed."""
    if options.child:
        measure(options)
        return
    for seed in options.seeds:
        command = [sys.executable, __file__, "--child", "--seeds", str(seed)]
        command += ["--targets", *map(str, options.targets)]
        command += ["--iterations", str(options.iterations)]
        command += ["--num-tasks", str(options.num_tasks), "--started", str(time.time())]
        subprocess.run(command, check=True)


def measure(options: Options) -> None:
    """Trains one seed, and prints the seconds to each target."""
    learner = Learner(options.seeds[0], options.iterations)
    off_the_clock, reached = 0.0, []
    left, held_out = sorted(options.targets), 0.0
    for iteration in range(1, options.iterations + 1):
        learner.learn(iteration)
        if iteration % 5:
            continue
        paused = time.time()
        held_out = learner.held_out_return(iteration, options.num_tasks)
        while left and held_out >= left[0]:
            seconds = paused - options.started - off_the_clock
            reached.append(f"{left.pop(0)}: {seconds:.1f} s ({iteration} iterations)")
        if not left:
            break
        off_the_clock += time.time() - paused
    reached += [f"{target}: not reached" for target in left]
    print(f"seed {options.seeds[0]}: {'; '.join(reached)}; last {held_out:.3f}", flush=True)


class Learner:
    """RL² on bandits, and its returns in new tasks."""

    def __init__(self, seed: int, iterations: int) -> None:
        import torch  # takes seconds, which count

        import metarl

        metarl.keep_freed_memory()
        torch.set_num_threads(1)
        self._metarl, self._seeds = metarl, metarl.Seeds(seed)
        self._family = family = metarl.make_family("metarl/BernoulliBandit-v0", pulls=10)
        config = metarl.agent_config("rl2")(num_tasks=LANES, iterations=iterations)
        self._agent = config.build(
            metarl.AgentContext(
                observation_space=family.observation_space,
                action_space=family.action_space,
                seeds=self._seeds,
                device=torch.device("cpu"),
            )
        )
        self._storage = metarl.RolloutStorage()

    def learn(self, iteration: int) -> None:
        """A rollout in new tasks and an update."""
        self._agent.update(self._roll_out(LANES, self._seeds.child("iteration", iteration)))

    def held_out_return(self, iteration: int, num_tasks: int) -> float:
        """Mean return of a trial in new tasks."""
        seeds = self._metarl.Seeds(EVALUATION_SEED + iteration)
        (trial,) = self._roll_out(num_tasks, seeds).trajectories
        return float(trial.reward.sum(0).mean())

    def _roll_out(self, num_tasks: int, seeds: "metarl.Seeds") -> "metarl.MetaBatch":
        return self._metarl.rollout_phases(
            self._agent,
            self._family,
            self._family.sample_tasks(num_tasks, seeds.torch("tasks")),
            adaptation_steps=0,
            spec=self._metarl.RolloutSpec(episodes=self._family.trial_episodes),
            seeds=seeds,
            storage=self._storage,
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
