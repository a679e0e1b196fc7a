"""Checks whether adaptation can be measured in a task environment.

    from metarl.testing import check_task

    def test_my_task():
        check_task("my_module:lab/Lever-v0")

The command `metarl check` runs the same checks. They test behaviour: some rollouts must be equal,
others must differ. A failed check proves a violation; a passed check covers only the rollouts that
it collected. If random actions do not reach the states that matter, pass actions that do:

    def go_right(rng, action_space):
        return [1] * 50

    check_task("my_module:lab/Corridor-v0", actions=go_right)
"""

from metarl.checks.check import Finding
from metarl.checks.report import FailedChecksError, Report, check_task, run_checks

__all__ = ["FailedChecksError", "Finding", "Report", "check_task", "run_checks"]
