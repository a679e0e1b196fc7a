"""PEARL: the posterior that acts is the one that is trained, its state, its errors, learning."""

import dataclasses
import math

import pytest
import torch
from gymnasium import spaces

import metarl
from metarl.agent import MetaBatch, Phase
from metarl.agents.off_policy.pearl import PEARL, PEARLConfig
from metarl.errors import CheckpointError, ConfigError, NonFiniteError
from metarl.rollout import RolloutSpec, collect, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskFamily
from tests.recurrent_rollouts import context_of
from tests.simple_families import HiddenTarget

pytestmark = pytest.mark.usefixtures("one_thread")

WALK = metarl.make_family("metarl/PointNavigation-v0", steps=6)
SMALL = {
    "num_tasks": 8,
    "hidden_size": 16,
    "replay_tasks": 12,
    "gradient_steps": 3,
    "meta_batch": 4,
    "batch_size": 8,
    "iterations": 5,
}


def build(family: TaskFamily, **options: object) -> PEARL:
    return PEARLConfig(**SMALL | options).build(context_of(family))


def trials(agent: PEARL, family: TaskFamily, *, num_tasks: int = 8, seed: int = 0) -> MetaBatch:
    """The experience of one meta-iteration."""
    tasks = family.sample_tasks(num_tasks, Seeds(seed).torch("tasks"))
    spec = RolloutSpec(episodes=family.trial_episodes, rollouts_per_task=2, keep_next_obs=True)
    return rollout_phases(agent, family, tasks, adaptation_steps=0, spec=spec, seeds=Seeds(seed))


@dataclasses.dataclass
class Watched:
    """A policy that records what it carries."""

    policy: object
    memories: list = dataclasses.field(default_factory=list)

    def initial_memory(self, lanes, horizon):
        return self.policy.initial_memory(lanes, horizon)

    def act(self, percept, memory, noise):
        output = self.policy.act(percept, memory, noise)
        self.memories.append(output.memory)
        return output


@pytest.mark.parametrize("end_at", [None, 2])
def test_the_posterior_of_acting_is_that_of_the_whole_trial_so_far(end_at):
    family = HiddenTarget(limit=3, end_at=end_at)  # lanes of task 1 end earlier
    agent = build(family)
    watched = Watched(agent.start(6, None))
    tasks = family.sample_tasks(6, Seeds(0).torch("tasks"))
    trial = collect(family, tasks, watched, episodes=3, seeds=Seeds(0))
    encoder = watched.policy.network.encoder
    columns = [trial.obs, trial.action, trial.reward]  # bounds of -1 and 1: units are actions
    obs, action, reward = (value.flatten(1, 2).transpose(0, 1) for value in columns)
    for step, memory in enumerate(watched.memories):
        valid = trial.valid[step].flatten()
        observed = torch.ones(len(tasks), step, dtype=torch.bool)
        with torch.no_grad():
            expected = encoder.posterior(
                obs[:, :step], action[:, :step].clamp(-1, 1), reward[:, :step], observed
            )
        for got, wanted in zip(memory.posterior, expected, strict=True):
            torch.testing.assert_close(got[valid], wanted[valid])


def test_the_latent_variable_is_drawn_at_each_episode_start_and_kept():
    family = HiddenTarget(limit=3)
    watched = Watched(build(family).start(2000, None))
    tasks = family.sample_tasks(2000, Seeds(0).torch("tasks"))
    trial = collect(family, tasks, watched, episodes=3, seeds=Seeds(0))
    before = None
    for step, memory in enumerate(watched.memories):
        if trial.first[step].all():
            assert before is None or not (before == memory.latent).any()
            standard = (memory.latent - memory.posterior.mean) * memory.posterior.precision.sqrt()
            # standard errors of mean and deviation of 10,000 numbers: .01, .007
            assert abs(float(standard.mean())) < 0.05
            assert abs(float(standard.std()) - 1) < 0.05
        else:
            assert torch.equal(before, memory.latent)
        before = memory.latent
    assert (watched.memories[0].posterior.precision == 1).all()
    assert (watched.memories[-1].posterior.precision > 1).all()


