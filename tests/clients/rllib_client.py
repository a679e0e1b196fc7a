"""RLlib's PPO on ids of metarl, a few iterations each."""

import logging
import sys
import warnings

import gymnasium
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

import metarl

TRAINED = ("metarl/PointNavigation-v0", "metarl/GridNavigation-v0")


def train(task_id, iterations=3):
    """PPO, with the environment in this process."""
    register_env(task_id, lambda config: gymnasium.make(task_id, **config))
    config = (
        PPOConfig()
        .environment(task_id)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
        .training(train_batch_size=2000, minibatch_size=500, num_epochs=4)
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    returns = [algorithm.train()["env_runners"]["episode_return_mean"] for _ in range(iterations)]
    algorithm.stop()
    print(f"PPO on {task_id}: episode return {returns[0]:.3f} -> {returns[-1]:.3f}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    assert metarl.__version__
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    for task in sys.argv[1:] or TRAINED:
        train(task)
    ray.shutdown()
