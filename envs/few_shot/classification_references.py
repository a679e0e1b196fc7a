"""Reference policies for few-shot classification.

Axes: `L` lanes, `N` tasks, `W` ways (classes of a task), `P` pixels.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import PolicyOutput
from metarl.envs.few_shot.images import ImageSet
from metarl.networks.policies import UniformPolicy
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference
from metarl.trajectory import Percept


def references(
    ways: int, shots: int, data: Callable[[torch.device], ImageSet]
) -> Mapping[str, Reference]:
    """All references, from the floor to the ceiling."""
    random = UniformPolicy(spaces.Discrete(ways))
    return {
        "random": Reference(role="floor", label="random", build=lambda _: random),
        "nearest_prototype": Reference(
            role="baseline",
            label="nearest prototype (pixels)",
            build=lambda _: NearestPrototype(ways, shots),
        ),
        "perfect_memory": Reference(
            role="ceiling",
            label="perfect memory (recognises every class)",
            build=lambda tasks: PerfectMemory(tasks, data(tasks.device), knows_labels=False),
        ),
        "oracle": Reference(
            role="ceiling",
            label="oracle (knows the labels)",
            build=lambda tasks: PerfectMemory(tasks, data(tasks.device), knows_labels=True),
        ),
    }


class ParsedObservation(NamedTuple):
    """The parts of an observation."""

    pixels: Tensor  # [L, P]
    label: Tensor  # [L, W] one-hot, of the previous image; zeros where it is not shown
    query: Tensor  # [L, 1] bool


def parse_observation(obs: Tensor, ways: int) -> ParsedObservation:
    """Splits an observation [L, P + W + 1] into its parts."""
    return ParsedObservation(obs[..., : -ways - 1], obs[..., -ways - 1 : -1], obs[..., -1:] > 0)


class PrototypeMemory(NamedTuple):
    """Labelled images of the trial so far."""

    previous_pixels: Tensor  # [L, P] the previous image
    total: Tensor  # [L, W, P] sum of the images of each label
    label_count: Tensor  # [L, W] number of these images
    episode_count: Tensor  # [L, W] number of these images in this episode


class NearestPrototype:
    """Guesses the label whose images so far have the nearest mean, in pixels.

    The support shows each class `shots` times, so a label that was shown `shots` times is not
    guessed again before the queries. An unseen label is guessed if no other label is left.

    Prototypes are those of Snell et al. 2017, arXiv:1703.05175, without a learnt embedding.
    """

    def __init__(self, ways: int, shots: int) -> None:
        self._ways, self._shots = ways, shots

    def initial_memory(self, lanes: int, horizon: int) -> None:
        """None: the memory is created at the first step, when the number of pixels is known."""

    def act(
        self, percept: Percept, memory: PrototypeMemory | None, noise: LaneNoise
    ) -> PolicyOutput:
        """Stores the label shown, and guesses; unseen labels in random order."""
        observed = parse_observation(percept.obs, self._ways)
        memory = self._updated(observed, memory, percept.first_of_episode)
        mean = memory.total / memory.label_count.clamp_min(1).unsqueeze(-1)
        distance = (observed.pixels.unsqueeze(-2) - mean).square().sum(-1)
        # No distance exceeds the number of pixels, so unseen labels come last.
        uniform = noise.uniform(self._ways)
        distance = torch.where(
            memory.label_count > 0, distance, observed.pixels.shape[-1] + 1 + uniform
        )
        used_up = (memory.episode_count >= self._shots) & ~observed.query
        guess = distance.masked_fill(used_up, torch.inf).argmin(-1)
        return PolicyOutput(guess, torch.zeros_like(percept.previous_reward), memory)

    def _updated(
        self, observed: ParsedObservation, memory: PrototypeMemory | None, first: Tensor
    ) -> PrototypeMemory:
        label, pixels = observed.label, observed.pixels
        if memory is None:
            count, blank = torch.zeros_like(label), torch.zeros_like(pixels)
            total = count.unsqueeze(-1) * blank.unsqueeze(-2)
            memory = PrototypeMemory(
                previous_pixels=blank, total=total, label_count=count, episode_count=count
            )
        return PrototypeMemory(
            previous_pixels=pixels,
            total=memory.total + label.unsqueeze(-1) * memory.previous_pixels.unsqueeze(-2),
            label_count=memory.label_count + label,
            episode_count=(memory.episode_count + label) * ~first.unsqueeze(-1),
        )


class PerfectMemory:
    """Recognises the class of every image; knows its label from the start, or once it was shown.

    For a new class all unseen labels are equally likely, and it guesses the first one. This is
    optimal without knowledge of the labels.
    """

    def __init__(self, tasks: Tensor, data: ImageSet, *, knows_labels: bool) -> None:
        """Takes the classes of the tasks, [N, W]."""
        self._tasks, self._data, self._knows_labels = tasks, data, knows_labels

    def initial_memory(self, lanes: int, horizon: int) -> Tensor:
        """Which labels are known, [L, W]."""
        shape = lanes, self._tasks.shape[1]
        return torch.full(shape, self._knows_labels, device=self._tasks.device)

    def act(self, percept: Percept, memory: Tensor, noise: LaneNoise) -> PolicyOutput:
        """The label of the image if it is known, else the first unknown label."""
        observed = parse_observation(percept.obs, self._tasks.shape[1])
        known = memory | (observed.label > 0)
        image_class = self._data.recognise(observed.pixels).unsqueeze(-1)
        tasks = self._tasks.repeat_interleave(len(known) // len(self._tasks), 0)
        label = (tasks == image_class).float().argmax(-1)
        label_known = known.gather(-1, label.unsqueeze(-1)).squeeze(-1)
        guess = torch.where(label_known, label, (~known).float().argmax(-1))
        return PolicyOutput(guess, torch.zeros_like(percept.previous_reward), known)
