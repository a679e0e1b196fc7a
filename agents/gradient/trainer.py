"""Agents that adapt by gradient steps: one trainer, with an inner update rule and an outer rule.

Each published algorithm is a file beside this one that names its parts and its defaults.

Axes: `T` steps, `N` tasks, `B` copies of each, `P` parameters of a policy, `K` adaptation steps.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import Agent, AgentConfig, AgentContext, Policy
from metarl.agents.gradient.inner_loop import FixedRate, InnerLoss, InnerProblem, InnerRule
from metarl.agents.gradient.outer_loop import (
    MetaProblem,
    Objective,
    OuterRule,
    TrustRegion,
    expected_return,
)
from metarl.agents.gradient.pg_batch import ESTIMATORS, Estimator, PGBatch, lesson
from metarl.errors import CheckpointError, ConfigError, MetaRLError, NonFiniteError
from metarl.networks.action_heads import action_head
from metarl.networks.policies import StackedPolicy
from metarl.networks.stacked_mlp import Activation, StackedMLP
from metarl.trajectory import Trajectory
from metarl.validation import require_between, require_positive

MOST = 1e6
"""a rate, a number of steps or a damping beyond this is a slip"""


@dataclass(frozen=True, kw_only=True)
class GradientConfig(AgentConfig):
    """What all agents share that adapt by gradient steps."""

    num_tasks: int = 40
    """tasks per meta-iteration (N)"""
    rollouts_per_task: int = 20
    """environments lived through in each task at once (B)"""
    episodes: int | None = 1
    """episodes in a row in each environment per phase (E)"""
    iterations: int = 500
    """meta-iterations of the whole run"""
    adaptation_steps: int = 1
    """gradient steps per task in training (K)"""
    evaluation_steps: int = 3
    """gradient steps per task that an evaluation shows"""
    inner_lr: float = 0.1
    """rate of a gradient step"""
    later_lr_scale: float = 0.5
    """share of the inner rate in all steps but the first"""
    later_lr_decay: float = 1.0
    """factor from each of those steps to the next; 1 leaves them equal"""
    estimator: Estimator = "score"
    """inner loss: score (plain), lvc (low-variance curvature), dice or loaded_dice"""
    first_order: bool = False
    """take inner gradients for constants in the meta-gradient, as FOMAML does"""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """widths of the policy's hidden layers"""
    activation: Activation = "tanh"
    """of the hidden layers"""
    initial_std: float = 1.0
    """first standard deviation of Box actions, in units of half their range"""
    learn_std: bool = True
    """adapt and learn the deviations; otherwise they stay"""
    gamma: float = 0.99
    """discount per environment step, from anew in each episode"""
    gae_lambda: float = 1.0
    """lambda of generalised advantage estimation"""
    normalise_advantages: bool = True
    """mean 0 and deviation 1 in each task and phase"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("adaptation_steps", "evaluation_steps", "inner_lr", "later_lr_scale"):
            require_between(name, getattr(self, name), 0, MOST)
        require_positive("initial_std", self.initial_std)
        for name in ("gamma", "gae_lambda", "later_lr_decay"):
            require_between(name, getattr(self, name), 0.0, 1.0)
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ConfigError(
                f"hidden_sizes={self.hidden_sizes} must be widths from 1 on, such as 64 64."
            )
        for name, known in (("estimator", ESTIMATORS), ("activation", get_args(Activation))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is not one of {', '.join(known)}."
                )

    def inner_rule(self) -> InnerRule:
        """How a gradient changes the parameters."""
        return FixedRate(self.inner_lr)

    @abstractmethod
    def outer_rule(self, size: int, device: torch.device) -> OuterRule:
        """How the `size` meta-parameters learn from what the adapted policies lived."""

    def build(self, setting: AgentContext) -> Agent:
        """A new agent of this kind."""
        return GradientAgent(self, setting)


@dataclass(frozen=True, kw_only=True)
class TrustRegionConfig(GradientConfig):
    """Agents whose outer rule is TRPO."""

    max_kl: float = 0.01
    """most that the adapted policies may move in one meta-iteration: mean KL(old || new)"""
    conjugate_gradient_steps: int = 10
    """products with the exact curvature of that divergence"""
    multi_step_loss: bool = False
    """judge the policies after every step in training, not only after the last"""
    shared_advantage_scale: bool = False
    """judge all tasks and steps by advantages on one scale, so that they count by what there is
    to win, instead of each on its own"""
    curvature_rollouts: int | None = None
    """copies of each task that the curvature is measured on; fewer are faster; by default all"""
    damping: float = 0.1
    """added to the curvature's diagonal; less makes for longer steps where the curvature is rich,
    as in navigation, and for none where it is poor, as in bandits"""
    line_search_steps: int = 15
    """candidates before no step is taken"""
    line_search_shrink: float = 0.8
    """how much shorter each candidate is than the one before"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "max_kl",
            "conjugate_gradient_steps",
            "curvature_rollouts",
            "line_search_steps",
        ):
            require_positive(name, getattr(self, name))
        require_between("damping", self.damping, 0.0, MOST)
        require_between("line_search_shrink", self.line_search_shrink, 0.01, 0.99)

    def objective(self) -> Objective:
        """What a step lowers."""
        return expected_return

    def outer_rule(self, size: int, device: torch.device) -> OuterRule:
        """TRPO."""
        return TrustRegion(
            objective=self.objective(),
            max_divergence=self.max_kl,
            steps=self.conjugate_gradient_steps,
            damping=self.damping,
            search_steps=self.line_search_steps,
            shrink=self.line_search_shrink,
            rollouts_per_task=self.curvature_rollouts,
            multi_step_loss=self.multi_step_loss,
            shared_advantage_scale=self.shared_advantage_scale,
        )


