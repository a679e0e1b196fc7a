"""Compares the RL^2 of metarl with RL^2 by sb3-contrib's recurrent PPO, whose episodes are trials.

Plain PPO has no memory, so it shows the reward without adaptation. All three are trained on the
same bandits and evaluated on the same unseen ones.

    pip install 'metarl-suite[sb3]'
    python experiments/sb3_recurrent.py                  # about five minutes on two CPU cores
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO

import metarl


@dataclass(frozen=True, kw_only=True)
class Options:
    """RL^2 of two libraries, and plain PPO, in the same unseen bandits."""

    task: str = "metarl/BernoulliBandit-v0"
    """id of the family"""
    steps: int = 600_000
    """training steps of each model of stable-baselines3"""
    lanes: int = 256
    """parallel environments of each of these models"""
    rl2: Path | None = None
    """run of RL^2 to compare with; by default a short one is trained"""
    rl2_iterations: int = 150
    """meta-iterations of that short run"""
    test_tasks: int = 2000
    """unseen tasks"""
    seed: int = 0
    """seed of all training"""
    out: Path = Path("runs/sb3-recurrent")
    """parent of the run folders and the figure"""


def main(options: Options) -> None:
    """Train, evaluate, plot."""
    torch.set_num_threads(1)
    run = options.rl2 or metarl.train(
        "rl2",
        options.task,
        iterations=options.rl2_iterations,
        seed=options.seed,
        out=options.out / "rl2",
        resume=True,
        threads=1,
    )
    curves = metarl.evaluate(run, num_tasks=options.test_tasks)
    plain, recurrent = train_plain(options), train_recurrent(options)
    curves += evaluate(options, "ppo", "PPO", plain, trial=False)
    curves += evaluate(options, "recurrent-ppo", "RL² by RecurrentPPO", recurrent, trial=True)
    for curve in curves:
        (mean,), (low,), (high,) = metarl.bootstrap_mean(curve.returns.sum(0)[None, None])
        print(f"{curve.label:28} {mean:.3f} [{low:.3f}, {high:.3f}]")
    folders = [run, options.out / "ppo", options.out / "recurrent-ppo"]
    print(*metarl.plot(folders, out=options.out / "adaptation"), sep="\n")


def train_plain(options: Options) -> PPO:
    """PPO with a new task in every episode."""
    env = metarl.to_sb3_vec_env(options.task, options.lanes, seed=options.seed)
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=10,
        batch_size=10 * options.lanes // 4,
        seed=options.seed,
        device="cpu",
    )
    return model.learn(options.steps)


def train_recurrent(options: Options) -> RecurrentPPO:
    """Recurrent PPO whose episodes are trials, so that its memory lasts for a whole trial."""
    env = metarl.to_sb3_vec_env(options.task, options.lanes, trial=True, seed=options.seed)
    (family, *_) = env.get_attr("family", 0)
    trial_steps = family.trial_episodes * family.episode_steps
    model = RecurrentPPO(
        "MlpLstmPolicy",
        env,
        n_steps=trial_steps,
        batch_size=trial_steps * options.lanes // 4,
        n_epochs=4,
        learning_rate=3e-3,
        policy_kwargs={"lstm_hidden_size": 64, "shared_lstm": True, "enable_critic_lstm": False},
        seed=options.seed,
        device="cpu",
    )
    return model.learn(options.steps)


def evaluate(
    options: Options, agent: str, label: str, model: Any, *, trial: bool
) -> list[metarl.Curve]:
    """The curve in the evaluation tasks, written to a folder named after the agent."""
    return metarl.evaluate_policy(
        metarl.sb3_policy(model, options.task, trial=trial),
        options.task,
        agent=agent,
        label=label,
        num_tasks=options.test_tasks,
        out=options.out / agent,
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
