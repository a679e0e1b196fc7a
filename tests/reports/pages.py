"""Folders of runs for tests of reports, and a reader of pages."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from metarl.results.adaptation_curves import write_curves
from tests.results.test_adaptation_curves import make_curve
from tests.results.test_learning_curves import make_training

BANDIT = "metarl/BernoulliBandit-v0"


def make_folder(folder: Path, *, label="RL²", level=0.0, points=3, tasks=120, split="test", **more):
    """The folder of a trained and evaluated run: an agent between its floor and its ceiling."""
    make_training(folder, **more)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("lab/Task-v0", BANDIT))
    curves = []
    for role, name, base in (("agent", label, level), ("floor", "random", -5), ("ceiling", "b", 9)):
        agent = "rl2" if role == "agent" else name
        run = folder.name if role == "agent" else ""
        names = {"agent": agent, "label": name, "role": role, "run": run, "split": split}
        curve = make_curve(points=points, tasks=tasks, **names)
        noise = 0.1 * np.random.default_rng(len(curves)).standard_normal((points, tasks))
        curves.append(replace(curve, returns=base + noise + np.arange(points)[:, None]))
    write_curves(folder / "adaptation.csv", curves)
    return folder


class Page(HTMLParser):
    """The elements of a page with their attributes, its text, and its tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open  # every element was closed

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of this name."""
        return [attributes for name, attributes in self.elements if name == tag]


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))
