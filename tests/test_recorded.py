"""Replays on a GPU equal the work that they repeat; and nothing that is recorded reads back."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from metarl.agent import AgentContext, MetaBatch
from metarl.agents.memory.dpt import DPTConfig
from metarl.agents.memory.rl2 import RL2Config
from metarl.learning.autograd_gradient import ByAutograd
from metarl.learning.replayed_steps import ReplayedSteps
from metarl.networks.policies import UniformPolicy
from metarl.noise import LaneNoise, lane_keys
from metarl.recorded import SWITCH, Recorder
from metarl.registry import make_family
from metarl.rollout import RolloutSpec, RolloutStorage, collect, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskFamily
from metarl.trajectory import blank_action, first_percept
from tests.known_ids import FAMILIES

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
FIXED = [name for name in FAMILIES if make_family(name).fixed_length]


class NoNumbersOfPython(TorchDispatchMode):
    """Refuses tensors that are made of Python's numbers: a recording cannot copy them."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "lift_fresh" in str(func):
            raise AssertionError(str(func))
        return func(*args, **kwargs or {})


def two_episodes(family: TaskFamily, tasks: Tensor) -> None:
    """Under random actions, as the engine steps them."""
    keys = lane_keys(0, 4, device=tasks.device)
    env = family.open_env(tasks, LaneNoise(keys))
    policy, draws = UniformPolicy(family.action_space), LaneNoise(keys)
    blank = blank_action(family.action_space)
    for step in range(2 * family.episode_steps):
        if step % family.episode_steps == 0:
            obs = env.reset()
        action = policy.act(first_percept(obs, blank), None, draws.at(step)).action
        obs = env.step(action).next_obs


@pytest.mark.parametrize("name", FIXED)
def test_families_of_equal_episodes_can_be_recorded(name):
    family = make_family(name)
    tasks = family.sample_tasks(4, Seeds(0).torch("tasks"))
    two_episodes(family, tasks)  # tables may be made once
    with NoNumbersOfPython():
        two_episodes(family, tasks)
    two_episodes(family, tasks.to("meta"))  # where no number can be read back


def test_what_cannot_be_recorded_is_noticed():
    with pytest.raises(AssertionError, match="lift_fresh"), NoNumbersOfPython():
        torch.tensor([1.0])
    with pytest.raises(RuntimeError, match="meta tensors"):
        bool(torch.ones(2, device="meta").any())


class Replay:
    """What a recording does, by calling the function again with the tensors of the first time."""

    made: ClassVar[int] = 0

    def __init__(self, function, inputs) -> None:
        Replay.made += 1
        self._function, self._inputs = function, [each.clone() for each in inputs]

    def __call__(self, *inputs):
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        return self._function(*self._inputs)


@pytest.fixture
def on_a_cpu(monkeypatch) -> None:
    """Replays on this device, as on a GPU."""
    monkeypatch.setattr("metarl.recorded.can_replay", lambda value: True)
    monkeypatch.setattr("metarl.rollout.can_replay", lambda value: True)
    monkeypatch.setattr("metarl.recorded._Recording", Replay)


def test_a_function_is_recorded_in_the_second_call_in_a_row_with_one_key(on_a_cpu):
    recorder, functions = Recorder(), []

    def call(key: str | None, number: float) -> float:
        def function(x: Tensor) -> Tensor:
            functions.append(function)
            return x + number

        return float(recorder(key, function, torch.full((1,), 0.5)))

    assert [call("a", 1), call("a", 2), call("a", 3), call("a", 4)] == [1.5, 2.5, 2.5, 2.5]
    assert functions[1] is functions[2] is functions[3]
    assert [call(None, 5), call("a", 6)] == [5.5, 2.5]
    assert [call("b", 7), call("b", 8), call("b", 9)] == [7.5, 8.5, 8.5]
    assert [call("a", 1), call("a", 2), call("a", 3)] == [1.5, 2.5, 2.5]


def test_without_a_gpu_or_the_switch_nothing_is_recorded(monkeypatch):
    monkeypatch.setenv(SWITCH, "1")
    recorder = Recorder()
    assert [recorder("key", lambda x, n=n: n, torch.ones(1)) for n in range(4)] == [0, 1, 2, 3]


