"""TorchRL over all ids: specs, parallel environments, and PPO on two of them."""

import sys
import warnings

import gymnasium
import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.envs import GymEnv, GymWrapper, ParallelEnv, check_env_specs
from torchrl.modules import OneHotCategorical, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import metarl
from tests.known_ids import ENVIRONMENTS, FAMILIES

IDS = [*FAMILIES, *ENVIRONMENTS]
TRAINED = ("metarl/PointNavigation-v0", "metarl/KrazyWorld-v0")


def ways_to_make(task_id):
    """TorchRL's ways to an environment."""
    yield GymEnv(task_id)
    yield GymWrapper(gymnasium.make(task_id))
    for mode in ("SameStep", "Disabled"):
        yield GymWrapper(gymnasium.make_vec(task_id, num_envs=2, autoreset_mode=mode))


def check_specs():
    """`check_env_specs` of every id, made in every way."""
    for task_id in IDS:
        for env in ways_to_make(task_id):
            check_env_specs(env)
            env.close()
    print(f"check_env_specs: {len(IDS)} ids, 4 ways each")


def check_parallel():
    """A rollout of every id in two processes."""
    for task_id in IDS:
        # Forked, because each new process would import torch anew.
        envs = ParallelEnv(2, lambda task_id=task_id: GymEnv(task_id), mp_start_method="fork")
        rollout = envs.rollout(12, break_when_any_done=False)
        assert rollout.batch_size == (2, 12)
        assert torch.isfinite(rollout["observation"]).all()
        envs.close()
    print(f"ParallelEnv: {len(IDS)} ids, 2 processes each")


def actor_and_value(env):
    """Small networks for a Box or a one-hot action."""
    size = env.observation_spec["observation"].shape[-1]
    actions = env.action_spec.shape[-1]
    if env.action_spec.dtype.is_floating_point:
        net = nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, 2 * actions))
        net = nn.Sequential(net, NormalParamExtractor())
        space = env.action_spec.space
        keys, kind = ["loc", "scale"], TanhNormal
        kwargs = {"low": space.low[0], "high": space.high[0]}
    else:
        net = nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, actions))
        keys, kind, kwargs = ["logits"], OneHotCategorical, {}
    actor = ProbabilisticActor(
        TensorDictModule(net, ["observation"], keys),
        in_keys=keys,
        spec=env.action_spec,
        distribution_class=kind,
        distribution_kwargs=kwargs,
        return_log_prob=True,
    )
    critic = nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, 1))
    return actor, ValueOperator(critic, in_keys=["observation"])


def train(task_id, iterations=20):
    """PPO; prints the mean reward of the first and last iterations."""
    torch.manual_seed(0)
    env = GymWrapper(gymnasium.make_vec(task_id, num_envs=32, autoreset_mode="SameStep"))
    env.set_seed(0)
    actor, critic = actor_and_value(env)
    loss_module = ClipPPOLoss(actor, critic)
    advantage = GAE(gamma=0.9, lmbda=0.9, value_network=critic, average_gae=True)
    optimiser = torch.optim.Adam(loss_module.parameters(), 1e-3)
    rewards = []
    for _ in range(iterations):
        with torch.no_grad():
            data = env.rollout(60, actor, break_when_any_done=False)
        rewards.append(float(data["next", "reward"].mean()))
        for _ in range(4):
            advantage(data)
            losses = loss_module(data.reshape(-1))
            loss = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert all(map(torch.isfinite, losses.values()))
    print(f"PPO on {task_id}: reward per step {rewards[0]:.4f} -> {rewards[-1]:.4f}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    assert metarl.__version__
    check_specs()
    check_parallel()
    for task in sys.argv[1:] or TRAINED:
        train(task)
