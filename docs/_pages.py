"""Generates a Markdown page for every registered family and agent.

Options, defaults and their documentation are read from the class.
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
from _quick_starts import quick_start
from matplotlib import image
from numpy.typing import NDArray
from sphinx.application import Sphinx

import metarl
from metarl.errors import MetaRLError
from metarl.registry import family_class
from metarl.training.options import RunOptions

GENERATED = Path("docs/generated")
"""relative to the root of the repository; ignored by git"""
COMMITTED_FRAMES = Path(__file__).parent / "images" / "families"
"""frames that `_frames.py` wrote, of families that cannot be rendered during the build"""
MAX_SPACE_LENGTH = 160
"""characters; the description of a longer space is abbreviated"""
PREFIX = "metarl/"
"""ids with another prefix, from other installed packages, get no page"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Writes the pages before any page is read."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / GENERATED))
    app.connect("build-finished", _open_at_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(folder: Path) -> None:
    """Writes all pages and the files that pages include; unchanged files are not written."""
    families, missing = _families()
    configs = {name: metarl.agent_config(name) for name in metarl.agent_names()}
    pages = {
        "families.inc": families_table(families, missing),
        "agents.inc": agents_table(configs),
        "run-options.inc": options_table(RunOptions(), _field_names(RunOptions)),
        "api.inc": api(),
    }
    for task_id, family in families.items():
        image_link = rendered_frame(task_id, family, folder / "families")
        pages[f"families/{slug(task_id)}.md"] = family_page(task_id, family, image_link)
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
    """The families of metarl, and for those that cannot be made the error message."""
    families, missing = {}, {}
    for task_id in metarl.task_ids():
        if task_id.startswith(PREFIX):
            try:
                family = metarl.make_family(task_id)
                _ = family.observation_space, family.task_space  # this makes an environment
                families[task_id] = family
            except (ImportError, MetaRLError) as error:
                missing[task_id] = str(error)
    return families, missing


def slug(task_id: str) -> str:
    """The file name of `metarl/Name-v0`."""
    return task_id.removeprefix(PREFIX).replace("/", "-")


def families_table(families: Mapping[str, metarl.TaskDistribution], missing: Iterable[str]) -> str:
    """A table of all families."""
    lengths = {
        task_id: f"{family.trial_episodes} x at most {family.episode_steps}"
        for task_id, family in families.items()
    }
    rows = [
        (
            f"[`{task_id}`](generated/families/{slug(task_id)}.md)",
            linked(first_line(family_class(task_id)[0])),
            lengths.get(task_id, "see its page"),
        )
        for task_id in sorted([*families, *missing])
    ]
    return table(("id", "description", "episodes x steps of a trial"), rows)


def page_of_missing(task_id: str, reason: str) -> str:
    """The page of a family that cannot be made here, for example without its package."""
    parts = [
        f"# {task_id}",
        committed_frame(task_id),
        quick_start(task_id),
        _docstring(family_class(task_id)[0]),
        f"`metarl list {task_id}` shows its spaces if it can be made. Here it failed:",
        f"```text\n{reason}\n```",
        *_presets_of_family(task_id),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def family_page(task_id: str, family: metarl.TaskDistribution, image_link: str) -> str:
    """The page of one family."""
    cls = type(family)
    options = _field_names(cls)
    listed = "".join(f", {name}={getattr(family, name)!r}" for name in options)
    parts = [
        f"# {task_id}",
        image_link,
        quick_start(task_id),
        _docstring(cls),
        f'```python\nfamily = metarl.make_family("{task_id}"{listed})\n```',
        f"Class `{cls.__module__}.{cls.__qualname__}`.",
        "## Spaces and lengths",
        table(("", "", ""), _facts(family)),
        "## Options",
        options_table(family, options) if options else "None.",
        "## References",
        "Policies without training, for trials of the default length. To evaluate references that "
        "are not included by default, name them: `--references NAME`, or `all`.",
        _references(family),
        *_presets_of_family(task_id),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(family: metarl.TaskDistribution) -> list[tuple[str, str, str]]:
    """Spaces and lengths, each with the docstring of the property."""
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
    method = getattr(type(family), "success", None)
    success = _first_sentence(method) if family.defines_success and method else ""
    return [*facts, ("success", "yes" if family.defines_success else "not defined", success)]


def _short(thing: Any) -> str:
    """The text without its middle if it is too long, such as the bounds of hundreds of numbers."""
    text = str(thing)
    if len(text) <= MAX_SPACE_LENGTH:
        return text
    return f"{text[: MAX_SPACE_LENGTH // 2]} ... {text[-50:]}"


def _references(family: metarl.TaskDistribution) -> str:
    known = family.references(family.trial_episodes)
    rows = [
        (f"`{name}`", one.role, _escaped(one.label), "yes" if one.by_default else "")
        for name, one in known.items()
    ]
    return table(("name", "role", "label in figures", "by default"), rows) if rows else "None."


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
    """A table of all agents."""
    rows = [
        (f"[`{name}`](generated/agents/{name}.md)", linked(first_line(config)))
        for name, config in configs.items()
    ]
    return table(("name", "description"), rows)


def agent_page(name: str, config: type[metarl.AgentConfig]) -> str:
    """The page of one agent; options are grouped by the class that defines them."""
    module = inspect.getmodule(config)
    default = config()
    parts = [
        f"# {name}",
        _docstring(config),
        _docstring(module),
        f"Class `{config.__module__}.{config.__qualname__}`; label in figures: {default.label}.",
    ]
    seen: set[str] = set()
    for cls in config.__mro__:
        defined_here = [
            field
            for field in _field_names(config)
            if field in inspect.get_annotations(cls) and field not in seen
        ]
        seen.update(defined_here)
        if defined_here:
            title = "Options" if cls is config else re.split(r"[;.]", first_line(cls))[0]
            parts += [f"## {title}", options_table(default, defined_here)]
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
        if task_id.startswith(PREFIX)
        for one in metarl.presets(name, task_id).values()
    ]
    return (
        ["## Presets", table(("family", "preset", "sets", "what to expect"), rows)] if rows else []
    )


def _values(options: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={value!r}`" for name, value in options.items())


def options_table(instance: Any, names: Iterable[str]) -> str:
    """A table of dataclass fields; the values of `instance` are the defaults."""
    texts = field_texts(type(instance))
    rows = [
        (f"`{name}`", f"`{getattr(instance, name)!r}`", linked(_escaped(texts.get(name, ""))))
        for name in names
    ]
    return table(("option", "default", "meaning"), rows)


def rendered_frame(task_id: str, family: metarl.TaskDistribution, folder: Path) -> str:
    """Markdown of a frame of the family, empty if there is none; a new frame goes to `folder`.

    MuJoCo needs a display, which a machine that builds documentation may not have, so those
    frames are committed.
    """
    if not (isinstance(family, metarl.TaskFamily) and family.can_render):
        return committed_frame(task_id)
    folder.mkdir(parents=True, exist_ok=True)
    image.imsave(folder / f"{slug(task_id)}.png", frame(task_id))
    return f"![A frame of {task_id}]({slug(task_id)}.png)"


def committed_frame(task_id: str) -> str:
    """Markdown of a frame that is committed in the repository; empty if there is none."""
    name = f"{slug(task_id)}.png"
    exists = (COMMITTED_FRAMES / name).exists()
    return f"![A frame of {task_id}](../../images/families/{name})" if exists else ""


def frame(task_id: str, actions: int = 3) -> NDArray[np.uint8]:
    """The environment after a few random actions, [H, W, 3]."""
    env = gymnasium.make(task_id, render_mode="rgb_array")
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(actions):
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            break
    return np.asarray(env.render())


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _field_names(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _docstring(thing: Any) -> str:
    """The whole docstring; it is valid Markdown, in which indented text is a code block."""
    return linked(inspect.getdoc(thing) or "")


def _first_sentence(thing: Any) -> str:
    paragraph = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    return linked(_escaped(" ".join(paragraph.split())))


def _property_text(family: metarl.TaskDistribution, name: str) -> str:
    """First sentence of a property's docstring; empty if the attribute is a plain value."""
    found = inspect.getattr_static(type(family), name)
    return _first_sentence(found) if isinstance(found, property) else ""


def _escaped(text: str) -> str:
    """Text escaped for a table cell."""
    return text.replace("|", r"\|")


def _open_at_index(app: Sphinx, error: Exception | None) -> None:
    """Redirects from the root of the site to its first page, which is one folder deeper."""
    if error is None and app.builder.format == "html":
        target = f"{app.config.root_doc}.html"
        (Path(app.outdir) / "index.html").write_text(
            f'<!doctype html><meta http-equiv="refresh" content="0; url={target}">\n'
        )
