import torch

from metarl.networks.memory import InputSizes, PolicyInputs, encode_percept


def encoded(*, first_of_trial: bool) -> PolicyInputs:
    """Of an observation of size 2 and an action of size 3."""
    flags = tuple(torch.tensor([flag]) for flag in (True, False, True, first_of_trial))
    obs, action = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0, 5.0]])
    values = encode_percept(obs, action, torch.tensor([6.0]), flags)
    return PolicyInputs(values, InputSizes(2, 3))


def test_a_percept_is_encoded_as_one_vector_with_named_parts():
    inputs = encoded(first_of_trial=False)
    assert inputs.values.tolist() == [[1, 2, 3, 4, 5, 6, 1, 0, 1, 0]]
    assert inputs.sizes.total == 10
    assert inputs.observation.tolist() == [[1, 2]]
    assert inputs.previous_action.tolist() == [[3, 4, 5]]
    assert inputs.previous_reward.tolist() == [6]
    assert inputs.flags.tolist() == [[1, 0, 1, 0]]


def test_at_the_start_of_a_trial_there_is_no_previous_action():
    inputs = encoded(first_of_trial=True)
    assert inputs.previous_action.tolist() == [[0, 0, 0]]
    assert inputs.flags.tolist() == [[1, 0, 1, 1]]


def test_parts_are_named_under_any_leading_axes():
    inputs = PolicyInputs(torch.arange(60.0).view(2, 3, 10), InputSizes(2, 3))
    assert inputs.observation.shape == (2, 3, 2)
    assert inputs.previous_action.shape == (2, 3, 3)
    assert inputs.previous_reward.tolist() == [[5, 15, 25], [35, 45, 55]]
    assert inputs.flags.shape == (2, 3, 4)
