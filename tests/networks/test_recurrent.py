"""Memories: step by step as in one sequence or in chunks, and attention against its definition."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from metarl.errors import ConfigError
from metarl.networks.attention import AttentionCore
from metarl.networks.memory import InputSizes, MemoryCore, PolicyInputs
from metarl.networks.recurrent import AttentionOptions, GRUCore, LSTMCore
from metarl.registry import make_memory_options, memory_names, memory_options
from tests.networks.builders import BUILT_IN, MEMORIES, generator

T, L, F, H = 12, 5, 4, 8
SIZES = InputSizes(3, 2)


def memory_of(name: str) -> MemoryCore:
    return MEMORIES[name].build(SIZES, H, generator())


def inputs(steps: int = T) -> PolicyInputs:
    return PolicyInputs(torch.randn(steps, L, SIZES.total, generator=generator(1)), SIZES)


def part(given: PolicyInputs, steps: slice | int) -> PolicyInputs:
    return PolicyInputs(given.values[steps], SIZES)


def whole(memory: MemoryCore, given: PolicyInputs) -> Tensor:
    """Features of whole trials, [T, L, H]."""
    steps = len(given.values)
    return memory.sequence(given, memory.initial_state(L, steps))[0]


def stepwise(memory: MemoryCore, given: PolicyInputs, state: object) -> Tensor:
    """The same, one step after the other."""
    features = []
    for step in range(len(given.values)):
        output, state = memory.step(part(given, step), state)
        features.append(output)
    return torch.stack(features)


def test_every_built_in_memory_is_tested_here():
    assert {type(options) for options in MEMORIES.values()} == {
        memory_options(name) for name in BUILT_IN
    }
    assert tuple(memory_names()[: len(BUILT_IN)]) == BUILT_IN


@pytest.mark.parametrize(
    # 600 steps are longer than the blocks in which kernels of attention work.
    ("name", "steps"),
    [*((name, T) for name in MEMORIES), ("attention", 600), ("transformer of 3 layers", 600)],
)
@torch.no_grad()
def test_steps_and_a_whole_sequence_agree(name, steps):
    memory, given = memory_of(name), inputs(steps)
    found = stepwise(memory, given, memory.initial_state(L, steps))
    assert found.shape == (steps, L, H)
    torch.testing.assert_close(found, whole(memory, given), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cuts", [(1, 8), (5, 6), (6, T - 1)])
@pytest.mark.parametrize("name", MEMORIES)
@torch.no_grad()
def test_chunks_with_the_state_handed_on_are_one_sequence(name, cuts):
    memory, given = memory_of(name), inputs()
    expected = whole(memory, given)
    chunks = [part(given, slice(*ends)) for ends in pairwise((0, *cuts, T))]
    found, state = [], memory.initial_state(L, T)
    for chunk in chunks:
        features, state = memory.sequence(chunk, state)
        found.append(features)
    torch.testing.assert_close(torch.cat(found), expected, rtol=0, atol=1e-5)
    # Steps continue a sequence, and a sequence continues steps.
    _, state = memory.sequence(chunks[0], memory.initial_state(L, T))
    for step in range(*cuts):
        _, state = memory.step(part(given, step), state)
    last, _ = memory.sequence(chunks[2], state)
    torch.testing.assert_close(last, expected[cuts[1] :], rtol=0, atol=1e-5)
    if name != "none":  # the state has an effect
        fresh, _ = memory.sequence(chunks[2], memory.initial_state(L, T))
        assert not torch.allclose(fresh, last, atol=1e-2)


@pytest.mark.parametrize("name", MEMORIES)
def test_gradients_of_two_chunks_are_those_of_one_sequence(name):
    memory, given = memory_of(name).double(), inputs()
    given = PolicyInputs(given.values.double(), SIZES)
    weight = torch.randn(T, L, H, generator=generator(2), dtype=torch.float64)
    first, state = memory.sequence(part(given, slice(5)), memory.initial_state(L, T))
    second, _ = memory.sequence(part(given, slice(5, T)), state)
    parameters = list(memory.parameters())
    found = torch.autograd.grad((torch.cat((first, second)) * weight).sum(), parameters)
    expected = torch.autograd.grad((whole(memory, given) * weight).sum(), parameters)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", MEMORIES)
@torch.no_grad()
def test_trials_may_be_longer_than_the_horizon(name):
    memory, given = memory_of(name), inputs()
    found = stepwise(memory, given, memory.initial_state(L, 7))
    torch.testing.assert_close(found, whole(memory, given), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MEMORIES)
@torch.no_grad()
def test_lanes_do_not_affect_each_other(name):
    memory, given = memory_of(name), inputs()
    changed = given.values.clone()
    changed[:, 2] += 1.0
    one, two = whole(memory, given), whole(memory, PolicyInputs(changed, SIZES))
    others = [0, 1, 3, 4]
    torch.testing.assert_close(one[:, others], two[:, others], rtol=0, atol=1e-6)
    assert not torch.allclose(one[:, 2], two[:, 2], atol=1e-2)


@pytest.mark.parametrize("name", MEMORIES)
@torch.no_grad()
def test_later_steps_do_not_change_earlier_features(name):
    memory, given = memory_of(name), inputs()
    later = given.values.clone()
    later[7:] += 1.0
    one, two = whole(memory, given), whole(memory, PolicyInputs(later, SIZES))
    assert torch.equal(one[:7], two[:7])
    assert not torch.equal(one[7:], two[7:])


@pytest.mark.parametrize("name", MEMORIES)
@torch.no_grad()
def test_all_memories_but_none_read_the_whole_percept(name):
    memory, given = memory_of(name), inputs()
    for column in range(SIZES.total):
        changed = given.values.clone()
        changed[..., column] += 1.0
        same = torch.equal(whole(memory, given), whole(memory, PolicyInputs(changed, SIZES)))
        assert same == (name == "none" and column >= SIZES.observation)


@pytest.mark.parametrize("reward", [-1e4, 1e4])
@pytest.mark.parametrize("name", MEMORIES)
def test_large_rewards_give_finite_features_and_gradients(name, reward):
    memory, given = memory_of(name), inputs(200)
    given.previous_reward.fill_(reward)
    features = whole(memory, given)
    features.sum().backward()
    assert bool(features.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in memory.parameters() if p.grad is not None)


@torch.no_grad()
def test_without_memory_the_past_changes_nothing():
    memory, given = memory_of("none"), inputs()
    changed = given.values.clone()
    changed[:7] += 1.0
    one, two = whole(memory, given), whole(memory, PolicyInputs(changed, SIZES))
    assert torch.equal(one[7:], two[7:])


@pytest.mark.parametrize("kind", [GRUCore, LSTMCore])
def test_gated_cores_are_the_modules_of_torch(kind):
    core = kind(F, H, generator=generator()).double()
    (module,) = core.children()
    features, *state = (
        torch.randn(size, generator=generator(seed), dtype=torch.float64)
        for seed, size in enumerate([(T, L, F), (L, H), (L, H)])
    )
    state = state[0] if kind is GRUCore else tuple(state)
    found, after = core.sequence(features, state)
    if kind is GRUCore:
        expected, last = module(features, state.unsqueeze(0))
        after, last = [after], [last]
    else:
        expected, last = module(features, tuple(each.unsqueeze(0) for each in state))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for one, two in zip(after, last, strict=True):
        torch.testing.assert_close(one, two[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(core.step(features[0], state)[0], found[0], rtol=0, atol=1e-12)


def attention_by_definition(core: AttentionCore, features: Tensor) -> Tensor:
    """Step by step, lane by lane, head by head: the exponentials written out; [T, L, H]."""
    hidden, _ = core.gru.gru(features)
    both = torch.cat((hidden, features), -1)
    queries, entries = core.query(both), core.entry(both)
    outputs = []
    for t in range(T):
        for lane in range(L):
            read = []
            for columns in torch.arange(H).chunk(core.heads):
                query = queries[t, lane, columns]
                keys = entries[: t + 1, lane, columns]
                values = entries[: t + 1, lane, H + columns]
                weight = ((keys @ query) / len(columns) ** 0.5).exp()
                read.append((weight / weight.sum()) @ values)
            outputs.append(core.merge(torch.cat((both[t, lane], *read))).relu())
    return torch.stack(outputs).view(T, L, H)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_and_its_gradients_are_those_of_the_definition_in_float64(heads):
    core = AttentionCore(F, H, heads=heads, generator=generator()).double()
    features = torch.randn(T, L, F, generator=generator(1), dtype=torch.float64, requires_grad=True)
    weight = torch.randn(T, L, H, generator=generator(2), dtype=torch.float64)
    result, _ = core.sequence(features, core.initial_state(L, T))
    expected = attention_by_definition(core, features)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    inputs = [features, *core.parameters()]
    fast = torch.autograd.grad((result * weight).sum(), inputs)
    slow = torch.autograd.grad((expected * weight).sum(), inputs)
    for one, two in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


@pytest.mark.parametrize("heads", [0, -1, 3, 16, 2.0, "many"])
def test_heads_that_do_not_divide_the_features_are_refused(heads):
    message = rf"hidden_size=8 does not divide into heads={heads} of the memory 'attention'"
    with pytest.raises(ConfigError, match=message):
        AttentionOptions(heads=heads).build(SIZES, H, generator())


def test_options_of_a_memory_are_given_by_name():
    assert make_memory_options("attention", {"heads": 8}) == AttentionOptions(heads=8)
    assert make_memory_options("gru", {}) == MEMORIES["gru"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("attension", {}, r"memory='attension' is not one of gru, .* Did you mean 'attention'\?"),
        (
            "attention",
            {"head": 8},
            r"The memory 'attention' has no option 'head'. Did you mean 'heads'\?",
        ),
        ("gru", {"heads": 8}, r"The memory 'gru' has no option 'heads'. Its options: none."),
    ],
)
def test_unknown_memories_and_options_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        make_memory_options(name, options)
