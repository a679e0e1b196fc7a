"""The options that all agents have which adapt by gradient steps.

Axes: `N` tasks, `B` rollouts of each, `K` adaptation steps.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch

from metarl.agent import AgentConfig
from metarl.agents.gradient.inner_rules import GradientDescent, InnerRule, LearningRateSchedule
from metarl.agents.gradient.outer_loop import OuterRule
from metarl.agents.gradient.pg_batch import ESTIMATORS, Estimator
from metarl.errors import ConfigError
from metarl.networks.stacked_mlp import Activation
from metarl.validation import require_between, require_positive

MAX_OPTION = 1e6
"""upper bound for rates, step counts and damping; larger values are typos"""


@dataclass(frozen=True, kw_only=True)
class GradientOptions(AgentConfig):
    """Hyper-parameters of all agents that adapt by gradient steps."""

    num_tasks: int = 40
    """tasks per meta-batch (N)"""
    rollouts_per_task: int = 20
    """rollouts of each task per phase (B)"""
    episodes: int | None = 1
    """consecutive episodes per rollout (E)"""
    iterations: int = 500
    """meta-iterations of the whole run"""
    adaptation_steps: int = 1
    """inner gradient steps per task in training (K)"""
    evaluation_steps: int = 3
    """inner gradient steps per task in evaluation"""
    inner_lr: float = 0.1
    """learning rate of the inner loop"""
    later_lr_scale: float = 0.5
    """factor on the inner learning rate in all steps but the first"""
    later_lr_decay: float = 1.0
    """factor from each of those steps to the next; 1 keeps them equal"""
    estimator: Estimator = "score"
    """inner loss: score (plain), lvc (low-variance curvature), dice or loaded_dice; or supervised,
    where observations show the right action one step late, in the outer loss, too"""
    gradient_steps: int = 1
    """gradient steps on the experience of each adaptation step, for supervised tasks"""
    adapt_each_rollout: bool = False
    """adapt a policy for each rollout, to this rollout alone, as few-shot protocols do; otherwise
    one for each task, to all of its rollouts"""
    first_order: bool = False
    """take inner gradients as constants in the meta-gradient, as FOMAML does"""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """sizes of the policy's hidden layers"""
    activation: Activation = "tanh"
    """of the hidden layers"""
    initial_std: float = 1.0
    """initial standard deviation of Box actions, in units of half their range"""
    learn_std: bool = True
    """adapt and learn the standard deviations; otherwise they stay fixed"""
    gamma: float = 0.99
    """discount per environment step, restarted in each episode"""
    gae_lambda: float = 1.0
    """lambda of generalised advantage estimation"""
    normalise_advantages: bool = True
    """mean 0 and deviation 1 in each task and phase"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("gradient_steps", self.gradient_steps)
        for name in ("adaptation_steps", "evaluation_steps", "inner_lr", "later_lr_scale"):
            require_between(name, getattr(self, name), 0, MAX_OPTION)
        require_positive("initial_std", self.initial_std)
        for name in ("gamma", "gae_lambda", "later_lr_decay"):
            require_between(name, getattr(self, name), 0.0, 1.0)
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ConfigError(
                f"hidden_sizes={self.hidden_sizes} must be sizes from 1 on, such as 64 64."
            )

    def require_policy_gradient(self) -> None:
        """Refuses the supervised estimator, where the outer loss needs advantages.

        Raises:
            ConfigError: it is chosen.
        """
        if self.estimator == "supervised":
            known = ", ".join(name for name in ESTIMATORS if name != "supervised")
            raise ConfigError(
                f"estimator='supervised' does not serve {self.label}, whose outer loss is made for "
                f"rewards; use one of {known}, or another agent, such as maml."
            )

    def label_with_estimator(self, name: str, usual: Estimator = "score") -> str:
        """`name`, with the estimator where it is not the usual one."""
        return name if self.estimator == usual else f"{name} ({self.estimator})"

    @property
    def policies_per_task(self) -> int | None:
        """Policies that adapt to each task, each rolled out in an equal share of its rollouts.

        None: one for each rollout, however many there are.
        """
        return None if self.adapt_each_rollout else 1

    @property
    def joins_rollouts(self) -> bool:
        """Unless `adapt_each_rollout`."""
        return not self.adapt_each_rollout

    @property
    def schedule(self) -> LearningRateSchedule:
        """Of the inner learning rate, step by step."""
        return LearningRateSchedule(later=self.later_lr_scale, decay=self.later_lr_decay)

    def gradient_descent(self) -> InnerRule:
        """The plain inner rule, with the options' learning rate and schedule."""
        return GradientDescent(self.inner_lr, self.schedule)

    @abstractmethod
    def inner_rule(self) -> InnerRule:
        """How an inner step changes the parameters."""

    @abstractmethod
    def outer_rule(self, size: int, device: torch.device) -> OuterRule:
        """How the `size` meta-parameters learn from the adapted policies' experience."""
