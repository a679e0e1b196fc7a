"""Compares RL^2 with three baselines of stable-baselines3 in the same unseen tasks.

* PPO from scratch in each unseen task. Its learning curve over episodes of experience in the task
  is its adaptation curve.
* PPO trained on many tasks without knowing the task, then fine-tuned in each unseen task.
* PPO trained on many tasks with the task as an input, in training and evaluation: an upper bound.

All are evaluated with the tasks and the noise of the RL^2 run and drawn in one figure over episodes
of experience in the task.

    python experiments/sb3_baselines.py --rl2 runs/rl2-PointNavigation-v0-seed0

Without `--rl2` a short run is trained first. Learning curves depend on PPO's hyper-parameters.
They were chosen by hand on point navigation and are the same for all three.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import tyro
from gymnasium import spaces
from stable_baselines3 import PPO

import metarl


@dataclass(frozen=True, kw_only=True)
class Options:
    """RL^2 and three baselines of stable-baselines3 in the same unseen tasks."""

    task: str = "metarl/PointNavigation-v0"
    """id of the family"""
    tasks: int = 20
    """unseen tasks"""
    steps: int = 400_000
    """environment steps of the training on many tasks"""
    experience: tuple[int, ...] = (0, 8, 16, 32, 64, 128, 256)
    """training episodes in an unseen task before each evaluation"""
    lanes: int = 8
    """parallel environments of PPO in an unseen task; must divide each `experience`"""
    rl2: Path | None = None
    """run of RL^2 to compare with; by default a short one is trained"""
    rl2_iterations: int = 100
    """meta-iterations of that short run"""
    seed: int = 0
    """seed of all training"""
    evaluation_seed: int = 0
    """seed of the evaluation's tasks and noise"""
    out: Path = Path("runs/sb3-baselines")
    """parent of the run folders and the figure"""


def main(options: Options) -> None:
    """Train, evaluate, plot."""
    torch.set_num_threads(1)  # more threads do not speed up networks of two layers
    run = options.rl2 or train_rl2(options)
    curves = metarl.evaluate(run, num_tasks=options.tasks, seed=options.evaluation_seed)[:1]
    multi_task, informed = train_ppo(options), train_ppo(options, informed=True)
    scratch = PPOPerTask(options, None)
    curves += evaluate(options, "ppo", "PPO from scratch", scratch.stages(), references=True)
    tuned = PPOPerTask(options, multi_task)
    curves += evaluate(options, "ppo-tuned", "PPO on all tasks, fine-tuned", tuned.stages())
    informed_policy = metarl.sb3_policy(informed, options.task, informed=True)
    # It does not learn in the unseen tasks: its curve is constant.
    constant = dict.fromkeys(options.experience, informed_policy)
    curves += evaluate(options, "ppo-informed", "PPO with the task as input", constant)
    for curve in curves:
        returns = "  ".join(f"{value:7.2f}" for value in curve.returns.mean(1))
        before = "  ".join(f"{episode - 1:7d}" for episode in curve.episode)
        print(f"{'episodes before':30} {before}\n{curve.label:30} {returns}")
    folders = [run, *(options.out / name for name in ("ppo", "ppo-tuned", "ppo-informed"))]
    print(*metarl.plot(folders, out=options.out / "adaptation"), sep="\n")


def train_rl2(options: Options) -> metarl.Run:
    """A short run of RL^2."""
    return metarl.train(
        "rl2",
        options.task,
        num_tasks=128,
        iterations=options.rl2_iterations,
        seed=options.seed,
        out=options.out / "rl2",
        resume=True,
        threads=1,
    )


def train_ppo(options: Options, *, informed: bool = False) -> PPO:
    """PPO with a new task in every episode; the task is an input if `informed`."""
    env = metarl.to_sb3_vec_env(options.task, 64, informed=informed, seed=options.seed)
    return new_ppo(env, options.seed).learn(options.steps)


