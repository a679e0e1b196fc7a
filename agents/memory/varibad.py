"""VariBAD: the policy reads a belief over the task, which is trained to predict the whole trial.

A GRU maps the trial so far to a Gaussian over latent numbers. Decoders predict the rewards of all
steps of the trial, past and future, from a sample of it (and the next observations, with
`decode_transitions`). An evidence lower bound (ELBO) trains encoder and decoders; PPO trains policy
and value, which read the present observation and the belief, and its gradients do not reach the
encoder.

Source: Zintgraf et al. 2020, arXiv:1910.08348, eqs. 4 to 9. Unlike the paper: rewards are predicted
with a squared error also in the gridworld (a Bernoulli likelihood there), so that one loss fits all
tasks; the bound is computed at `elbo_steps` random steps of each trial, not at every step; both
losses are minimised by one optimiser on the latest trials, without a buffer of earlier ones; as
everywhere in metarl, PPO over whole trials with GAE.

Decoders learn from the steps that the agent takes, also later in the trial, when it knows more. An
action that it takes only where it found a reward, such as staying, predicts the reward by itself.

Axes: `T` steps, `L` lanes, `S` steps at which the belief is read, `C` transitions, `D` observation,
`A` encoded action, `Z` latent numbers, `H` features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from metarl.agent import Agent, AgentContext
from metarl.agents.memory.trainer import RecurrentAgent, RecurrentConfig
from metarl.errors import ConfigError
from metarl.learning.ppo import AuxiliaryLoss
from metarl.networks.action_heads import action_head, gaussian_kl
from metarl.networks.belief import BeliefDecoder, BeliefOptions, sample_belief
from metarl.networks.layers import RunningScale
from metarl.registry import make_memory_options
from metarl.trajectory import Trajectory
from metarl.validation import require_between, require_positive, vector_size


@dataclass(frozen=True, kw_only=True)
class VariBADConfig(RecurrentConfig):
    """VariBAD: adapts by a learned belief over the task (Zintgraf et al. 2020, 1910.08348)."""

    memory: str = "belief"
    """belief; or none, the negative control: no belief and no ELBO"""
    elbo_coef: float = 1.0
    """weight of the ELBO of encoder and decoders next to PPO's loss"""
    kl_coef: float = 0.002
    """weight of the KL divergence within the ELBO, next to the squared error: twice the variance
    that a reward is assumed to have, given task and transition"""
    elbo_steps: int = 8
    """random steps of each trial at which the belief predicts the trial"""
    decoder_size: int = 32
    """size of both hidden layers of a decoder"""
    decode_transitions: bool = False
    """predict observations, too, for tasks that differ in their dynamics"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("elbo_coef", "kl_coef"):
            require_between(name, getattr(self, name), 0.0, float("inf"))
        for name in ("elbo_steps", "decoder_size"):
            require_positive(name, getattr(self, name))
        if self.memory != "none" and self.belief is None:
            raise ConfigError(
                f"memory={self.memory!r} of varibad must be 'belief' (or 'none', the negative "
                "control): the ELBO is one of a belief. Other memories serve rl2."
            )
        if self.belief is not None and self.separate_value:
            raise ConfigError(
                "separate_value=True gives the value a belief of its own, but the ELBO trains that "
                "of the policy alone. Leave it out: no gradient of the value reaches the belief."
            )

    @property
    def belief(self) -> BeliefOptions | None:
        """Options of the memory, where it is a belief."""
        options = make_memory_options(self.memory, self.memory_options)
        return options if isinstance(options, BeliefOptions) else None

    @property
    def trains_on_ranks(self) -> bool:
        """Not with a belief: its noise is drawn for the whole meta-batch at once."""
        return self.belief is None

    @property
    def reads_next_obs(self) -> bool:
        """The decoders do."""
        return self.belief is not None

    @property
    def label(self) -> str:
        """VariBAD, and whether it has no memory."""
        return self.label_with_memory("VariBAD", usual="belief")

    def build(self, context: AgentContext) -> Agent:
        """A new agent."""
        belief = self.belief
        loss = None if belief is None else BeliefELBO(self, belief.latent_size, context)
        return RecurrentAgent(self, context, loss)


class BeliefELBO(AuxiliaryLoss):
    """The negative ELBO of beliefs at some steps of each trial, for each step that is decoded.

        loss = mean over t of  sum over i of (r[i] - decoder(m, step i))^2 + kl_coef * KL[t]
        KL[t] = KL(belief[t] || belief[t - 1]),   belief[-1] = N(0, I),   m ~ belief[t]

    divided by the length of the trial, with the mean over trials. Steps that are not valid do not
    count. The squared error of a next observation, a mean over its components, is added to that of
    the reward.

    Source: Zintgraf et al. 2020, arXiv:1910.08348, eqs. 4, 8 and 9.
    """

    draws: Tensor

    def __init__(self, config: VariBADConfig, latent_size: int, context: AgentContext) -> None:
        super().__init__()
        self._config = config
        self._seeds = context.seeds.child("elbo")
        self._latent_size = latent_size
        self._head = action_head(context.action_space)
        self._obs_size = vector_size(context.observation_space)
        self.scale = RunningScale(self._obs_size) if config.normalise_inputs else None
        self.reward_scale = RunningScale(1) if config.normalise_inputs else None
        generator = context.seeds.torch("decoders")

        def decoder(inputs: int, outputs: int) -> BeliefDecoder:
            return BeliefDecoder(
                latent_size, inputs, config.decoder_size, outputs, generator=generator
            )

        before = self._obs_size + self._head.outputs
        self.reward = decoder(before + self._obs_size, 1)
        self.next_obs = decoder(before, self._obs_size) if config.decode_transitions else None
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def targets(self, experience: Trajectory) -> Mapping[str, Tensor]:
        """Transitions of the trials, a random order of their steps, and noise for the samples."""
        assert experience.next_obs is not None  # `VariBADConfig.reads_next_obs`
        reward = experience.reward.unsqueeze(-1)
        if self.scale is not None and self.reward_scale is not None:
            self.scale.observe(experience.next_obs[experience.valid])
            self.reward_scale.observe(reward[experience.valid])
            reward = self.reward_scale(reward)
        valid = experience.valid.flatten(1, 2)
        generator = self._seeds.torch("steps and noise", int(self.draws))
        self.draws += 1
        order = torch.rand(valid.shape, generator=generator).to(valid.device)
        noise = torch.randn((*valid.shape, self._latent_size), generator=generator)
        transition = self._encode(experience.obs, experience.action, experience.next_obs)
        return {
            "transition": transition.flatten(1, 2),
            "reward": reward.flatten(1, 2),
            "order": (order + 2.0 * ~valid).argsort(0),  # valid steps first
            "noise": noise.to(valid.device),
        }

    def forward(self, features: Tensor, targets: Mapping[str, Tensor], valid: Tensor) -> Tensor:
        """The weighted loss."""
        belief = features[..., -2 * self._latent_size :]
        chosen = targets["order"][: self._config.elbo_steps]  # [S, L]
        kl = kl_to_previous(belief).gather(0, chosen)
        picked = belief.gather(0, chosen.unsqueeze(-1).expand(-1, -1, belief.shape[-1]))
        latent = sample_belief(picked, targets["noise"][: len(chosen)])
        error = (self._squared_error(latent, targets) * valid).sum(1)
        weight, steps = valid.gather(0, chosen), valid.sum(0)
        bound = ((error + self._config.kl_coef * kl) * weight).sum(0) / weight.sum(0)
        return self._config.elbo_coef * (bound / steps).mean()

    @torch.no_grad()
    def expected_rewards(
        self,
        features: Tensor,
        obs: Tensor,
        action: Tensor,
        next_obs: Tensor,
        *,
        generator: Generator,
        samples: int = 1000,
    ) -> Tensor:
        """Expected rewards of any transitions under beliefs, [C, L].

        Args:
            features: [L, H] of the policy's memory, such as one step of `MemoryAgent.features`.
            obs: [C, D] before the transition.
            action: [C] or [C, A].
            next_obs: [C, D] after it.
            generator: of the samples, on the CPU.
            samples: of each belief.
        """
        belief = features[..., -2 * self._latent_size :]
        noise = torch.randn((samples, len(belief), self._latent_size), generator=generator)
        latent = sample_belief(belief, noise.to(belief.device))
        transition = self._encode(obs, action, next_obs).unsqueeze(1)
        reward: Tensor = self.reward(latent, transition).squeeze(-1).mean(0)
        if self.reward_scale is not None:
            reward = reward * self.reward_scale.deviation + self.reward_scale.mean
        return reward

    def _encode(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """Transitions as inputs of the decoders, [..., D + A + D]."""
        obs, next_obs = obs.to(torch.float32), next_obs.to(torch.float32)
        if self.scale is not None:
            obs, next_obs = self.scale(obs), self.scale(next_obs)
        return torch.cat((obs, self._head.encode(action), next_obs), -1)

    def _squared_error(self, latent: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Of every step, predicted from each sample [S, L, Z]: [S, T, L]."""
        transition = targets["transition"]
        error: Tensor = (self.reward(latent, transition) - targets["reward"]).square().mean(-1)
        if self.next_obs is not None:
            predicted = self.next_obs(latent, transition[..., : -self._obs_size])
            error = error + (predicted - transition[..., -self._obs_size :]).square().mean(-1)
        return error


def kl_to_previous(belief: Tensor) -> Tensor:
    """KL divergence of each belief [T, L, 2 Z] from the one before, the first from N(0, I): [T, L].

    Source: Zintgraf et al. 2020, arXiv:1910.08348, eq. 9 and the text below.
    """
    return gaussian_kl(belief, torch.cat((torch.zeros_like(belief[:1]), belief[:-1])))
