"""Workers that die, hang or raise: one clear error, no process left, nothing lost."""

import functools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import metarl
from metarl.bridges import env_block
from metarl.bridges.env_block import LaneSpaces, flat_space, plain_action_space
from metarl.bridges.gym_pool import LanePool
from metarl.errors import ConfigError, WorkerError
from metarl.training.loop import train
from metarl.training.options import RunOptions
from metarl.training.run_folder import load_run
from tests.bridges.failing_envs import Failing
from tests.training.test_loop import SMALL

SPACES = LaneSpaces(flat_space(Failing.observation_space), plain_action_space(Failing.action_space))
QUIET = pytest.mark.filterwarnings("ignore:.*(Worker-|Raising the last|Traceback)")


def open_pool(way, workers=2, **options):
    make = functools.partial(Failing, way, options.pop("closed_file", ""))
    return LanePool(make, SPACES, 4, workers, **options)


def wait_for_end(numbers):
    """Waits until no process has one of these numbers."""
    end = time.monotonic() + 20
    while left := [number for number in numbers if Path(f"/proc/{number}/cmdline").exists()]:
        state = [Path(f"/proc/{number}/stat").read_text().split()[2] for number in left]
        if set(state) == {"Z"}:  # waits for its parent, which is not this process
            return
        assert time.monotonic() < end, left
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("way", "failing", "message"),
    [
        (
            "killed",
            0,
            r"Worker 0 ended with exit code -9 .* SIGKILL, as .* memory is short",
        ),
        ("killed", 3, r"Worker 1 ended with exit code -9"),
        ("os._exit", 3, r"Worker 1 ended with exit code 7 \(its environment, or a library"),
        ("sys.exit", 0, r"Worker 0 ended with exit code 3 "),
        ("hang", 3, r"Worker 1 has not answered for 2 s.*--worker-timeout"),
    ],
)
def test_a_dead_or_hung_worker_is_one_error_and_no_process_is_left(way, failing, message):
    pool = open_pool(way, timeout=60.0)
    numbers = [process.pid for process in pool._workers.processes]
    try:
        pool.reset([0, 1, 0, 1], [0, 0, 0, 0])
        pool.step(np.zeros(4, int))
        pool._workers._timeout = 2.0  # by now the environments are made
        with pytest.raises(WorkerError, match=message):
            pool.step(np.arange(4) == failing)
        assert pool.closed
    finally:
        pool.close()
    wait_for_end(numbers)


def test_a_reset_that_hangs_is_noticed():
    pool = open_pool("hang in reset", timeout=3.0)
    with pytest.raises(WorkerError, match="has not answered for 3 s"):
        pool.reset([0, 1, 0, 1], [0, 0, 0, 0])


@QUIET
def test_an_exception_that_cannot_be_sent_arrives_as_text():
    pool = open_pool("unsendable")
    pool.reset([0, 1, 0, 1], [0, 0, 0, 0])
    with pytest.raises(WorkerError, match=r"UnsendableError .*the gripper broke with 7") as raised:
        pool.step(np.ones(4, int))
    assert "in fail\n" in str(raised.value)  # its traceback


@QUIET
def test_an_error_of_a_connection_of_the_environment_is_not_taken_for_a_dead_worker():
    pool = open_pool("connection")
    pool.reset([0, 1, 0, 1], [0, 0, 0, 0])
    with pytest.raises(ConnectionResetError, match="the simulator has gone") as raised:
        pool.step(np.ones(4, int))
    assert "metarl check TASK" in raised.value.__notes__[0]


def test_exit_in_this_process_is_an_error():
    pool = open_pool("sys.exit", workers=0)
    pool.reset([0, 1, 0, 1], [0, 0, 0, 0])
    with pytest.raises(WorkerError, match=r"An environment has called exit\(3\)"):
        pool.step(np.ones(4, int))


