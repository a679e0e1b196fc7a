"""The trainer of all agents that adapt by gradient steps: an inner rule and an outer rule.

Each published algorithm is a file next to this one that names its parts and its defaults.

Axes: `T` steps, `N` tasks, `B` rollouts of each, `P` parameters of a policy, `K` adaptation steps.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from metarl.agent import Adapted, Agent, AgentConfig, AgentContext, MetaBatch, Policy
from metarl.agents.gradient.inner_loop import InnerLoop, InnerLoss
from metarl.agents.gradient.inner_rules import GradientDescent, InnerRule, LearningRateSchedule
from metarl.agents.gradient.outer_loop import (
    MetaProblem,
    OuterLoss,
    OuterRule,
    TrustRegion,
)
from metarl.agents.gradient.pg_batch import ESTIMATORS, Estimator, PGBatch, pg_batch
from metarl.errors import CheckpointError, ConfigError, MetaRLError, NonFiniteError
from metarl.networks.action_heads import action_head
from metarl.networks.policies import StackedPolicy
from metarl.networks.stacked_mlp import Activation, StackedMLP
from metarl.noise import LaneNoise
from metarl.trajectory import Trajectory
from metarl.validation import require_between, require_positive, vector_size

MAX_OPTION = 1e6
"""upper bound for rates, step counts and damping; larger values are typos"""


@dataclass(frozen=True, kw_only=True)
class GradientConfig(AgentConfig):
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
    """inner loss: score (plain), lvc (low-variance curvature), dice or loaded_dice"""
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
        for name in ("adaptation_steps", "evaluation_steps", "inner_lr", "later_lr_scale"):
            require_between(name, getattr(self, name), 0, MAX_OPTION)
        require_positive("initial_std", self.initial_std)
        for name in ("gamma", "gae_lambda", "later_lr_decay"):
            require_between(name, getattr(self, name), 0.0, 1.0)
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ConfigError(
                f"hidden_sizes={self.hidden_sizes} must be sizes from 1 on, such as 64 64."
            )
        for name, known in (("estimator", ESTIMATORS), ("activation", get_args(Activation))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is not one of {', '.join(known)}."
                )

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

    def build(self, context: AgentContext) -> Agent:
        """A new agent of this kind."""
        return GradientAgent(self, context)


@dataclass(frozen=True, kw_only=True)
class TrustRegionConfig(GradientConfig):
    """Agents whose outer rule is TRPO."""

    max_kl: float = 0.01
    """bound on the change of the adapted policies in one meta-iteration: mean KL(old || new)"""
    conjugate_gradient_steps: int = 10
    """conjugate-gradient steps, each a product with the exact curvature of that divergence"""
    multi_step_loss: bool = False
    """put the policies after every inner step into the outer loss, not only after the last"""
    shared_advantage_scale: bool = False
    """divide advantages of all tasks and steps by one standard deviation instead of each by its
    own, so that tasks with larger differences in return weigh more"""
    curvature_rollouts: int | None = None
    """rollouts of each task that the curvature is computed on; fewer are faster; by default all"""
    damping: float = 0.1
    """added to the curvature's diagonal; less makes steps longer where the curvature is large, as
    in navigation, and stops them where it is small, as in bandits"""
    line_search_steps: int = 15
    """line-search candidates before no step is taken"""
    line_search_shrink: float = 0.8
    """ratio of each line-search candidate to the one before"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "max_kl",
            "conjugate_gradient_steps",
            "curvature_rollouts",
            "line_search_steps",
        ):
            require_positive(name, getattr(self, name))
        require_between("damping", self.damping, 0.0, MAX_OPTION)
        require_between("line_search_shrink", self.line_search_shrink, 0.01, 0.99)

    @abstractmethod
    def outer_loss(self) -> OuterLoss:
        """The outer loss."""

    def outer_rule(self, size: int, device: torch.device) -> OuterRule:
        """TRPO."""
        return TrustRegion(
            outer_loss=self.outer_loss(),
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
    """Adapts by inner gradient steps from meta-learned parameters. See the module."""

    def __init__(self, config: GradientConfig, context: AgentContext) -> None:
        self._config = config
        self._updates = 0
        inputs = vector_size(context.observation_space)
        self._head = action_head(context.action_space, initial_std=config.initial_std)
        self._head.to(context.device)
        self._network = StackedMLP(
            sizes=(inputs, *config.hidden_sizes, self._head.outputs),
            constants=self._head.constants,
            activation=config.activation,
            learn_constants=config.learn_std,
        )
        self._inner = InnerLoop(
            network=self._network,
            head=self._head,
            rule=config.inner_rule(),
            estimator=ESTIMATORS[config.estimator],
            first_order=config.first_order,
        )
        initial = self._network.initial(
            self._head.initial_constants(), context.seeds.torch("initial weights")
        )
        rule_params = self._inner.rule.initial(
            self._network.size, context.seeds.torch("initial rule parameters")
        )
        self._meta_params = torch.cat((initial, rule_params)).to(context.device)
        self._outer = config.outer_rule(len(self._meta_params), context.device)

    @property
    def adaptation_steps(self) -> int:
        """K in training."""
        return self._config.adaptation_steps

    @property
    def evaluation_steps(self) -> int:
        """K in an evaluation."""
        return self._config.evaluation_steps

    def start(self, num_tasks: int, noise: LaneNoise) -> Policy:
        """The parameters before the first inner step, for each task."""
        initial, rule_params = self._inner.split(self._meta_params)
        rule, size = self._inner.rule, self._network.size
        policies, start_noise = num_tasks * rule.policies_per_task, None
        if numbers := rule.noise_size(size):
            start_noise = noise.normal(rule.policies_per_task, numbers).flatten(0, 1)
        start = self._inner.start(
            initial.expand(policies, -1).contiguous(), rule_params, start_noise
        )
        return StackedPolicy(
            self._network, self._head, start.params, start.state, start_noise=start_noise
        )

    def adapt(self, policy: Policy, experience: Trajectory, noise: LaneNoise) -> Adapted:
        """One inner step of every task.

        Raises:
            NonFiniteError: the inner loss of a task; iteration, task and step are named.
        """
        assert isinstance(policy, StackedPolicy)
        _, rule_params = self._inner.split(self._meta_params)
        step = policy.inner_steps
        try:
            batch = self._batch(experience)
        except NonFiniteError as error:
            raise NonFiniteError(
                f"{error} It was after {self._updates} meta-iterations, in inner step "
                f"{step + 1}; nothing was learned from it."
            ) from error
        loss = self._inner.loss_at(policy.params, batch)
        self._require_finite(loss, step)
        inputs = self._inner.inputs(loss, rule_params, policy.rule_state)
        params, state = self._inner.apply_rule(inputs, step)
        self._require_in_range(params, step)
        return Adapted(
            replace(policy, params=params, rule_state=state, inner_steps=step + 1),
            cache=InnerStep(batch, loss),
        )

    def update(self, batch: MetaBatch) -> Mapping[str, float]:
        """One step of the outer rule."""
        before = self.state()
        try:
            steps: list[InnerStep] = batch.caches
            first, last = batch.phases[0].policy, self._batch(batch.trajectories[-1])
            assert isinstance(first, StackedPolicy)
            problem = MetaProblem(
                self._inner,
                [*(step.batch for step in steps), last],
                known=[step.loss for step in steps],
                start_noise=first.start_noise,
            )
            meta_params, report = self._outer.update(problem, self._meta_params)
        except MetaRLError as error:
            self.load_state(before)
            raise type(error)(
                f"{error} It was after {self._updates} meta-iterations; the agent is unchanged."
            ) from error
        report |= self._deviation()
        self._meta_params = meta_params
        self._updates += 1
        return report

    def state(self) -> dict[str, Tensor]:
        """Meta-parameters, the outer rule's state and the count of updates."""
        outer = {f"outer.{name}": value for name, value in self._outer.state().items()}
        return {
            "meta_params": self._meta_params.detach().clone(),
            "updates": torch.tensor(self._updates),
            **outer,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned."""
        expected = self._meta_params.shape
        given = state.get("meta_params", state.get("vector"))  # its name in format 1
        if given is None or given.shape != expected or "updates" not in state:
            got = "none" if given is None else list(given.shape)
            raise CheckpointError(
                f"The checkpoint does not fit this agent: it should hold {list(expected)} "
                f"meta-parameters and has {got}. It was written by an agent with other options, or "
                "for another task family."
            )
        self._outer.load_state(
            {
                name.removeprefix("outer."): value
                for name, value in state.items()
                if name.startswith("outer.")
            }
        )
        self._meta_params = given.to(self._meta_params.device).clone()
        self._updates = int(state["updates"])

    def _batch(self, phase: Trajectory) -> PGBatch:
        config = self._config
        batch = pg_batch(
            phase,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            normalise=config.normalise_advantages,
        )
        return batch.split_rollouts(self._inner.rule.policies_per_task)

    def _require_finite(self, loss: InnerLoss, step: int) -> None:
        broken = ~(loss.loss.isfinite() & loss.gradient.isfinite().all(1))
        if bool(broken.any()):
            task = int(broken.nonzero()[0]) // self._inner.rule.policies_per_task
            raise NonFiniteError(
                f"The inner loss is {float(loss.loss[task])}, its gradient's norm "
                f"{float(loss.gradient[task].norm())}, after {self._updates} meta-iterations, "
                f"task {task}, inner step {step + 1}. Nothing was learned from it; rewards or "
                f"observations may be very large, or inner_lr={self._config.inner_lr} too high."
            )

    def _require_in_range(self, params: Tensor, step: int) -> None:
        """Parameters that are huge or NaN would only fail later, in the engine."""
        broken = ~(params.abs() < MAX_OPTION).all(1)  # NaN is broken, too
        if bool(broken.any()):
            task = int(broken.nonzero()[0]) // self._inner.rule.policies_per_task
            raise NonFiniteError(
                f"Parameters of task {task} left the range of +-{MAX_OPTION:g} after "
                f"{self._updates} meta-iterations, in inner step {step + 1}. "
                f"Nothing was learned from it; inner_lr={self._config.inner_lr} is too high."
            )

    def _deviation(self) -> dict[str, float]:
        """Of the initial policy's Box actions, in units of half their range."""
        if not self._head.constants:
            return {}
        logs = self._meta_params[: self._network.size][-self._head.constants :]
        return {"standard_deviation": float(logs.exp().mean())}


class InnerStep(NamedTuple):
    """What one inner step computed, for the outer rule."""

    batch: PGBatch
    loss: InnerLoss
