"""Steps per second of environments, rollouts and training, and their share of the machine's limit.

The limit is the rate at which torch multiplies matrices. What an agent needs of it is counted in
the operations of torch that define it, whether the compiled library replaces them or not.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from metarl.agent import AgentConfig, AgentContext, Policy
from metarl.field_types import checks_arguments, overridden, require_known
from metarl.native.library import compiled_library, switched_off
from metarl.noise import LaneNoise
from metarl.options import option_names
from metarl.registry import agent_config, make_family
from metarl.results.files import json_text, write_text
from metarl.rollout import RolloutSpec, RolloutStorage, collect, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution
from metarl.training.options import SpeedOptions
from metarl.training.process import keep_freed_memory, torch_threads
from metarl.training.progress import tracked
from metarl.training.provenance import describe_machine, versions
from metarl.trajectory import Trajectory
from metarl.validation import as_device

WARM_UP_ROUNDS = 2
MATRIX_SIZE, MATRIX_SIZE_ON_GPU = 1024, 8192
"""rows and columns of the matrices whose product is the limit"""
MOST_COUNTED_TASKS = 512
"""of the meta-batch whose operations are counted for a GPU; a step of a larger one takes as many"""


class Workloads(NamedTuple):
    """Functions that each take environment steps and return their number."""

    env: Callable[[], int]
    """the family under random actions"""
    rollout: Callable[[], int]
    """the family with the agent's policy"""
    train: Callable[[], int]
    """rollouts and an update"""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The speed of one workload with one number of tasks."""

    work: str
    """env, rollout or train"""
    num_tasks: int
    """of the meta-batch"""
    rates: tuple[float, ...]
    """environment steps per second of each round"""
    share: float | None
    """of the limit; None where no network is computed"""

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Of the rates."""
        low, median, high = statistics.quantiles(self.rates, n=4, method="inclusive")
        return low, median, high


@checks_arguments("agent_options", "task_options")
def benchmark(
    agent: str,
    task: str,
    *,
    agent_options: Mapping[str, Any] | None = None,
    task_options: Mapping[str, Any] | None = None,
    options: SpeedOptions | None = None,
    **overrides: Any,
) -> list[Speed]:
    """Measures an agent on a family: all workloads in turn, round by round.

    Args:
        agent: its name.
        task: id of the family.
        agent_options: options of the agent that differ from the defaults; not `num_tasks`.
        task_options: options of the family that differ from the defaults.
        options: numbers of tasks, rounds and device; by default made from `overrides`.
        overrides: fields of `SpeedOptions`, such as `num_tasks=[512]`.

    Returns:
        One row for each workload and number of tasks. `out` of the options names a page and a JSON
        file with the machine and the versions.
    """
    options = overridden(options, SpeedOptions(), overrides)
    as_device(options.device)
    family = make_family(task, **(task_options or {}))
    kind = agent_config(agent)
    require_known(agent, agent_options or {}, option_names(kind))
    config = kind(**(agent_options or {}))
    keep_freed_memory()
    with torch_threads(options.threads):
        found = _measure(family, config, options)
    if options.out is not None:
        settings = {
            "agent": agent,
            "agent options": dict(agent_options or {}),
            "task": task,
            "task options": dict(task_options or {}),
            **{name: value for name, value in asdict(options).items() if name != "out"},
            "compiled library": compiled_library() or "none",
        }
        about = {"machine": describe_machine(), "versions": versions(), "settings": settings}
        rows = [asdict(speed) for speed in found]
        page, numbers = options.files
        write_text(numbers, json_text(numbers, {**about, "measurements": rows}))
        write_text(page, _page(about, found))
    return found


def _measure(family: TaskDistribution, config: AgentConfig, options: SpeedOptions) -> list[Speed]:
    jobs, shares = {}, {}
    for num_tasks in options.num_tasks:
        made = workloads(family, replace(config, num_tasks=num_tasks), options)
        for work, function in made._asdict().items():
            jobs[work, num_tasks] = function
        if torch.device(options.device).type != "cpu":  # where products are parts of larger kernels
            few = replace(config, num_tasks=min(num_tasks, MOST_COUNTED_TASKS))
            made = workloads(family, few, replace(options, device="cpu"))
        for work, function in made._asdict().items():
            shares[work, num_tasks] = 0.0 if work == "env" else _flops_per_step(function)
    rates: dict[tuple[str, int], list[float]] = {job: [] for job in jobs}
    limits = []
    rounds = options.rounds + WARM_UP_ROUNDS
    for number in tracked(range(rounds), "measuring", enabled=options.progress):
        gc.collect()
        limit = _matrix_rate(options.device)
        for job, function in jobs.items() if number % 2 else reversed(jobs.items()):
            rate = _rate(function)
            if number >= WARM_UP_ROUNDS:
                rates[job].append(rate)
        if number >= WARM_UP_ROUNDS:
            limits.append(limit)
    limit = statistics.median(limits)
    return [
        Speed(
            work=work,
            num_tasks=num_tasks,
            rates=tuple(rates[work, num_tasks]),
            share=flops * statistics.median(rates[work, num_tasks]) / limit if flops else None,
        )
        for (work, num_tasks), flops in shares.items()
    ]


