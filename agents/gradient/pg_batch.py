"""Policy-gradient batches: one phase of experience with advantages, and the inner losses on it.

Axes: `T` steps, `N` tasks, `B` rollouts of each, `M` = T x B samples of a task, then features
(`D` observation, `R` parameters of an action distribution).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from metarl.agent import ShownTargets
from metarl.learning import losses
from metarl.learning.advantages import gae
from metarl.learning.linear_baseline import linear_values
from metarl.networks.action_heads import ActionHead
from metarl.trajectory import Trajectory, episode_start

Estimator: TypeAlias = Literal["score", "lvc", "dice", "loaded_dice", "supervised"]

PER_TASK = ("advantage_std", "episode_return")
"""columns of a batch with one number for each task"""


@dataclass(frozen=True, kw_only=True)
class PGBatch:
    """One phase of all tasks, time-major, as policy gradients read it."""

    inputs: Tensor  # [M, N, D] observations
    action: Tensor  # [T, N, B] int64 or [T, N, B, A] float
    log_prob: Tensor  # [T, N, B] under the policy that acted
    advantage: Tensor  # [T, N, B]
    scaled_reward: Tensor  # [T, N, B] discounted to the start of its episode, / advantage_std
    scaled_value: Tensor  # [T, N, B] baseline, likewise
    advantage_std: Tensor  # [N] divisor of the advantages
    episode_return: Tensor  # [N] mean over episodes of the undiscounted return
    first: Tensor  # [T, N, B] bool
    valid: Tensor  # [T, N, B] float, 1 where a lane was active
    target: Tensor | None = None  # like action: the right one, where it was shown
    shown: Tensor | None = None  # [T, N, B] float, 1 where it was shown

    def take_rollouts(self, count: int) -> "PGBatch":
        """The first `count` rollouts of each task."""
        rollouts = self.valid.shape[2]
        inputs = self.inputs.view(-1, rollouts, *self.inputs.shape[1:])[:, :count]
        rest = {
            name: value[:, :, :count]
            for name, value in vars(self).items()
            if name not in ("inputs", *PER_TASK) and value is not None
        }
        return replace(self, inputs=inputs.flatten(0, 1), **rest)

    def split_rollouts(self, groups: int) -> "PGBatch":
        """Each task's rollouts in equal groups, as tasks of their own: N becomes N x groups."""
        if groups == 1:
            return self
        inputs = _grouped(self.over_time(self.inputs), groups).transpose(1, 2).flatten(0, 1)
        rest = {
            name: value.repeat_interleave(groups) if name in PER_TASK else _grouped(value, groups)
            for name, value in vars(self).items()
            if name != "inputs" and value is not None
        }
        return replace(self, inputs=inputs.contiguous(), **rest)

    def over_time(self, dist_params: Tensor) -> Tensor:
        """Numbers of every sample, [M, N, ...], as [T, N, B, ...]."""
        rollouts = self.valid.shape[2]
        return dist_params.view(-1, rollouts, *dist_params.shape[1:]).transpose(1, 2)

    def log_probs(self, head: ActionHead, dist_params: Tensor) -> Tensor:
        """[T, N, B], of the actions taken, under the distributions of dist_params [M, N, R]."""
        return head.evaluate(self.over_time(dist_params), self.action)[0]

    def mean(self, value: Tensor) -> Tensor:
        """Mean of [T, N, B] over valid transitions, then over tasks; []."""
        return losses.mean_by_task(value, self.valid).mean()

    def supervised_loss(self, head: ActionHead, dist_params: Tensor) -> Tensor:
        """Mean loss of each task over the transitions whose right action was shown, [N].

        Source: the inner loss of Finn et al. 2017, arXiv:1703.03400, section 3.1.
        """
        assert self.target is not None
        assert self.shown is not None
        each = head.supervised_loss(self.over_time(dist_params), self.target)
        return losses.mean_by_task(each, self.shown)

    def kl_divergence(self, head: ActionHead, old: Tensor, new: Tensor) -> Tensor:
        """Mean KL(old || new) of distributions given by their parameters [M, N, R]; []."""
        return self.mean(self.over_time(head.kl_divergence(old, new)))


def supervised_batch(trajectory: Trajectory, targets: ShownTargets) -> PGBatch:
    """A batch for the supervised loss alone: with right actions, without advantages.

    Policies are not to read what observations tell about targets: these components of `inputs`
    are zeros.
    """
    obs = trajectory.obs.clone()
    obs[..., targets.components] = 0.0
    target, shown = targets.read(trajectory.obs[1:])
    zeros = torch.zeros_like(trajectory.reward)
    valid = trajectory.valid.to(zeros.dtype)
    return PGBatch(
        inputs=_by_sample(obs),
        action=trajectory.action,
        log_prob=trajectory.log_prob,
        advantage=zeros,
        scaled_reward=zeros,
        scaled_value=zeros,
        advantage_std=torch.ones_like(zeros[0, :, 0]),
        episode_return=_episode_return(trajectory),
        first=trajectory.first,
        valid=valid,
        target=_with_last(target),
        shown=_with_last((shown & trajectory.valid[1:]).to(valid.dtype)),
    )


