"""Files are written whole or not at all."""

import os
import stat

import pytest

from metarl.errors import RunFolderError
from metarl.results.csv_files import write_table
from metarl.results.files import AppendedFile, atomic_write, write_text
from tests.file_limits import file_size_limit


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(TypeError), atomic_write(path) as draft:
        draft.write_bytes("no bytes")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_is_that_of_any_new_file_whatever_the_writer_does(tmp_path, mask, mode):
    path, before = tmp_path / "a.txt", os.umask(mask)
    try:
        for _ in range(2):  # new, and replaced
            with atomic_write(path) as draft:
                draft.unlink()
                draft.write_text("content")
                draft.chmod(0o700)
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_link_is_replaced_and_its_target_is_unchanged(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "picture.png"
    victim.write_text("precious")
    path.symlink_to(victim)
    write_text(path, "new")
    assert victim.read_text() == "precious"
    assert not path.is_symlink()


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunFolderError, match="it is a device or a pipe"):
        write_table(tmp_path / "pipe", ["a"], [])
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_the_draft_of_a_killed_process_is_no_obstacle(tmp_path):
    with atomic_write(tmp_path / "a.txt") as draft:
        draft.write_text("from a process that was killed")
        os.link(draft, tmp_path / "left")
    os.rename(tmp_path / "left", draft)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_full_disk_is_one_line_with_a_remedy_and_leaves_the_old_table(tmp_path):
    path = tmp_path / "a.csv"
    write_table(path, ["a"], [[1]])
    with (
        file_size_limit(1000),
        pytest.raises(RunFolderError, match=r"a\.csv cannot be written .*: free some space, or"),
    ):
        write_table(path, ["a"], [[i] for i in range(1000)])
    assert path.read_text() == "a\n1\n"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_record_that_does_not_fit_leaves_the_file_as_it_was(tmp_path):
    file = AppendedFile(tmp_path / "a")
    file.write(b"x" * 60)
    with file_size_limit(100), pytest.raises(RunFolderError, match="free some space"):
        file.write(b"y" * 60)  # 40 bytes of it fit
    assert (tmp_path / "a").read_bytes() == b"x" * 60
    file.write(b"z")  # there is room again
    file.close()
    assert (tmp_path / "a").read_bytes() == b"x" * 60 + b"z"