def test_what_cannot_be_recorded_is_told_once_and_called(on_a_cpu, monkeypatch):
    def failing(function, inputs):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr("metarl.recorded._Recording", failing)
    recorder = Recorder()
    with pytest.warns(UserWarning, match="torch says: operation not permitted .* capturing$"):
        found = [recorder("key", lambda x, n=n: n, torch.ones(1)) for n in range(2)]
    found += [recorder("key", lambda x, n=n: n, torch.ones(1)) for n in range(2, 4)]
    assert found == [0, 1, 2, 3]


@dataclass(frozen=True)
class Lanes:
    valid: Tensor
    target: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "Lanes":
        return Lanes(function(self.valid), function(self.target))


def test_replayed_steps_are_the_plain_ones_with_new_batches_coefficients_and_rates(on_a_cpu):
    def learn(replays: bool) -> tuple[list[dict[str, float]], Tensor]:
        layer = torch.nn.Linear(3, 1)
        torch.nn.init.constant_(layer.weight, 0.1)
        torch.nn.init.zeros_(layer.bias)

        def loss(batch: Lanes, coefficient: Tensor | float) -> tuple[Tensor, dict[str, Tensor]]:
            error = (layer(batch.valid).squeeze(-1) - batch.target).square().mean()
            return coefficient * error, {"error": error.detach()}

        adam = torch.optim.Adam(layer.parameters(), lr=torch.tensor(0.1), eps=1e-5, foreach=False)
        steps, found = ReplayedSteps(adam, 0.5), []
        for update in range(4):
            draws = Seeds(update).torch("draws")
            batch = Lanes(*(torch.randn(2, 8, *size, generator=draws) for size in ((3,), ())))
            gradient = ByAutograd(batch, loss, (1.0 + update,))
            order = torch.randperm(8, generator=draws).chunk(4)
            if update == 2:  # as after a checkpoint: the moments move
                adam.load_state_dict(copy.deepcopy(adam.state_dict()))
            adam.param_groups[0]["lr"].fill_(0.1 / (1 + update))
            if replays:
                found.append(steps.take(gradient, order))
                continue
            sums = {"error": 0.0, "grad_norm": 0.0}
            for lanes in order:
                adam.zero_grad()
                sums["error"] += float(gradient(lanes)["error"])
                norm = torch.nn.utils.clip_grad_norm_(layer.parameters(), 0.5)
                sums["grad_norm"] += float(norm)
                adam.step()
            found.append(sums)
        return found, layer.weight.detach()

    (plain, weight), made = learn(False), Replay.made
    replayed, replayed_weight = learn(True)
    assert Replay.made == made + 2
    for one, two in zip(plain, replayed, strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    torch.testing.assert_close(replayed_weight, weight)


def test_replayed_rollouts_follow_new_tasks_seeds_and_weights(on_a_cpu, monkeypatch):
    family = make_family("metarl/GridNavigation-v0", steps=5)
    monkeypatch.setattr("metarl.networks.actor_critic.serves", lambda *tensors: False)
    agent = RL2Config(hidden_size=16).build(context_of(family, "cpu"))
    storage = RolloutStorage()
    for seed in range(5):
        policy = agent.start(8, LaneNoise(lane_keys(0, 8)))
        tasks = family.sample_tasks(8, Seeds(seed).torch("tasks"))
        options = {"episodes": 2, "rollouts_per_task": 2, "seeds": Seeds(seed)}
        plain = collect(family, tasks, policy, **options)
        replayed = collect(family, tasks, policy, **options, storage=storage)
        for name, value in plain.columns.items():
            assert torch.equal(replayed.columns[name], value), name
        with torch.no_grad():
            for parameter in policy.network.parameters():
                parameter.add_(0.1)
    assert storage.recorder(0)._recording is not None


def context_of(family: TaskFamily, device: str) -> AgentContext:
    return AgentContext(
        observation_space=family.observation_space,
        action_space=family.action_space,
        seeds=Seeds(0),
        device=torch.device(device),
        references=lambda: family.references(family.trial_episodes),
    )


@needs_gpu
@pytest.mark.parametrize("name", FIXED)
def test_replayed_rollouts_are_those_of_all_kernels(name, monkeypatch):
    family = make_family(name)
    agent = RL2Config(hidden_size=16).build(context_of(family, "cuda"))
    episodes = min(2, family.trial_episodes)
    kept: dict[str, list[dict[str, Tensor]]] = {"0": [], "1": []}
    for switch, trajectories in kept.items():
        monkeypatch.setenv(SWITCH, switch)
        storage = RolloutStorage()
        for seed in range(4):
            tasks = family.sample_tasks(8, Seeds(seed).torch("tasks", device="cuda"))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = collect(
                    family,
                    tasks,
                    agent.start(8, LaneNoise(lane_keys(0, 8, device="cuda"))),
                    episodes=episodes,
                    rollouts_per_task=2,
                    seeds=Seeds(seed),
                    storage=storage,
                )
            trajectories.append({key: one.clone() for key, one in found.columns.items()})
        recorder = storage.recorder(0)
        assert (recorder._recording is not None) == (switch == "1")
    for plain, replayed in zip(kept["0"], kept["1"], strict=True):
        assert plain.keys() == replayed.keys()
        for key, value in plain.items():
            torch.testing.assert_close(replayed[key], value, rtol=1e-5, atol=1e-5)
    assert not torch.equal(kept["1"][2]["reward"], kept["1"][3]["reward"]) or "TMaze" in name


def train(config, family, iterations: int, *, start=None) -> tuple[object, list[dict[str, float]]]:
    agent = config.build(context_of(family, "cuda"))
    if start is not None:
        agent.load_state(start)
    storage, found = RolloutStorage(), []
    spec = RolloutSpec(episodes=family.trial_episodes)
    for seed in range(iterations):
        tasks = family.sample_tasks(config.num_tasks, Seeds(seed).torch("tasks", device="cuda"))
        batch: MetaBatch = rollout_phases(
            agent,
            family,
            tasks,
            adaptation_steps=0,
            spec=spec,
            seeds=Seeds(seed),
            storage=storage,
            training=True,
        )
        found.append(dict(agent.update(batch)))
    return agent, found


CONFIGS = {
    "gru": RL2Config(num_tasks=16, hidden_size=16),
    "lstm": RL2Config(num_tasks=16, hidden_size=16, memory="lstm"),
    "transformer": RL2Config(num_tasks=16, hidden_size=16, memory="transformer"),
    "attention": RL2Config(num_tasks=16, hidden_size=16, memory="attention"),
    "bfloat16": RL2Config(num_tasks=16, hidden_size=16, precision="bfloat16"),
    "dpt": DPTConfig(num_tasks=16, hidden_size=16),
}


@needs_gpu
@pytest.mark.parametrize("name", CONFIGS)
def test_replayed_updates_are_those_of_all_kernels(name, monkeypatch):
    config, family = CONFIGS[name], make_family("metarl/BernoulliBandit-v0", pulls=6)
    found = {}
    for switch in ("0", "1"):
        monkeypatch.setenv(SWITCH, switch)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            first, metrics = train(config, family, 3)
            again, more = train(config, family, 2, start=first.state())
        found[switch] = metrics + more, again.state()
    (plain, state), (replayed, replayed_state) = found["0"], found["1"]
    for one, two in zip(plain, replayed, strict=True):
        assert two == pytest.approx(one, rel=1e-2, abs=1e-3)
    for key, value in state.items():
        torch.testing.assert_close(replayed_state[key], value, rtol=1e-2, atol=2e-3)


@needs_gpu
def test_a_family_that_reads_back_is_named_and_works(monkeypatch):
    family = make_family("metarl/BernoulliBandit-v0", pulls=4)
    step = type(family).step

    def reading(self, task, state, action, noise):
        assert not bool((action < 0).any())
        return step(self, task, state, action, noise)

    monkeypatch.setattr(type(family), "step", reading)
    tasks = family.sample_tasks(8, Seeds(0).torch("tasks", device="cuda"))
    storage, policy = RolloutStorage(), UniformPolicy(family.action_space)
    with pytest.warns(UserWarning, match="cannot be recorded as a CUDA graph"):
        found = [
            collect(
                family, tasks, policy, episodes=4, seeds=Seeds(0), storage=storage
            ).reward.clone()
            for _ in range(4)
        ]
    assert all(torch.equal(found[0], each) for each in found)