def workloads(family: TaskDistribution, config: AgentConfig, options: SpeedOptions) -> Workloads:
    """Those of a new agent; its meta-batch has the config's number of tasks."""
    device, seeds = torch.device(options.device), Seeds(0)
    agent = config.build(
        AgentContext(
            observation_space=family.observation_space,
            action_space=family.action_space,
            seeds=seeds,
            device=device,
            references=lambda: family.references(episodes),
        )
    )
    episodes = config.episodes or family.trial_episodes
    tasks = family.sample_tasks(config.num_tasks, seeds.torch("tasks", device=device))
    of_env, of_rollout, of_training = RolloutStorage(), RolloutStorage(), RolloutStorage()
    spec = RolloutSpec(
        episodes=episodes,
        rollouts_per_task=config.rollouts_per_task,
        workers=options.workers,
        keep_next_obs=config.reads_next_obs,
    )

    def roll_out(policy: Policy, storage: RolloutStorage) -> Trajectory:
        return collect(
            family,
            tasks,
            policy,
            episodes=episodes,
            rollouts_per_task=config.rollouts_per_task,
            seeds=seeds,
            workers=options.workers,
            storage=storage,
        )

    def rollout() -> int:
        noise = LaneNoise.of(seeds, "start", config.num_tasks, device=device)
        return roll_out(agent.start(config.num_tasks, noise), of_rollout).steps

    def train() -> int:
        batch = rollout_phases(
            agent,
            family,
            tasks,
            adaptation_steps=agent.adaptation_steps,
            spec=spec,
            seeds=seeds,
            storage=of_training,
            training=True,
        )
        agent.update(batch)
        return sum(trajectory.steps for trajectory in batch.trajectories)

    random = family.references(1)["random"].build(tasks)
    return Workloads(env=lambda: roll_out(random, of_env).steps, rollout=rollout, train=train)


def _rate(workload: Callable[[], int]) -> float:
    started = time.perf_counter()
    steps = workload()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return steps / (time.perf_counter() - started)


def _product_flops(total: Sequence[int], one: Sequence[int], two: Sequence[int], **_: Any) -> int:
    """Of a product [..., M, K] x [..., K, N], by the shapes."""
    return 2 * math.prod(one) * two[-1]


_IN_PLACE = {torch.ops.aten.addmm_: _product_flops, torch.ops.aten.baddbmm_: _product_flops}
"""operations that torch does not count by itself"""


def _flops_per_step(workload: Callable[[], int]) -> float:
    """Multiplications and additions of matrix products, in torch's definition of the agent."""
    with switched_off(), FlopCounterMode(display=False, custom_mapping=_IN_PLACE) as counter:
        steps = workload()
    return float(counter.get_total_flops()) / steps


def _matrix_rate(device: str) -> float:
    """Operations per second of a product of two matrices in float32."""
    size = MATRIX_SIZE_ON_GPU if torch.device(device).type == "cuda" else MATRIX_SIZE
    one = torch.rand((size, size), generator=Seeds(0).torch("limit")).to(device)
    two = one.clone()

    def multiply() -> int:
        torch.mm(one, two)
        return 2 * size**3

    return max(_rate(multiply) for _ in range(3))


def table(found: Sequence[Speed]) -> list[list[str]]:
    """Cells, the headings first."""
    rows = [["tasks", "work", "steps per second", "quartiles", "share of the limit"]]
    for speed in found:
        low, median, high = speed.quartiles
        share = "" if speed.share is None else f"{speed.share:.0%}"
        quartiles = f"{low:,.0f} to {high:,.0f}"
        rows.append([f"{speed.num_tasks:,}", speed.work, f"{median:,.0f}", quartiles, share])
    return rows


def _page(about: Mapping[str, Mapping[str, Any]], found: Sequence[Speed]) -> str:
    known = [f"- {name}: {value}" for part in about.values() for name, value in part.items()]
    headings, *rows = table(found)
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        [
            "# Speed",
            "",
            *known,
            "",
            "The limit is the rate of torch's products of matrices in float32.",
            "",
            *(f"| {' | '.join(cells)} |" for cells in lines),
            "",
        ]
    )
