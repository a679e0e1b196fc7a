import pytest
import torch
from torch import nn

from metarl.errors import ConfigError
from metarl.networks.memory import InputSizes, MemoryCore, PolicyInputs, encode_percept
from metarl.networks.memory_check import require_memory_contract


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


class LastInputs(MemoryCore):
    """A linear map of the present inputs; `broken` names what is wrong with it."""

    def __init__(self, broken: str = "nothing"):
        super().__init__()
        self.layer = nn.Linear(10, 6)
        self.broken = broken

    def initial_state(self, lanes, horizon):
        return torch.zeros(lanes, 1)

    def step(self, inputs, state):
        features = self.layer(inputs.values)
        if self.broken == "width":
            features = features[:, 1:]
        if self.broken == "tuple":
            return features
        return features * (2 if self.broken == "scale" else 1), state

    def sequence(self, inputs, state):
        features = self.layer(inputs.values)
        if self.broken == "axes":
            features = features.transpose(0, 1)
        if self.broken == "nan":
            features = features / 0
        return features.detach() if self.broken == "gradient" else features, state


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("width", r"`step` over 4 steps of 3 lanes must be \[4, 3, 6\]; got \[4, 3, 5\]"),
        ("tuple", "LastInputs failed on 4 steps of 3 lanes with 10 inputs: ValueError: too many"),
        ("scale", "`step` and `sequence` must return the same features for the same inputs"),
        ("axes", r"`sequence` over 4 steps of 3 lanes must be \[4, 3, 6\]; got \[3, 4, 6\]"),
        ("nan", "features of `sequence` are not finite"),
        ("gradient", "features of `sequence` carry no gradient"),
    ],
)
def test_a_memory_that_breaks_its_contract_is_refused(broken, message):
    require_memory_contract(LastInputs(), InputSizes(2, 3), 6)
    with torch.no_grad():
        require_memory_contract(LastInputs(), InputSizes(2, 3), 6)
    with pytest.raises(ConfigError, match=message):
        require_memory_contract(LastInputs(broken), InputSizes(2, 3), 6)


def test_what_is_no_memory_is_refused():
    with pytest.raises(ConfigError, match="must be a MemoryCore; `build` of its options returned"):
        require_memory_contract(None, InputSizes(2, 3), 6)
