"""A few kills with SIGKILL at random moments; `tests/kill_test.py` makes as many as one likes."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "kill_test.py"


def test_killed_runs_are_resumed_bit_for_bit():
    # In a process of its own: it forks, and nothing may have started threads before.
    finished = subprocess.run(
        [sys.executable, SCRIPT, "--kills", "6", "--seed", "5"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("6 kills, all resumed bit for bit") == 2
