"""`report`: one page of HTML about runs, which needs no network and no other file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl import __version__
from metarl.errors import ConfigError
from metarl.field_types import overridden
from metarl.modules import import_trusted
from metarl.plots.options import reference_names
from metarl.reports.caveats import caveats
from metarl.reports.figures import adaptation_plot, learning_plot
from metarl.reports.films import films
from metarl.reports.markup import Markup, details, element, joined, table
from metarl.reports.options import ReportOptions
from metarl.reports.runs import ReportedRun, read_run, settings_of
from metarl.reports.stylesheet import CSS
from metarl.results.adaptation_curves import Curve
from metarl.results.comparison import Comparison, compare_curves
from metarl.results.comparison_table import caption, columns, title
from metarl.results.files import make_parent, write_text
from metarl.results.folders import common_folder, unique_folders
from metarl.results.reading import shortened
from metarl.results.run_curves import read_run_curves
from metarl.training.zoo import evaluated_folder, run_path

REPORT_FILE = "report.html"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""content security policy of the page: no script, and nothing from elsewhere"""


def report(
    runs: Sequence[str | os.PathLike[str]],
    *,
    modules: Sequence[str] = (),
    options: ReportOptions | None = None,
    **overrides: Any,
) -> Path:
    """Writes a page of HTML about runs: figures, table, films, settings, and what to be wary of.

    The page is one file that needs no network and runs no script. Its numbers are those of `plot`
    and `compare`. Runs of one agent count as its training seeds. A run that is not evaluated is
    shown with its learning curve, and the page says how to evaluate it; nothing is evaluated here.

    Args:
        runs: folders of runs of one family, evaluated in the same tasks, or `zoo:NAME`.
        modules: modules that define the task or the agents and that you trust; see `load_run`.
        options: what is shown; by default made from `overrides`.
        overrides: fields of `ReportOptions`, such as `out="report.html", films=False`.

    Returns:
        The file written.

    Raises:
        RunFolderError: a folder is no run folder, a file in it is broken, or the page cannot be
            written.
        ConfigError: the runs cannot be compared, or an option is unknown.
        UnknownNameError: there is no such reference, metric or module.
    """
    options = overridden(options, ReportOptions(), overrides)
    named = unique_folders(runs)
    trained, folders = map(run_path, named), [evaluated_folder(path) for path in named]
    path = common_folder(folders) / REPORT_FILE if options.out is None else options.out
    found = []
    for training, folder in zip(trained, folders, strict=True):
        import_trusted(modules, training)
        found.append(read_run(folder, options.metric, training=training))
    page = report_page(found, options)
    make_parent(path)
    write_text(path, page)
    return path


def report_page(runs: Sequence[ReportedRun], options: ReportOptions) -> str:
    """The text of the page."""
    tasks = dict.fromkeys(run.config.task for run in runs if run.config is not None)
    if len(tasks) > 1:
        raise ConfigError(
            f"The runs are of different families ({', '.join(tasks)}), and a report is about one: "
            "write a report of each."
        )
    reference = reference_names(["all"] if options.references is None else options.references)
    evaluated = [run.folder for run in runs if run.is_evaluated]
    curves = read_run_curves(evaluated, join_unfinished=options.join_unfinished)
    comparison = compare_curves(curves, reference=reference) if curves else None
    heading = options.title or _title(runs, comparison)
    sections = [
        _section("caveats", "Read this first", _caveats(caveats(runs, comparison))),
        _section("adaptation", "Adaptation to unseen tasks", *_adaptation(curves, reference)),
        _section("comparison", "Comparison", *_comparison(comparison)),
        _section("learning", "Learning", _learning(runs, options)),
    ]
    if options.films:
        shown = element("div", *films(runs, progress=options.progress), class_="films")
        sections.append(_section("films", "Films of single trials", shown))
    sections.append(_section("settings", "Settings", *_settings(runs)))
    head = joined(
        [
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", http_equiv="Content-Security-Policy", content=POLICY),
            element("meta", name="color-scheme", content="light dark"),
            element("title", heading),
            element("style", Markup(CSS)),
        ]
    )
    main = element("main", element("h1", heading), _subtitle(runs, comparison), *sections)
    footer = element("footer", f"Written by metarl {__version__} with `metarl report`.")
    document = element("html", element("head", head), element("body", main, footer), lang="en")
    return f"<!doctype html>\n{document.text}\n"


def _section(name: str, heading: str, *content: Markup | str) -> Markup:
    head = element("h2", heading, id=name)
    return element("section", head, *content, aria_labelledby=name)


def _title(runs: Sequence[ReportedRun], comparison: Comparison | None) -> str:
    """The agents and their task."""
    if comparison is not None:
        agents = [row.label for row in comparison.rows if row.role == "agent"]
    else:
        agents = [run.config.agent for run in runs if run.config is not None]
    tasks = [run.config.task for run in runs if run.config is not None]
    listed = ", ".join(dict.fromkeys(agents)) or "Runs"
    return shortened(f"{listed} on {tasks[0]}" if tasks else listed)


def _subtitle(runs: Sequence[ReportedRun], comparison: Comparison | None) -> Markup:
    count = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    return element("p", f"{title(comparison)}; {count}." if comparison else f"{count}.")


def _caveats(found: Sequence[str]) -> Markup:
    if not found:
        return element("p", "Nothing to be wary of was found.")
    return element("ul", *(element("li", one) for one in found), class_="caveats")


def _adaptation(curves: Sequence[Curve], reference: Sequence[str] | None) -> list[Markup]:
    if not curves:
        return [_not_evaluated()]
    return [adaptation_plot(curves, reference)]


def _comparison(comparison: Comparison | None) -> list[Markup]:
    """The table of `metarl compare`, with all columns."""
    if comparison is None:
        return [_not_evaluated()]
    shown = list(columns(comparison, differences=True))
    heads = [column.heading for column in shown]
    rows = zip(*(column.cells for column in shown), strict=True)
    return [table(heads, rows), element("p", f"{caption(comparison, heads)}.", class_="note")]


def _not_evaluated() -> Markup:
    return element("p", "No run was evaluated yet; run metarl evaluate on each of them.")


def _learning(runs: Sequence[ReportedRun], options: ReportOptions) -> Markup:
    curves = [run.learning for run in runs if run.learning is not None]
    if not curves:
        return element("p", "The folders hold no rows of a training.")
    try:
        return learning_plot(curves, smooth=options.smooth, join_unfinished=options.join_unfinished)
    except ConfigError as error:
        return element("p", f"No learning curves: {error}")


def _settings(runs: Sequence[ReportedRun]) -> list[Markup]:
    """The settings in which the runs differ, and those that they share."""
    differing, shared = settings_of(runs)
    values = [run.values for run in runs]
    shown = details(
        "Settings that all runs share" if len(runs) > 1 else "All settings",
        table(["setting", "value"], [(name, _value(values[0][name])) for name in shared]),
    )
    if len(runs) == 1:
        return [shown]
    heads = ["setting", *(run.name for run in runs)]
    rows = {
        name: (name, *(_value(one[name]) if name in one else "-" for one in values))
        for name in differing
    }
    common = [row for name, row in rows.items() if all(name in one for one in values)]
    others = [row for name, row in rows.items() if not all(name in one for one in values)]
    parts = [table(heads, common) if common else element("p", "No common setting differs."), shown]
    if others:
        parts.append(details("Settings that only some of the runs have", table(heads, others)))
    return parts


def _value(value: Any) -> str:
    """A setting as text."""
    return shortened(value)
