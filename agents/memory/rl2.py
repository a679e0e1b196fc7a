"""RL^2: a recurrent policy that adapts in its memory, trained by PPO over whole trials.

The return runs on across the episodes of a trial and ends with the trial; the memory is cleared
where a trial starts, never where an episode starts.

Sources: Duan et al. 2016, arXiv:1611.02779 (the idea, percept and discounting); Wang et al. 2016,
arXiv:1611.05763; Schulman et al. 2017, arXiv:1707.06347 (PPO); Schulman et al. 2016,
arXiv:1506.02438 (GAE). Unlike the paper: PPO instead of TRPO, GAE lambda .95 by default instead of
.3, values in units of the returns' running mean and deviation (PopArt). Memories and their sources:
`metarl.networks.memory`.

Axes: `T` steps, `L` lanes = tasks x copies, `F` inputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.agent import Agent, AgentConfig, AgentContext, Policy
from metarl.errors import ConfigError, NonFiniteError
from metarl.learning.advantages import gae
from metarl.learning.losses import clipped_surrogate, masked_mean, normalised
from metarl.learning.optimiser_state import load_learner, save_learner
from metarl.networks.actor_critic import RecurrentActorCritic
from metarl.networks.memory import CORES, MemoryName
from metarl.networks.policies import RecurrentPolicy
from metarl.trajectory import Trajectory
from metarl.validation import require_between, require_positive


@dataclass(frozen=True, kw_only=True)
class RL2Config(AgentConfig):
    """RL^2: adapts in the memory of a recurrent network (Duan et al. 2016, arXiv:1611.02779)."""

    num_tasks: int = 512
    """tasks per meta-iteration (N)"""
    iterations: int = 300
    """meta-iterations of the whole run; schedules run over these"""
    memory: MemoryName = "gru"
    """memory: gru; lstm; attention (a GRU that can also look up every earlier step of the trial,
    for tasks with much to remember such as tabular MDPs; two to three times as slow, more in long
    trials; hidden_size must be a multiple of 4); or none (the negative control: every step is met
    as the first)"""
    hidden_size: int = 64
    """width of the embedding, the memory and the heads"""
    separate_value: bool = False
    """give the value function an embedding and a memory of its own"""
    normalise_inputs: bool = False
    """read observations and previous rewards in units of their running mean and deviation; for
    those that are far from order one, as in locomotion"""
    initial_std: float = 1.0
    """first standard deviation of Box actions, in units of half their range"""
    gamma: float = 0.99
    """discount per environment step, not reset between the episodes of a trial"""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation"""
    num_epochs: int = 4
    """passes over the experience of an iteration"""
    num_minibatches: int = 4
    """parts of whole trials per pass; must divide num_tasks * rollouts_per_task"""
    clip_range: float = 0.2
    """how far the probability ratio may move before its gradient is cut"""
    learning_rate: float = 3e-3
    """of Adam at the start"""
    final_learning_rate: float = 0.0
    """of Adam where the run ends; linear in between"""
    entropy_coef: float = 0.003
    """weight of the policy's entropy at the start"""
    final_entropy_coef: float = 0.0
    """weight of the policy's entropy where the run ends; linear in between"""
    value_coef: float = 0.5
    """weight of the squared error of the (scaled) value"""
    max_grad_norm: float = 1.0
    """the gradient is scaled down to this norm"""
    normalise_advantages: bool = True
    """mean 0 and deviation 1 over the experience of an iteration"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "hidden_size",
            "initial_std",
            "num_epochs",
            "num_minibatches",
            "clip_range",
            "learning_rate",
        ):
            require_positive(name, getattr(self, name))
        require_positive("max_grad_norm", self.max_grad_norm)
        for name in ("gamma", "gae_lambda"):
            require_between(name, getattr(self, name), 0.0, 1.0)
        for name in (
            "final_learning_rate",
            "entropy_coef",
            "final_entropy_coef",
            "value_coef",
        ):
            require_between(name, getattr(self, name), 0.0, float("inf"))
        if self.memory not in CORES:
            raise ConfigError(f"memory={self.memory!r} is not one of {', '.join(CORES)}.")
        if self.hidden_size % (multiple := CORES[self.memory].width_multiple):
            raise ConfigError(
                f"hidden_size={self.hidden_size} does not divide into the {multiple} heads of "
                f"memory={self.memory!r}; it must be a multiple of {multiple}."
            )
        lanes = self.num_tasks * self.rollouts_per_task
        if lanes % self.num_minibatches:
            raise ConfigError(
                f"num_tasks={self.num_tasks} times rollouts_per_task={self.rollouts_per_task} does "
                f"not divide into num_minibatches={self.num_minibatches} (remainder "
                f"{lanes % self.num_minibatches}); a recurrent minibatch holds whole trials, so "
                "the product must be a multiple of it."
            )

    @property
    def label(self) -> str:
        """RL², with the memory where it is not the usual one."""
        special = {"gru": "RL²", "attention": "RL² with attention", "none": "RL² without memory"}
        return special.get(self.memory, f"RL² ({self.memory})")

    def build(self, setting: AgentContext) -> Agent:
        """A new RL^2 agent."""
        return RL2(self, setting)


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """What one PPO step reads, [T, L, ...]."""

    inputs: Tensor  # [T, L, F]
    action: Tensor  # [T, L] or [T, L, A]
    log_prob: Tensor  # [T, L]
    advantage: Tensor  # [T, L]
    target: Tensor  # [T, L] returns in the value head's units
    valid: Tensor  # [T, L] float

    def lanes(self, index: Tensor) -> "_Batch":
        return _Batch(**{name: value.index_select(1, index) for name, value in vars(self).items()})


class RL2:
    """See the module."""

    adaptation_steps = 0
    evaluation_steps = 0

    def __init__(self, config: RL2Config, setting: AgentContext) -> None:
        self._config = config
        self._seeds = setting.seeds
        self._device = setting.device
        self._updates = 0
        self._network = RecurrentActorCritic(
            setting.observation_space,
            setting.action_space,
            memory=config.memory,
            hidden_size=config.hidden_size,
            separate_value=config.separate_value,
            normalise_inputs=config.normalise_inputs,
            initial_std=config.initial_std,
            generator=setting.seeds.torch("initial weights"),
        ).to(setting.device)
        self._optimiser = torch.optim.Adam(
            self._network.parameters(), lr=config.learning_rate, eps=1e-5, fused=True
        )

    def start(self, num_tasks: int) -> Policy:
        """The recurrent policy, the same for every task: what differs is what it remembers."""
        return RecurrentPolicy(self._network)

    def adapt(self, policy: Policy, experience: Trajectory) -> Policy:
        """The policy itself: its adaptation took place in its memory while it lived."""
        return policy

    def update(self, phases: Sequence[Trajectory]) -> Mapping[str, float]:
        """PPO on one phase of whole trials."""
        config, (experience,) = self._config, phases
        left = max(0.0, 1.0 - self._updates / config.iterations)
        rate = _between(config.final_learning_rate, config.learning_rate, left)
        bonus = _between(config.final_entropy_coef, config.entropy_coef, left)
        for group in self._optimiser.param_groups:
            group["lr"] = rate

        before = self.state()
        batch, explained = self._prepare(experience)
        totals: dict[str, Tensor] = {}
        try:
            for part in self._minibatches(batch):
                for name, value in self._step(part, bonus).items():
                    totals[name] = totals.get(name, torch.zeros_like(value)) + value
        except NonFiniteError:
            self.load_state(before)
            raise
        if config.normalise_inputs:
            # Only now, because what was lived and learnt from above was read in the former units.
            self._network.observe(experience.percepts(), experience.valid)
        self._updates += 1
        count = config.num_epochs * config.num_minibatches
        means = {name: float(total) / count for name, total in totals.items()}
        return means | {
            "explained_variance": float(explained),
            "learning_rate": rate,
            "entropy_coef": bonus,
        }

    def state(self) -> dict[str, Tensor]:
        """Network, optimiser and the count of updates."""
        return save_learner(self._network, self._optimiser, self._updates)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` returned."""
        self._updates = load_learner(self._network, self._optimiser, state)

    @torch.no_grad()
    def _prepare(self, experience: Trajectory) -> tuple[_Batch, Tensor]:
        """Advantages and value targets over whole trials; also the variance explained."""
        inputs = self._network.encode(experience.percepts()).flatten(1, 2)
        valid = experience.valid.flatten(1, 2)
        value = self._network.values(inputs)
        next_value = torch.cat((value[1:], torch.zeros_like(value[:1])))
        ends = experience.trial_end.flatten(1, 2)
        reward = experience.reward.flatten(1, 2)
        advantage = gae(
            reward,
            value,
            next_value,
            terminated=ends,
            truncated=torch.zeros_like(ends),
            gamma=self._config.gamma,
            gae_lambda=self._config.gae_lambda,
        )
        target = advantage + value
        lived = target[valid]
        explained = 1.0 - advantage[valid].var() / lived.var().clamp_min(1e-12)
        self._network.value.observe(lived)
        weight = valid.to(reward.dtype)
        if self._config.normalise_advantages:
            advantage = normalised(advantage, weight)
        batch = _Batch(
            inputs=inputs,
            action=experience.action.flatten(1, 2),
            log_prob=experience.log_prob.flatten(1, 2),
            advantage=advantage,
            target=self._network.value.scaled(target),
            valid=weight,
        )
        return batch, explained

    def _minibatches(self, batch: _Batch) -> Iterator[_Batch]:
        generator = self._seeds.torch("minibatches", self._updates)
        lanes = batch.valid.shape[1]
        for _ in range(self._config.num_epochs):
            order = torch.randperm(lanes, generator=generator).to(self._device)
            for index in order.chunk(self._config.num_minibatches):
                yield batch.lanes(index)

    def _step(self, batch: _Batch, entropy_coef: float) -> dict[str, Tensor]:
        """One step of Adam on the surrogate, the value error and the entropy."""
        head = self._network.head
        raw, value = self._network(batch.inputs)
        log_prob, entropies = head.evaluate(raw, batch.action)
        surrogate = clipped_surrogate(
            log_prob,
            batch.log_prob,
            batch.advantage,
            batch.valid,
            clip_range=self._config.clip_range,
        )
        value_loss = masked_mean((value - batch.target).square(), batch.valid)
        entropy = masked_mean(entropies, batch.valid)
        loss = surrogate.loss + self._config.value_coef * value_loss - entropy_coef * entropy
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(
            self._network.parameters(), self._config.max_grad_norm, foreach=True
        )
        if not bool(norm.isfinite()):
            raise NonFiniteError(
                f"The gradient of RL^2 became {float(norm)} (loss {float(loss.detach())}) in "
                f"update {self._updates}; the agent was put back to what it was before. Rewards "
                "or observations may be very large, or the learning rate too high."
            )
        self._optimiser.step()
        return {
            "policy_loss": surrogate.loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy": entropy.detach(),
            "approximate_kl": surrogate.approximate_kl,
            "clip_fraction": surrogate.clip_fraction,
            "grad_norm": norm.detach(),
        }


def _between(last: float, first: float, left: float) -> float:
    """`first` when everything is left, `last` when nothing is."""
    return last + (first - last) * left