def test_without_context_the_posterior_stays_the_prior():
    family = HiddenTarget()
    agent = build(family, context="none")
    agent.update(trials(agent, family))
    watched = Watched(agent.start(8, None))
    tasks = family.sample_tasks(8, Seeds(0).torch("tasks"))
    collect(family, tasks, watched, episodes=3, seeds=Seeds(0))
    posterior = watched.memories[-1].posterior
    assert (posterior.precision == 1).all()
    assert (posterior.shift == 0).all()


def test_actions_stay_within_the_bounds():
    agent = build(WALK)
    (trial,) = trials(agent, WALK).trajectories
    assert trial.action.abs().max() <= 0.1
    assert trial.action.abs().max() > 0.05


def test_adapting_returns_the_same_policy():
    agent = build(WALK)
    policy = agent.start(8, None)
    (trial,) = trials(agent, WALK).trajectories
    assert agent.adapt(policy, trial, None).policy is policy
    assert (agent.adaptation_steps, agent.evaluation_steps) == (0, 0)
    assert PEARLConfig().reads_next_obs


def test_targets_follow_the_critics_slowly():
    agent = build(WALK, gradient_steps=1, polyak=0.25)
    before = agent.state()
    agent.update(trials(agent, WALK))
    after = agent.state()
    name = "critics.each.0.0.weight"
    expected = 0.75 * before[f"target_{name}"] + 0.25 * after[name]
    torch.testing.assert_close(after[f"target_{name}"], expected)
    assert not torch.equal(after[name], before[name])


@pytest.mark.parametrize("learn_temperature", [True, False])
def test_an_agent_continues_from_its_state_exactly(learn_temperature):
    options = {"learn_temperature": learn_temperature}
    one, two = build(WALK, **options), build(WALK, **options)
    start = one.state()
    one.update(trials(one, WALK))
    two.load_state(one.state())
    batch = trials(one, WALK, seed=1)
    one.update(batch)
    two.update(batch)
    assert one.state()["replay.obs"].shape[0] == 12  # the replay was full and overwritten
    for name, value in one.state().items():
        assert torch.equal(two.state()[name], value), name
        learned = name in start and "optimiser" not in name
        if learned and (learn_temperature or name != "log_temperature"):
            assert not torch.equal(start[name], value), name


def test_experience_is_copied():
    agent = build(WALK)
    batch = trials(agent, WALK)
    agent.update(batch)
    before = agent.state()
    for name in ("obs", "action", "reward", "next_obs"):
        getattr(batch.trajectories[0], name).fill_(9.0)  # the storage of the next collection
    for name, value in agent.state().items():
        assert torch.equal(before[name], value), name


@pytest.mark.parametrize("updates", [0, 1, 2])
def test_a_gradient_that_is_not_finite_leaves_the_agent_unchanged(updates):
    agent = build(WALK, gradient_steps=20)
    for seed in range(updates):
        agent.update(trials(agent, WALK, seed=seed))
    batch = trials(agent, WALK, seed=9)
    before = agent.state()
    (phase,) = batch.phases
    reward = phase.trajectory.reward.clone()
    reward[0, 3] = math.inf  # one task: other gradient steps have been taken
    broken = dataclasses.replace(phase.trajectory, reward=reward)
    broken_batch = MetaBatch(
        tasks=batch.tasks, phases=(Phase(policy=phase.policy, trajectory=broken, cache=None),)
    )
    with pytest.raises(NonFiniteError, match=rf"gradient of PEARL became .* in update {updates}"):
        agent.update(broken_batch)
    after = agent.state()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path, monkeypatch):
    task = "metarl/SparsePointNavigation-v0"
    options = {**SMALL, "progress": False, "episodes": 2, "replay_tasks": 20}
    whole = metarl.train("pearl", task, out=tmp_path / "whole", **options)

    update, count = PEARL.update, 0

    def stopping(self, batch):
        nonlocal count
        count += 1
        if count == 4:
            raise NonFiniteError("stopped")
        return update(self, batch)

    monkeypatch.setattr(PEARL, "update", stopping)
    with pytest.raises(NonFiniteError, match="stopped"):
        metarl.train("pearl", task, out=tmp_path / "parts", **options)
    monkeypatch.undo()
    parts = metarl.train("pearl", task, out=tmp_path / "parts", resume=True, **options)
    states = []
    for run in (whole, parts):
        agent = run.make_agent(run.config.make_family())
        run.load(agent)
        states.append(agent.state())
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.Box(-1.0, 1.0, (2, 2)),
        spaces.Box(-float("inf"), float("inf"), (2,)),
    ],
)
def test_other_actions_are_refused(space):
    context = dataclasses.replace(context_of(WALK), action_space=space)
    with pytest.raises(ConfigError, match=r"PEARL needs a bounded Box vector .* such as rl2"):
        PEARLConfig().build(context)


