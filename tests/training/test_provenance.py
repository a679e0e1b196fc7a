"""With what a run was made."""

import os
import subprocess

import pytest

from metarl.training import provenance


def test_fields_of_the_first_processor():
    text = "processor\t: 0\nmodel name\t: A: B\nflags\t: fma avx2\n\nprocessor\t: 1\n"
    expected = {"processor": "0", "model name": "A: B", "flags": "fma avx2"}
    assert provenance.cpu_fields(text) == expected


def test_every_fact_about_the_machine_is_known():
    assert all(provenance.describe_machine().values())


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with one commit, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in [one for one in os.environ if one.startswith("GIT_")]:
        monkeypatch.delenv(name)
    (tmp_path / "a.txt").write_text("one")
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b"]):
        more = ["commit", "-q", "-m", "x"] if words[0] == "-c" else []
        subprocess.run(["git", *words, *more], check=True)
    return tmp_path


def test_the_state_of_a_repository(repository):
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    assert provenance.git_state() == {
        "commit": head.stdout.strip(),
        "uncommitted_changes": False,
    }
    (repository / "a.txt").write_text("two")
    assert provenance.git_state()["uncommitted_changes"]


def test_a_folder_without_a_commit_has_no_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_state() is None


PROGRAMS = {
    "monitor": "[core]\n\tfsmonitor = {run}\n",
    "filter": '[filter "evil"]\n\tclean = {run}\n\trequired = true\n',
    "process": '[filter "evil"]\n\tprocess = {run}\n\tclean = {run}\n',
    "equals sign": '[filter "a=b.clean"]\n\tclean = {run}\n',
    "included": "[include]\n\tpath = ../more\n",
    "remote": '[extensions]\n\tpartialClone = origin\n[remote "origin"]\n\turl = ext::{run}\n'
    '\tpromisor = true\n[protocol "ext"]\n\tallow = always\n',
    "upload": '[extensions]\n\tpartialClone = origin\n[remote "origin"]\n\turl = .\n'
    "\tuploadpack = {run}\n\tpromisor = true\n",
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_no_program_that_a_repository_names_is_executed(repository, kind):
    log = repository.parent / f"{repository.name}-executed"
    program = repository / "evil"
    program.write_text(f"#!/bin/sh\ntouch {log}\n")
    program.chmod(0o755)
    settings = PROGRAMS[kind].format(run=program)
    (repository / "more").write_text(PROGRAMS["filter"].format(run=program))
    with (repository / ".git" / "config").open("a") as file:
        file.write(settings)
    name = "a=b.clean" if kind == "equals sign" else "evil"
    (repository / ".gitattributes").write_text(f"* filter={name}\n")
    os.utime(repository / "a.txt", (1, 1))  # so that git looks into the file
    if kind in ("remote", "upload"):
        for path in (repository / ".git" / "objects").glob("??/*"):
            path.chmod(0o644)
            path.unlink()
    state = provenance.git_state()
    assert not log.exists()
    assert state is None or state["uncommitted_changes"]
    subprocess.run(["git", "status", "--porcelain"], capture_output=True)
    assert log.exists() or kind in ("equals sign", "remote")  # else the test shows nothing
