"""Does a task environment keep what adaptation is measured by? A task goes in, a report comes out.

    from metarl.testing import check_task

    def test_my_task():
        check_task("my_module:lab/Lever-v0")

The same is behind the command `metarl check`. What is examined is behaviour: lives that must be
equal, and lives that must differ. A promise that is found kept was kept in these few lives; what
is found broken is broken.
"""

from metarl.checks.framework import Finding
from metarl.checks.report import BrokenPromisesError, Report, check_task, examine_task

__all__ = ["BrokenPromisesError", "Finding", "Report", "check_task", "examine_task"]
