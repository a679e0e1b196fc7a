"""What ordinary RL does in the same tasks: three baselines of stable-baselines3 beside RL^2.

* PPO from scratch in each new task, the usual answer: its learning curve over episodes of
  experience in the task is its adaptation curve.
* PPO trained on many tasks, which cannot know in which it is, then fine-tuned in each new one.
* PPO trained on many tasks and told the task, old or new: what a learner can know at best.

They live in the same unseen tasks under the same noise as a run of RL^2, and all go into one
picture over episodes of experience in the task.

    python experiments/sb3_baselines.py --rl2 runs/rl2-PointNavigation-v0-seed0

Without `--rl2` a short run is trained first. Learning curves depend on PPO's hyper-parameters,
which were chosen by hand on point navigation, and are the same for all three.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import metarl  # isort: skip  (before torch, whose waiting threads it teaches to sleep)
import torch
import tyro
from gymnasium import spaces
from stable_baselines3 import PPO


@dataclass(frozen=True, kw_only=True)
class Options:
    """Three baselines of stable-baselines3 beside RL^2, in the same unseen tasks."""

    task: str = "metarl/PointNavigation-v0"
    """id of the family"""
    tasks: int = 20
    """unseen tasks"""
    steps: int = 400_000
    """environment steps of training on many tasks"""
    experience: tuple[int, ...] = (0, 8, 16, 32, 64, 128, 256)
    """episodes lived and learnt from in a new task before each measurement"""
    lanes: int = 8
    """environments in which PPO lives in a new task at once; divides `experience`"""
    rl2: Path | None = None
    """run of RL^2 to show beside; by default a short one is trained"""
    rl2_iterations: int = 100
    """meta-iterations of that one"""
    seed: int = 0
    """of all training"""
    evaluation_seed: int = 0
    """of tasks and noise"""
    out: Path = Path("runs/sb3-baselines")
    """where the folders and the picture go"""


def main(options: Options) -> None:
    """Trains, measures, draws."""
    torch.set_num_threads(1)  # networks of two layers: more threads only wait for each other
    run = options.rl2 or trained_rl2(options)
    curves = metarl.evaluate(run, num_tasks=options.tasks, seed=options.evaluation_seed)[:1]
    shared, told = trained_ppo(options), trained_ppo(options, informed=True)
    scratch = OnEachTask(options, None)
    curves += measured(options, "ppo", "PPO from scratch", scratch.stages(), references=True)
    tuned = OnEachTask(options, shared)
    curves += measured(options, "ppo-tuned", "PPO on all tasks, fine-tuned", tuned.stages())
    knowing = metarl.sb3_policy(told, options.task, informed=True)
    always = dict.fromkeys(options.experience, knowing)  # it learns nothing more: a level line
    curves += measured(options, "ppo-informed", "PPO told the task", always)
    for curve in curves:
        returns = "  ".join(f"{value:7.2f}" for value in curve.returns.mean(1))
        before = "  ".join(f"{episode - 1:7d}" for episode in curve.episode)
        print(f"{'episodes before':30} {before}\n{curve.label:30} {returns}")
    folders = [run, *(options.out / name for name in ("ppo", "ppo-tuned", "ppo-informed"))]
    print(*metarl.plot(folders, out=options.out / "adaptation"), sep="\n")


def trained_rl2(options: Options) -> metarl.Run:
    """RL^2, trained for a short while."""
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


def trained_ppo(options: Options, *, informed: bool = False) -> PPO:
    """PPO in a new task at every episode, told which or not."""
    env = metarl.to_sb3_vec_env(options.task, 64, informed=informed, seed=options.seed)
    return new_ppo(env, options.seed).learn(options.steps)


def new_ppo(env: Any, seed: int) -> PPO:
    """An untrained model; each update is of whole episodes where these are not shorter."""
    steps = env.get_attr("family", 0)[0].episode_steps
    small = env.action_space.high.min() if isinstance(env.action_space, spaces.Box) else 1.0
    return PPO(
        "MlpPolicy",
        env,
        n_steps=max(steps, 10),
        batch_size=max(steps, 10) * env.num_envs // 4,
        learning_rate=1e-3,
        gamma=0.95,
        # Noise in units of the actions, which may be small; PPO's own default is 1.
        policy_kwargs={"log_std_init": float(torch.tensor(small).log())},
        seed=seed,
        device="cpu",
    )


class OnEachTask:
    """A model for each task, which goes on learning there from one measurement to the next."""

    def __init__(self, options: Options, start: PPO | None) -> None:
        """Starts from `start`, or from nothing."""
        self._options, self._start = options, start
        self._length = metarl.make_family(options.task).episode_steps
        self._models: list[PPO] = []

    def stages(self) -> dict[int, Callable[[torch.Tensor], metarl.Policy]]:
        """What `metarl.evaluate_policy` wants: policies by episodes of experience."""
        return {episodes: self._after(episodes) for episodes in self._options.experience}

    def _after(self, episodes: int) -> Callable[[torch.Tensor], metarl.Policy]:
        def build(tasks: torch.Tensor) -> metarl.Policy:
            if not self._models:
                self._models = [self._begun(task, seed) for seed, task in enumerate(tasks)]
            for model in self._models:
                missing = episodes * self._length - model.num_timesteps
                if missing > 0:
                    model.learn(missing, reset_num_timesteps=False)
            return OnePerTask(
                [metarl.sb3_policy(model, self._options.task)(tasks) for model in self._models]
            )

        return build

    def _begun(self, task: torch.Tensor, seed: int) -> PPO:
        env = metarl.to_sb3_vec_env(
            self._options.task, self._options.lanes, tasks=task.unsqueeze(0), seed=seed
        )
        model = new_ppo(env, self._options.seed + seed)
        if self._start is not None:
            model.policy.load_state_dict(self._start.policy.state_dict())
        return model


@dataclass(frozen=True)
class OnePerTask:
    """Policy n acts in task n."""

    policies: list[metarl.Policy]

    def initial_memory(self, num_tasks: int, copies: int) -> list[metarl.Memory]:
        """That of each."""
        return [policy.initial_memory(1, copies) for policy in self.policies]

    def act(
        self, percept: metarl.Percept, memory: list[metarl.Memory], generator: torch.Generator
    ) -> metarl.PolicyOutput:
        """One after the other: these are different networks."""
        said = [
            policy.act(of_task(percept, n), memory[n], generator)
            for n, policy in enumerate(self.policies)
        ]
        return metarl.PolicyOutput(
            torch.cat([one.action for one in said]),
            torch.cat([one.log_prob for one in said]),
            [one.memory for one in said],
        )


def of_task(percept: metarl.Percept, n: int) -> metarl.Percept:
    """What is seen in one task."""
    parts = {part.name: getattr(percept, part.name)[n : n + 1] for part in fields(percept)}
    return metarl.Percept(**parts)


def measured(
    options: Options, agent: str, label: str, policy: Any, *, references: bool = False
) -> list[metarl.Curve]:
    """Curves in the tasks of the evaluation, written to a folder named after the agent."""
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
