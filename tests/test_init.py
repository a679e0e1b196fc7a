import ast
import subprocess
import sys
from pathlib import Path

import metarl


def test_every_public_name_can_be_imported_and_is_exported_by_the_stub():
    stub = ast.parse(Path(metarl.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    aliases = [a for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names]
    assert metarl.__all__ == sorted(alias.name for alias in aliases)
    assert all(alias.name == alias.asname for alias in aliases)  # else type checkers hide it
    for name in metarl.__all__:
        assert getattr(metarl, name) is not None


def test_an_import_is_light_and_registers_all_ids():
    code = (
        "import metarl, gymnasium, sys;"
        "assert 'metarl/BernoulliBandit-v0' in gymnasium.registry;"
        "heavy = {'torch', 'matplotlib', 'tensorboard', 'scipy', 'stable_baselines3'};"
        "heavy |= {'metarl.envs.bandits.multi_armed'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
