"""Checks of a task environment and their findings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from metarl.checks.env_rollouts import global_generators
from metarl.checks.env_under_test import ActionFunctionError, EnvUnderTest, error_line

Verdict: TypeAlias = Literal["passed", "noted", "unknown", "failed", "skipped"]
"""`noted`: passed, with a remark; `unknown`: what was seen does not decide it; `skipped`: a check
that this one needs has not passed"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    name: str
    """of the check"""
    requirement: str
    """what the check requires, as a sentence"""
    verdict: Verdict
    """whether the requirement is met"""
    details: str = ""
    """what was observed, or why the check was skipped; empty if it simply passed"""
    why: str = ""
    """of a failed check: why the requirement matters where adaptation is measured"""
    fix: str = ""
    """of a failed check: what to do"""


class ViolationError(Exception):
    """Raised by a check whose requirement is not met; the message describes what was observed."""

    def __init__(self, details: str, fix: str | None = None) -> None:
        """`fix` replaces the fix that the check suggests by default."""
        super().__init__(details)
        self.fix = fix


class UndecidedError(Exception):
    """Raised by a check that saw no violation, but not enough; the message says what is missing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Check:
    """One requirement and the function that tests it."""

    name: str
    requirement: str
    why: str
    fix: str
    function: Callable[["EnvUnderTest"], str | None]
    """returns a note or None, or raises `ViolationError` or `UndecidedError`"""
    needs: tuple["Check", ...]
    """checks that must pass before this one can run"""

    def run(self, env_under_test: "EnvUnderTest", earlier: Mapping["Check", Finding]) -> Finding:
        """The finding of this check, given those of earlier checks.

        Raises:
            ActionFunctionError: the user's `actions` function is invalid.
        """
        for check, finding in earlier.items():
            if check in self.needs and finding.verdict in ("failed", "skipped"):
                return self._finding("skipped", f"first fix '{check.name}'")
        try:
            with global_generators(0):
                note = self.function(env_under_test)
        except ViolationError as violation:
            return self._finding("failed", str(violation), self.why, violation.fix or self.fix)
        except UndecidedError as undecided:
            return self._finding("unknown", str(undecided))
        except ActionFunctionError:
            raise
        except Exception as error:  # a user's environment may raise anything
            return self._finding("failed", f"raised {error_line(error)}", self.why, self.fix)
        return self._finding("noted" if note else "passed", note or "")

    def _finding(self, verdict: Verdict, details: str, why: str = "", fix: str = "") -> Finding:
        return Finding(
            name=self.name,
            requirement=self.requirement,
            verdict=verdict,
            details=details,
            why=why,
            fix=fix,
        )


def check(
    requirement: str, *, why: str, fix: str, needs: Sequence[Check] = ()
) -> Callable[[Callable[["EnvUnderTest"], str | None]], Check]:
    """Decorator that turns a function into a `Check`, named after the function."""

    def decorate(function: Callable[["EnvUnderTest"], str | None]) -> Check:
        return Check(
            name=function.__name__.replace("_", " "),
            requirement=requirement,
            why=why,
            fix=fix,
            function=function,
            needs=tuple(needs),
        )

    return decorate
