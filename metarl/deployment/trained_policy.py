"""A trained agent in a loop of its user: NumPy observations in, NumPy actions out.

The engine's pieces are used, so the policy is given the percepts and the random streams that
`metarl.collect` would give it.

Axes: `N` tasks, `B` rollouts of each, `L` = N x B lanes, then features (`D` observation).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from metarl.agent import Agent, AgentConfig, Memory, Policy, PolicyOutput
from metarl.bridges.lane_arrays import LaneArrays, lane_vector
from metarl.deployment.acting import most_likely, require_finite
from metarl.deployment.experience import Recording
from metarl.deployment.sb3_predictor import SB3Predictor
from metarl.errors import ConfigError, PolicyUseError
from metarl.field_types import checks_arguments
from metarl.noise import LaneNoise, lane_keys
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution
from metarl.training.process import torch_threads
from metarl.training.run_folder import Run, as_run
from metarl.training.torch_defaults import torch_defaults
from metarl.trajectory import Percept, blank_action, first_percept, next_percept
from metarl.validation import as_device, require_positive


@torch_defaults()
def load_policy(
    run: Run | str | os.PathLike[str], *, modules: Sequence[str] = (), device: str = "cpu"
) -> "TrainedPolicy":
    """The final agent of a run, to act in environments that the caller steps.

    The environments need the spaces of the training; nothing else of the family is used.

        policy = metarl.load_policy("runs/rl2-BernoulliBandit-v0-seed0")
        env = gymnasium.make("metarl/BernoulliBandit-v0", new_task="never")
        policy.begin_trial()
        observation, info = env.reset()
        for _ in range(10):
            action = policy.act(observation)
            observation, reward, terminated, truncated, info = env.step(action)
            policy.observe(reward, terminated, truncated)
            if terminated or truncated:
                observation, info = env.reset()

    Args:
        run: a run or its folder, or `zoo:NAME` for one of the trained agents that come with metarl.
        modules: modules that define the task or the agent and that you trust; see `load_run`.
        device: torch device of the network.

    Raises:
        RunFolderError: there is no run in this folder, or it names a module that is not imported.
        CheckpointError: the run is not trained yet, or its checkpoint is broken.
        ConfigError: there is no such device.
    """
    as_device(device)
    run = as_run(run, modules=modules)
    family = run.config.make_family()
    agent = run.make_agent(family, device)
    run.load(agent)
    return TrainedPolicy(agent, run.config.make_agent_config(), family, device=device)


@dataclass
class _Trial:
    """What changes within a trial."""

    num_envs: int | None  # None: one environment, without a lane axis
    num_tasks: int
    seeds: Seeds
    policy: Policy
    phase: int = 0  # adaptation steps taken
    step: int = 0  # of this phase
    memory: Memory = None
    noise: LaneNoise | None = None
    percept: Percept | None = None  # at the last act()
    output: PolicyOutput | None = None  # of the last act(), until observe()
    outcome: tuple[Tensor, Tensor, Tensor, Tensor] | None = (
        None  # action, reward and flags of the last step
    )
    episode_starts: Tensor = field(default_factory=lambda: torch.zeros(0))  # [L] bool, next step
    recording: Recording = field(default_factory=Recording)


class TrainedPolicy:
    """Acts in one environment or a vector of them, and adapts to the task that they hold.

    A trial is `begin_trial`, then `act` and `observe` in turns, over as many episodes of one task
    as wanted. An agent with a memory adapts in these calls. One that adapts by gradient steps does
    so in `adapt`, to the episodes since the start of the trial or the last `adapt`. Neither needs
    as many environments as the training had.
    """

    def __init__(
        self, agent: Agent, config: AgentConfig, family: TaskDistribution, *, device: str = "cpu"
    ) -> None:
        """A policy of a trained agent with this config, for the spaces of the family."""
        self._agent, self._family, self._device = agent, family, torch.device(device)
        self._arrays = LaneArrays.of(family)
        self._horizon = (config.episodes or family.trial_episodes) * family.episode_steps
        self.label = config.label
        self.adapts_by_gradient = agent.evaluation_steps > 0
        """whether the agent adapts in `adapt`, not in its memory"""
        self.needs_next_observation = self.adapts_by_gradient and config.reads_next_obs
        """whether `observe` must be given the next observation"""
        self._trials = 0
        self._trial: _Trial | None = None

    @checks_arguments("num_envs", "rollouts_per_task", "seed")
    @torch_defaults()
    def begin_trial(
        self,
        num_envs: int | VectorEnv[Any, Any, Any] | None = None,
        *,
        rollouts_per_task: int = 1,
        seed: int | Seeds | None = None,
    ) -> None:
        """Forgets the task, and starts a trial whose first observation is that of a reset.

        Args:
            num_envs: None for one environment; for several stepped together, a Gymnasium vector
                environment or the number L of its environments. Where an episode ends, its next
                observation must be the first of the next episode: autoreset mode SAME_STEP, or
                DISABLED with resets by the caller.
            rollouts_per_task: B environments in a row have the same task; an agent that adapts by
                gradient steps joins their experience, unless each of its rollouts adapts alone
                (`adapt_each_rollout`). One that adapts in its memory does not.
            seed: of the actions that are drawn; by default the number of the trial of this policy,
                so that trials differ.

        Raises:
            ConfigError: a number is not positive, B does not divide L, or the vector environment
                resets in the step after the end of an episode.
        """
        if isinstance(num_envs, VectorEnv):
            _require_same_step(num_envs)
            num_envs = num_envs.num_envs
        require_positive("num_envs", num_envs)
        require_positive("rollouts_per_task", rollouts_per_task)
        lanes = num_envs or 1
        if lanes % rollouts_per_task:
            raise ConfigError(
                f"rollouts_per_task={rollouts_per_task} does not divide the {lanes} environments; "
                "each task has the same number of them."
            )
        seeds = Seeds(0).child("trial", self._trials) if seed is None else seed
        seeds = seeds if isinstance(seeds, Seeds) else Seeds(seeds)
        self._trials += 1
        tasks = lanes // rollouts_per_task
        policy = self._agent.start(tasks, self._task_noise(seeds, tasks, "start"))
        self._trial = _Trial(num_envs, tasks, seeds, policy)
        self._begin_phase(self._trial, torch.ones(lanes, dtype=torch.bool, device=self._device))

    @checks_arguments("deterministic")
    @torch_defaults()
    def act(self, observation: Any, *, deterministic: bool = False) -> Any:
        """The action for what `reset` or `step` of the environment has returned.

        Args:
            observation: of one environment, or of the vector environment [L, ...].
            deterministic: the most likely action instead of a random one.

        Raises:
            PolicyUseError: no trial has begun, the last action was not observed, or this agent
                always draws its actions.
            ShapeError: the observation is not in the observation space.
            NonFiniteError: the observation or the action is NaN or infinite.
        """
        trial = self._require_trial("act")
        if trial.output is not None:
            raise PolicyUseError(
                "act() was called twice: the reward of the last action was not observed. Call "
                "observe(reward, terminated, truncated) after each step of the environment."
            )
        obs = self._arrays.observations(observation, trial.num_envs).to(self._device)
        require_finite("observation", obs)
        policy = most_likely(trial.policy, self.label) if deterministic else trial.policy
        trial.percept = self._percept(trial, obs)
        assert trial.noise is not None
        with torch.no_grad(), torch_threads(1):
            output = policy.act(trial.percept, trial.memory, trial.noise.at(trial.step))
        require_finite("action", output.action)
        trial.output = output
        return self._arrays.actions(output.action, trial.num_envs)

    @torch_defaults()
    def observe(
        self, reward: Any, terminated: Any, truncated: Any, next_observation: Any = None
    ) -> None:
        """What the last action led to, as `step` of the environment has returned it.

        Args:
            reward: one number, or [L].
            terminated: one bool, or [L], like `truncated`.
            truncated: whether the episode ended by its time limit.
            next_observation: the observation after acting, before any reset; only read where
                `needs_next_observation`.

        Raises:
            PolicyUseError: there is no action to observe, or the next observation is missing.
            ShapeError: a shape is wrong.
            NonFiniteError: a reward is NaN or infinite.
        """
        trial = self._require_trial("observe")
        if trial.output is None or trial.percept is None:
            raise PolicyUseError(
                "observe() has no action to observe: call act() first, once for each step."
            )
        given = (
            ("reward", reward, torch.float32),
            ("terminated", terminated, torch.bool),
            ("truncated", truncated, torch.bool),
        )
        rewards, ends, cuts = (
            lane_vector(name, value, trial.num_envs, dtype).to(self._device)
            for name, value, dtype in given
        )
        require_finite("reward", rewards)
        cuts = cuts & ~ends
        if self.adapts_by_gradient:
            step = self._recorded(trial, rewards, ends, cuts)
            if self.needs_next_observation:
                step["next_obs"] = self._next_obs(trial, next_observation)
            trial.recording.add(step)
        trial.outcome = (trial.output.action, rewards, ends, cuts)
        trial.episode_starts = ends | cuts
        trial.memory, trial.step, trial.output = trial.output.memory, trial.step + 1, None

    def begin_episode(self) -> None:
        """Says that the environments were reset before their episodes had ended.

        These episodes count as truncated. No call is needed after an end that was observed.

        Raises:
            PolicyUseError: no trial has begun, or the last action was not observed.
        """
        trial = self._require_trial("begin_episode")
        if trial.output is not None:
            raise PolicyUseError("begin_episode() was called before the last action was observed.")
        if trial.outcome is not None:
            action, reward, terminated, _ = trial.outcome
            trial.outcome = (action, reward, terminated, ~terminated)
            trial.recording.truncate()
        trial.episode_starts = torch.ones_like(trial.episode_starts)

    @torch_defaults()
    def adapt(self) -> None:
        """Takes one adaptation step on the episodes finished since the last one.

        An episode that has begun and not ended is not used; the steps of it that follow are taken
        by the adapted policy, and are not used either. If the environments are reset instead, call
        `begin_episode`.

        Raises:
            PolicyUseError: no trial has begun, the last action was not observed, a lane has
                finished no episode, or the agent adapts in its memory.
            NonFiniteError: the inner loss is NaN or infinite.
        """
        trial = self._require_trial("adapt")
        if not self.adapts_by_gradient:
            raise PolicyUseError(
                f"{self.label} adapts in its memory while it acts, by what observe() is given; "
                "adapt() is for agents that adapt by gradient steps. Leave the call out."
            )
        if trial.output is not None:
            raise PolicyUseError("adapt() was called before the last action was observed.")
        experience = trial.recording.trajectory(trial.num_tasks)
        noise = self._task_noise(trial.seeds, trial.num_tasks, "adapt", trial.phase)
        with torch_threads(1):
            trial.policy = self._agent.adapt(trial.policy, experience, noise).policy
        trial.phase += 1
        self._begin_phase(trial, trial.episode_starts)

    @checks_arguments("seed")
    def for_sb3(self, *, seed: int = 0) -> SB3Predictor:
        """An object with `predict`, as functions of stable-baselines3 want it.

        An agent with a memory needs environments whose episodes are trials, and whose observations
        hold reward and flags: `metarl.TrialWrapper`, or `metarl.to_sb3_vec_env(..., trial=True)`.
        One that adapts by gradient steps acts as it has adapted so far, on plain observations.

        Args:
            seed: of the actions that are drawn.
        """
        if self._trial is not None and self.adapts_by_gradient and self._trial.num_tasks > 1:
            raise PolicyUseError(
                f"This trial has {self._trial.num_tasks} tasks, and the agent has adapted to each "
                "of them, but `predict` acts in one. Begin a trial in one task: begin_trial(L, "
                "rollouts_per_task=L)."
            )
        policy = None if self._trial is None else self._trial.policy
        if policy is None or not self.adapts_by_gradient:
            policy = self._agent.start(1, self._task_noise(Seeds(seed), 1, "start"))
        return SB3Predictor(
            policy=policy,
            label=self.label,
            arrays=self._arrays,
            reads_percepts=not self.adapts_by_gradient,
            horizon=self._horizon,
            seeds=Seeds(seed),
            device=self._device,
        )

    def _require_trial(self, method: str) -> _Trial:
        if self._trial is None:
            raise PolicyUseError(
                f"{method}() was called before begin_trial(), which says that a task begins."
            )
        return self._trial

    def _begin_phase(self, trial: _Trial, episode_starts: Tensor) -> None:
        """The start of the trial, or what follows an adaptation step."""
        lanes = trial.num_envs or 1
        word = trial.seeds.child("phase", trial.phase).word("policy")
        keys = lane_keys(word, trial.num_tasks, lanes // trial.num_tasks, device=self._device)
        trial.noise = LaneNoise(keys, horizon=self._horizon)
        with torch.no_grad():  # as in a rollout, where the compiled library acts
            trial.memory = trial.policy.initial_memory(lanes, self._horizon)
        trial.step, trial.outcome, trial.episode_starts = 0, None, episode_starts
        trial.recording = Recording()

    def _percept(self, trial: _Trial, obs: Tensor) -> Percept:
        if trial.outcome is None:
            fresh = first_percept(obs, blank_action(self._family.action_space))
            return replace(fresh, first_of_episode=trial.episode_starts)
        return next_percept(obs, *trial.outcome, first=trial.episode_starts)

    def _recorded(
        self, trial: _Trial, reward: Tensor, terminated: Tensor, truncated: Tensor
    ) -> dict[str, Tensor]:
        assert trial.output is not None
        assert trial.percept is not None
        return {
            "obs": trial.percept.obs,
            "action": trial.output.action,
            "log_prob": trial.output.log_prob,
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
            "first": trial.percept.first_of_episode,
            "success": torch.zeros_like(terminated),
        }

    def _next_obs(self, trial: _Trial, value: Any) -> Tensor:
        if value is None:
            raise PolicyUseError(
                f"{self.label} adapts to what it saw after each action: pass the observation that "
                "step() returned as next_observation, the last one of an episode included."
            )
        return self._arrays.observations(value, trial.num_envs).to(self._device)

    def _task_noise(self, seeds: Seeds, tasks: int, purpose: str, *indices: int) -> LaneNoise:
        return LaneNoise(lane_keys(seeds.word(purpose, *indices), tasks, device=self._device))


def _require_same_step(envs: VectorEnv[Any, Any, Any]) -> None:
    mode = (envs.metadata or {}).get("autoreset_mode")
    if mode == AutoresetMode.NEXT_STEP:
        raise ConfigError(
            "The vector environment resets in the step after the end of an episode (autoreset mode "
            "NEXT_STEP), which ignores the action of that step, so the memory would count a step "
            "that was none. Make it with autoreset_mode=AutoresetMode.SAME_STEP: "
            "gymnasium.make_vec of metarl's ids takes it so, of others in vector_kwargs."
        )
