"""Few-shot image classification as a task family.

Axes: `L` lanes, `N` tasks, `W` ways (classes of a task), `S` images of an episode, `P` pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.agent import ShownTargets
from metarl.envs.drawing.layout import latest_episode
from metarl.envs.few_shot import classification_references
from metarl.envs.few_shot.drawing import LabelledGuess, as_image, draw_guesses
from metarl.envs.few_shot.images import ImageSet, image_set
from metarl.errors import ConfigError
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_positive

Rewarded: TypeAlias = Literal["all", "queries"]


class ClassificationState(NamedTuple):
    """The images of an episode, and the current step."""

    image: Tensor  # [L, S] int64, indices into the image set
    label: Tensor  # [L, S] int64, from 0 to W - 1
    step: Tensor  # [L] int64, images classified so far
    first_query_correct: Tensor  # [L] bool, true right after a correct guess of the first query


@dataclass(frozen=True, kw_only=True)
class FewShotClassification(TaskFamily):
    """Classify images shown one by one, of classes whose labels are learnt from a few examples.

    The support comes first: `shots` images of each of `ways` classes, in random order, each
    followed by its true label one step later, together with the next image. Then come `queries`
    images of independently drawn classes, without labels. A correct guess gives reward 1, any other
    guess 0. Every episode draws new images; no query is an image of the support.

    A task is `ways` classes in the order of their labels. It determines the classes and their
    labels, but not the images, which differ between episodes. For an agent with memory one episode
    is a whole trial. An agent that adapts its parameters learns from the rewards of many episodes,
    because without memory it cannot use a label that arrives with the next image. Classes of the
    test split never occur in training.

    The observation is the flattened image, in [0, 1]; the label of the previous image, one-hot, or
    zeros where none is shown; and whether this image is a query. After the last query the image is
    zero.

    The label of a class is unknown before it was shown. A policy that recognises classes perfectly
    and guesses an unseen label for every new class has an expected number of

        1 + 1/2 + ... + 1/ways + ways (shots - 1) + queries

    correct guesses in the first episode. Rewards of queries reveal whether guesses were correct, so
    later queries are slightly easier; `success` is therefore that of the first query alone.

    Source: Santoro et al. 2016, arXiv:1605.06065, section 3.1 (label one step late, labels permuted
    in every episode); support before queries as in Mishra et al. 2018 (SNAIL), arXiv:1707.03141,
    section 5.1, with rewards instead of a supervised loss.
    """

    images: str = "glyphs"
    """glyphs (drawn strokes), digits (from scikit-learn), a registered name, or an .npz path"""
    ways: int = 5
    """number of classes of a task"""
    shots: int = 1
    """labelled images per class"""
    queries: int = 5
    """images whose label is not shown"""
    rewarded: Rewarded = "all"
    """correct guesses that give reward 1: all, or those of queries only"""

    defines_success: ClassVar[bool] = True
    can_render: ClassVar[bool] = True
    fixed_length: ClassVar[bool] = True
    # Observations show images of the task's classes, though not their labels.
    task_is_observable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("ways", "shots", "queries"):
            require_positive(name, getattr(self, name))
        data = image_set(self.images)
        available = min(len(data.train_classes), len(data.test_classes))
        if self.ways > available:
            raise ConfigError(
                f"ways={self.ways} must not exceed {available}: {self.images!r} has "
                f"{len(data.train_classes)} classes for training and {len(data.test_classes)} for "
                "the test. `test_classes` of `register_images` sets this split."
            )
        fewest = int(data.count.min())
        if self.shots >= fewest:
            raise ConfigError(
                f"shots={self.shots} must be below {fewest}, the images of the smallest class of "
                f"{self.images!r}: one must remain for a query."
            )

    @property
    def support(self) -> int:
        """Labelled images of an episode."""
        return self.ways * self.shots

    @property
    def observation_space(self) -> spaces.Box:
        """Pixels, the previous label, and whether this image is a query."""
        size = image_set(self.images).pixels.shape[1] + self.ways + 1
        return spaces.Box(0.0, 1.0, (size,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """The guessed label."""
        return spaces.Discrete(self.ways)

    @property
    def task_space(self) -> spaces.Box:
        """The class of each label, as its index in the image set."""
        last = len(image_set(self.images).count) - 1
        return spaces.Box(0, last, (self.ways,), np.int64)

    @property
    def shown_targets(self) -> ShownTargets:
        """The label of the support image before."""
        parts = self.ways + 1
        return ShownTargets(slice(self.observation_space.shape[0] - parts, None), self._shown_label)

    def _shown_label(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        label = classification_references.parse_observation(obs, self.ways).label
        return label.argmax(-1), label.sum(-1) > 0

    @property
    def episode_steps(self) -> int:
        """One per image."""
        return self.support + self.queries

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Classes [N, W] of the split, distinct within a task and in uniformly random order."""
        classes = self._data(generator.device).classes(split)
        uniform = torch.rand(num_tasks, len(classes), generator=generator, device=generator.device)
        return classes[uniform.argsort(1)[:, : self.ways]]

    def reset(self, task: Tensor, noise: LaneNoise) -> ClassificationState:
        """Draws the images of an episode."""
        lanes, device = len(task), task.device
        data = self._data(device)
        label, rank = self._label_sequence(data.count[task], noise)
        # A random order of the images of each class; smaller classes have their padding at the end.
        largest = int(image_set(self.images).count.max())  # of the copy in the CPU's memory
        padding = torch.arange(largest, device=device) >= data.count[task].unsqueeze(2)
        uniform = noise.uniform(self.ways, largest).masked_fill(padding, 2.0)
        order = uniform.argsort(dim=2, stable=True).flatten(1)
        image = data.first[task].gather(1, label) + order.gather(1, label * largest + rank)
        return ClassificationState(
            image=image,
            label=label,
            step=torch.zeros(lanes, dtype=torch.int64, device=device),
            first_query_correct=torch.zeros(lanes, dtype=torch.bool, device=device),
        )

    def _label_sequence(self, count: Tensor, noise: LaneNoise) -> tuple[Tensor, Tensor]:
        """Label of each step, and rank of its image within the class, both [L, S].

        Queries of one class show different images until all are used; `count` is [L, W].
        """
        position = noise.uniform(self.support).argsort(dim=1, stable=True)
        query = noise.integers(self.ways, self.queries)
        earlier = (query.unsqueeze(2) == query.unsqueeze(1)).tril(-1).sum(2)
        rank = self.shots + earlier % (count.gather(1, query) - self.shots)
        return (
            torch.cat((position // self.shots, query), 1),
            torch.cat((position % self.shots, rank), 1),
        )

    def observe(self, task: Tensor, state: ClassificationState) -> Tensor:
        """Image, previous label and query flag, [L, P + W + 1]; see the class."""
        step = state.step.unsqueeze(1)
        index = step.clamp_max(self.episode_steps - 1)
        pixels = self._data(task.device).pixels[state.image.gather(1, index).squeeze(1)]
        previous = state.label.gather(1, (step - 1).clamp_min(0))
        label_shown = (step > 0) & (step <= self.support)
        label = (torch.arange(self.ways, device=task.device) == previous) & label_shown
        query = step >= self.support
        return torch.cat((pixels * (step < self.episode_steps), label.float(), query.float()), 1)

    def step(
        self, task: Tensor, state: ClassificationState, action: Tensor, noise: LaneNoise
    ) -> tuple[ClassificationState, Tensor, Tensor]:
        """Rewards the guess; the episode terminates after the last query."""
        label = state.label.gather(1, state.step.unsqueeze(1)).squeeze(1)
        correct = action == label
        after = state._replace(
            step=state.step + 1, first_query_correct=correct & (state.step == self.support)
        )
        rewarded = correct & (state.step >= self.support) if self.rewarded == "queries" else correct
        return after, rewarded.float(), after.step == self.episode_steps

    def success(self, task: Tensor, state: ClassificationState) -> Tensor:
        """Whether the latest guess was a correct one of the first query."""
        return state.first_query_correct

    def render(self, task: Tensor, history: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The current image, and the earlier images of this episode with their guesses."""
        state: ClassificationState = history[-1].state
        pixels, label = self._data(task.device).pixels[state.image[0]], state.label[0].tolist()
        images = [as_image(image.numpy()) for image in pixels]
        guesses = []
        for frame in latest_episode(history):
            if frame.action is not None:
                index = int(frame.state.step) - 1
                guesses.append(LabelledGuess(images[index], int(frame.action), label[index]))
        step = int(state.step)
        if step == self.episode_steps:
            blank = np.zeros_like(images[0])
            return draw_guesses(blank, "end of episode", guesses, self.episode_steps)
        support = step < self.support
        number, of = (step, self.support) if support else (step - self.support, self.queries)
        caption = f"{'support' if support else 'query'} {number + 1} of {of}, label {label[step]}"
        return draw_guesses(images[step], caption, guesses, self.episode_steps)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, nearest prototype, perfect recognition of classes, and known labels."""
        return classification_references.references(self.ways, self.shots, self._data)

    def _data(self, device: torch.device) -> ImageSet:
        return image_set(self.images, device)
