"""Tuned hyper-parameters of agents with memory by family, and the results of the final model.

`experiments/README.md` describes the search. Numbers are means over unseen tasks.
"""

from metarl.registry import Preset, register_preset

register_preset(
    Preset(
        agent="rl2",
        task="metarl/BernoulliBandit-v0",
        name="pulls-10",
        agent_options={"num_tasks": 512, "iterations": 600},
        task_options={"pulls": 10},
        note="6.55 to 6.64 of 6.64 in 10 pulls of 5 arms, five seeds; 1 minute on one core",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/BernoulliBandit-v0",
        name="pulls-100",
        agent_options={"num_tasks": 512, "iterations": 1000, "entropy_coef": 0.01},
        task_options={"pulls": 100},
        note="78.2, 78.2, 78.3 in 100 pulls of 5 arms (Gittins index: 78.6), three seeds; 8 "
        "minutes on one core",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/BernoulliBandit-v0",
        name="pulls-100-transformer",
        agent_options={
            "num_tasks": 256,
            "iterations": 300,
            "memory": "transformer",
            "learning_rate": 5e-4,
            "entropy_coef": 0.01,
            "num_minibatches": 8,
        },
        task_options={"pulls": 100},
        note="77.5 in 100 pulls of 5 arms (Gittins index: 78.3 in the same bandits), with 900 "
        "iterations 77.8 (78.6), one seed each; 16 minutes on one core. A seventh of the "
        "experience of pulls-100",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/BernoulliBandit-v0",
        name="pulls-100-arms-10",
        agent_options={
            "num_tasks": 512,
            "iterations": 1700,
            "entropy_coef": 0.03,
            "num_minibatches": 8,
        },
        task_options={"pulls": 100, "arms": 10},
        note="82.9 and 83.1 in 100 pulls of 10 arms (Gittins index: 83.8), two seeds; 14 "
        "minutes on one core",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/BernoulliBandit-v0",
        name="pulls-100-arms-50",
        agent_options={
            "num_tasks": 512,
            "iterations": 3300,
            "learning_rate": 4e-3,
            "num_minibatches": 8,
        },
        task_options={"pulls": 100, "arms": 50},
        note="84.6 in 100 pulls of 50 arms (Gittins index: 85.6), one seed; 32 minutes on one core",
    )
)
register_preset(
    Preset(
        agent="dpt",
        task="metarl/BernoulliBandit-v0",
        name="pulls-100",
        # A transformer takes five times as long on a CPU.
        agent_options={
            "reference": "gittins",
            "memory": "gru",
            "hidden_size": 128,
            "learning_rate": 2e-3,
            "iterations": 200,
        },
        task_options={"pulls": 100},
        note="78.5, 78.5 in 100 pulls of 5 arms (Gittins index in the same tasks: 78.6), two "
        "seeds; 1 minute on one core",
    )
)
register_preset(
    Preset(
        agent="dpt",
        task="metarl/BernoulliBandit-v0",
        name="pulls-500-arms-50",
        # Fifty arms pulled at random give labels that are hard to predict: guided at first.
        agent_options={
            "reference": "gittins",
            "guided_fraction": 0.5,
            "memory": "gru",
            "hidden_size": 128,
            "num_tasks": 64,
            "num_minibatches": 4,
            "learning_rate": 3e-3,
            "iterations": 3000,
        },
        task_options={"pulls": 500, "arms": 50},
        note="462.8 in 500 pulls of 50 arms (Gittins index: 465.2 in the same bandits; published "
        "for RL^2: 438.9), one seed; 27 minutes on one core",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/PointNavigation-v0",
        name="episodes-3",
        agent_options={"num_tasks": 128, "iterations": 300, "episodes": 3},
        note="-0.7 to -1.1 in the third episode (oracle: -0.5), six seeds; "
        "5 to 7 minutes on one core",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/SparsePointNavigation-v0",
        name="episodes-6",
        agent_options={"num_tasks": 256, "iterations": 250, "episodes": 6},
        note="the goal is found in the sixth episode of 84%, 100% and 99.9% of trials, three "
        "seeds; 7 minutes on one core",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/TabularMDP-v0",
        name="episodes-10",
        agent_options={
            "num_tasks": 512,
            "iterations": 500,
            "memory": "attention",
            "gae_lambda": 0.3,
            "entropy_coef": 0.1,
            "num_minibatches": 8,
        },
        note="151.8, 157.5, 157.9 in ten episodes, three seeds; the first took off late (greedy on "
        "posterior means: 155.0; replanning at every step: 158.6); 30 minutes on one core",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/GridNavigation-v0",
        name="varibad",
        agent_options={"num_tasks": 256, "iterations": 150},
        note="3.76, 3.87, 4.05 in the first and 11.06, 11.05, 11.04 in the fourth episode (exact "
        "optimum: 4.000, then 11.071), three seeds; 2 to 3 minutes on one core",
    )
)
register_preset(
    Preset(
        agent="varibad",
        task="metarl/GridNavigation-v0",
        name="varibad",
        agent_options={"num_tasks": 256, "iterations": 500, "entropy_coef": 0.02},
        note="4.01, 3.83, 3.83 in the first and 11.04, 10.96, 10.97 in the fourth episode (exact "
        "optimum: 4.000, then 11.071), three seeds; 5 to 10 minutes on one core",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/TMaze-v0",
        name="corridor-10",
        agent_options={"num_tasks": 256, "iterations": 100},
        note=".999 of 1, one seed; 1 minute on one core",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/TwoStep-v0",
        name="wang-2018",
        agent_options={"num_tasks": 128, "iterations": 150},
        note="70.6, 70.6, 70.5 in 100 rounds (exact optimum: 70.7), three seeds; 2 minutes on one "
        "core",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/Sinusoid-v0",
        name="shots-5",
        # Actions change nothing that comes later.
        agent_options={"num_tasks": 256, "iterations": 1000, "gamma": 0.0, "initial_std": 0.3},
        task_options={"shots": 5, "queries": 5},
        note="squared error .11 on the queries (3.0 without learning), one seed; 2 minutes on one "
        "core",
    )
)
register_preset(
    Preset(
        agent="rl2",
        task="metarl/FewShotClassification-v0",
        name="ways-5-shots-1",
        # Guesses change nothing that comes later. Guesses on the support are not rewarded: the
        # agent would learn to earn that reward alone.
        agent_options={
            "iterations": 2000,
            "hidden_size": 128,
            "learning_rate": 2e-3,
            "gamma": 0.0,
            "num_minibatches": 8,
            "entropy_coef": 0.05,
        },
        task_options={"rewarded": "queries"},
        note=".685 of the queries named right in unseen classes of glyphs (chance: .2), .485 in "
        "digits, one seed; 20 minutes on one busy core",
    )
)
for _name, _note in (
    ("Dir", "1190 in the first episode, 1180 in the second (random: -23)"),
    ("Vel", "-31 in either episode (random: -350)"),
):
    register_preset(
        Preset(
            agent="rl2",
            task=f"metarl/HalfCheetah{_name}-v0",
            name="two-cores",
            agent_options={
                "num_tasks": 64,
                "iterations": 350,
                "normalise_inputs": True,
                "initial_std": 0.5,
            },
            note=f"{_note}, one seed; 12 to 16 minutes on two cores with --workers 2",
        )
    )
