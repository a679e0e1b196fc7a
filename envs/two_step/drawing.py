"""Rounds of the two-step task go in, a picture of the latest and of those before it comes out."""

from collections.abc import Sequence
from typing import NamedTuple

from metarl.envs.drawing.canvas import (
    AMBER,
    BLUE,
    INK,
    PALE,
    PAPER,
    QUIET,
    SIZE,
    Canvas,
    Picture,
)
from metarl.envs.drawing.layout import PALE_AMBER

MOST_ROUNDS = 36
"""rounds that are shown; of more, the latest"""
CHOICE_AT = ((110.0, 205.0), (290.0, 205.0))
STATE_AT = ((110.0, 340.0), (290.0, 340.0))
ROW_AT = (78.0, 38.0)
"""heights of choices 0 and 1 in the row of rounds"""


class Round(NamedTuple):
    """A choice, where it led, what that paid, and which state paid more then."""

    choice: int
    state: int
    good: int
    payout: float | None  # None while it is not known

    @property
    def common(self) -> bool:
        """Whether the choice led to its own state."""
        return self.choice == self.state


def draw_rounds(rounds: Sequence[Round], *, good: int, place: int, pays: float) -> Picture:
    """The two stages, with the latest way through them, and below them the choices so far.

    Args:
        rounds: oldest first.
        good: the state that pays more now.
        place: where the agent is: 0 the first stage, 1 and 2 the states of the second.
        pays: probability that the good state pays; the other one pays with 1 minus this.
    """
    canvas = Canvas((0, 0), (SIZE, SIZE))
    for choice, (x, y) in enumerate(CHOICE_AT):
        for state, (to_x, to_y) in enumerate(STATE_AT):
            canvas.line([(x, y), (to_x, to_y)], PALE, 5 if choice == state else 1.5)
    if rounds:
        latest = rounds[-1]
        canvas.line([CHOICE_AT[latest.choice], STATE_AT[latest.state]], BLUE, 5)
    for choice, at in enumerate(CHOICE_AT):
        chosen = bool(rounds) and rounds[-1].choice == choice
        _label(canvas, at, f"choice {choice}", PAPER, edge=BLUE if chosen else QUIET)
    for state, (x, y) in enumerate(STATE_AT):
        chance = pays if state == good else 1 - pays
        _label(canvas, (x, y), f"state {state}", PALE_AMBER if state == good else PAPER, edge=QUIET)
        canvas.text((x, y + 40), f"pays 1 with {chance:.0%}", INK if state == good else QUIET, 12)
    outwards = -1 if place == 1 else 1
    x, y = (200.0, CHOICE_AT[0][1]) if not place else STATE_AT[place - 1]
    canvas.disc((x + 70 * outwards, y) if place else (x, y), 13, BLUE, PAPER, 2)
    if rounds and rounds[-1].payout is not None:
        # Between the states, where the agent came back from one of them.
        _pay(canvas, (200, STATE_AT[0][1]), rounds[-1].payout)
    _draw_past(canvas, rounds[-MOST_ROUNDS:])
    return canvas.picture()


def _label(canvas: Canvas, at: tuple[float, float], text: str, fill: str, edge: str) -> None:
    x, y = at
    canvas.box((x - 48, y - 24), (x + 48, y + 24), fill, edge, 3 if edge == BLUE else 1.5)
    canvas.text(at, text, INK, 15)


def _pay(canvas: Canvas, at: tuple[float, float], payout: float) -> None:
    canvas.disc(at, 18, AMBER if payout else PAPER, INK if payout else QUIET, 1.5)
    canvas.text(at, f"{payout:+.0f}" if payout else "0", INK if payout else QUIET, 15)


def _draw_past(canvas: Canvas, rounds: Sequence[Round]) -> None:
    """Columns of rounds: the choice by its height, full where it paid, square where it was rare."""
    left, step = 36, (SIZE - 46) / MOST_ROUNDS
    words = "latest choices; full: paid, square: rare way, shaded: better one"
    canvas.text((10, 118), words, QUIET, 12, "lm")
    for choice, y in enumerate(ROW_AT):
        canvas.text((18, y), str(choice), QUIET, 13)
    for number, one in enumerate(rounds):
        x, y = left + step * (number + 0.5), ROW_AT[one.choice]
        shaded = ROW_AT[one.good]
        canvas.box((x - step / 2, shaded - 18), (x + step / 2, shaded + 18), PALE_AMBER)
        fill = INK if one.payout else PAPER
        if one.common:
            canvas.disc((x, y), 4, fill, INK, 1)
        else:
            canvas.box((x - 4, y - 4), (x + 4, y + 4), fill, INK, 1)
