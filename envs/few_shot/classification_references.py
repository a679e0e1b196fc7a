"""Policies for few-shot classification that need no training: images go in, guesses come out.

Axes: `N` tasks, `B` copies of each, `W` ways (classes of a task), `P` pixels.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.agent import PolicyOutput
from metarl.envs.few_shot.images import ImageSet
from metarl.networks.policies import UniformPolicy
from metarl.tasks.family import Reference
from metarl.trajectory import Percept


def references(
    ways: int, shots: int, data: Callable[[torch.device], ImageSet]
) -> Mapping[str, Reference]:
    """Random, nearest prototype, who recognises every class, and who knows the labels."""
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


class Sight(NamedTuple):
    """What an observation says."""

    pixels: Tensor  # [N, B, P]
    label: Tensor  # [N, B, W] one-hot, of the image before; zeros where it is not shown
    query: Tensor  # [N, B, 1] bool


def read(obs: Tensor, ways: int) -> Sight:
    """Takes an observation [N, B, P + W + 1] apart."""
    return Sight(obs[..., : -ways - 1], obs[..., -ways - 1 : -1], obs[..., -1:] > 0)


class Album(NamedTuple):
    """What was seen since the trial began."""

    pixels: Tensor  # [N, B, P] the image before
    total: Tensor  # [N, B, W, P] sum of the images of each label
    seen: Tensor  # [N, B, W] how many these are
    lately: Tensor  # [N, B, W] how many of these in this episode


class NearestPrototype:
    """Guesses the label whose images seen so far have the nearest mean, in pixels.

    The support shows each class `shots` times, so a label that was shown so often is not guessed
    again before the queries; and a label never seen is guessed if no other is left.

    Prototypes are those of Snell et al. 2017, arXiv:1703.05175, without a learnt embedding.
    """

    def __init__(self, ways: int, shots: int) -> None:
        self._ways, self._shots = ways, shots

    def initial_memory(self, num_tasks: int, copies: int) -> None:
        """Made at the first step, when the number of pixels is known."""

    def act(self, percept: Percept, memory: Album | None, generator: Generator) -> PolicyOutput:
        """Keeps the label that is shown, and guesses; of labels never seen, any."""
        sight = read(percept.obs, self._ways)
        album = self._after(sight, memory, percept.first_of_episode)
        mean = album.total / album.seen.clamp_min(1).unsqueeze(-1)
        distance = (sight.pixels.unsqueeze(-2) - mean).square().sum(-1)
        # No distance is longer than the number of pixels: what was never seen comes last.
        luck = torch.rand(distance.shape, generator=generator, device=distance.device)
        distance = torch.where(album.seen > 0, distance, sight.pixels.shape[-1] + 1 + luck)
        used_up = (album.lately >= self._shots) & ~sight.query
        guess = distance.masked_fill(used_up, torch.inf).argmin(-1)
        return PolicyOutput(guess, torch.zeros_like(percept.previous_reward), album)

    def _after(self, sight: Sight, memory: Album | None, first: Tensor) -> Album:
        if memory is None:
            none = torch.zeros_like(sight.label)
            nothing = torch.zeros_like(sight.pixels)
            total = none.unsqueeze(-1) * nothing.unsqueeze(-2)
            memory = Album(pixels=nothing, total=total, seen=none, lately=none)
        return Album(
            pixels=sight.pixels,
            total=memory.total + sight.label.unsqueeze(-1) * memory.pixels.unsqueeze(-2),
            seen=memory.seen + sight.label,
            lately=(memory.lately + sight.label) * ~first.unsqueeze(-1),
        )


class PerfectMemory:
    """Knows the class of every image; its label from the start, or once it has been shown.

    When a class is new, each label not seen yet is as likely as the others, and it guesses the
    first of these: nobody who does not know the labels can expect more.
    """

    def __init__(self, tasks: Tensor, data: ImageSet, *, knows_labels: bool) -> None:
        """Takes the classes of every task, [N, W]."""
        self._tasks, self._data, self._knows_labels = tasks, data, knows_labels

    def initial_memory(self, num_tasks: int, copies: int) -> Tensor:
        """Labels known, [N, B, W]."""
        lanes = (num_tasks, copies, self._tasks.shape[1])
        return torch.full(lanes, self._knows_labels, device=self._tasks.device)

    def act(self, percept: Percept, memory: Tensor, generator: Generator) -> PolicyOutput:
        """The label if it is known, else the first that is not."""
        sight = read(percept.obs, self._tasks.shape[1])
        known = memory | (sight.label > 0)
        image_class = self._data.recognise(sight.pixels).unsqueeze(-1)
        label = (self._tasks.unsqueeze(1) == image_class).float().argmax(-1)
        told = known.gather(-1, label.unsqueeze(-1)).squeeze(-1)
        guess = torch.where(told, label, (~known).float().argmax(-1))
        return PolicyOutput(guess, torch.zeros_like(percept.previous_reward), known)
