"""Breaks trainings, folders, disks and inputs on purpose, and prints what metarl made of it.

    python tests/fault_tables.py [ends] [code] [disk] [inputs]

Four tables, by default all: trainings that are ended from outside or by a worker; foreign run
folders that try to execute code or to write through links; a disk that gets full under each writer,
and a folder that cannot be written; every command of the README with wrong input. The exit code is
1 if anything was executed, lost, left behind, or ended in a traceback. Files that `metarl pull`
copies are tested in tests/test_hub.py, the empty locks of trainings and sweeps in
tests/training/test_full_disk.py. The page of `metarl benchmark` is written right after its JSON
file, by the same function. Writers of `experiments/` are tested in
tests/experiments/test_reporting.py.
"""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import metarl  # noqa: E402
from metarl.cli.main import main  # noqa: E402
from metarl.errors import MetaRLError, RunFolderError  # noqa: E402
from metarl.results.evaluation_files import adaptation_file  # noqa: E402
from metarl.results.sweeps import (  # noqa: E402
    SweepRow,
    SweepTable,
    write_sweep,
    write_sweep_table,
)
from metarl.sweeps.figure import write_figure  # noqa: E402
from metarl.tracking.tracker import TrackedRun, Tracker  # noqa: E402
from metarl.training.checkpoint import read_checkpoint  # noqa: E402
from tests.file_limits import file_size_limit  # noqa: E402
from tests.foreign_runs import change_config, train_tiny  # noqa: E402
from tests.results.test_sweeps import RECORD  # noqa: E402

TASK = "metarl/BernoulliBandit-v0"
SMALL = ["--num-tasks", "8", "--num-minibatches", "2", "--hidden-size", "8", "--threads", "1"]
LAB = """
import os, signal, sys, time
import gymnasium, numpy as np

class Unsendable(Exception):
    def __init__(self, code, where):
        super().__init__(f"{where} broke with {code}")
        self.stream = sys.stdout.buffer

class Failing(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space = task_space = gymnasium.spaces.Discrete(2)
    splits_share_tasks = True
    steps = 0
    def __init__(self, way: str = "none", after: int = 60):
        self.way, self.after = way, after
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.steps += 1
        if self.steps == self.after:
            if self.way == "raises": raise ValueError("the gripper is open")
            if self.way == "exits": os._exit(7)
            if self.way == "killed": os.kill(os.getpid(), signal.SIGKILL)
            if self.way == "hangs": time.sleep(1000)
            if self.way == "unpicklable": raise Unsendable(7, "the gripper")
        return np.zeros(1, np.float32), 1.0, False, False, {}

gymnasium.register("lab/Failing-v0", Failing, max_episode_steps=5)
"""


class Table:
    """Rows that are printed as they come, and the number of those that are bad."""

    def __init__(self, title: str, *columns: str) -> None:
        self.bad = 0
        print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)

    def add(self, *cells: object, bad: bool = False) -> None:
        self.bad += bad
        mark = " **BAD**" if bad else ""
        print(f"| {' | '.join(str(cell) for cell in cells)}{mark} |", flush=True)


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "metarl", *words]


# --- trainings that are ended


def rows_of(run: Path) -> int:
    path = run / "metrics.csv"
    return max(0, len(path.read_text().splitlines()) - 1) if path.is_file() else 0


def saved(run: Path) -> int:
    path = run / "checkpoint.safetensors"
    return int(read_checkpoint(path).progress["iteration"]) if path.is_file() else 0


def left_processes(group: int) -> int:
    """Processes of a group that are still there, after up to two seconds."""
    end, count = time.time() + 2, 0
    while time.time() < end:
        found = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True).stdout
        lines = [line.split() for line in found.splitlines()]
        count = sum(int(row[0]) == group and not row[1].startswith("Z") for row in lines)
        if not count:
            break
        time.sleep(0.1)
    return count


