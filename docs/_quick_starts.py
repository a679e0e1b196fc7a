"""The command at the top of each family's page: a training that takes minutes."""

from typing import NamedTuple

import metarl


class QuickStart(NamedTuple):
    """Arguments of `metarl train`, and what they lead to."""

    agent: str = "rl2"
    preset: str = ""
    """its note says what to expect"""
    options: str = ""
    expect: str = ""
    """in place of the note of a preset"""


_META_WORLD = QuickStart(
    options="--num-tasks 20 --iterations 10 --workers 2 --normalise-inputs",
    expect="a trial run of the simulator, not measured: 200,000 steps, of which ML1 makes about "
    "4,000 a second on two cores",
)
_LOCOMOTION = QuickStart(
    options="--num-tasks 16 --iterations 30 --normalise-inputs",
    expect="a trial run of the simulator, a minute or two on one core: in so few steps RL² does "
    "not learn to move",
)
QUICK_STARTS = {
    "metarl/AntDir-v0": _LOCOMOTION,
    "metarl/AntGoal-v0": _LOCOMOTION,
    "metarl/AntVel-v0": _LOCOMOTION,
    "metarl/BernoulliBandit-v0": QuickStart(preset="pulls-10"),
    "metarl/DependentBandit-v0": QuickStart(
        options="--num-tasks 64 --iterations 100",
        expect="72.1 ± 1.8 in 100 pulls (exact optimum in the same tasks: 72.2), one seed; half a "
        "minute on one core",
    ),
    "metarl/FewShotClassification-v0": QuickStart("prototypical_networks", "ways-5-shots-1"),
    "metarl/GaussianBandit-v0": QuickStart(
        options="--num-tasks 256 --iterations 200",
        expect=".90 in the last of ten pulls (best arm: 1.26), one seed; half a minute on one core",
    ),
    "metarl/GoalBandit-v0": QuickStart(
        options="--num-tasks 256 --iterations 200",
        expect=".30 in the first and .86 in the last of ten pulls (best arm: .88), one seed; half "
        "a minute on one core",
    ),
    "metarl/GridNavigation-v0": QuickStart(preset="varibad"),
    "metarl/HalfCheetahDir-v0": QuickStart(preset="two-cores", options="--workers 2"),
    "metarl/HalfCheetahVel-v0": QuickStart(preset="two-cores", options="--workers 2"),
    "metarl/HopperRandParams-v0": _LOCOMOTION,
    "metarl/HumanoidDir-v0": _LOCOMOTION,
    "metarl/InformativeArmBandit-v0": QuickStart(
        options="--num-tasks 256 --iterations 300",
        expect="3.2 in the fifth pull (random: 1.2, best arm: 5), one seed; half a minute on one "
        "core. It does not pull the informative arm yet, with which the exact optimum begins",
    ),
    "metarl/KrazyWorld-v0": QuickStart(
        options="--num-tasks 64 --iterations 200",
        expect="no more than random actions yet, .1 of 3, one seed; a minute on one core. It takes "
        "more iterations, how many is not measured",
    ),
    "metarl/MetaWorldML1-v0": QuickStart(preset="two-cores", options="--workers 2"),
    "metarl/MetaWorldML10-v0": _META_WORLD,
    "metarl/MetaWorldML25-v0": _META_WORLD,
    "metarl/MetaWorldML45-v0": _META_WORLD,
    "metarl/PointNavigation-v0": QuickStart("maml", "finn-2017"),
    "metarl/Sinusoid-v0": QuickStart(preset="shots-5"),
    "metarl/SparsePointNavigation-v0": QuickStart("pearl", "episodes-6"),
    "metarl/TMaze-v0": QuickStart(preset="corridor-10"),
    "metarl/TabularMDP-v0": QuickStart(
        options="--num-tasks 64 --iterations 200",
        expect="104.9 ± 3.5 in ten episodes (random: 98.3, PSRL: 130.9), one seed; a minute on one "
        "core. The preset below takes half an hour and exceeds PSRL",
    ),
    "metarl/TwoStep-v0": QuickStart(preset="wang-2018"),
    "metarl/Walker2DRandParams-v0": _LOCOMOTION,
}


def quick_start(task_id: str) -> str:
    """Markdown: the command, and what it leads to; empty for a family that is not listed."""
    one = QUICK_STARTS.get(task_id)
    if one is None:
        return ""
    words = ["metarl train", one.agent, task_id]
    words += [f"--preset {one.preset}"] if one.preset else []
    words += [one.options] if one.options else []
    note = one.expect or metarl.presets(one.agent, task_id)[one.preset].note
    return f"```bash\n{' '.join(words)}\n```\n\nWhat to expect: {note}."
