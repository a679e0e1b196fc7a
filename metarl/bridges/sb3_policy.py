"""Policies of stable-baselines3 models, for rollouts and evaluations in task families.

Axes: `L` lanes, `N` tasks, then features.
NOTE: importing this module imports stable-baselines3, which takes seconds; the core does not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from metarl.agent import Memory, PolicyOutput
from metarl.bridges.sb3_vec_env import informed_space, task_features
from metarl.bridges.trial_env import percept_space
from metarl.errors import ConfigError
from metarl.field_types import checks_arguments, shown
from metarl.networks.action_heads import action_head
from metarl.networks.actor_critic import percept_features
from metarl.noise import LaneNoise
from metarl.registry import resolve_family
from metarl.tasks.family import TaskDistribution
from metarl.trajectory import Percept

Normalise: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]
"""maps observations [L, D] to the model's inputs, such as `VecNormalize.normalize_obs`"""


@dataclass(frozen=True, kw_only=True)
class SB3Policy:
    """Policy that predicts with a stable-baselines3 or sb3-contrib model; see `sb3_policy`.

    Log-probabilities are zeros, because the model is trained by its own library.

    The model draws from torch's global generator, which is seeded by one number per step, that of
    lane 0. So the lanes of a batch share one stream: the actions of a lane depend on its position
    and on the number of lanes.
    """

    model: BaseAlgorithm
    family: TaskDistribution
    tasks: Tensor | None  # [N, ...] if trained with `informed`
    trial: bool
    deterministic: bool
    normalise: Normalise | None

    def initial_memory(self, lanes: int, horizon: int) -> Memory:
        """None: the model creates its memory at the first step."""
        return None

    def act(self, percept: Percept, memory: Memory, noise: LaneNoise) -> PolicyOutput:
        """One prediction for all lanes; memory is reset at the same steps as in training."""
        inputs = self._inputs(percept)
        starts = percept.first_of_trial if self.trial else percept.first_of_episode
        cuda = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(int(noise.integers(2**31)[0]))
            action, memory = self.model.policy.predict(
                inputs,
                state=memory,
                episode_start=starts.cpu().numpy(),
                deterministic=self.deterministic,
            )
        discrete = isinstance(self.family.action_space, spaces.Discrete)
        dtype, device = torch.int64 if discrete else torch.float32, percept.obs.device
        actions = torch.tensor(action, dtype=dtype, device=device)
        return PolicyOutput(actions, torch.zeros(len(actions), device=device), memory)

    def _inputs(self, percept: Percept) -> NDArray[Any]:
        """Observations [L, ...] in the form of training."""
        obs = percept.obs
        if self.trial:
            head = action_head(self.family.action_space).to(obs.device)
            obs = percept_features(head, percept)
        if self.tasks is not None:
            features = task_features(self.family.task_space, self.tasks).to(obs.device)
            lanes_per_task = len(obs) // len(features)
            obs = torch.cat((obs, features.repeat_interleave(lanes_per_task, 0)), -1)
        inputs: NDArray[Any] = obs.cpu().numpy()
        return inputs if self.normalise is None else self.normalise(inputs)


@checks_arguments("trial", "informed", "deterministic", "normalise")
def sb3_policy(
    model: BaseAlgorithm,
    task: str | TaskDistribution,
    *,
    trial: bool = False,
    informed: bool = False,
    deterministic: bool = False,
    normalise: Normalise | None = None,
    **options: Any,
) -> Callable[[Tensor], SB3Policy]:
    """A stable-baselines3 model for `metarl.evaluate_policy`: a function from tasks to a policy.

    Args:
        model: trained in `to_sb3_vec_env` with the same `task`, `trial` and `informed`;
            feed-forward, or a recurrent model of sb3-contrib.
        task: id of a family, or a family.
        trial: the model was trained on percepts, and keeps its memory for a whole trial.
        informed: the model was trained on observations that include the task.
        deterministic: takes the most likely action instead of drawing one.
        normalise: normalisation of observations in training, as `VecNormalize.normalize_obs`.
        options: fields of the family, where `task` is an id.

    Raises:
        ConfigError: an option is unknown or given next to a family, or the model was trained on
            observations of another shape.
    """
    family = resolve_family(task, options)
    space = family.observation_space
    if trial:
        space = percept_space(space, action_head(family.action_space))
    if informed:
        space = informed_space(space, family)
    if not hasattr(model, "predict") or not hasattr(model, "observation_space"):
        raise ConfigError(f"model={shown(model)} must be a model of stable-baselines3.")
    if model.observation_space.shape != space.shape:
        raise ConfigError(
            f"The model was trained on observations of shape {model.observation_space.shape}; "
            f"with trial={trial} and informed={informed} they have shape {space.shape}. Pass the "
            "same trial and informed as to to_sb3_vec_env in training."
        )

    def build(tasks: Tensor) -> SB3Policy:
        return SB3Policy(
            model=model,
            family=family,
            tasks=tasks if informed else None,
            trial=trial,
            deterministic=deterministic,
            normalise=normalise,
        )

    return build