def ends(folder: Path) -> int:
    """Signals, and workers that fail: three runs each."""
    table = Table(
        "Trainings that are ended, three runs each",
        *("what", "exit", "rows", "kept", "seconds to the end", "last line", "orphans"),
    )
    (folder / "failing_lab.py").write_text(LAB)
    ways = [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)]
    ways += [(way, 1) for way in ("raises", "exits", "killed", "hangs", "unpicklable")]
    for (way, code), number in ((way, number) for way in ways for number in range(3)):
        run = folder / f"{way}{number}"
        words = ["train", "rl2", TASK, "--iterations", "1000000"]
        if code == 1:
            words = ["train", "rl2", "failing_lab:lab/Failing-v0", "--task.way", way]
            words += ["--workers", "2", "--worker-timeout", "3", "--iterations", "60"]
        words += [*SMALL, "--checkpoint-seconds", "600", "--no-progress", "--out", str(run)]
        process = subprocess.Popen(
            command(*words),
            cwd=folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started = time.time()
        if code > 1:
            while rows_of(run) < 8 and process.poll() is None:
                time.sleep(0.02)
            started = time.time()
            process.send_signal(getattr(signal, way))
        assert process.stderr is not None
        err = process.stderr.read()
        found = process.wait(300)
        seconds = time.time() - started
        orphans = left_processes(process.pid)
        told = [line for line in err.splitlines() if line.startswith(("metarl", "failing_lab"))]
        last = told[-1][:150] if told else err.strip()[-150:].replace(chr(10), " ")
        rows, kept = rows_of(run), saved(run)
        # What an environment raised is shown with its traceback, and with advice.
        raw = "Traceback" in err and way not in ("raises", "unpicklable")
        bad = found != code or rows != kept or orphans > 0 or raw
        table.add(f"{way} {number}", found, rows, kept, f"{seconds:.1f}", last, orphans, bad=bad)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return table.bad


# --- foreign folders

OPTIONAL = (
    *("gmpy2", "triton", "botocore", "tensorflow", "metaworld", "imageio", "optuna", "sklearn"),
    *(
        "pyarrow",
        "wandb",
        "jax",
        "pandas",
        "IPython",
        "psutil",
        "tqdm",
        "cv2",
        "moviepy",
        "pygame",
        "yaml",
    ),
)
"""packages that metarl or a dependency of it imports if they are there"""


def planted(place: Path, victim: Path) -> str:
    return f"open({str(victim)!r}, 'a').write({str(place.name)!r} + '\\n')\n"


def code(folder: Path) -> int:
    """Run folders that name modules, and a current folder full of them."""
    table = Table("Code in foreign folders", "try", "exit", "executed")
    victim = folder / "EXECUTED"
    run = train_tiny(folder / "x" / "runs" / "a-run")
    for name in ("evil", "notes"):
        (run / f"{name}.py").write_text(planted(run, victim))
    (run.parent.parent / "planted").mkdir()
    (run.parent.parent / "planted" / "evil.py").write_text(planted(run, victim))
    x = run.parent.parent
    tries: list[tuple[str, str, Path, list[str]]] = [
        ("evil", "evaluate .", run, ["evaluate", ".", "--num-tasks", "3"]),
        ("evil", "record .", run, ["record", "."]),
        ("evil", "evaluate . --help", run, ["evaluate", ".", "--help"]),
        ("evil", "evaluate . --task.arms 3", run, ["evaluate", ".", "--task.arms", "3"]),
        ("evil", "train --resume", run, ["train", "--config", "config.json", "--out", "new"]),
        ("evil", "card .", run, ["card", "."]),
        ("evil", "plot .", run, ["plot", "."]),
        ("evil", "plot . --kind learning", run, ["plot", ".", "--kind", "learning"]),
        ("evil", "compare .", run, ["compare", "."]),
        ("planted.evil", "evaluate", x, ["evaluate", "runs/a-run", "--num-tasks", "3"]),
        ("runs.a-run.notes", "evaluate", x, ["evaluate", "runs/a-run", "--num-tasks", "3"]),
        ("this", "evaluate", x, ["evaluate", "runs/a-run", "--num-tasks", "3"]),
    ]
    for module, words, where, arguments in tries:
        change_config(run, task=f"{module}:{TASK}")
        ended = subprocess.run(
            command(*arguments), cwd=where, env=environment(), capture_output=True, text=True
        )
        ran = victim.exists() or "Zen of Python" in ended.stdout
        victim.unlink(missing_ok=True)
        table.add(f"{words}, module {module}", ended.returncode, int(ran), bad=ran)
    library = "import sys; sys.path.append(''); import metarl; metarl.evaluate('runs/a-run')"
    change_config(run, task=f"planted.evil:{TASK}")
    ended = subprocess.run([sys.executable, "-c", library], cwd=x, env=environment())
    ran = victim.exists()
    table.add("metarl.evaluate in Python, module planted.evil", ended.returncode, int(ran), bad=ran)
    change_config(run, task=TASK)
    for name in OPTIONAL:
        (x / f"{name}.py").write_text(planted(run, victim) + "raise ImportError(__name__)\n")
    words_of = {
        "train": ["train", "rl2", TASK, *SMALL, "--iterations", "1", "--out", "new"],
        "evaluate": ["evaluate", "runs/a-run", "--num-tasks", "3"],
        "record": ["record", "runs/a-run"],
        "plot and compare": ["plot", "runs/a-run"],
        "list": ["list"],
    }
    for name, arguments in words_of.items():
        ended = subprocess.run(
            command(*arguments), cwd=x, env=environment(), capture_output=True, text=True
        )
        ran = victim.exists()
        victim.unlink(missing_ok=True)
        table.add(f"{name} among {len(OPTIONAL)} modules", ended.returncode, int(ran), bad=ran)
    return table.bad + links(folder)


def links(folder: Path) -> int:
    """Symbolic links in a run folder to files outside."""
    table = Table("Links in foreign folders", "link", "command", "what happened", "target changed")
    run = train_tiny(folder / "links" / "run")
    results = {
        "adaptation.svg": ["plot"],
        "adaptation.png": ["plot"],
        "learning.svg": ["plot", "--kind", "learning"],
        "adaptation.csv": ["evaluate", "--num-tasks", "3", "--seed", "5"],
        "trials.csv": ["evaluate", "--num-tasks", "3", "--seed", "6"],
        "trial.gif": ["record"],
        "metrics.csv": ["resume"],
        "checkpoint.safetensors": ["resume"],
        "checkpoint.1.safetensors": ["resume"],
        "training.lock": ["resume"],
    }
    for name, words in results.items():
        foreign = folder / "links" / f"with-{name}"
        shutil.copytree(run, foreign)
        outside = folder / f"outside-{name}"
        link = foreign / name
        outside.write_bytes(link.read_bytes() if link.is_file() else b"mine")
        before = outside.read_bytes()
        link.unlink(missing_ok=True)
        link.symlink_to(outside)
        if words == ["resume"]:
            done_words = ["train", "rl2", TASK, *SMALL, "--task.arms", "3", "--task.pulls", "5"]
            done_words += ["--iterations", "4", "--resume", "--out", str(foreign)]
        else:
            done_words = [words[0], str(foreign), *words[1:]]
        exit_code, text = called(done_words)
        changed = outside.read_bytes() != before
        last = text.strip().splitlines()[-1][:100] if text.strip() else ""
        table.add(name, words[0], f"exit {exit_code}: {last}", changed, bad=changed)
    return table.bad


def called(words: list[str]) -> tuple[int, str]:
    """Exit code and both outputs of a command in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            found = main(words)
        except SystemExit as error:
            found = int(error.code or 0)
    return found, out.getvalue()


# --- full disks


def writers(folder: Path) -> Iterator[tuple[str, Path, Callable[[], Any]]]:
    """Name, file, and the call that writes it."""
    run = train_tiny(folder / "run")
    options = {"task_options": {"arms": 3, "pulls": 5}, "num_minibatches": 2, "hidden_size": 8}
    common = {"num_tasks": 8, "threads": 1, "progress": False, **options}

    def train(iterations: int, out: Path, **more: Any) -> Any:
        return metarl.train("rl2", TASK, out=out, iterations=iterations, **common, **more)

    metarl.train("rl2", TASK, out=folder / "goes on", iterations=1, **common)
    events = next((folder / "goes on").glob("events*"))
    goes_on = folder / "goes on"
    yield "checkpoint", goes_on / "checkpoint.safetensors", lambda: train(2, goes_on, resume=True)
    yield "TensorBoard", events, lambda: train(300, goes_on, resume=True)
    yield "metrics.csv", goes_on / "metrics.csv", lambda: train(301, goes_on, resume=True)
    yield "config.json", folder / "new" / "config.json", lambda: train(1, folder / "new")
    evaluate = {"num_tasks": 40, "references": ("none",)}
    for name in ("adaptation.csv", "trials.csv"):
        yield name, run / name, lambda: metarl.evaluate(run, **evaluate)
    yield "evaluation.json", run / "evaluation.json", lambda: metarl.evaluate(run, **evaluate)
    periodic = [metarl.PeriodicEvaluation(1, num_tasks=10)]
    yield (
        "evaluation_curve.csv",
        folder / "periodic" / "evaluation_curve.csv",
        lambda: train(40, folder / "periodic", callbacks=periodic, resume=True),
    )
    for ending in ("png", "svg", "pdf"):
        path = folder / f"figure.{ending}"
        yield f"picture {ending}", path, lambda path=path: metarl.plot([run], out=path)
    yield (
        "data of a figure",
        folder / "data.csv",
        lambda: metarl.plot([run], out=folder / "of_data.png", data=folder / "data.csv"),
    )
    for ending in ("gif", "mp4"):
        path = folder / f"trial.{ending}"
        yield f"video {ending}", path, lambda path=path: metarl.record(run, out=path)
    table = folder / "table.csv"
    yield "table", table, lambda: metarl.write_comparison(table, metarl.compare([run]))
    yield "card", run / "README.md", lambda: metarl.write_card(run)
    shared = folder / "shared"
    yield (
        "shared weights",
        shared / "checkpoint.safetensors",
        lambda: (shutil.rmtree(shared, ignore_errors=True), metarl.write_card(run, share=shared)),
    )
    yield (
        "shared settings",
        shared / "config.json",
        lambda: (shutil.rmtree(shared, ignore_errors=True), metarl.write_card(run, share=shared)),
    )
    for ending in ("pt2", "onnx"):
        path = folder / f"policy.{ending}"
        yield f"exported network {ending}", path, lambda path=path: metarl.export_policy(run, path)
    yield from writers_of_trainings(folder, run, train)
    yield from writers_of_tables(folder, run)


def writers_of_trainings(
    folder: Path, run: Path, train: Callable[..., Any]
) -> Iterator[tuple[str, Path, Callable[[], Any]]]:
    """What a training writes in special cases, and files of many trainings."""
    iterations, longer = count(400), folder / "goes on"
    yield (
        "config.json of more iterations",
        longer / "config.json",
        lambda: train(next(iterations), longer, resume=True),
    )
    opened = metarl.load_run(run)
    agent = opened.make_agent(opened.config.make_family())
    progress = opened.load(agent)
    yield (
        "state to go back to",
        run / "rollback.safetensors",
        lambda: opened.save_good_state(agent, progress),
    )
    tracked = folder / "tracked"
    train(1, tracked, callbacks=[LongNamed()])
    yield (
        "tracking.json",
        tracked / "tracking.json",
        lambda: train(next(iterations), tracked, resume=True, callbacks=[LongNamed()]),
    )
    yield "sweep.json", folder / "sweep.json", lambda: write_sweep(folder, RECORD)
    row = SweepRow(name="a", options={"rate": 0.1}, scores={0: 1.0}, score=None)
    table = SweepTable(record=RECORD, rows=[row] * 20)
    yield "sweep.csv", folder / "sweep.csv", lambda: write_sweep_table(folder / "sweep.csv", table)
    yield "sweep.png", folder / "sweep.png", lambda: write_figure(folder, table)
    small = {"num_tasks": (4,), "rounds": 2, "agent_options": {"hidden_size": 8}}
    yield (
        "benchmark",
        folder / "speed.json",
        lambda: metarl.benchmark("rl2", TASK, out=folder / "speed", **small),
    )


def writers_of_tables(folder: Path, run: Path) -> Iterator[tuple[str, Path, Callable[[], Any]]]:
    """Further tables and pages of evaluated runs."""
    build = metarl.make_family(TASK).references(10)["random"].build
    of_policy = folder / "of_policy"
    yield (
        "evaluation of a policy",
        of_policy / "adaptation.csv",
        lambda: metarl.evaluate_policy(build, TASK, agent="mine", out=of_policy, num_tasks=20),
    )
    small = {"num_tasks": 40, "references": ("none",), "table": "parquet"}
    columnar = folder / "columnar"
    yield (
        "adaptation.parquet",
        columnar / "adaptation.parquet",
        lambda: metarl.evaluate(run, out=columnar, **small),
    )
    curves = metarl.read_curves(adaptation_file(run))
    rows = folder / "rows.csv"
    yield "exported rows", rows, lambda: metarl.write_curves(rows, curves)
    page = folder / "report.html"
    yield "report", page, lambda: metarl.report([run], out=page, films=False)


class LongNamed(Tracker):
    """A service that gives runs long addresses, so that `tracking.json` is a large file."""

    service = "recorder"

    def _begin(self, training: Any) -> TrackedRun:
        return NamedRun()


class NamedRun(TrackedRun):
    """A run of it."""

    id, url = "run-1", "https://example.org/" + "a" * 30_000

    def log(self, values: Any, env_steps: int) -> None:
        """Sends nothing."""

    def finish(self, outcome: Any) -> None:
        """Sends nothing."""


def content(folder: Path) -> dict[str, bytes]:
    """All files that are not drafts of a process that was killed."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


GROWING = (
    *("TensorBoard", "metrics.csv", "evaluation_curve.csv", "checkpoint", "config.json"),
    *("config.json of more iterations", "tracking.json"),
)
"""files of a training: earlier records stay, later ones may have come before the disk was full"""
NEEDED = {"mp4": "imageio_ffmpeg", "onnx": "onnxscript", "parquet": "pyarrow"}
"""packages of extras that write files of an ending"""


def disk(folder: Path) -> int:
    """Each writer with half of the room it needs, then with all of it, then without permission."""
    table = Table(
        "A full disk and a read-only folder",
        *("writer", "bytes", "limit", "on the full disk", "old files", "with room again"),
    )
    for name, path, write in writers(folder):
        needed = NEEDED.get(path.suffix.removeprefix("."))
        if needed and not find_spec(needed):
            table.add(name, "", "", f"not tested: {needed} is not installed", "", "")
            continue
        before = content(folder) if name not in GROWING else {}
        if not before or str(path) not in before:
            first = None if name in GROWING else write()
            del first
        size = path.stat().st_size if path.is_file() else 200
        limit = max(1, size // 2) if name not in ("TensorBoard", "metrics.csv") else size + 64
        kept = content(folder)
        error: BaseException | None = None
        with file_size_limit(limit):
            try:
                write()
            except BaseException as raised:
                error = raised
        after = content(folder)
        lost = [one for one in kept if name not in GROWING and after.get(one) != kept[one]]
        lost += [one for one in kept if name in GROWING and one not in after]
        drafts = [one for one in after if ".partial" in one]
        again = "written"
        try:
            write()
        except BaseException as raised:
            again = f"{type(raised).__name__}: {raised}"[:80]
        fine = isinstance(error, RunFolderError) and not drafts and again == "written"
        what = f"{type(error).__name__}: {str(error).replace(str(folder), '')[:90]}"
        whole = "whole" if not lost else f"changed: {len(lost)}"
        ok = fine and (not lost or name.startswith("shared"))  # that folder is removed before
        table.add(name, size, limit, what, whole, again, bad=not ok)
    return table.bad + read_only(folder, table)


def read_only(folder: Path, table: Table) -> int:
    """What has to be written into a folder without permission."""
    if os.geteuid() == 0:
        locked = "/proc/nothing"  # not even root writes there
        for name, words in {
            "train": ["train", "rl2", TASK, *SMALL, "--iterations", "1", "--out", locked],
            "evaluate": ["evaluate", str(folder / "run"), "--num-tasks", "3", "--out", locked],
            "plot": ["plot", str(folder / "run"), "--out", f"{locked}/figure.png"],
            "record": ["record", str(folder / "run"), "--out", f"{locked}/trial.gif"],
            "compare": ["compare", str(folder / "run"), "--csv", f"{locked}/table.csv"],
            "card": ["card", str(folder / "run"), "--share", locked],
        }.items():
            exit_code, text = called(words)
            line = next(
                (one for one in text.splitlines() if "cannot be written" in one), text[-120:]
            )
            bad = exit_code not in (1, 2) or "Traceback" in text
            what = f"exit {exit_code}: {line[:110]}"
            table.add(f"read-only: {name}", "", "", what, "", "", bad=bad)
    return 0


# --- wrong input


def inputs(folder: Path) -> int:
    """Every command of the README, with words that do not fit it."""
    table = Table("Commands of the README with wrong input", "input", "exit", "message")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^metarl .*", readme, re.MULTILINE)
    commands = [line.split("#")[0].split() for line in dict.fromkeys(lines)]
    run = train_tiny(folder / "a-run")
    with contextlib.chdir(folder):
        for words in commands:
            start = [one.replace("runs/NAME", str(run)) for one in words[1:]]
            start = [one for one in start if not one.startswith("runs/")]
            wrongs = [
                [*start, "--no-such-option", "3"],
                [words[1], "no-such-thing"],
                [*start, "--out"],
                [words[1], ""],
                [words[1], "\x1b[31m/nothing"],
                [words[1], "/proc/nothing/there"],
                [*start, "--num-tasks", "many"],
            ]
            for wrong in wrongs:
                try:
                    exit_code, text = called(wrong)
                    fine = (0,) if "--help" in wrong else (1, 2)  # help is given before all else
                    bad = exit_code not in fine or "Traceback" in text or "\x1b[31m" in text
                except MetaRLError as error:
                    exit_code, text, bad = -1, repr(error), True
                except BaseException as error:
                    exit_code, text, bad = -1, f"{type(error).__name__}: {error}", True
                shown = " ".join(wrong).replace(str(run), "RUN")
                line = " ".join(text.split())[:110].replace("|", "/")
                table.add(repr(shown)[1:-1], exit_code, line, bad=bad)
    return table.bad


TABLES = {"ends": ends, "code": code, "disk": disk, "inputs": inputs}

if __name__ == "__main__":
    bad = 0
    for chosen in sys.argv[1:] or TABLES:
        with tempfile.TemporaryDirectory() as temporary:
            bad += TABLES[chosen](Path(temporary))
    print(f"\n{bad} bad rows")
    sys.exit(bool(bad))
