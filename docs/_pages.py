"""Pages that are made from the code: registered families and agents go in, Markdown comes out.

Whoever registers a family or an agent gets a page, and its options, their defaults and meanings are
those of the class itself.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from _api import api
from _docstrings import field_texts, first_line, linked
from matplotlib import image
from numpy.typing import NDArray
from sphinx.application import Sphinx

import metarl
from metarl.errors import MetaRLError
from metarl.registry import family_class
from metarl.training.loop import RunOptions

GENERATED = Path("docs/generated")
"""below the root of the repository; git ignores it"""
KEPT = Path(__file__).parent / "images" / "families"
"""pictures of families that need a screen to be drawn, as `_frames.py` wrote them"""
MOST_SPACE = 160
"""characters of a space that are shown"""
OURS = "metarl/"
"""ids of other packages, which may be installed where this is built, have no page here"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Writes the pages before any page is read."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / GENERATED))
    app.connect("build-finished", _open_at_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(folder: Path) -> None:
    """Writes all pages and what other pages include; files that are as they should be stay."""
    families, missing = _families()
    configs = {name: metarl.agent_config(name) for name in metarl.agent_names()}
    pages = {
        "families.inc": families_table(families, missing),
        "agents.inc": agents_table(configs),
        "run-options.inc": options_table(RunOptions(), _field_names(RunOptions)),
        "api.inc": api(),
    }
    for task_id, family in families.items():
        picture = picture_of(task_id, family, folder / "families")
        pages[f"families/{slug(task_id)}.md"] = family_page(task_id, family, picture)
    for task_id, reason in missing.items():
        pages[f"families/{slug(task_id)}.md"] = page_of_missing(task_id, reason)
    for name, config in configs.items():
        pages[f"agents/{name}.md"] = agent_page(name, config)
    for old in folder.rglob("*.md"):
        if str(old.relative_to(folder)) not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _families() -> tuple[dict[str, metarl.TaskDistribution], dict[str, str]]:
    """All families of ours, and why others of them could not be made, such as a missing package."""
    families, missing = {}, {}
    for task_id in metarl.task_ids():
        if task_id.startswith(OURS):
            try:
                family = metarl.make_family(task_id)
                _ = family.observation_space, family.task_space  # an environment is made now
                families[task_id] = family
            except (ImportError, MetaRLError) as error:
                missing[task_id] = str(error)
    return families, missing


def slug(task_id: str) -> str:
    """`metarl/Name-v0` as the name of a file."""
    return task_id.removeprefix(OURS).replace("/", "-")


def families_table(families: Mapping[str, metarl.TaskDistribution], missing: Iterable[str]) -> str:
    """All families, a line each."""
    lengths = {
        task_id: f"{family.trial_episodes} x at most {family.episode_steps}"
        for task_id, family in families.items()
    }
    rows = [
        (
            f"[`{task_id}`](generated/families/{slug(task_id)}.md)",
            linked(first_line(family_class(task_id)[0])),
            lengths.get(task_id, "see there"),
        )
        for task_id in sorted([*families, *missing])
    ]
    return table(("id", "what", "episodes x steps of a trial"), rows)


def page_of_missing(task_id: str, reason: str) -> str:
    """What can be said of a family that cannot be made here, such as for want of a package."""
    parts = [
        f"# {task_id}",
        _docstring(family_class(task_id)[0]),
        kept_picture(task_id),
        "`metarl list` shows spaces and options where it can be made. Here it could not:",
        f"```text\n{reason}\n```",
        *_presets_of_family(task_id),
    ]
    return "\n\n".join(parts) + "\n"


def family_page(task_id: str, family: metarl.TaskDistribution, picture: str) -> str:
    """All that the code says about one family."""
    cls = type(family)
    options = _field_names(cls)
    listed = "".join(f", {name}={getattr(family, name)!r}" for name in options)
    parts = [
        f"# {task_id}",
        _docstring(cls),
        picture,
        f'```python\nfamily = metarl.make_family("{task_id}"{listed})\n```',
        f"Class `{cls.__module__}.{cls.__qualname__}`.",
        "## What is seen, moved and drawn",
        table(("", "", ""), _facts(family)),
        "## Options",
        options_table(family, options) if options else "None.",
        "## References",
        "Policies without training, for trials of the usual length. Those that an evaluation does "
        "not live by default are asked for by name: `--references NAME`, or `all`.",
        _references(family),
        *_presets_of_family(task_id),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(family: metarl.TaskDistribution) -> list[tuple[str, str, str]]:
    """Spaces and lengths, each with what the family says about it."""
    facts = [
        (words, f"`{_short(getattr(family, name))}`", _property_text(family, name))
        for name, words in (
            ("observation_space", "observation"),
            ("action_space", "action"),
            ("task_space", "task"),
            ("episode_steps", "steps of an episode, at most"),
            ("trial_episodes", "episodes of a trial"),
        )
    ]
    told = getattr(type(family), "success", None)
    success = _first_sentence(told) if family.defines_success and told else ""
    return [*facts, ("success", "yes" if family.defines_success else "not defined", success)]


def _short(thing: Any) -> str:
    """Without the middle of what fills a page, such as the bounds of hundreds of numbers."""
    text = str(thing)
    return text if len(text) <= MOST_SPACE else f"{text[: MOST_SPACE // 2]} ... {text[-50:]}"


def _references(family: metarl.TaskDistribution) -> str:
    known = family.references(family.trial_episodes)
    rows = [
        (f"`{name}`", one.role, _escaped(one.label), "yes" if one.by_default else "")
        for name, one in known.items()
    ]
    return table(("name", "role", "in pictures", "by default"), rows) if rows else "None."


def _presets_of_family(task_id: str) -> list[str]:
    found = [
        preset for name in metarl.agent_names() for preset in metarl.presets(name, task_id).values()
    ]
    rows = [
        (f"[`{one.agent}`](../agents/{one.agent}.md)", f"`{one.name}`", _escaped(one.note))
        for one in found
    ]
    return ["## Presets", table(("agent", "preset", "what to expect"), rows)] if rows else []


def agents_table(configs: Mapping[str, type[metarl.AgentConfig]]) -> str:
    """All agents, a line each."""
    rows = [
        (f"[`{name}`](generated/agents/{name}.md)", linked(first_line(config)))
        for name, config in configs.items()
    ]
    return table(("name", "what"), rows)


def agent_page(name: str, config: type[metarl.AgentConfig]) -> str:
    """All that the code says about one agent: options by the class that they come from."""
    module = inspect.getmodule(config)
    default = config()
    parts = [
        f"# {name}",
        _docstring(config),
        _docstring(module),
        f"Class `{config.__module__}.{config.__qualname__}`; pictures call it {default.label}.",
    ]
    seen: set[str] = set()
    for cls in config.__mro__:
        own = [
            field
            for field in _field_names(config)
            if field in inspect.get_annotations(cls) and field not in seen
        ]
        seen.update(own)
        if own:
            title = "Options" if cls is config else re.split(r"[;.]", first_line(cls))[0]
            parts += [f"## {title}", options_table(default, own)]
    return "\n\n".join([*parts, *_presets_of_agent(name)]) + "\n"


def _presets_of_agent(name: str) -> list[str]:
    rows = [
        (
            f"[`{task_id}`](../families/{slug(task_id)}.md)",
            f"`{one.name}`",
            _values({**one.agent_options, **{f"task.{k}": v for k, v in one.task_options.items()}}),
            _escaped(one.note),
        )
        for task_id in metarl.task_ids()
        if task_id.startswith(OURS)
        for one in metarl.presets(name, task_id).values()
    ]
    return (
        ["## Presets", table(("family", "preset", "sets", "what to expect"), rows)] if rows else []
    )


def _values(options: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={value!r}`" for name, value in options.items())


def options_table(instance: Any, names: Iterable[str]) -> str:
    """Fields of a dataclass with the values of `instance`, which are the defaults."""
    texts = field_texts(type(instance))
    rows = [
        (f"`{name}`", f"`{getattr(instance, name)!r}`", linked(_escaped(texts.get(name, ""))))
        for name in names
    ]
    return table(("option", "default", "meaning"), rows)


def picture_of(task_id: str, family: metarl.TaskDistribution, folder: Path) -> str:
    """A picture, as Markdown; one that is drawn now is put into `folder`. Nothing if there is none.

    What MuJoCo draws needs a screen, which a machine that builds documentation may not have.
    """
    if not (isinstance(family, metarl.TaskFamily) and family.can_render):
        return kept_picture(task_id)
    folder.mkdir(parents=True, exist_ok=True)
    image.imsave(folder / f"{slug(task_id)}.png", frame(task_id))
    return f"![A frame of {task_id}]({slug(task_id)}.png)"


def kept_picture(task_id: str) -> str:
    """One that is kept in the repository, as Markdown; nothing if there is none."""
    name = f"{slug(task_id)}.png"
    known = (KEPT / name).exists()
    return f"![A frame of {task_id}](../../images/families/{name})" if known else ""


def frame(task_id: str, moves: int = 3) -> NDArray[np.uint8]:
    """An environment after a few random moves, [H, W, 3]."""
    world = gymnasium.make(task_id, render_mode="rgb_array")
    world.reset(seed=0)
    world.action_space.seed(0)
    for _ in range(moves):
        *_, terminated, truncated, _ = world.step(world.action_space.sample())
        if terminated or truncated:
            break
    return np.asarray(world.render())


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _field_names(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _docstring(thing: Any) -> str:
    """The whole text, which is Markdown as it stands: what is indented is a block of code."""
    return linked(inspect.getdoc(thing) or "")


def _first_sentence(thing: Any) -> str:
    paragraph = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    return linked(_escaped(" ".join(paragraph.split())))


def _property_text(family: metarl.TaskDistribution, name: str) -> str:
    """What the family itself says about a property; one that is only a value says nothing."""
    found = inspect.getattr_static(type(family), name)
    return _first_sentence(found) if isinstance(found, property) else ""


def _escaped(text: str) -> str:
    """Text that may stand in a cell."""
    return text.replace("|", r"\|")


def _open_at_index(app: Sphinx, error: Exception | None) -> None:
    """The pages lie one folder deeper than where a browser is sent to."""
    if error is None and app.builder.format == "html":
        target = f"{app.config.root_doc}.html"
        (Path(app.outdir) / "index.html").write_text(
            f'<!doctype html><meta http-equiv="refresh" content="0; url={target}">\n'
        )
