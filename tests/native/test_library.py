"""How the compiled library is found."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from metarl.native import library
from metarl.native.perceptron import perceptron


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the package, with one build and its sources."""
    home = Path(library.__file__).parent
    for path in home.iterdir():
        if path.name.startswith("_baseline") or path.suffix in (".h", ".cpp"):
            shutil.copy2(path, tmp_path)
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    return tmp_path


def test_a_build_that_is_older_than_its_sources_is_not_used(folder):
    assert library.load("_baseline") is not None
    (build,) = folder.glob("_baseline*")
    source = folder / "recurrent.h"
    if not source.exists():
        pytest.skip("installed without sources")
    later = build.stat().st_mtime + 10
    os.utime(source, (later, later))
    assert library.load("_baseline") is None
    source.unlink()
    assert library.load("_baseline") is not None


def test_a_build_that_is_not_there_is_none(folder):
    assert library.load("_avx2") is None


def test_a_slower_build_takes_the_place_of_a_missing_one(folder, monkeypatch):
    library._fastest_build.cache_clear()
    monkeypatch.delenv(library.SWITCH, raising=False)
    try:
        (build,) = folder.glob("_baseline*")
        assert library.library()._name == str(build)
    finally:
        library._fastest_build.cache_clear()


@pytest.mark.parametrize(("switch", "expected"), [("1", "baseline"), ("0", None)])
def test_the_build_in_use_is_named(switch, expected, folder, monkeypatch):
    library._fastest_build.cache_clear()
    monkeypatch.setenv(library.SWITCH, switch)
    try:
        assert library.compiled_library() == expected
    finally:
        library._fastest_build.cache_clear()


def test_torch_gives_its_threads_to_the_library_and_gets_them_back(build):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert library.threads() == 3
        with library.alone(torch.ones(1)):
            assert (library.threads(), torch.get_num_threads()) == (3, 1)
            with library.alone(torch.ones(1)):
                assert (library.threads(), torch.get_num_threads()) == (3, 1)
            assert (library.threads(), torch.get_num_threads()) == (3, 1)
        with library.alone(torch.ones(1).double()):  # which torch computes with
            assert (library.threads(), torch.get_num_threads()) == (3, 3)
        assert (library.threads(), torch.get_num_threads()) == (3, 3)
    finally:
        torch.set_num_threads(before)


ROWS, INPUTS, OUTPUTS = 128 * 7 + 5, 3, 2  # eight blocks


def forward(parts: int) -> torch.Tensor:
    """A perceptron's outputs, its blocks shared out in so many parts."""
    weights = [torch.linspace(-1, 1, size).view(shape) for size, shape in SHAPES]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(library, "threads", lambda: parts)
        with torch.no_grad():
            return perceptron(torch.linspace(-2, 2, ROWS * INPUTS).view(ROWS, INPUTS), weights)


SHAPES = (
    (4 * INPUTS, (4, INPUTS)),
    (4, (4,)),
    (4 * OUTPUTS, (OUTPUTS, 4)),
    (OUTPUTS, (OUTPUTS,)),
)


@pytest.mark.parametrize("parts", [2, 3, 7, 8, 20])
def test_every_block_is_computed_however_they_are_shared_out(build, parts):
    assert torch.equal(forward(parts), forward(1))


@pytest.mark.parametrize(
    ("blocks", "threads", "least", "expected"),
    [(8, 3, 1, 3), (8, 9, 1, 8), (8, 3, 4, 2), (3, 3, 4, 1), (0, 3, 1, 1)],
)
def test_no_thread_has_fewer_blocks_than_are_worth_it(
    blocks, threads, least, expected, monkeypatch
):
    monkeypatch.setattr(library, "threads", lambda: threads)
    assert library.parts_of(blocks, least) == expected


def test_callers_in_several_threads_get_their_own_results(build, monkeypatch):
    expected = forward(1)
    monkeypatch.setattr(library, "threads", lambda: 3)
    weights = [torch.linspace(-1, 1, size).view(shape) for size, shape in SHAPES]
    x = torch.linspace(-2, 2, ROWS * INPUTS).view(ROWS, INPUTS)

    def repeat(_: int) -> bool:
        with torch.no_grad():
            return all(torch.equal(perceptron(x, weights), expected) for _ in range(200))

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(repeat, range(3)))


def test_threads_that_have_gone_to_sleep_wake_up(build):
    expected = forward(1)
    for _ in range(3):
        time.sleep(0.02)  # longer than a thread polls for work
        assert torch.equal(forward(3), expected)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(build):
    expected = forward(3)
    child = os.fork()
    if not child:
        os._exit(not torch.equal(forward(3), expected))
    assert os.waitpid(child, 0)[1] == 0
