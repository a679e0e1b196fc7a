"""The belief memory and its decoders; what all memories do: `test_recurrent.py`."""

import pytest
import torch

from metarl.errors import ConfigError
from metarl.networks.belief import BeliefCore, BeliefDecoder, BeliefOptions, sample_belief
from metarl.networks.memory import InputSizes, PolicyInputs
from tests.networks.builders import generator, network

T, L, H, Z = 6, 3, 9, 2
SIZES = InputSizes(3, 2)


def core() -> BeliefCore:
    return BeliefOptions(latent_size=Z).build(SIZES, H, generator())


def features(memory: BeliefCore, values: torch.Tensor) -> torch.Tensor:
    return memory.sequence(PolicyInputs(values, SIZES), memory.initial_state(L, 0))[0]


def random_values() -> torch.Tensor:
    return torch.randn(T, L, SIZES.total, generator=generator(1))


def trained(memory: BeliefCore) -> set[str]:
    """Parameters that some loss had a gradient for."""
    return {name for name, each in memory.named_parameters() if bool((each.grad != 0).any())}


@torch.no_grad()
def test_the_belief_reads_the_trial_and_the_other_features_the_present_observation():
    memory, values = core(), random_values()
    changed = values.clone()
    changed[2, :, 3:] += 1.0  # what followed the second step
    one, two = features(memory, values), features(memory, changed)
    assert torch.equal(one[..., : -2 * Z], two[..., : -2 * Z])
    assert (one[2:, :, -2 * Z :] != two[2:, :, -2 * Z :]).all()


def test_policy_and_value_read_the_belief_but_do_not_train_it():
    memory = core()
    found = features(memory, random_values())
    read = memory.decision_features(found)
    assert torch.equal(read, found)
    (read * torch.arange(1.0, H + 1)).sum().backward()
    assert trained(memory) == {"observation.weight", "observation.bias"}
    features(memory, random_values())[..., -2 * Z :].sum().backward()  # as by an auxiliary loss
    assert trained(memory) == {name for name, _ in memory.named_parameters()}


def test_the_losses_of_an_actor_critic_do_not_reach_the_belief():
    net = network("belief")
    output = net(torch.randn(4, 6, net.sizes.total, generator=generator()))
    (output.dist_params.sum() + output.value.sum()).backward()
    assert trained(net.trunk) == {"observation.weight", "observation.bias"}


@torch.no_grad()
def test_deviations_have_a_floor_and_are_otherwise_those_that_are_emitted():
    memory = core()
    memory.emit.weight.zero_()
    for emitted, expected in ((-50.0, 0.1), (0.0, 1.0), (3.0, 20.0)):
        memory.emit.bias[-Z:] = emitted
        std = features(memory, random_values())[..., -Z:].exp()
        torch.testing.assert_close(std, torch.full((T, L, Z), expected), rtol=0.12, atol=0)


def test_samples_have_the_mean_and_the_deviations_of_the_belief():
    belief = torch.tensor([[1.0, -2.0, 0.0, 1.0]])  # deviations 1 and e
    samples = sample_belief(belief, torch.randn(40_000, 2, generator=generator()))
    torch.testing.assert_close(samples.mean(0), belief[0, :2], rtol=0, atol=0.05)
    torch.testing.assert_close(samples.std(0), torch.tensor([1.0, 2.718]), rtol=0.02, atol=0)


@torch.no_grad()
def test_a_decoder_is_a_perceptron_of_latent_numbers_and_known_parts():
    decoder = BeliefDecoder(Z, 4, 8, 2, generator=generator()).double()
    latent = torch.randn(5, L, Z, generator=generator(1), dtype=torch.float64)
    known = torch.randn(T, L, 4, generator=generator(2), dtype=torch.float64)
    weight = torch.cat((decoder.latent.weight, decoder.known.weight), 1)
    bias = decoder.latent.bias + decoder.known.bias
    found = decoder(latent, known)
    assert found.shape == (5, T, L, 2)
    for sample in range(5):
        for step in range(T):
            both = torch.cat((latent[sample], known[step]), -1)
            expected = decoder.rest(torch.relu(both @ weight.T + bias))
            torch.testing.assert_close(found[sample, step], expected)
    torch.testing.assert_close(decoder(latent, known[:, :1])[:, :, 0], found[:, :, 0])


@pytest.mark.parametrize(("latent_size", "hidden_size"), [(0, 8), (-1, 8), (4, 8), (5, 8)])
def test_a_belief_that_leaves_no_features_of_the_observation_is_refused(latent_size, hidden_size):
    message = f"latent_size={latent_size} of the memory 'belief' must lie between 1 and 3: of hidd"
    with pytest.raises(ConfigError, match=message):
        BeliefOptions(latent_size=latent_size).build(SIZES, hidden_size, generator())