def new_ppo(env: Any, seed: int) -> PPO:
    """An untrained model. Each update uses whole episodes, or ten steps if those are shorter."""
    steps = env.get_attr("family", 0)[0].episode_steps
    small = env.action_space.high.min() if isinstance(env.action_space, spaces.Box) else 1.0
    return PPO(
        "MlpPolicy",
        env,
        n_steps=max(steps, 10),
        batch_size=max(steps, 10) * env.num_envs // 4,
        learning_rate=1e-3,
        gamma=0.95,
        # Scaled to the range of the actions, which may be small; the default is 1.
        policy_kwargs={"log_std_init": float(torch.tensor(small).log())},
        seed=seed,
        device="cpu",
    )


class PPOPerTask:
    """One model for each task, which continues learning in it from one evaluation to the next."""

    def __init__(self, options: Options, initial: PPO | None) -> None:
        """Every model starts with the parameters of `initial`, or untrained."""
        self._options, self._initial = options, initial
        self._length = metarl.make_family(options.task).episode_steps
        self._models: list[PPO] = []

    def stages(self) -> dict[int, Callable[[torch.Tensor], metarl.Policy]]:
        """Policies by episodes of experience, as `metarl.evaluate_policy` takes them."""
        return {episodes: self._after(episodes) for episodes in self._options.experience}

    def _after(self, episodes: int) -> Callable[[torch.Tensor], metarl.Policy]:
        def build(tasks: torch.Tensor) -> metarl.Policy:
            if not self._models:
                self._models = [self._new_model(task, seed) for seed, task in enumerate(tasks)]
            for model in self._models:
                missing = episodes * self._length - model.num_timesteps
                if missing > 0:
                    model.learn(missing, reset_num_timesteps=False)
            return PolicyPerTask(
                [metarl.sb3_policy(model, self._options.task)(tasks) for model in self._models]
            )

        return build

    def _new_model(self, task: torch.Tensor, seed: int) -> PPO:
        env = metarl.to_sb3_vec_env(
            self._options.task, self._options.lanes, tasks=task.unsqueeze(0), seed=seed
        )
        model = new_ppo(env, self._options.seed + seed)
        if self._initial is not None:
            model.policy.load_state_dict(self._initial.policy.state_dict())
        return model


@dataclass(frozen=True)
class PolicyPerTask:
    """Policy n acts in task n."""

    policies: list[metarl.Policy]

    def initial_memory(self, lanes: int, horizon: int) -> list[metarl.Memory]:
        """One memory for each policy."""
        lanes_per_task = lanes // len(self.policies)
        return [policy.initial_memory(lanes_per_task, horizon) for policy in self.policies]

    def act(
        self, percept: metarl.Percept, memory: list[metarl.Memory], noise: metarl.LaneNoise
    ) -> metarl.PolicyOutput:
        """Policies act one after the other, because they are different networks."""
        percepts = percepts_by_task(percept, len(self.policies))
        outputs = [
            policy.act(part, state, noise)  # each draws its own number
            for policy, part, state in zip(self.policies, percepts, memory, strict=True)
        ]
        return metarl.PolicyOutput(
            torch.cat([output.action for output in outputs]),
            torch.cat([output.log_prob for output in outputs]),
            [output.memory for output in outputs],
        )


def percepts_by_task(percept: metarl.Percept, num_tasks: int) -> list[metarl.Percept]:
    """The percepts of the lanes of each task."""
    names = [field.name for field in fields(percept)]
    columns = [getattr(percept, name).chunk(num_tasks) for name in names]
    return [
        metarl.Percept(**dict(zip(names, parts, strict=True)))
        for parts in zip(*columns, strict=True)
    ]


def evaluate(
    options: Options, agent: str, label: str, policy: Any, *, references: bool = False
) -> list[metarl.Curve]:
    """Curves in the evaluation tasks, written to a folder named after the agent."""
    return metarl.evaluate_policy(
        policy,
        options.task,
        agent=agent,
        label=label,
        episodes=1,
        num_tasks=options.tasks,
        seed=options.evaluation_seed,
        references=references,
        out=options.out / agent,
        progress=True,
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