class GradientAgent:
    """See the module."""

    def __init__(self, config: GradientConfig, setting: AgentContext) -> None:
        space = setting.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ConfigError(f"Observations must be a Box vector [D]; got {space}.")
        self._config = config
        self._updates = 0
        self._head = action_head(setting.action_space, initial_std=config.initial_std)
        self._head.to(setting.device)
        self._network = StackedMLP(
            sizes=(space.shape[0], *config.hidden_sizes, self._head.outputs),
            constants=self._head.constants,
            activation=config.activation,
            learn_constants=config.learn_std,
        )
        self._problem = InnerProblem(
            network=self._network,
            head=self._head,
            rule=config.inner_rule(),
            estimator=ESTIMATORS[config.estimator],
            first_order=config.first_order,
            later_lr_scale=config.later_lr_scale,
            later_lr_decay=config.later_lr_decay,
        )
        initial = self._network.initial(
            self._head.initial_constants(), setting.seeds.torch("initial weights")
        )
        own = self._problem.rule.initial(self._network.size)
        self._vector = torch.cat((initial, own)).to(setting.device)
        self._outer = config.outer_rule(len(self._vector), setting.device)

    @property
    def adaptation_steps(self) -> int:
        """K in training."""
        return self._config.adaptation_steps

    @property
    def evaluation_steps(self) -> int:
        """K in an evaluation."""
        return self._config.evaluation_steps

    def start(self, num_tasks: int) -> Policy:
        """The initial parameters, a copy for each task."""
        initial, _ = self._problem.split(self._vector)
        return StackedPolicy(self._network, self._head, initial.expand(num_tasks, -1).contiguous())

    def adapt(self, policy: Policy, experience: Trajectory) -> Policy:
        """One inner step of every task.

        Raises:
            NonFiniteError: the inner loss of a task; iteration, task and step are named.
        """
        assert isinstance(policy, StackedPolicy)
        _, own = self._problem.split(self._vector)
        try:
            data = self._lesson(experience)
        except NonFiniteError as error:
            raise NonFiniteError(
                f"{error} It was after {self._updates} meta-iterations, in inner step "
                f"{policy.adaptations + 1}; nothing was learnt from it."
            ) from error
        slope = self._problem.slope(policy.params, data)
        self._require_finite(slope, policy.adaptations)
        params = self._problem.next_params(slope, own, policy.adaptations)
        self._require_sane(params, policy.adaptations)
        return StackedPolicy(self._network, self._head, params, policy.adaptations + 1)

    def update(self, phases: Sequence[Trajectory]) -> Mapping[str, float]:
        """One step of the outer rule."""
        before = self.state()
        try:
            lessons = [self._lesson(phase) for phase in phases]
            problem = MetaProblem(self._problem, lessons)
            vector, report = self._outer.update(problem, self._vector)
        except MetaRLError as error:
            self.load_state(before)
            raise type(error)(
                f"{error} It was after {self._updates} meta-iterations; the agent was put back to "
                "what it was before."
            ) from error
        report |= self._deviation()
        self._vector = vector
        self._updates += 1
        return report

    def state(self) -> dict[str, Tensor]:
        """Meta-parameters, the outer rule's state and the count of updates."""
        outer = {f"outer.{name}": value for name, value in self._outer.state().items()}
        return {
            "vector": self._vector.detach().clone(),
            "updates": torch.tensor(self._updates),
            **outer,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` returned."""
        expected, given = self.state(), state.get("vector")
        if given is None or given.shape != expected["vector"].shape or "updates" not in state:
            got = "none" if given is None else list(given.shape)
            raise CheckpointError(
                f"The checkpoint does not fit this agent: it should hold a vector of "
                f"{list(expected['vector'].shape)} meta-parameters and has {got}. It was written "
                "by an agent with other options, or for another task family."
            )
        self._outer.load_state(
            {
                name.removeprefix("outer."): value
                for name, value in state.items()
                if name.startswith("outer.")
            }
        )
        self._vector = given.to(self._vector.device).clone()
        self._updates = int(state["updates"])

    def _lesson(self, phase: Trajectory) -> PGBatch:
        config = self._config
        return lesson(
            phase,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            normalise=config.normalise_advantages,
        )

    def _require_finite(self, slope: InnerLoss, step: int) -> None:
        broken = ~(slope.loss.isfinite() & slope.gradient.isfinite().all(1))
        if bool(broken.any()):
            task = int(broken.nonzero()[0])
            raise NonFiniteError(
                f"The inner loss is {float(slope.loss[task])}, its gradient's norm "
                f"{float(slope.gradient[task].norm())}, after {self._updates} meta-iterations, "
                f"task {task}, inner step {step + 1}. Nothing was learnt from it; rewards or "
                f"observations may be very large, or inner_lr={self._config.inner_lr} too high."
            )

    def _require_sane(self, params: Tensor, step: int) -> None:
        """Weights beyond any use, or none at all, would only fail later, in the engine."""
        broken = ~(params.abs() < MOST).all(1)  # NaN is broken, too
        if bool(broken.any()):
            raise NonFiniteError(
                f"Parameters of task {int(broken.nonzero()[0])} left the range of +-{MOST:g} after "
                f"{self._updates} meta-iterations, in inner step {step + 1}. Nothing was learnt "
                f"from it; inner_lr={self._config.inner_lr} is too high."
            )

    def _deviation(self) -> dict[str, float]:
        """Of the initial policy's Box actions, in units of half their range."""
        if not self._head.constants:
            return {}
        logs = self._vector[: self._network.size][-self._head.constants :]
        return {"standard_deviation": float(logs.exp().mean())}
