"""Words that do not fit a command: one message that says what is wrong, and no new folder."""

import shutil
from pathlib import Path

import pytest

import metarl
from metarl.cli.main import main
from tests.foreign_runs import TINY, train_tiny

BANDIT = "metarl/BernoulliBandit-v0"
SMALL = ["--num-tasks", "8", "--num-minibatches", "2", "--iterations", "1", "--no-progress"]
TRAIN = ["train", "rl2", BANDIT, *SMALL, "--out", "new"]
MODULES = {
    "divides": "1 / 0\n",
    "torn": "def\n",
    "leaves": "raise SystemExit(3)\n",
    "lacks": "import numpyy\n",
    "nested": "import divides\n",
}
HUGE = str(10**23)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run, a file, and modules that cannot be imported."""
    folder = tmp_path_factory.mktemp("place")
    train_tiny(folder / "RUN")
    (folder / "a-file").write_text("hello\n")
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    yield place
    shutil.rmtree(place / "new", ignore_errors=True)


ROWS = {
    "list divides:x": "divides fails while it is imported: ZeroDivisionError: division by zero (",
    "train rl2 divides:lab/X-v0 --out new": "divides.py, line 1)",
    "train nested:x TASK --out new": "divides.py, line 1)",
    "train rl2 torn:lab/X-v0 --out new": "SyntaxError: invalid syntax (torn.py, line 1)",
    "check leaves:lab/X-v0": "leaves fails while it is imported: SystemExit: 3 (",
    "check lacks:lab/X-v0": "lacks fails while it is imported: No module named 'numpyy'",
    "evaluate RUN --module divides": "divides fails while it is imported",
    "record RUN --module leaves": "leaves fails while it is imported",
    "card RUN --module torn": "torn fails while it is imported",
    "report RUN --module nested": "nested fails while it is imported",
    "TRAIN --preset ''": "has no preset ''",
    f"TRAIN --threads {HUGE}": "is too large: it must be at most",
    f"TRAIN --hidden-size {HUGE}": "is too large: it must be at most",
    f"TRAIN --task.arms {HUGE}": "is too large: it must be at most",
    "TRAIN --hidden-size 10000000": "The agent rl2 with these options needs more memory than",
    "TRAIN --task.arms 10000000": "needs more memory than there is",
    "TRAIN --workers 0": "workers=0 step ordinary Gymnasium environments",
    "train rl2 CartPole-v1 --out new": "CartPole-v1 has no task_space",
    "evaluate RUN --num-tasks 1000000000": "The results in 1,000,000,000 tasks need about",
    "evaluate a-file": "a-file is not a run folder",
    "compare a-file": "a-file is a file, where a run folder is expected",
    "plot a-file --kind learning": "a-file is a file, where a run folder is expected",
    "report a-file": "a-file is a file, where a run folder is expected",
    "compare RUN --csv .": "it is a folder, not a file",
    "plot RUN --out .": "out='.' must be the path of a file",
    "plot RUN --formats": "formats is empty",
    "check TASK --seed -1": "seed=-1 is negative",
    "sweep gone.toml": "gone.toml is not a TOML file: No such file or directory",
    "sweep a-file": "a-file is not a TOML file: Expected",
    "sweep RUN": "RUN is a folder, a pipe or a device, where a file is expected",
}


@pytest.mark.parametrize("words", ROWS)
def test_wrong_input_is_one_message(here, capsys, words):
    given = [{"RUN": "RUN", "TASK": BANDIT, "''": ""}.get(one, one) for one in words.split()]
    given = [*TRAIN, *given[1:]] if given[0] == "TRAIN" else given
    assert main(given) in (1, 2)
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert ROWS[words] in said
    assert "Traceback" not in said
    assert not Path("new").exists()


def test_a_sweep_into_a_file_is_refused(here, capsys):
    Path("sweep.toml").write_text(
        f'agent = "rl2"\ntask = "{BANDIT}"\nseeds = [0]\nsweep = {{ learning_rate = [0.1] }}\n'
    )
    assert main(["sweep", "sweep.toml", "--out", "a-file"]) == 1
    assert "a-file exists, and is not the folder of a sweep" in capsys.readouterr().err


def test_a_folder_with_control_characters_in_its_name_is_evaluated_and_read(here):
    run = metarl.train("rl2", BANDIT, out="new/\x1b[31mred", **TINY)
    metarl.evaluate(run, num_tasks=4)
    assert metarl.compare([run]).num_tasks == 4
    assert metarl.plot([run], formats=["svg"])


@pytest.mark.parametrize("function", [metarl.compare, metarl.plot, metarl.report])
def test_a_zero_byte_in_a_path_is_one_error(here, function):
    with pytest.raises(metarl.errors.ConfigError, match="holds a zero byte"):
        function(["a\0b"])


@pytest.mark.parametrize("option", ["out", "init_from"])
def test_a_zero_byte_in_an_option_is_one_error(here, option):
    with pytest.raises(metarl.errors.MetaRLError, match=r"holds a zero byte|control characters"):
        metarl.train("rl2", BANDIT, **{option: "a\0b"}, **TINY)