for _name, _iterations, _options, _note in (
    (
        "two-cores",
        100,
        {},
        "reach with the benchmark's own 50 goals: return 3790 and success .44 on unseen ones "
        "(without memory: 3694, .38; random: 777, .04), one seed; 17 minutes on two cores with "
        "--workers 2",
    ),
    (
        "goals-500",
        190,
        {"draws": 10},
        "reach with 500 training goals: return 4574 and success .90 on the benchmark's own unseen "
        "ones (without memory: 3913, .38), one seed; 60 minutes on one core, without workers",
    ),
):
    register_preset(
        Preset(
            agent="rl2",
            task="metarl/MetaWorldML1-v0",
            name=_name,
            agent_options={
                "num_tasks": 40,
                "iterations": _iterations,
                "normalise_inputs": True,
                "initial_std": 0.5,
            },
            task_options=_options,
            note=_note,
        )
    )
for _agent, _notes in (
    (
        "prototypical_networks",
        (".965 of the queries in glyphs, .329 in digits", ".985 of the queries in glyphs"),
    ),
    (
        "matching_networks",
        (".966 of the queries in glyphs, .496 in digits", ".988 of the queries in glyphs"),
    ),
):
    for _shots, _note in zip((1, 5), _notes, strict=True):
        register_preset(
            Preset(
                agent=_agent,
                task="metarl/FewShotClassification-v0",
                name=f"ways-5-shots-{_shots}",
                # As for RL^2 above.
                agent_options={
                    "num_tasks": 256,
                    "iterations": 600,
                    "hidden_size": 128,
                    "learning_rate": 2e-3,
                    "gamma": 0.0,
                    "num_minibatches": 8,
                    "entropy_coef": 0.05,
                },
                task_options={"rewarded": "queries", "shots": _shots},
                note=f"{_note}, unseen classes, one seed; 3 to 8 minutes on one core. A "
                "supervised prototypical network: .962 (1 shot), .988 (5 shots); digits .481",
            )
        )
