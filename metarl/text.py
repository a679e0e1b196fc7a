"""Text of unknown origin: control characters are found, or replaced before a terminal gets them."""

import unicodedata
from typing import Any

_CONTROL = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode categories that steer a terminal or change the order of the text around them"""
_JOINERS = "\u200c\u200d"
"""control nothing: they join letters of some scripts"""


def first_control(text: str) -> str | None:
    """The first control character of a text, line breaks included; None if there is none."""
    if text.isprintable():
        return None
    return next((one for one in text if _is_control(one)), None)


def visible(text: object, *, lines: bool = False) -> str:
    r"""The text with control characters written as escapes, such as `\x1b`.

    Args:
        text: converted by `str`.
        lines: keep line breaks.
    """
    written = str(text)
    if written.isprintable():
        return written
    return "".join(
        one if not _is_control(one) or (lines and one == "\n") else ascii(one)[1:-1]
        for one in written
    )


def control_within(value: Any) -> str | None:
    """The first text with a control character in nested lists and mappings; None if there is none.

    Names within mappings count, too.
    """
    if isinstance(value, str):
        return value if first_control(value) else None
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        return next((found for one in value if (found := control_within(one)) is not None), None)
    return None


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in _CONTROL and character not in _JOINERS