def _with_last(value: Tensor) -> Tensor:
    """[T - 1, ...] -> [T, ...], zeros at the end: nothing is shown after the last step."""
    return torch.cat((value, torch.zeros_like(value[:1])))


def pg_batch(
    trajectory: Trajectory, *, gamma: float, gae_lambda: float, normalise: bool
) -> PGBatch:
    """Advantages over a linear baseline fitted to the trajectory itself, task by task.

    Returns end with the episode, also at a time limit: the baseline sees the time step, so it
    predicts the value of the rest of the episode.

    Args:
        trajectory: [T, N, B, ...] of one phase.
        gamma: discount per step, restarted in each episode.
        gae_lambda: lambda of generalised advantage estimation.
        normalise: advantages of each task get mean 0 and standard deviation 1; rewards and values
            of DiCE are divided by the same deviation, so that one learning rate suits all
            estimators.

    Raises:
        ConfigError: too few transitions for the baseline.
        NonFiniteError: the baseline has no finite fit.
    """
    ends = trajectory.terminated | trajectory.truncated
    zeros = torch.zeros_like(trajectory.reward)
    never = torch.zeros_like(ends)
    returns = gae(trajectory.reward, zeros, zeros, ends, never, gamma=gamma, gae_lambda=1.0)
    step = torch.arange(len(ends), device=ends.device).view(-1, 1, 1) - episode_start(
        trajectory.first
    )
    flat = [_by_task(part) for part in (trajectory.obs, step, returns, trajectory.valid)]
    time, tasks, rollouts = trajectory.valid.shape
    value = linear_values(*flat).view(tasks, time, rollouts).transpose(0, 1).contiguous()
    next_value = torch.cat((value[1:], zeros[:1]))
    advantage = gae(
        trajectory.reward, value, next_value, ends, never, gamma=gamma, gae_lambda=gae_lambda
    )
    valid = trajectory.valid.to(value.dtype)
    discount = valid * gamma ** step.to(valid.dtype)
    std = torch.ones_like(valid[:1, :, :1])
    if normalise:
        count = valid.sum((0, 2), keepdim=True)
        mean = (advantage * valid).sum((0, 2), keepdim=True) / count
        # In double precision, squares of large advantages stay finite.
        square = ((advantage - mean) * valid).double().square()
        std = (square.sum((0, 2), keepdim=True) / count).sqrt().to(value.dtype) + 1e-8
        advantage = (advantage - mean) / std
        discount = discount / std
    return PGBatch(
        inputs=_by_sample(trajectory.obs),
        action=trajectory.action,
        log_prob=trajectory.log_prob,
        advantage=advantage,
        scaled_reward=trajectory.reward * discount,
        scaled_value=value * discount,
        advantage_std=std.flatten(),
        episode_return=_episode_return(trajectory),
        first=trajectory.first,
        valid=valid,
    )


def _by_sample(obs: Tensor) -> Tensor:
    """[T, N, B, D] -> [M, N, D]."""
    return obs.transpose(1, 2).flatten(0, 1).contiguous()


def _episode_return(trajectory: Trajectory) -> Tensor:
    """Mean over the episodes of each task, [N]."""
    episodes = (trajectory.first & trajectory.valid).sum((0, 2))
    return trajectory.reward.sum((0, 2)) / episodes


def _grouped(value: Tensor, groups: int) -> Tensor:
    """[T, N, B, ...] -> [T, N x groups, B / groups, ...]."""
    time, tasks, rollouts, *rest = value.shape
    return value.reshape(time, tasks * groups, rollouts // groups, *rest)


def _by_task(value: Tensor) -> Tensor:
    """[T, N, B, ...] -> [N, T * B, ...]."""
    return value.transpose(0, 1).flatten(1, 2)


InnerLossFunction: TypeAlias = Callable[[ActionHead, Tensor, PGBatch], Tensor]
"""parameters of action distributions [M, N, R] -> loss of each task [N]"""


def _policy_gradient(loss: Callable[[Tensor, PGBatch], Tensor]) -> InnerLossFunction:
    """An inner loss that depends on the log-probabilities [T, N, B] of the actions taken."""
    return lambda head, dist_params, batch: loss(batch.log_probs(head, dist_params), batch)


ESTIMATORS: Mapping[Estimator, InnerLossFunction] = {
    "score": _policy_gradient(
        lambda log_prob, data: losses.score_function(log_prob, data.advantage, data.valid)
    ),
    "lvc": _policy_gradient(
        lambda log_prob, data: losses.low_variance_curvature(
            log_prob, data.log_prob, data.advantage, data.valid
        )
    ),
    "dice": _policy_gradient(
        lambda log_prob, data: losses.dice(
            log_prob, data.scaled_reward, data.scaled_value, data.first, data.valid
        )
    ),
    "loaded_dice": _policy_gradient(
        lambda log_prob, data: losses.loaded_dice(log_prob, data.advantage, data.first, data.valid)
    ),
    "supervised": lambda head, dist_params, data: data.supervised_loss(head, dist_params),
}
"""inner losses"""
