import subprocess
import sys

import metarl


def test_every_public_name_has_a_home_and_is_found():
    assert metarl.__all__ == sorted(metarl._HOMES)
    for name in metarl.__all__:
        assert getattr(metarl, name) is not None


def test_an_import_is_light_and_makes_all_ids_known():
    code = (
        "import metarl, gymnasium, sys;"
        "assert 'metarl/BernoulliBandit-v0' in gymnasium.registry;"
        "heavy = {'matplotlib', 'tensorboard', 'scipy', 'metarl.rollout', 'metarl.envs.bandits'};"
        "heavy |= {'stable_baselines3'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
