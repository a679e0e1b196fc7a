"""Updates of agents in float64 by several processes; `python -m tests.rank_updates OUT` is one.

Each process learns from its share of the same experience, which one process alone has collected.
Rank 0 writes the learned states and metrics.
"""

import copy
import os
import sys
from pathlib import Path

import torch
from torch import Tensor

import metarl
from metarl.agent import Agent, AgentContext, MetaBatch, Phase
from metarl.agents.gradient.agent import GradientAgent
from metarl.noise import LaneNoise, lane_keys
from metarl.ranks import ALONE, Ranks
from metarl.registry import agent_config
from metarl.rollout import RolloutSpec, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution
from metarl.training.process_ranks import joined_ranks
from metarl.trajectory import Trajectory

TASKS, ROLLOUTS = 8, 4
BANDIT = ("metarl/BernoulliBandit-v0", {"arms": 3, "pulls": 5})
WALK = ("metarl/PointNavigation-v0", {"steps": 6})
GRID = ("metarl/GridNavigation-v0", {})
MAZE = ("metarl/KrazyWorld-v0", {})
SMALL = {"num_tasks": TASKS, "rollouts_per_task": ROLLOUTS}
MEMORY = {**SMALL, "hidden_size": 8, "num_minibatches": 4}
GRADIENT = {**SMALL, "hidden_sizes": (8,), "inner_lr": 0.2}
CASES = {
    "rl2": ("rl2", BANDIT, MEMORY),
    "rl2, scaled inputs": ("rl2", WALK, {**MEMORY, "normalise_inputs": True}),
    "rl2, episodes of many lengths": ("rl2", MAZE, {**MEMORY, "episodes": 2}),
    "rl2, lanes of one task in a minibatch": ("rl2", BANDIT, {**MEMORY, "num_minibatches": 32}),
    "versa": ("versa", BANDIT, MEMORY),
    "dpt": ("dpt", BANDIT, {**MEMORY, "memory": "gru"}),
    "dpt of a reference that draws": (
        "dpt",
        BANDIT,
        {**MEMORY, "memory": "gru", "reference": "thompson"},
    ),
    "dpt, guided": ("dpt", BANDIT, {**MEMORY, "memory": "gru", "guided_fraction": 0.9}),
    "dpt, actions in a box": ("dpt", WALK, {**MEMORY, "memory": "gru"}),
    "maml": ("maml", WALK, {**GRADIENT, "adaptation_steps": 2}),
    "maml, multi-step loss": (
        "maml",
        WALK,
        {**GRADIENT, "multi_step_loss": True, "shared_advantage_scale": True},
    ),
    "maml, discrete actions": ("maml", GRID, {**GRADIENT, "curvature_rollouts": 2}),
    "fomaml": ("fomaml", WALK, GRADIENT),
    "emaml": ("emaml", WALK, GRADIENT),
    "meta_sgd": ("meta_sgd", WALK, GRADIENT),
    "meta_lstm": ("meta_lstm", WALK, GRADIENT),
    "promp": ("promp", WALK, GRADIENT),
    "platipus": ("platipus", WALK, GRADIENT),
    "reptile": ("reptile", WALK, GRADIENT),
    "pretrained": ("pretrained", WALK, GRADIENT),
}


def context_of(family: TaskDistribution, ranks: Ranks) -> AgentContext:
    return AgentContext(
        observation_space=family.observation_space,
        action_space=family.action_space,
        seeds=Seeds(0),
        device=torch.device("cpu"),
        references=lambda: family.references(family.trial_episodes),
        ranks=ranks,
    )


def in_float64(agent: Agent) -> Agent:
    """The same agent, whose parameters and inputs are float64."""
    if isinstance(agent, GradientAgent):
        agent._meta_params = agent._meta_params.double()
        if agent._outer.state():
            agent._outer._meta_params.data = agent._outer._meta_params.data.double()
        return agent
    network = agent._learner.network
    network.double()
    encode = network.encode
    network.encode = lambda percepts: encode(percepts).double()
    if network.scale is not None:
        observe = network.scale.observe
        network.scale.observe = lambda rows, ranks: observe(rows.double(), ranks)
    return agent


def share_of(trajectory: Trajectory, first: int, end: int) -> Trajectory:
    """The experience in some of the tasks; what was float32 becomes float64."""

    def share(value: Tensor) -> Tensor:
        part = value[:, first:end].clone()
        return part.double() if part.is_floating_point() else part

    return Trajectory(**{name: share(value) for name, value in trajectory.columns.items()})


def adapted_batch(agent: Agent, whole: MetaBatch, ranks: Ranks) -> MetaBatch:
    """This rank's share of the experience; its own policies adapt on it in float64."""
    count = len(whole.tasks) // ranks.size
    first = ranks.first_of(count)
    tasks = whole.tasks[first : first + count]
    keys = lane_keys(Seeds(1).word("start"), count, first_task=first)
    policy = agent.start(count, LaneNoise(keys))
    phases = []
    for number, phase in enumerate(whole.phases):
        experience = share_of(phase.trajectory, first, first + count)
        cache, acted = None, policy
        if number < len(whole.phases) - 1:
            policy, cache = agent.adapt(policy, experience, LaneNoise(keys))
        phases.append(Phase(policy=acted, trajectory=experience, cache=cache))
    return MetaBatch(tasks=tasks, phases=tuple(phases))


def update(case: str, ranks: Ranks) -> dict[str, Tensor]:
    """The state after two updates, and the metrics of the second."""
    name, (task, task_options), options = CASES[case]
    family = metarl.make_family(task, **task_options)
    config = agent_config(name)(**options)
    collector = config.build(context_of(family, ALONE))
    agent = in_float64(config.build(context_of(family, ranks)))
    before = copy.deepcopy(agent.state())
    for seed in range(2):
        whole = rollout_phases(
            collector,
            family,
            family.sample_tasks(TASKS, Seeds(seed).torch("tasks")),
            adaptation_steps=collector.adaptation_steps,
            spec=RolloutSpec(
                episodes=config.episodes or family.trial_episodes, rollouts_per_task=ROLLOUTS
            ),
            seeds=Seeds(seed),
            training=True,
        )
        metrics = agent.update(adapted_batch(agent, whole, ranks))
    after = agent.state()
    changed = {key: value - before[key] for key, value in after.items() if key in before}
    return {**after, **{f"change of {key}": value for key, value in changed.items()}} | {
        f"metric {key}": torch.tensor(float(value)) for key, value in metrics.items()
    }


def main(out: Path) -> None:
    """All cases, by the ranks that the environment describes."""
    torch.set_num_threads(1)
    ranks = joined_ranks("cpu")
    states = {case: update(case, ranks) for case in CASES}
    if ranks.is_first:
        torch.save(states, out)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
