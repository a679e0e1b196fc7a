"""How the compiled library is found."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from metarl.native import library


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


@pytest.mark.parametrize(("count", "threads"), [(1, 3), (7, 2), (8, 8), (5, 9)])
def test_every_part_of_a_range_is_visited_once(count, threads):
    visited: list[tuple[int, int, int]] = []
    library.share_out(count, threads, lambda *job: visited.append(job))
    parts = sorted(visited)
    numbers = [number for _, first, last in parts for number in range(first, last)]
    assert numbers == [*range(count)]
    assert [part for part, *_ in parts] == [*range(min(count, threads))]


def test_an_error_in_another_thread_is_raised():
    def work(part: int, first: int, last: int) -> None:
        if part == 1:
            raise ValueError("of another thread")

    with pytest.raises(ValueError, match="of another thread"):
        library.share_out(2, 2, work)


def test_torch_gives_its_threads_to_the_library_and_gets_them_back():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert library.threads() == 3
        with library.alone():
            assert (library.threads(), torch.get_num_threads()) == (3, 1)
        assert (library.threads(), torch.get_num_threads()) == (3, 3)
    finally:
        torch.set_num_threads(before)


def test_an_error_leaves_no_part_running():
    ended = []

    def work(part: int, first: int, last: int) -> None:
        if part == 0:
            raise KeyboardInterrupt
        time.sleep(0.2)
        ended.append(part)

    with pytest.raises(KeyboardInterrupt):
        library.share_out(3, 3, work)
    assert sorted(ended) == [1, 2]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    library.share_out(3, 3, lambda part, first, last: None)
    child = os.fork()
    if not child:
        library.share_out(3, 3, lambda part, first, last: None)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
