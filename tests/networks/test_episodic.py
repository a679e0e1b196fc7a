"""Episodic memories against the published formulas; what all memories do: `test_recurrent.py`."""

import pytest
import torch
from torch import Tensor

import metarl
from metarl.errors import ConfigError
from metarl.networks.action_heads import action_head
from metarl.networks.actor_critic import percept_features
from metarl.networks.episodic import (
    EpisodicCore,
    MatchingOptions,
    PrototypicalCore,
    PrototypicalOptions,
)
from metarl.networks.memory import InputSizes, PolicyInputs
from metarl.rollout import collect
from metarl.seeding import Seeds
from tests.networks.builders import generator

WAYS, SHOTS, H, L = 3, 2, 16, 4
SUPPORT = WAYS * SHOTS


def few_shot_inputs() -> PolicyInputs:
    """Percepts of a random policy in one episode, up to the first query, [T, L, ...]."""
    family = metarl.make_family(
        "metarl/FewShotClassification-v0", images="digits", ways=WAYS, shots=SHOTS, queries=1
    )
    tasks = family.sample_tasks(L, Seeds(1).torch("tasks"))
    policy = family.references(1)["random"].build(tasks)
    percepts = collect(family, tasks, policy, episodes=1, seeds=Seeds(2)).percepts()
    values = percept_features(action_head(family.action_space), percepts).squeeze(2)
    return PolicyInputs(values.double(), InputSizes(family.observation_space.shape[0], WAYS))


def support_and_query(core: EpisodicCore, inputs: PolicyInputs) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of the support [S, L, E] and of the query [L, E], labels of the support [S, L, W].

    A label is shown with the next image.
    """
    embedding = core.embedding(inputs.observation)
    return embedding[:-1], embedding[-1], inputs.observation[1:, :, -WAYS - 1 : -1]


@torch.no_grad()
def test_matching_gives_the_class_probabilities_of_matching_networks():
    inputs = few_shot_inputs()
    core = MatchingOptions(temperature=0.5).build(inputs.sizes, H, generator()).double()
    seen: list[Tensor] = []
    core.merge.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    core.sequence(inputs, core.initial_state(L, 0))
    label = inputs.sizes.total + inputs.sizes.observation - WAYS - 1
    probability = seen[0][-1, :, label : label + WAYS]
    # Vinyals et al. 2016, eq. 1: the sum of the labels of the support, each times its attention.
    support, query, labels = support_and_query(core, inputs)
    for lane in range(L):
        similarity = [
            float(s @ query[lane] / (s.norm() * query[lane].norm())) for s in support[:, lane]
        ]
        attention = (torch.tensor(similarity, dtype=torch.float64) / 0.5).exp()
        attention = attention / attention.sum()
        expected = sum(attention[s] * labels[s, lane] for s in range(SUPPORT))
        torch.testing.assert_close(probability[lane], expected, rtol=0, atol=1e-10)
        assert float(probability[lane].sum()) == pytest.approx(1.0)


def weigh_by_labels(core: PrototypicalCore, sizes: InputSizes) -> None:
    """Entries belong to the class whose label is shown, and to no other."""
    core.weigh.weight.zero_()
    for way in range(WAYS):
        core.weigh.weight[way, sizes.observation - WAYS - 1 + way] = 51.0
    core.weigh.bias.fill_(-50.0)  # softplus(-50) is 2e-22


@torch.no_grad()
def test_prototypical_gives_the_class_probabilities_of_prototypical_networks():
    inputs = few_shot_inputs()
    core = PrototypicalOptions().build(inputs.sizes, H, generator()).double()
    weigh_by_labels(core, inputs.sizes)
    seen: list[Tensor] = []
    core.merge.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    core.sequence(inputs, core.initial_state(L, 0))
    distance = seen[0][-1, :, inputs.sizes.total : inputs.sizes.total + WAYS]
    probability = (H * distance).softmax(-1)
    # Snell et al. 2017, eqs. 1 and 2: class means, and a softmax over squared distances from them.
    support, query, labels = support_and_query(core, inputs)
    for lane in range(L):
        score = []
        for way in range(WAYS):
            shown = [support[s, lane] for s in range(SUPPORT) if labels[s, lane, way] == 1]
            assert len(shown) == SHOTS
            score.append(-(query[lane] - torch.stack(shown).mean(0)).square().sum())
        expected = torch.stack(score).softmax(-1)
        torch.testing.assert_close(probability[lane], expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_with_one_observation_matching_reads_the_mean_reward_of_each_action():
    """As in bandits: where all observations are equal, attention is uniform."""
    sizes = InputSizes(1, 2)
    rewards, actions = [1.0, 0.5, 0.0, 1.0], [0, 1, 0, 0]
    values = torch.zeros(5, 1, sizes.total)
    for step, (action, reward) in enumerate(zip(actions, rewards, strict=True), start=1):
        values[step, 0, 1 + action], values[step, 0, 3] = 1.0, reward
    core = MatchingOptions().build(sizes, H, generator())
    seen: list[Tensor] = []
    core.merge.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    core.sequence(PolicyInputs(values, sizes), core.initial_state(1, 0))
    read = seen[0][:, 0, sizes.total : -1]
    torch.testing.assert_close(read[-1, -2:], torch.tensor([2.0, 0.5]) / 4)  # sums / pulls
    torch.testing.assert_close(read[-1, 1:3], torch.tensor([3.0, 1.0]) / 4)  # share of pulls
    assert not read[0].any()  # nothing came before


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-38, float("nan")])
def test_temperatures_out_of_range_are_refused(temperature):
    with pytest.raises(ConfigError, match=r"temperature=.* must lie between"):
        MatchingOptions(temperature=temperature).build(InputSizes(1, 2), H, generator())


@torch.no_grad()
def test_a_new_prototype_is_of_its_action_and_weighs_good_rewards_more():
    """softplus(1 + tanh(reward)) for the action taken, softplus(-4) for others."""
    sizes = InputSizes(1, 3)
    core = PrototypicalOptions().build(sizes, H, generator())
    found = {}
    for reward in (-100.0, 0.0, 1.0, 100.0):
        values = torch.zeros(1, 1, sizes.total)
        values[..., 1], values[..., 4] = 1.0, reward  # the first action
        found[reward] = core.weights(PolicyInputs(values, sizes))[0, 0].tolist()
    for reward, taken in ((-100.0, 0.69), (0.0, 1.31), (1.0, 2.0), (100.0, 2.13)):
        assert found[reward][0] == pytest.approx(taken, abs=0.15)
        assert max(found[reward][1:]) < 0.03


def test_an_observation_of_zeros_has_a_small_gradient():
    sizes = InputSizes(3, 2)
    core = MatchingOptions().build(sizes, H, generator())
    values = torch.randn(5, 2, sizes.total, generator=generator(1))
    values[..., :3] = 0.0
    features, _ = core.sequence(PolicyInputs(values, sizes), core.initial_state(2, 0))
    features.sum().backward()
    assert max(float(p.grad.abs().max()) for p in core.parameters()) < 1e4
