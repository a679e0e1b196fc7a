"""HTML elements; text that is put into them is escaped."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from metarl.text import visible

_VOID = frozenset(("meta", "img", "source"))
"""elements without content and without an end"""


@dataclass(frozen=True)
class Markup:
    """HTML that needs no escaping, because an element or a constant of this project made it."""

    text: str


def element(tag: str, /, *children: Markup | str, **attributes: object) -> Markup:
    """An element.

    Args:
        tag: name of the element, such as "p".
        children: elements, and texts, which are escaped; their control characters become visible.
        attributes: values are escaped; None leaves one out. A name such as `class_` loses its last
            underscore, others become hyphens.
    """
    written = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{joined(children).text}</{tag}>")


def joined(parts: Iterable[Markup | str]) -> Markup:
    """Elements and texts one after the other; texts are escaped."""
    return Markup(
        "".join(part.text if isinstance(part, Markup) else _escaped(part) for part in parts)
    )


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Markup | str]], caption: str = ""
) -> Markup:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        heads: of the columns.
        rows: cells; the first one is the head of its row.
        caption: what the table shows.
    """
    head = element("tr", *(element("th", one, scope="col") for one in heads))
    body = [
        element("tr", element("th", first, scope="row"), *(element("td", one) for one in others))
        for first, *others in rows
    ]
    parts = [element("thead", head), element("tbody", *body)]
    if caption:
        parts.insert(0, element("caption", caption))
    scrolled = element("table", *parts)
    name = f"Table by {heads[0]}"  # of a region that the keyboard can scroll
    return element("div", scrolled, class_="wide", tabindex=0, role="region", aria_label=name)


def details(summary: str, *children: Markup | str) -> Markup:
    """Content that is hidden until it is asked for."""
    return element("details", element("summary", summary), *children)


def _escaped(value: object) -> str:
    return html.escape(visible(value), quote=True)
