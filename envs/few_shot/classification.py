"""Learning to name images from a few examples: guesses go in, images and late labels come out.

Axes: `L` lanes, `N` tasks, `W` ways (classes of a task), `S` images of an episode, `P` pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.envs.drawing.layout import latest_episode
from metarl.envs.few_shot import classification_references
from metarl.envs.few_shot.drawing import Guess, as_image, draw_guesses
from metarl.envs.few_shot.images import ImageSet, image_set
from metarl.errors import ConfigError
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_positive

Rewarded: TypeAlias = Literal["all", "queries"]


class Pass(NamedTuple):
    """One episode: what will be shown, and how far it has come."""

    image: Tensor  # [L, S] int64, places in the image set
    label: Tensor  # [L, S] int64, from 0 to W - 1
    shown: Tensor  # [L] int64, images that were guessed already
    first_query_right: Tensor  # [L] bool, whether the last guess was that, and was right


@dataclass(frozen=True, kw_only=True)
class FewShotClassification(TaskFamily):
    """Images are shown one by one, and each shall be named; what the names are must be learnt.

    First the support: `shots` images of each of `ways` classes, in random order; the true label
    of each is shown one step after it, together with the next image. Then `queries` more images,
    each of a class drawn anew, whose labels are never shown. A right guess earns 1, any other
    nothing. Every episode draws its images anew; no query is an image of the support.

    A task is `ways` classes in the order of their labels, so it says which classes are met and
    how their names are permuted, but not which images: another episode of it shows others of the
    same classes. One episode is a whole trial for who learns in memory; an agent that adapts its
    parameters learns from its rewards in many of them, because without memory the label that
    arrives with the next image is of no use. Classes of the test split are never met in training.

    The observation is the image, flattened, in [0, 1]; the label of the image before, one-hot,
    zeros where none is shown; and whether this image is a query. Behind the last query it shows
    no image.

    Nobody can know the name of a class before it was shown: who recognises classes perfectly,
    and guesses a label not seen yet when a class is new, expects

        1 + 1/2 + ... + 1/ways + ways (shots - 1) + queries

    right guesses in the first episode. The rewards of queries tell which guesses were right, so
    queries behind the first are slightly easier; `success` is that of the first query alone.

    Source: Santoro et al. 2016, arXiv:1605.06065, section 3.1 (label one step late, labels
    permuted anew for every episode); support before queries as in Mishra et al. 2018 (SNAIL),
    arXiv:1707.03141, section 5.1, with rewards instead of a supervised loss.
    """

    images: str = "glyphs"
    """glyphs (drawn strokes), digits (scikit-learn's), a name registered, or a path of an .npz"""
    ways: int = 5
    """classes of a task"""
    shots: int = 1
    """labelled images of each class"""
    queries: int = 5
    """images to be named without being told whether their label was right, but for the reward"""
    rewarded: Rewarded = "all"
    """which right guesses earn 1: all, or those of queries only"""

    defines_success: ClassVar[bool] = True
    can_render: ClassVar[bool] = True
    # Images of the task's classes are seen; what these are called is not.
    task_is_observable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("ways", "shots", "queries"):
            require_positive(name, getattr(self, name))
        if self.rewarded not in get_args(Rewarded):
            raise ConfigError(
                f"rewarded={self.rewarded!r} must be one of {', '.join(get_args(Rewarded))}."
            )
        data = image_set(self.images)
        held = min(len(data.train_classes), len(data.test_classes))
        if self.ways > held:
            raise ConfigError(
                f"ways={self.ways} must not exceed {held}: of {self.images!r} "
                f"{len(data.train_classes)} classes are for training and "
                f"{len(data.test_classes)} for the test, which `test_classes` of "
                "`register_images` decides."
            )
        fewest = int(data.count.min())
        if self.shots >= fewest:
            raise ConfigError(
                f"shots={self.shots} must be below {fewest}, the images of the smallest class of "
                f"{self.images!r}: one must be left for a query."
            )

    @property
    def support(self) -> int:
        """Labelled images of an episode."""
        return self.ways * self.shots

    @property
    def observation_space(self) -> spaces.Box:
        """Pixels, the label before, and whether this image is a query."""
        size = image_set(self.images).pixels.shape[1] + self.ways + 1
        return spaces.Box(0.0, 1.0, (size,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """The label guessed."""
        return spaces.Discrete(self.ways)

    @property
    def task_space(self) -> spaces.Box:
        """The class that each label stands for, as its number in the whole image set."""
        last = len(image_set(self.images).count) - 1
        return spaces.Box(0, last, (self.ways,), np.int64)

    @property
    def episode_steps(self) -> int:
        """One for each image."""
        return self.support + self.queries

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Classes [N, W] of the split, none twice in a task, every order as likely as any."""
        classes = self._data(generator.device).classes(split)
        luck = torch.rand(num_tasks, len(classes), generator=generator, device=generator.device)
        return classes[luck.argsort(1)[:, : self.ways]]

    def reset(self, task: Tensor, generator: Generator) -> Pass:
        """Draws the images of an episode."""
        lanes, device = len(task), task.device
        data = self._data(device)
        label, rank = self._places(data.count[task], generator)
        # The images of each class in random order, those behind the class's last one at the end.
        most = int(data.count.max())
        luck = torch.rand(lanes, self.ways, most, generator=generator, device=device)
        missing = torch.arange(most, device=device) >= data.count[task].unsqueeze(2)
        order = luck.masked_fill(missing, 2.0).argsort(2).flatten(1)
        image = data.first[task].gather(1, label) + order.gather(1, label * most + rank)
        return Pass(
            image=image,
            label=label,
            shown=torch.zeros(lanes, dtype=torch.int64, device=device),
            first_query_right=torch.zeros(lanes, dtype=torch.bool, device=device),
        )

    def _places(self, count: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Which class each step shows, and which of its images in order, both [L, S].

        Queries of one class show different images as long as there are any; `count` is [L, W].
        """
        lanes, device = len(count), count.device
        luck = torch.rand(lanes, self.support, generator=generator, device=device)
        place = luck.argsort(1)
        query = torch.randint(self.ways, (lanes, self.queries), generator=generator, device=device)
        earlier = (query.unsqueeze(2) == query.unsqueeze(1)).tril(-1).sum(2)
        rank = self.shots + earlier % (count.gather(1, query) - self.shots)
        return (
            torch.cat((place // self.shots, query), 1),
            torch.cat((place % self.shots, rank), 1),
        )

    def observe(self, task: Tensor, state: Pass) -> Tensor:
        """See the class."""
        shown = state.shown.unsqueeze(1)
        now = shown.clamp_max(self.episode_steps - 1)
        pixels = self._data(task.device).pixels[state.image.gather(1, now).squeeze(1)]
        before = state.label.gather(1, (shown - 1).clamp_min(0))
        told = (shown > 0) & (shown <= self.support)
        label = (torch.arange(self.ways, device=task.device) == before) & told
        query = shown >= self.support
        return torch.cat((pixels * (shown < self.episode_steps), label.float(), query.float()), 1)

    def step(
        self, task: Tensor, state: Pass, action: Tensor, generator: Generator
    ) -> tuple[Pass, Tensor, Tensor]:
        """Judges the guess; the last query ends the episode."""
        label = state.label.gather(1, state.shown.unsqueeze(1)).squeeze(1)
        right = action == label
        after = state._replace(
            shown=state.shown + 1, first_query_right=right & (state.shown == self.support)
        )
        counts = right & (state.shown >= self.support) if self.rewarded == "queries" else right
        return after, counts.float(), after.shown == self.episode_steps

    def success(self, task: Tensor, state: Pass) -> Tensor:
        """Whether the first query was named right just now; so an episode's success is its."""
        return state.first_query_right

    def render(self, task: Tensor, life: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The image shown, and those of this episode before it with what they were called."""
        state: Pass = life[-1].state
        pixels, label = self._data(task.device).pixels[state.image[0]], state.label[0].tolist()
        images = [as_image(image.numpy()) for image in pixels]
        guesses = []
        for moment in latest_episode(life):
            if moment.action is not None:
                place = int(moment.state.shown) - 1
                guesses.append(Guess(images[place], int(moment.action), label[place]))
        shown = int(state.shown)
        if shown == self.episode_steps:
            blank = np.zeros_like(images[0])
            return draw_guesses(blank, "no image is left", guesses, self.episode_steps)
        support = shown < self.support
        number, of = (shown, self.support) if support else (shown - self.support, self.queries)
        words = f"{'support' if support else 'query'} {number + 1} of {of}, label {label[shown]}"
        return draw_guesses(images[shown], words, guesses, self.episode_steps)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, nearest prototype, who recognises every class, and who knows the labels."""
        return classification_references.references(self.ways, self.shots, self._data)

    def _data(self, device: torch.device) -> ImageSet:
        return image_set(self.images, device)