def test_discrete_actions_are_refused_before_a_run_folder_is_made(tmp_path):
    with pytest.raises(ConfigError, match="PEARL needs a bounded Box vector"):
        metarl.train("pearl", "metarl/BernoulliBandit-v0", out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_size": 0}, "latent_size=0 must be greater than zero"),
        ({"gamma": 1.5}, "gamma=1.5 must lie between 0.0 and 1.0"),
        ({"temperature": 0.0}, "temperature=0.0 must be greater than zero"),
        ({"kl_coef": -1.0}, "kl_coef=-1.0 must lie between 0.0"),
        ({"context": "all"}, "context='all' of PEARLConfig must be one of 'trial', 'none'"),
        ({"num_tasks": 64, "replay_tasks": 32}, "replay_tasks=32 is less than num_tasks=64"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PEARLConfig(**options)


def test_a_checkpoint_of_another_agent_is_refused():
    agent = build(WALK)
    agent.update(trials(agent, WALK))
    state = agent.state()
    with pytest.raises(CheckpointError, match="does not fit this agent"):
        build(WALK, hidden_size=8).load_state(state)
    with pytest.raises(CheckpointError, match="replay_tasks=10"):
        build(WALK, replay_tasks=10).load_state({**state, "replay.added": torch.tensor(30)})


@pytest.mark.parametrize(
    ("context", "label"), [("trial", "PEARL"), ("none", "PEARL without context")]
)
def test_the_label_states_the_context(context, label):
    assert PEARLConfig(context=context).label == label


def train_on_hidden_target(context: str) -> torch.Tensor:
    """Mean reward per step of each episode of a trial, after a short training, [E]."""
    family = HiddenTarget()
    agent = build(
        family,
        context=context,
        num_tasks=32,
        hidden_size=32,
        replay_tasks=320,
        gradient_steps=20,
        meta_batch=32,
        batch_size=8,
        gamma=0.5,
        learning_rate=3e-3,
        temperature=0.01,
        learn_temperature=False,
        kl_coef=0.01,
        polyak=0.05,
    )
    for iteration in range(25):
        agent.update(trials(agent, family, num_tasks=32, seed=iteration))
    tasks = family.sample_tasks(1000, Seeds(1).torch("unseen"))
    trial = collect(family, tasks, agent.start(1000, None), episodes=3, seeds=Seeds(1))
    return trial.episode_returns(3).mean((1, 2)) / 2


@pytest.mark.learning
def test_a_hidden_target_is_found_with_context():
    returns = train_on_hidden_target("trial")
    assert -0.6 < returns[0] < -0.4  # a guess
    assert (returns[1:] > -0.1).all()


@pytest.mark.learning
def test_without_context_a_hidden_target_stays_a_guess():
    returns = train_on_hidden_target("none")
    assert ((returns > -0.6) & (returns < -0.4)).all()
