import pytest

from metarl.errors import ConfigError, UnknownNameError
from metarl.sweeps.space import Choice, Range
from metarl.sweeps.sweep_file import read_sweep

HEAD = """
agent = "rl2"
task = "metarl/BernoulliBandit-v0"
"""
TOP = f"{HEAD}seeds = [0, 1]\n"
RATES = "[sweep]\nlearning_rate = [1e-3, 1e-2]\n"


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "x.toml"
        path.write_text(text)
        return read_sweep(path)

    return read


def test_a_file_gives_all_settings(read):
    sweep = read(
        TOP + 'search = "random"\ntrials = 5\nsearch_seed = 7\nmetric = "total"\n'
        "[agent_options]\nnum_tasks = 16\n[task_options]\npulls = 7\n"
        "[run]\nthreads = 2\n[sweep]\nhidden_size = { min = 8, max = 64, log = true }\n"
        'memory = ["gru", "lstm"]\n'
        '[evaluate]\nnum_tasks = 50\nseed = 9\nsplit = "test"\n'
    )
    assert sweep.space == {
        "hidden_size": Range(low=8, high=64, log=True, is_integer=True),
        "memory": Choice(("gru", "lstm")),
    }
    job = sweep.job
    assert (job.config.num_tasks, job.task_options["pulls"], job.options.threads) == (16, 7, 2)
    assert (list(sweep.seeds), sweep.search, sweep.trials, sweep.search_seed) == (
        [0, 1],
        "random",
        5,
        7,
    )
    assert sweep.metric == "total"
    evaluation = sweep.evaluation
    assert (evaluation.num_tasks, evaluation.seed, evaluation.split) == (50, 9, "test")
    assert len(sweep.first_settings()) == 5


def test_settings_are_chosen_in_training_tasks_of_another_seed_by_default(read):
    evaluation = read(TOP + RATES).evaluation
    assert (evaluation.split, evaluation.seed) == ("train", 1)
    assert list(evaluation.references) == ["none"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent = 3 =", "is not a TOML file: .* Give a TOML file with what the runs share"),
        (HEAD + RATES, r"lacks seeds = \[...\]"),
        ("seeds = [0]\n" + RATES, 'lacks agent = "..."'),
        (TOP, r"has no \[sweep\], or an empty one"),
        (TOP + "[sweep]\n", r"has no \[sweep\], or an empty one"),
        (HEAD + "seeds = []\n" + RATES, r"seeds = \[\], which trains nothing"),
        (HEAD + "seeds = [1, 1]\n" + RATES, "seeds has the value 1 twice"),
        (HEAD + "seeds = [-1]\n" + RATES, "seeds with -1"),
        (HEAD + "seeds = [true]\n" + RATES, "seeds"),
        (HEAD + "seeds = 3\n" + RATES, "seeds=3 of Sweep must be a list"),
        (TOP + "serach = 'grid'\n" + RATES, "no option 'serach'.*'search'"),
        (
            TOP + "search = 'gird'\n" + RATES,
            "search='gird' of .* 'grid', 'random', 'tpe'",
        ),
        (
            TOP + "metric = 'first'\n" + RATES,
            "metric='first' of .* 'last', 'total'",
        ),
        (TOP + "trials = 3\n" + RATES, 'search = "grid" tries all values, so omit trials'),
        (TOP + "search = 'random'\n" + RATES, 'search = "random" needs trials = N'),
        (TOP + "search = 'random'\ntrials = 0\n" + RATES, "trials=0 must be greater than zero"),
        (TOP + "[sweep]\nlearning_rat = [1e-3]\n", "'learning_rat'.*Did you mean 'learning_rate'"),
        (TOP + "[sweep]\nlearning_rate = []\n", r"learning_rate = \[\] .* no value to try"),
        (TOP + "[sweep]\nlearning_rate = 1e-3\n", "must be a list of values, or a range"),
        (
            TOP + "[sweep]\nlearning_rate = ['fast']\n",
            "learning_rate='fast' of .* a number",
        ),
        (
            TOP + "[sweep]\nlearning_rate = [true]\n",
            "learning_rate=True of .* a number",
        ),
        (TOP + "[sweep]\nnum_tasks = [8.5]\n", r"num_tasks=8\.5 of RL2Config must be a whole"),
        (TOP + "[sweep]\nlearning_rate = [1, 1.0]\n", "learning_rate has the value 1.0 twice"),
        (TOP + "[sweep]\npulls = [3]\n", "pulls under .*an option of the task"),
        (TOP + "[sweep]\nthreads = [1]\n", "threads under .*an option of the run"),
        (TOP + RATES + "trials = [1]\n", "write it above the first table"),
        (
            TOP + "[agent_options]\nlearning_rate = 1e-3\n" + RATES,
            "learning_rate under .agent_options., where it is fixed",
        ),
        (TOP + "[agent_options]\nnum_task = 8\n" + RATES, "Did you mean 'num_tasks'"),
        (
            TOP + "[agent_options]\nnum_tasks = '8'\n" + RATES,
            "num_tasks='8' of .* a whole",
        ),
        (TOP + "[task_options]\npulls = 'x'\n" + RATES, "pulls='x' of .* must be a whole number"),
        (TOP + "[task_options]\npuls = 8\n" + RATES, "Did you mean 'pulls'"),
        (TOP + "[run]\nseed = 3\n" + RATES, r"seed under \[run\].*seeds = \[...\]"),
        (TOP + "[run]\nout = 'x'\n" + RATES, r"out under \[run\].*use --out"),
        (TOP + "[run]\nthread = 3\n" + RATES, "Did you mean 'threads'"),
        (TOP + "[evaluate]\nseed = 0\n" + RATES, "seed = 0, which gives the tasks of the final"),
        (TOP + "[evaluate]\nnum_task = 3\n" + RATES, "Did you mean 'num_tasks'"),
        (
            TOP + "[evaluate]\nsplit = 'val'\n" + RATES,
            "split='val' of .* one of",
        ),
        (TOP + "evaluate = 3\n" + RATES, r"evaluate = 3, which must be a table"),
        (TOP + "[sweep]\nlearning_rate = {min=1, max=2}\n", "is a range, but search = .grid."),
        (TOP + "[sweep]\nlearning_rate = {mni=1, max=2}\n", "no option 'mni'.*'min'"),
        (TOP + "[sweep]\nlearning_rate = {min=1}\n", "must have the numbers min and max"),
        (TOP + "[sweep]\nlearning_rate = {min=2, max=1}\n", "min must be the lower one"),
        (TOP + "[sweep]\nlearning_rate = {min=0, max=1, log=true}\n", "log = true it must be gr"),
        (TOP + "[sweep]\nlearning_rate = {min=0, max=1, log=1}\n", "log = 1, which must be true"),
        (TOP + "[sweep]\nmemory = {min=0, max=1}\n", "memory is no number, so it has no range"),
    ],
)
def test_what_is_unexpected_is_named(read, text, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        read(text).first_settings()


def test_unknown_agents_and_tasks_are_named(read):
    with pytest.raises(UnknownNameError, match="rl2"):
        read((TOP + RATES).replace('"rl2"', '"rl3"'))
    with pytest.raises(UnknownNameError, match="BernoulliBandit"):
        read((TOP + RATES).replace("Bandit", "Bandits"))


def test_a_value_out_of_range_names_its_setting(read):
    sweep = read(TOP + "[sweep]\nlearning_rate = [1e-3, -1]\n")
    with pytest.raises(ConfigError, match=r"The setting learning_rate=-1: learning_rate=-1"):
        [sweep.configured(setting) for setting in sweep.first_settings()]
