"""PEARL: off-policy meta-learning with a posterior over a latent variable that stands for the task.

A context encoder turns every transition of a trial into a Gaussian factor; their product with the
prior is the posterior over a latent variable. Policy and critics read the observation and a sample
of it. At the start of every episode the policy samples from the posterior given all episodes
before, and keeps the sample: posterior sampling explores over episodes. Encoder and critics learn
from the critics' error and a KL divergence from the prior, the actor by soft actor-critic, from a
replay in which context and transitions of a gradient step belong to the same task.

Source: Rakelly et al. 2019, arXiv:1903.08254. Unlike the paper:

- each meta-iteration brings new tasks, and the replay keeps the newest, where the paper returns to
  a fixed set of training tasks;
- a context is the first episodes of a rollout, as the policy is tested, 0 to all but the last,
  where the paper draws transitions at random from recent experience; the same holds for collecting,
  which the paper divides into steps with the prior and steps with the posterior;
- the prior is a factor of the posterior, so that no context, little and much are one case; factors
  are given by mean and precision, of which 0 says nothing;
- soft actor-critic without a network for state values, and with a learned temperature (Haarnoja et
  al. 2018, arXiv:1812.05905); losses are means over tasks, and all networks take their steps at
  once;
- the policy is stochastic in evaluations, too; both use the same engine;
- contexts hold no next observation, which is the default of the authors' code.

The latent variable is kept through an episode and values end with it, so nothing rewards a search
for its own sake: in tasks whose reward is zero almost everywhere, each episode tries one place, and
the goals found by the k-th episode grow with k. RL^2, whose return runs over the whole trial, can
learn to search.

Of stable-baselines3 only the Polyak update is used. Its replay buffers keep single environments,
not tasks and trials, and its squashed Gaussian draws from torch's global generator.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from stable_baselines3.common.utils import polyak_update
from torch import Generator, Tensor

from metarl.agent import Adapted, Agent, AgentConfig, AgentContext, MetaBatch, Policy
from metarl.agents.off_policy import sac_losses
from metarl.agents.off_policy.networks import PEARLNetwork, PEARLNetworkOptions
from metarl.agents.off_policy.policy import PosteriorSamplingPolicy
from metarl.agents.off_policy.replay import Context, TaskReplay, Transitions
from metarl.errors import ConfigError, MetaRLError
from metarl.learning.optimiser_state import (
    load_learner,
    require_finite_gradient,
    save_learner,
    weights_alone,
)
from metarl.noise import LaneNoise
from metarl.trajectory import Trajectory
from metarl.validation import require_between, require_positive


@dataclass(frozen=True, kw_only=True)
class PEARLConfig(AgentConfig):
    """PEARL: adapts by sampling from a posterior (Rakelly et al. 2019, arXiv:1903.08254)."""

    num_tasks: int = 16
    """tasks per meta-batch (N)"""
    iterations: int = 500
    """meta-iterations of the whole run"""
    context: Literal["trial", "none"] = "trial"
    """trial: earlier transitions of the trial; none: the latent variable is always drawn from the
    prior, the negative control"""
    latent_size: int = 5
    """components of the latent variable"""
    hidden_size: int = 128
    """of both hidden layers of each network"""
    replay_tasks: int = 1000
    """newest tasks that are kept"""
    gradient_steps: int = 50
    """per meta-iteration"""
    meta_batch: int = 16
    """tasks in each gradient step"""
    batch_size: int = 64
    """transitions of each task in each gradient step"""
    gamma: float = 0.99
    """discount per environment step; values end with the episode's termination"""
    learning_rate: float = 3e-4
    """of Adam, for all networks and the temperature"""
    kl_coef: float = 0.1
    """weight of KL(posterior || prior), the mean over tasks"""
    reward_scale: float = 1.0
    """rewards are multiplied by this for the critics, not in the context"""
    temperature: float = 0.1
    """weight of the policy's entropy, at first if it is learned"""
    learn_temperature: bool = True
    """adjust the temperature so that the entropy reaches its target"""
    target_entropy: float | None = None
    """of actions in units of half their range; by default minus the number of components"""
    polyak: float = 0.005
    """share of the critics in the target critics at each gradient step"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latent_size", "hidden_size", "replay_tasks", "gradient_steps", "meta_batch"):
            require_positive(name, getattr(self, name))
        for name in ("batch_size", "learning_rate", "reward_scale", "temperature"):
            require_positive(name, getattr(self, name))
        for name in ("gamma", "polyak"):
            require_between(name, getattr(self, name), 0.0, 1.0)
        require_between("kl_coef", self.kl_coef, 0.0, 1e6)
        if self.replay_tasks < self.num_tasks:
            raise ConfigError(
                f"replay_tasks={self.replay_tasks} is less than num_tasks={self.num_tasks}, but "
                "the replay must hold at least the tasks of one meta-batch; raise it."
            )

    @property
    def reads_next_obs(self) -> bool:
        """Critics are trained by the value of the next observation."""
        return True

    @property
    def label(self) -> str:
        """PEARL, with the context where it is empty."""
        return "PEARL" if self.context == "trial" else "PEARL without context"

    def build(self, context: AgentContext) -> Agent:
        """A new agent.

        Raises:
            ConfigError: actions are not a bounded Box vector, or observations no vector.
        """
        return PEARL(self, context)

    def network(self, context: AgentContext) -> PEARLNetwork:
        """New networks with these options."""
        options = PEARLNetworkOptions(
            hidden_size=self.hidden_size,
            latent_size=self.latent_size,
            reads_context=self.context == "trial",
            temperature=self.temperature,
        )
        network = PEARLNetwork(
            context.observation_space,
            context.action_space,
            options,
            context.seeds.torch("initial weights"),
        )
        network.log_temperature.requires_grad_(self.learn_temperature)
        return network.to(context.device)


class PEARL:
    """Adapts in memory, which holds the posterior; learns off-policy."""

    adaptation_steps = 0
    evaluation_steps = 0

    def __init__(self, config: PEARLConfig, context: AgentContext) -> None:
        self._config = config
        self._seeds = context.seeds
        self._device = context.device
        self._network = config.network(context)
        self._target_entropy = (
            -float(self._network.units.size)
            if config.target_entropy is None
            else config.target_entropy
        )
        self._learned = [each for each in self._network.parameters() if each.requires_grad]
        self._optimiser = torch.optim.Adam(self._learned, lr=config.learning_rate, fused=True)
        self._replay = TaskReplay(config.replay_tasks, context.device)
        self._updates = 0

    def start(self, num_tasks: int, noise: LaneNoise) -> Policy:
        """Posterior sampling."""
        return PosteriorSamplingPolicy(self._network)

    def adapt(self, policy: Policy, experience: Trajectory, noise: LaneNoise) -> Adapted:
        """The policy itself: its memory holds the posterior."""
        return Adapted(policy)

    def update(self, batch: MetaBatch) -> Mapping[str, float]:
        """Adds the experience to the replay and takes gradient steps; returns mean metrics.

        Raises:
            NonFiniteError: a gradient is NaN or infinite; the agent is unchanged.
        """
        (experience,) = batch.trajectories
        before = save_learner(self._network, self._optimiser, self._updates)
        overwritten = self._replay.add(experience, self._network.units.encode)
        generator = self._seeds.torch("gradient steps", self._updates)
        totals: dict[str, Tensor] = {}
        try:
            for _ in range(self._config.gradient_steps):
                for name, value in self._gradient_step(generator).items():
                    totals[name] = totals.get(name, torch.zeros_like(value)) + value
        except MetaRLError:
            self._updates = load_learner(self._network, self._optimiser, before)
            self._replay.undo(overwritten)
            raise
        self._updates += 1
        means = {name: float(total) / self._config.gradient_steps for name, total in totals.items()}
        return means | {"replay_tasks": float(self._replay.filled)}

    def state(self) -> dict[str, Tensor]:
        """Networks, optimiser, the count of updates, and the replay."""
        replay = {f"replay.{name}": value for name, value in self._replay.state().items()}
        return {**save_learner(self._network, self._optimiser, self._updates), **replay}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned."""
        replay = TaskReplay(self._config.replay_tasks, self._device)
        replay.load_state(
            {
                name.removeprefix("replay."): value
                for name, value in state.items()
                if name.startswith("replay.")
            }
        )
        self._updates = load_learner(self._network, self._optimiser, state)
        self._replay = replay

    def take_weights(self, state: Mapping[str, Tensor]) -> None:
        """The networks; the replay stays empty."""
        weights = {name: value for name, value in state.items() if not name.startswith("replay.")}
        self._updates = load_learner(self._network, self._optimiser, weights_alone(weights))

    def _gradient_step(self, generator: Generator) -> dict[str, Tensor]:
        """One step of all networks on a batch of tasks; returns metrics."""
        config = self._config
        tasks = self._replay.sample_tasks(config.meta_batch, generator)
        context = self._replay.contexts(tasks, generator)
        transitions = self._replay.transitions(tasks, config.batch_size, generator)
        loss, metrics = self._losses(context, transitions, generator)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm(
            [each.grad for each in self._learned if each.grad is not None], foreach=True
        )
        require_finite_gradient(norm, learner="PEARL", updates=self._updates)
        self._optimiser.step()
        polyak_update(
            self._network.critics.parameters(),
            self._network.target_critics.parameters(),
            config.polyak,
        )
        return metrics | {"grad_norm": norm.detach()}

    def _losses(
        self, context: Context, transitions: Transitions, generator: Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of all losses, each of which has gradients for parameters of its own."""
        network, config = self._network, self._config
        posterior = network.encoder.posterior(
            context.obs, context.action, context.reward, context.observed
        )
        latent = posterior.sample(self._normal(posterior.mean.shape, generator))
        latent = latent.unsqueeze(1).expand(-1, config.batch_size, -1)
        fixed, temperature = latent.detach(), network.log_temperature.detach().exp()
        noise = self._normal((2, *transitions.action.shape), generator)
        with torch.no_grad():
            next_action, next_log_prob = network.actor(transitions.next_obs, fixed, noise[0])
            next_values = network.target_critics(transitions.next_obs, next_action, fixed)
            target = sac_losses.soft_target(
                config.reward_scale * transitions.reward,
                transitions.terminated,
                next_values.amin(0),
                next_log_prob,
                gamma=config.gamma,
                temperature=temperature,
            )
        values = network.critics(transitions.obs, transitions.action, latent)
        action, log_prob = network.actor(transitions.obs, fixed, noise[1])
        value = network.critics.held_fixed(transitions.obs, action, fixed).amin(0)
        critic_loss = sac_losses.critic_loss(values, target)
        actor_loss = sac_losses.actor_loss(value, log_prob, temperature)
        kl = posterior.kl_from_standard().mean()
        loss = critic_loss + config.kl_coef * kl + actor_loss
        if config.learn_temperature:
            loss = loss + sac_losses.temperature_loss(
                network.log_temperature, log_prob, self._target_entropy
            )
        metrics = {
            "critic_loss": critic_loss,
            "actor_loss": actor_loss,
            "kl": kl,
            "value": values.mean(),
            "entropy": -log_prob.mean(),
            "temperature": temperature,
        }
        return loss, {name: metric.detach() for name, metric in metrics.items()}

    def _normal(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return torch.randn(shape, generator=generator).to(self._device)
