"""Episodic memories on few-shot classification, next to the supervised network of the literature.

Matching Networks and Prototypical Networks in RL form learn from the rewards of their guesses. The
same metric, learned from labels, is the supervised prototypical network (Snell et al. 2017,
arXiv:1703.05175), trained here on images of the same classes with the same size of embedding. All
are measured on the same images of unseen classes.

    python experiments/few_shot_memories.py --images glyphs --shots 1

Digits have five classes for training, which is a single task up to the order of its labels. They
need scikit-learn: the extra `few-shot`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from reporting import (
    draw_steps,
    evaluation_rollouts,
    evaluation_tasks,
    figure_style,
    format_interval,
    iteration_options,
    save_figure,
    write_page,
)
from torch import Tensor, nn

import metarl
from metarl.envs.few_shot.classification import FewShotClassification

TASK = "metarl/FewShotClassification-v0"
REFERENCES = ("nearest_prototype",)
EPISODES = 128
"""of one step of supervised training"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Episodic memories and a supervised prototypical network: train, classify, compare."""

    images: Literal["glyphs", "digits"] = "glyphs"
    """image set; its training classes are used for training, its test classes for evaluation"""
    shots: Literal[1, 5] = 1
    """labelled images of each of five classes"""
    agents: tuple[str, ...] = ("prototypical_networks", "matching_networks")
    """agents that are trained"""
    iterations: int | None = None
    """meta-iterations of each; by default those of the presets"""
    supervised_steps: int = 1500
    """steps of the supervised network"""
    seed: int = 0
    """root of all randomness"""
    test_tasks: int = 5000
    """unseen tasks"""
    threads: int = 1
    """CPU threads"""
    out: Path = Path("runs/few-shot-memories")
    """parent of the run folders"""
    results: Path | None = None
    """path of the figure (.png, .svg) and the page (.md); by default in that folder"""


def main(options: Options) -> None:
    """Train, evaluate, plot."""
    runs = [train(agent, options) for agent in options.agents]
    family = metarl.make_family(TASK, images=options.images, shots=options.shots)
    assert isinstance(family, FewShotClassification)
    correct = {"supervised prototypical network": supervised(family, runs[0], options)}
    for run in runs:
        references = REFERENCES if run is runs[0] else ()  # the same for every run
        for rollout in evaluation_rollouts(run, family, references, options.test_tasks):
            correct[rollout.label] = rollout.rewards[family.support :]
    table = [("policy", "query accuracy", "first query")]
    for label, by_query in correct.items():
        table.append((label, accuracy(by_query.mean(0)), accuracy(by_query[0])))
        print("{:36} all queries {}   first {}".format(*table[-1]))
    name = f"{options.images}-{options.shots}-shot"
    out = options.results or options.out / name
    title = f"{options.shots}-shot classification of {options.images}, unseen classes"
    with figure_style():
        figures = save_figure(figure(correct, f"{title}, {options.test_tasks:,} tasks"), out)
    print(
        write_page(out, f"{title}, {options.test_tasks:,} tasks", table, runs), *figures, sep="\n"
    )


def train(agent: str, options: Options) -> metarl.Run:
    """The run of an agent: trained, resumed or already complete."""
    return metarl.train(
        agent,
        TASK,
        preset=f"ways-5-shots-{options.shots}",
        task_options={"images": options.images},
        seed=options.seed,
        threads=options.threads,
        out=options.out / f"{agent}-{options.images}-{options.shots}-shot-seed{options.seed}",
        resume=True,
        **iteration_options(options.iterations),
    )


def accuracy(correct: NDArray[np.float64]) -> str:
    """Mean over tasks [N] with its interval."""
    (mean,), (low,), (high,) = metarl.bootstrap_mean(correct[None, None])
    return format_interval(mean, low, high)


class Images:
    """Episodes as a supervised learner sees them: images with labels, support before queries."""

    def __init__(self, family: FewShotClassification) -> None:
        self._family = family

    def draw(self, tasks: Tensor, seeds: metarl.Seeds) -> tuple[Tensor, Tensor]:
        """Pixels [T, N, P] and labels [T, N] of one episode in every task.

        The images are those that any policy is shown with these seeds; the oracle's guesses are
        the labels.
        """
        oracle = self._family.references(1)["oracle"].build(tasks)
        trajectory = metarl.collect(self._family, tasks, oracle, episodes=1, seeds=seeds)
        pixels = trajectory.obs[:, :, 0, : -self._family.ways - 1]
        return pixels, trajectory.action[:, :, 0]

    def training_batches(self, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of episodes of the training classes."""
        seeds = metarl.Seeds(seed).child("supervised")
        for step in range(count):
            now = seeds.child("step", step)
            tasks = self._family.sample_tasks(EPISODES, now.torch("tasks"), "train")
            yield self.draw(tasks, now)


def supervised(
    family: FewShotClassification, run: metarl.Run, options: Options
) -> NDArray[np.float64]:
    """1 where a query of the evaluation was named right after supervised training, [Q, N]."""
    images, hidden = Images(family), int(run.config.agent_options["hidden_size"])
    torch.manual_seed(options.seed)  # of the network's initial weights
    size = family.observation_space.shape[0] - family.ways - 1
    network = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for pixels, label in images.training_batches(options.supervised_steps, options.seed):
        logits = prototypical_logits(network(pixels), label, family)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), label[family.support :].flatten())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    pixels, label = images.draw(*evaluation_tasks(family, options.test_tasks))
    with torch.no_grad():
        guess = prototypical_logits(network(pixels), label, family).argmax(-1)
    return (guess == label[family.support :]).double().numpy()


def prototypical_logits(embedding: Tensor, label: Tensor, family: FewShotClassification) -> Tensor:
    """Minus squared distances of the queries from the means of the support, [Q, N, W].

    Args:
        embedding: [T, N, E] of all images of an episode.
        label: [T, N].
        family: tells the support from the queries.
    """
    support = family.support
    one_hot = nn.functional.one_hot(label[:support], family.ways).to(embedding.dtype)
    prototypes = torch.einsum("snw,sne->nwe", one_hot, embedding[:support]) / family.shots
    return -(embedding[support:].unsqueeze(2) - prototypes).square().sum(-1)


def figure(correct: dict[str, NDArray[np.float64]], title: str) -> Figure:
    """Accuracy at each query."""
    drawn = Figure(figsize=(5.2, 3.4), dpi=300, layout="constrained")
    panel = drawn.subplots()
    draw_steps(panel, correct, first=1)
    panel.set_xlabel("query")
    panel.set_xticks(range(1, 1 + max(map(len, correct.values()))))
    panel.set_ylabel("accuracy")
    panel.set_ylim(0, 1.02)
    panel.set_title(title)
    panel.legend(frameon=False, fontsize=7)
    return drawn


if __name__ == "__main__":
    main(tyro.cli(Options))
