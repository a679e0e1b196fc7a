"""Drawing of rounds of the two-step task."""

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
    RGBImage,
)
from metarl.envs.drawing.layout import PALE_AMBER

MAX_ROUNDS = 36
"""number of latest rounds that are shown"""
CHOICE_AT = ((110.0, 205.0), (290.0, 205.0))
STATE_AT = ((110.0, 340.0), (290.0, 340.0))
ROW_AT = (78.0, 38.0)
"""heights of choices 0 and 1 in the history of rounds"""


class Round(NamedTuple):
    """A choice, the state it led to, its payout, and the good state of the round."""

    choice: int
    state: int
    good: int
    payout: float | None  # None before the second step

    @property
    def common(self) -> bool:
        """Whether the transition was the common one."""
        return self.choice == self.state


def draw_rounds(rounds: Sequence[Round], *, good: int, place: int, pays: float) -> RGBImage:
    """The two stages with the latest transition, and below them the history of choices.

    Args:
        rounds: oldest first.
        good: the second-stage state that pays more now.
        place: position of the agent: 0 for the first stage, 1 and 2 for the second-stage states.
        pays: payout probability of the good state; that of the other state is 1 minus this.
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
    side = -1 if place == 1 else 1
    x, y = (200.0, CHOICE_AT[0][1]) if not place else STATE_AT[place - 1]
    canvas.disc((x + 70 * side, y) if place else (x, y), 13, BLUE, PAPER, 2)
    if rounds and rounds[-1].payout is not None:
        # Between the states, because the agent is back at the first stage.
        _draw_payout(canvas, (200, STATE_AT[0][1]), rounds[-1].payout)
    _draw_history(canvas, rounds[-MAX_ROUNDS:])
    return canvas.image()


def _label(canvas: Canvas, at: tuple[float, float], text: str, fill: str, edge: str) -> None:
    x, y = at
    canvas.box((x - 48, y - 24), (x + 48, y + 24), fill, edge, 3 if edge == BLUE else 1.5)
    canvas.text(at, text, INK, 15)


def _draw_payout(canvas: Canvas, at: tuple[float, float], payout: float) -> None:
    canvas.disc(at, 18, AMBER if payout else PAPER, INK if payout else QUIET, 1.5)
    canvas.text(at, f"{payout:+.0f}" if payout else "0", INK if payout else QUIET, 15)


def _draw_history(canvas: Canvas, rounds: Sequence[Round]) -> None:
    """One marker per round: its height is the choice; filled if paid, square if rare."""
    left, step = 36, (SIZE - 46) / MAX_ROUNDS
    legend = "latest choices; filled: paid, square: rare transition, shaded: good state"
    canvas.text((10, 118), legend, QUIET, 12, "lm")
    for choice, y in enumerate(ROW_AT):
        canvas.text((18, y), str(choice), QUIET, 13)
    for number, shown in enumerate(rounds):
        x, y = left + step * (number + 0.5), ROW_AT[shown.choice]
        shaded = ROW_AT[shown.good]
        canvas.box((x - step / 2, shaded - 18), (x + step / 2, shaded + 18), PALE_AMBER)
        fill = INK if shown.payout else PAPER
        if shown.common:
            canvas.disc((x, y), 4, fill, INK, 1)
        else:
            canvas.box((x - 4, y - 4), (x + 4, y + 4), fill, INK, 1)
