import os
import subprocess
import sys

import pytest

CODE = "import {first}; import {second}; import os; from metarl.training import process; "
CODE += "print(os.environ.get('GOMP_SPINCOUNT'), process.openmp_spins_unlimited())"


@pytest.mark.parametrize(
    ("first", "second", "environment", "expected"),
    [
        ("metarl", "torch", {}, "30000 False"),
        ("torch", "metarl", {}, "None True"),
        ("metarl", "torch", {"GOMP_SPINCOUNT": "7"}, "7 False"),
        ("metarl", "torch", {"OMP_WAIT_POLICY": "active"}, "None False"),
    ],
)
def test_openmp_spinning_is_limited_unless_the_user_has_set_it(
    first, second, environment, expected
):
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    result = subprocess.run(
        [sys.executable, "-c", CODE.format(first=first, second=second)],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.split("\n")[0] == expected
