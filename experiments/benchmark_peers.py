"""Compares the speed of metarl with that of its peers: workers in turns, round by round.

    pip install '.[bench]'
    python experiments/benchmark_peers.py                # half an hour on two CPU cores

With JAX in a virtual environment of its own, and on a machine that others use, too:

    python experiments/benchmark_peers.py --peer-python /path/to/venv/bin/python
    python experiments/benchmark_peers.py --only train-512-64-10 --busy 1 --copies 2

Each worker is a process of its own, warmed up before the first round, and sleeps between its turns.
A round goes through all workers, every other round in the opposite order, so that a machine whose
speed changes is equally unfair to all. It writes a page and a JSON file with every rate. Run it on
an idle machine.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from reporting import write_text
from speed_report import ALONE, Measurement, Report, as_json, page
from turns import Job, WorkerProcess, spinning, take_turn

import metarl

JOBS: Mapping[str, Job] = {
    job.name: job
    for job in (
        Job(work="train", lanes=64, hidden_size=64, pulls=10),
        Job(work="train", lanes=512, hidden_size=64, pulls=10),
        Job(work="train", lanes=2048, hidden_size=64, pulls=10),
        Job(work="train", lanes=512, hidden_size=256, pulls=10),
        Job(work="train", lanes=512, hidden_size=64, pulls=100),
        Job(work="rollout", lanes=512, hidden_size=64, pulls=10),
        Job(work="rollout", lanes=2048, hidden_size=64, pulls=10),
        Job(work="env", lanes=16_384, hidden_size=64, pulls=10),
    )
}
HERE = Path(__file__).parent
FIND_MISSING = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(error.name)
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Steps per second of metarl and its peers, measured in turns."""

    only: tuple[str, ...] = ()
    """jobs, such as train-512-64-10: work, lanes, hidden size, pulls of a trial; by default all"""
    workers: tuple[str, ...] = ()
    """metarl-1 and metarl-2, with so many threads; jax, the port of RL^2; gymnax, environment only;
    sb3, the recurrent PPO of sb3-contrib; metarl-torch, without the compiled library; by default
    all that are installed"""
    rounds: int = 7
    """turns of each worker; 5 or more for numbers to be published"""
    seconds: float = 2.0
    """least duration of a turn"""
    busy: int = 0
    """also measure each worker beside so many processes that use all the time they get"""
    copies: int = 1
    """also measure so many copies of each worker at once, in sum, if more than one"""
    peer_python: Path = Path(sys.executable)
    """interpreter of the JAX port and of gymnax; sb3-contrib steps metarl's environments, so it
    must be installed beside metarl"""
    out: Path = HERE / "results" / "speed"
    """the page and the JSON file, without suffix"""

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("seconds", 0), ("busy", 0), ("copies", 1)):
            if getattr(self, name) < least:
                raise SystemExit(f"--{name} {getattr(self, name)} is too small; {least} or more.")
        if shutil.which(self.peer_python) is None:
            raise SystemExit(f"--peer-python {self.peer_python} is not a program; name a Python.")
        known = {"only": [*JOBS], "workers": [worker.name for worker in all_workers(Path())]}
        for name, allowed in known.items():
            if unknown := set(getattr(self, name)) - set(allowed):
                raise SystemExit(
                    f"--{name} does not know {', '.join(sorted(unknown))}; it knows "
                    f"{', '.join(allowed)}."
                )


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A program that is measured."""

    name: str
    """as on the command line"""
    label: str
    """in tables"""
    script: str
    """in this folder"""
    works: tuple[str, ...] = ("train", "rollout", "env")
    """kinds of jobs that it can do"""
    python: Path = Path(sys.executable)
    """its interpreter"""
    needs: tuple[str, ...] = ()
    """packages, by the names of their modules, without which it is left out"""
    arguments: tuple[str, ...] = ()
    """after those of the job"""
    environment: Mapping[str, str] = field(default_factory=dict)
    """added to that of this process"""
    is_base: bool = False
    """the others are compared with it"""

    def missing(self) -> list[str]:
        """Packages that its interpreter does not find when it imports `needs`."""
        command = [str(self.python), "-c", FIND_MISSING, *self.needs]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    def start(self, job: Job) -> WorkerProcess:
        """A process of it, warmed up."""
        script = str(HERE / self.script)
        command = [str(self.python), script, *job.arguments, *self.arguments]
        return WorkerProcess(command, self.environment)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What else the machine does during a turn."""

    name: str
    busy: int = 0
    """processes that use all the time they get"""
    copies: int = 1
    """copies of the worker at once"""


