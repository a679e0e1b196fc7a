"""The linear value baseline, fitted to the returns of each task.

Axes: `N` tasks, `M` transitions of each, `D` observation, `F` = 2 D + 4 features.
"""

import torch
from torch import Tensor

from metarl.errors import ConfigError, NonFiniteError

CLIP = 10.0
"""observations are clipped to [-CLIP, CLIP]"""


def linear_values(
    obs: Tensor, step: Tensor, returns: Tensor, valid: Tensor, *, ridge: float = 1e-5
) -> Tensor:
    """Values of a linear baseline, fitted to the returns of each task by ridge regression.

        features = (obs, obs^2, t/100, (t/100)^2, (t/100)^3, 1)
        weights  = argmin of sum valid (returns - features w)^2 + ridge ||w||^2

    in float64. If the system is singular in floating point, the ridge is raised tenfold, up to
    five times.

    Args:
        obs: [N, M, D].
        step: [N, M] steps since the start of the episode.
        returns: [N, M] discounted sums of rewards from the step to the end of the episode.
        valid: [N, M] 1 where a transition is valid.
        ridge: coefficient of the penalty.

    Returns:
        [N, M], in the type of `returns`.

    Raises:
        ConfigError: there are fewer transitions than features, so the baseline would fit noise.
        NonFiniteError: no fit is finite; the task is named.

    Source: Duan et al. 2016, arXiv:1604.06778, section 6 and the released rllab.
    """
    features = linear_features(obs, step)
    transitions, size = features.shape[1:]
    if transitions < size:
        raise ConfigError(
            f"The linear baseline has {size} weights (twice the observation's {obs.shape[-1]} "
            f"components, and 4) but each task gives {transitions} transitions in a phase, so it "
            "would fit noise. Raise rollouts_per_task or episodes."
        )
    weighted = features * valid.unsqueeze(-1).double()
    gram = weighted.mT @ features
    target = weighted.mT @ returns.double().unsqueeze(-1)
    penalty = ridge * torch.eye(size, dtype=torch.float64, device=obs.device)
    for _ in range(6):
        weights, _ = torch.linalg.solve_ex(gram + penalty, target)
        finite = weights.isfinite().flatten(1).all(1)
        if bool(finite.all()):
            values: Tensor = (features @ weights).squeeze(-1).to(returns.dtype)
            return values
        penalty = penalty * 10
    task = int((~finite).nonzero()[0])
    raise NonFiniteError(
        f"The linear baseline of task {task} has no finite fit: returns between "
        f"{float(returns[task].min())} and {float(returns[task].max())}, observations between "
        f"{float(obs[task].min())} and {float(obs[task].max())}."
    )


def linear_features(obs: Tensor, step: Tensor) -> Tensor:
    """[N, M, D] and [N, M] -> [N, M, F] float64."""
    clipped = obs.double().clamp(-CLIP, CLIP)
    time = step.double().unsqueeze(-1) / 100
    return torch.cat((clipped, clipped**2, time, time**2, time**3, torch.ones_like(time)), -1)
