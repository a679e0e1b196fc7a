"""The agent that adapts by gradient steps: policies, batches, inner steps and state.

Axes: `T` steps, `N` tasks, `B` rollouts of each, `P` parameters of a policy, `K` adaptation steps.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agent import (
    Adapted,
    AgentContext,
    MetaBatch,
    Policy,
    ShownTargets,
)
from metarl.agents.gradient.inner_loop import InnerLoop, InnerLoss
from metarl.agents.gradient.options import MAX_OPTION, GradientOptions
from metarl.agents.gradient.outer_loop import MetaProblem
from metarl.agents.gradient.pg_batch import (
    ESTIMATORS,
    PGBatch,
    pg_batch,
    supervised_batch,
)
from metarl.errors import CheckpointError, ConfigError, MetaRLError, NonFiniteError, RankError
from metarl.networks.action_heads import action_head
from metarl.networks.policies import StackedPolicy
from metarl.networks.stacked_mlp import StackedMLP
from metarl.noise import LaneNoise
from metarl.trajectory import Trajectory
from metarl.validation import vector_size


class GradientAgent:
    """Adapts by inner gradient steps from meta-learned parameters."""

    def __init__(self, config: GradientOptions, context: AgentContext) -> None:
        self._config = config
        self._updates = 0
        self._ranks = context.ranks
        self._targets = _shown_targets(config, context)
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
        per_task, start_noise = self._config.policies_per_task, None
        rows = num_tasks * (per_task or 1)
        if numbers := self._inner.rule.noise_size(self._network.size):
            start_noise = noise.normal(per_task or 1, numbers).flatten(0, 1)
        start = self._inner.start(initial.repeat(rows, 1), rule_params, start_noise)
        return StackedPolicy(
            self._network,
            self._head,
            start.params,
            policies_per_task=per_task,
            rule_state=start.state,
            start_noise=start_noise,
            hidden=self._targets.components if self._targets else None,
        )

    def adapt(self, policy: Policy, experience: Trajectory, noise: LaneNoise) -> Adapted:
        """The gradient steps of one adaptation step, in every task.

        How many policies of a task adapt is decided by the rollouts of the experience.

        Raises:
            NonFiniteError: the inner loss of a task; iteration, task and step are named.
        """
        assert isinstance(policy, StackedPolicy)
        with self._network.computing(self._meta_params):
            return self._adapted(policy, experience)

    def _adapted(self, policy: StackedPolicy, experience: Trajectory) -> Adapted:
        try:
            batch = self._batch(experience)
        except NonFiniteError as error:
            raise NonFiniteError(
                f"{error} It was after {self._updates} meta-iterations, in inner step "
                f"{policy.inner_steps + 1}; nothing was learned from it."
            ) from error
        policy = policy.for_lanes(_lanes(experience))
        per_task = self._policies_per_task(experience)
        steps = []
        for _ in range(self._config.gradient_steps):
            policy, step = self._step(policy, batch, per_task)
            steps.append(step)
        return Adapted(policy, cache=steps)

    def _step(
        self, policy: StackedPolicy, batch: PGBatch, per_task: int
    ) -> "tuple[StackedPolicy, InnerStep]":
        """One gradient step."""
        inner = self._inner.for_policies(per_task)
        _, rule_params = inner.split(self._meta_params)
        number = policy.inner_steps
        loss = inner.loss_at(policy.params, batch)
        self._require_finite(loss, number, per_task)
        inputs = inner.inputs(loss, rule_params, policy.rule_state)
        params, state = inner.apply_rule(inputs, number)
        self._require_in_range(params, number, per_task)
        after = replace(policy, params=params, rule_state=state, inner_steps=number + 1)
        return after, InnerStep(batch, loss)

    def update(self, batch: MetaBatch) -> Mapping[str, float]:
        """One step of the outer rule."""
        with self._network.computing(self._meta_params):
            return self._updated(batch)

    def _updated(self, batch: MetaBatch) -> Mapping[str, float]:
        before = self.state()
        try:
            steps: list[InnerStep] = [step for cache in batch.caches for step in cache]
            first = batch.phases[0].policy
            with self._ranks.together():
                last = self._batch(batch.trajectories[-1])
            assert isinstance(first, StackedPolicy)
            first = first.for_lanes(_lanes(batch.trajectories[0]))
            problem = MetaProblem(
                self._inner,
                [*(step.batch for step in steps), last],
                known=[step.loss for step in steps],
                start_noise=first.start_noise,
                ranks=self._ranks,
            )
            meta_params, report = self._outer.update(problem, self._meta_params)
        except MetaRLError as error:
            self.load_state(before)
            if isinstance(error, RankError):
                raise
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

    def take_weights(self, state: Mapping[str, Tensor]) -> None:
        """The meta-parameters."""
        weights = {name: state[name] for name in ("meta_params", "vector") if name in state}
        fresh = {name: value for name, value in self.state().items() if name != "meta_params"}
        self.load_state({**fresh, **weights})

    def _batch(self, phase: Trajectory) -> PGBatch:
        config = self._config
        if self._targets is not None:
            batch = supervised_batch(phase, self._targets)
        else:
            batch = pg_batch(
                phase,
                gamma=config.gamma,
                gae_lambda=config.gae_lambda,
                normalise=config.normalise_advantages,
            )
        return batch.split_rollouts(self._policies_per_task(phase))

    def _policies_per_task(self, experience: Trajectory) -> int:
        """Policies of each task that have experience."""
        rollouts, wanted = experience.valid.shape[2], self._config.policies_per_task
        return rollouts if wanted is None else min(wanted, rollouts)

    def _require_finite(self, loss: InnerLoss, step: int, per_task: int) -> None:
        broken = ~(loss.loss.isfinite() & loss.gradient.isfinite().all(1))
        if bool(broken.any()):
            row = int(broken.nonzero()[0])
            raise NonFiniteError(
                f"The inner loss is {float(loss.loss[row])}, its gradient's norm "
                f"{float(loss.gradient[row].norm())}, after {self._updates} meta-iterations, "
                f"task {row // per_task}, inner step {step + 1}. Nothing was learned from it; "
                f"rewards or observations may be very large, or inner_lr={self._config.inner_lr} "
                "too high."
            )

    def _require_in_range(self, params: Tensor, step: int, per_task: int) -> None:
        """Parameters that are huge or NaN would only fail later, in the engine."""
        broken = ~(params.abs() < MAX_OPTION).all(1)  # NaN is broken, too
        if bool(broken.any()):
            task = int(broken.nonzero()[0]) // per_task
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


def _lanes(experience: Trajectory) -> int:
    """L = N x B."""
    return experience.valid[0].numel()


def _shown_targets(config: GradientOptions, context: AgentContext) -> ShownTargets | None:
    """What the supervised estimator learns from; None for the others."""
    if config.estimator != "supervised":
        return None
    if context.shown_targets is None:
        others = ", ".join(name for name in ESTIMATORS if name != "supervised")
        raise ConfigError(
            "estimator='supervised' learns from right actions that observations show, and these "
            f"tasks show none (`TaskDistribution.shown_targets`). Use another one: {others}."
        )
    return context.shown_targets


class InnerStep(NamedTuple):
    """What one inner step computed, for the outer rule."""

    batch: PGBatch
    loss: InnerLoss