def all_workers(peer_python: Path) -> list[Worker]:
    """Metarl and its peers; those that the others are compared with, in the order of columns."""
    ours = "worker_metarl.py"
    return [
        Worker(name="metarl-1", label="metarl, 1 thread", script=ours, arguments=("1",)),
        Worker(name="metarl-2", label="metarl, 2 threads", script=ours, arguments=("2",)),
        Worker(
            name="jax",
            label="JAX port",
            script="worker_jax.py",
            python=peer_python,
            needs=("jax", "optax"),
            is_base=True,
        ),
        Worker(
            name="gymnax",
            label="gymnax",
            script="worker_gymnax.py",
            works=("env",),
            python=peer_python,
            needs=("jax", "gymnax"),
            is_base=True,
        ),
        Worker(
            name="sb3",
            label="sb3-contrib",
            script="worker_sb3.py",
            works=("train",),
            needs=("sb3_contrib",),
            is_base=True,
        ),
        Worker(
            name="metarl-torch",
            label="metarl in torch, 1 thread",
            script=ours,
            works=("train", "rollout"),  # the library computes nothing of an environment
            arguments=("1",),
            environment={"METARL_NATIVE": "0"},
            is_base=True,
        ),
    ]


def installed_workers(options: Options) -> tuple[list[Worker], list[str]]:
    """Those to measure; and of the others that were wanted, what is missing."""
    wanted = [
        worker
        for worker in all_workers(options.peer_python)
        if not options.workers or worker.name in options.workers
    ]
    missing = [worker.missing() for worker in wanted]
    pairs = list(zip(wanted, missing, strict=True))
    left_out = [f"{worker.label}, without {', '.join(gone)}" for worker, gone in pairs if gone]
    return [worker for worker, gone in pairs if not gone], left_out


def conditions(options: Options) -> list[Condition]:
    """Alone, and what the options add."""
    found = [Condition(name=ALONE)]
    if options.busy:
        plural = "es" if options.busy > 1 else ""
        name = f"beside {options.busy} busy process{plural}"
        found.append(Condition(name=name, busy=options.busy))
    if options.copies > 1:
        found.append(Condition(name=f"{options.copies} copies at once", copies=options.copies))
    return found


def main(options: Options) -> None:
    """Measures job by job; writes the page after each, so that an interruption loses little."""
    machine = metarl.describe_machine()
    workers, left_out = installed_workers(options)
    for reason in left_out:
        print(f"Left out: {reason}", flush=True)
    measurements: list[Measurement] = []
    versions: dict[str, dict[str, str]] = {}
    for name in options.only or JOBS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        measurements += measure(JOBS[name], workers, options, versions)
        report = Report(
            machine=machine,
            settings={"rounds": options.rounds, "seconds of a turn": options.seconds},
            versions=versions,
            bases=[worker.label for worker in workers if worker.is_base],
            left_out=left_out,
            measurements=measurements,
        )
        write(report, options.out)
    print(page(report))
    print(*(options.out.with_suffix(suffix) for suffix in (".md", ".json")), sep="\n")


def measure(
    job: Job,
    workers: Sequence[Worker],
    options: Options,
    versions: dict[str, dict[str, str]],
) -> list[Measurement]:
    """The rates of all workers that can do the job, under all conditions.

    Args:
        job: what they do.
        workers: in the order of turns; every other round has the opposite order.
        options: rounds, seconds and conditions.
        versions: those of each worker are added.
    """
    able = [worker for worker in workers if job.work in worker.works]
    rates: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        processes = {
            worker.label: [
                stack.enter_context(closing(worker.start(job))) for _ in range(options.copies)
            ]
            for worker in able
        }
        versions |= {label: copies[0].versions for label, copies in processes.items()}
        for turn in range(options.rounds):
            for worker in able if turn % 2 == 0 else able[::-1]:
                for condition in conditions(options):
                    with spinning(condition.busy):
                        copies = processes[worker.label][: condition.copies]
                        rate = take_turn(copies, options.seconds)
                    rates.setdefault((worker.label, condition.name), []).append(rate)
    return [
        Measurement(
            job=job.name,
            worker=worker.label,
            condition=condition.name,
            rates=rates[worker.label, condition.name],
        )
        for condition in conditions(options)
        for worker in able
    ]


def write(report: Report, out: Path) -> None:
    """The page and all rates."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out.with_suffix(".md"), page(report))
    text = json.dumps(as_json(report), indent=1, default=vars)
    write_text(out.with_suffix(".json"), text + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