@pytest.mark.parametrize("workers", [0, 2])
def test_environments_are_closed_and_one_that_cannot_be_is_a_warning(
    tmp_path, workers, caplog, capfd
):
    env_block._warn_once.cache_clear()
    logging.getLogger("metarl").addHandler(logging.lastResort)
    try:
        pool = open_pool("close", workers, closed_file=str(tmp_path / "closed"))
        pool.reset([0, 1, 0, 1], [0, 0, 0, 0])
        pool.close()
        pool.close()
    finally:
        logging.getLogger("metarl").removeHandler(logging.lastResort)
    assert (tmp_path / "closed").read_text() == "closed\n" * 4
    line = "close() of Failing raised AttributeError('viewer'); it is ignored.\n"
    assert capfd.readouterr().err.count(line) == max(1, workers)


TRAINER = """
import sys
import gymnasium, metarl
gymnasium.register("glass/Failing-v0", "tests.bridges.failing_envs:Failing", max_episode_steps=3)
if __name__ == "__main__":
    metarl.train("rl2", "glass/Failing-v0", task_options={"way": sys.argv[1]}, num_tasks=8,
                 hidden_size=8, iterations=100000, workers=2, out=sys.argv[2], threads=1,
                 progress=False)
"""


def children(number):
    found = subprocess.run(["pgrep", "-P", str(number)], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


@pytest.fixture
def trainer(tmp_path, start_process):
    def start(way):
        (tmp_path / "script.py").write_text(TRAINER)
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        return start_process(
            [sys.executable, "script.py", way, "run"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
        )

    return start


@pytest.mark.parametrize("way", ["none", "hang"])
def test_no_worker_outlives_a_killed_trainer(trainer, way):
    process = trainer(way)
    end = time.monotonic() + 60
    while len(children(process.pid)) < 3:  # two workers and multiprocessing's resource tracker
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(3.0)
    numbers = children(process.pid)
    process.kill()
    _, err = process.communicate(timeout=30)  # ends when all of them have closed it
    wait_for_end(numbers)
    assert "Traceback" not in err


def test_a_signal_to_the_whole_group_lets_the_iteration_be_finished(trainer, tmp_path):
    process = trainer("none")
    end = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    numbers = children(process.pid)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    wait_for_end(numbers)
    assert "Traceback" not in err
    rows = metarl.read_metrics(tmp_path / "run" / "metrics.csv")
    gymnasium.register(
        "glass/Failing-v0", "tests.bridges.failing_envs:Failing", max_episode_steps=3
    )
    try:
        run = load_run(tmp_path / "run")
        assert run.load(run.make_agent(run.config.make_family())).iteration == len(rows)
    finally:
        del gymnasium.registry["glass/Failing-v0"]


def test_the_timeout_is_an_option_of_training(tmp_path):
    with pytest.raises(ConfigError, match=r"worker_timeout=0 must be greater than zero"):
        RunOptions(worker_timeout=0)
    gymnasium.register(
        "glass/Failing-v1", "tests.bridges.failing_envs:Failing", max_episode_steps=3
    )
    try:
        options = {"task_options": {"way": "hang"}, "workers": 2, "worker_timeout": 4.0, **SMALL}
        with pytest.raises(WorkerError, match="has not answered for 4 s"):
            train("rl2", "glass/Failing-v1", iterations=3, out=tmp_path / "run", **options)
    finally:
        del gymnasium.registry["glass/Failing-v1"]


def report_handler(queue):
    """In another process: steps environments itself, and tells whether Ctrl-C still acts there."""
    pool = open_pool("none", workers=0)
    pool.reset([0, 1, 0, 1], [0, 0, 0, 0])
    pool.close()
    queue.put(signal.getsignal(signal.SIGINT) is signal.default_int_handler)


def test_only_a_worker_ignores_ctrl_c_and_not_every_process_that_has_a_parent():
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    process = spawn.Process(target=report_handler, args=(queue,))
    process.start()
    assert queue.get(timeout=60)
    process.join()
