"""Short films of trials, embedded in a page."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from metarl.errors import MetaRLError
from metarl.reports.markup import Markup, element
from metarl.reports.runs import ReportedRun
from metarl.results.reading import shortened
from metarl.training.run_folder import load_run
from metarl.video.options import VideoOptions
from metarl.video.record import record

MAX_FRAMES = 150
"""of a film, before its size is considered"""
MAX_BYTES = 2_700_000
"""of all films together, a third less than they have within a page"""
MAX_FILMS = 6
FRAMES_PER_SECOND = 10.0
SIZE = 320
"""pixels of the longer side"""


@dataclass(frozen=True)
class Film:
    """A GIF, and its last frame for those who want no motion."""

    gif: bytes
    still: bytes  # PNG


def films(runs: Sequence[ReportedRun], *, progress: bool) -> list[Markup]:
    """A film of the first run of each training, or the reason why there is none."""
    chosen = _first_seeds(runs)
    shown, most = [], MAX_BYTES // max(1, min(len(chosen), MAX_FILMS))
    for run in chosen[:MAX_FILMS]:
        try:
            shown.append(_figure(run, _film(run, most, progress)))
        # The drawing code of any package may fail, for example where there is no display.
        except Exception as error:
            reason = shortened(str(error) or type(error).__name__)
            shown.append(element("p", f"No film of {run.name}: {reason}"))
    if left := [run.name for run in chosen[MAX_FILMS:]]:
        shown.append(element("p", f"No room for films of {', '.join(left)}."))
    return shown


def _first_seeds(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """One run of those that differ in the seed only."""
    first: dict[str, ReportedRun] = {}
    for run in runs:
        same = {**vars(run.config), "seed": None} if run.config is not None else run.name
        first.setdefault(json.dumps(same, sort_keys=True), run)
    return list(first.values())


def _film(run: ReportedRun, most: int, progress: bool) -> Film:
    """The film of one trial in test task 0, of at most as many bytes."""
    if not run.holds_training:
        raise MetaRLError("the folder holds an evaluation, and no agent that could be recorded.")
    options = _options(run)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "film.gif"
        options = replace(options, out=out, progress=progress)
        record(run.training, options=options)
        if (size := out.stat().st_size) > most:
            record(run.training, options=replace(options, every=options.every * -(-size // most)))
        gif = out.read_bytes()
    if len(gif) > most:
        raise MetaRLError(f"it would take {len(gif):,} bytes. Use metarl record {run.training}.")
    return Film(gif, _last_frame(gif))


def _options(run: ReportedRun) -> VideoOptions:
    """As many episodes and frames as a short film has."""
    loaded = load_run(run.training)
    family, config = loaded.config.make_family(), loaded.config.make_agent_config()
    agent = loaded.make_agent(family)
    phases, steps = agent.evaluation_steps + 1, family.episode_steps
    episodes = config.episodes or family.trial_episodes
    every = min(steps, math.ceil(phases * episodes * (steps + 1) / MAX_FRAMES))
    frames = 1 + math.ceil(steps / every)  # of an episode
    return VideoOptions(
        seed=run.settings.seed if run.settings is not None else 0,
        episodes=max(1, min(episodes, MAX_FRAMES // (phases * frames))),
        every=every,
        size=SIZE,
        fps=FRAMES_PER_SECOND,
    )


def _last_frame(gif: bytes) -> bytes:
    with Image.open(BytesIO(gif)) as images:
        images.seek(getattr(images, "n_frames", 1) - 1)
        still = BytesIO()
        images.convert("P", palette=Image.Palette.ADAPTIVE).save(still, "PNG", optimize=True)
    return still.getvalue()


def _figure(run: ReportedRun, film: Film) -> Markup:
    still = element(
        "source",
        media="(prefers-reduced-motion: reduce)",
        srcset=_data_url("image/png", film.still),
    )
    with Image.open(BytesIO(film.gif)) as image:
        width, height = image.size
    text = (
        f"Film of the agent of {run.name} in one trial in a test task; each frame shows the "
        "episode, the step and the return."
    )
    moving = element(
        "img", src=_data_url("image/gif", film.gif), alt=text, width=width, height=height
    )
    return element("figure", element("picture", still, moving), element("figcaption", run.name))


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
