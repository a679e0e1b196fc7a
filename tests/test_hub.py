"""Runs on the Hugging Face Hub, whose interface is replaced by a folder: nothing is sent."""

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import metarl
from metarl.cli import main as cli
from metarl.errors import CheckpointError, ConfigError, HubError, RunFolderError
from metarl.training.loop import train
from tests.file_limits import file_size_limit
from tests.training.test_loop import state_of

BANDIT = "metarl/BernoulliBandit-v0"
SMALL = {"num_tasks": 8, "hidden_size": 8, "iterations": 2, "progress": False}
NAMES = {"README.md", "checkpoint.safetensors", "config.json"}
TABLES = {"adaptation.csv", "evaluation.json"}


class FakeApi:
    """Keeps repositories in folders, and records the calls."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls, self.sizes, self.error = root, [], {}, None

    def create_repo(self, repo_id, *, private, exist_ok):
        self._call("create", repo_id, private)
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(
        self, *, repo_id, folder_path, allow_patterns, delete_patterns, commit_message
    ):
        self._call("upload", repo_id, commit_message)
        for name in delete_patterns:
            (self.root / repo_id / name).unlink(missing_ok=True)
        for path in Path(folder_path).iterdir():
            if path.name in allow_patterns:
                shutil.copy(path, self.root / repo_id)

    def model_info(self, repo_id, *, revision, files_metadata):
        self._call("info", repo_id, revision)
        files = [
            SimpleNamespace(
                rfilename=str(path.relative_to(self.root / repo_id)),
                size=self.sizes.get(path.name, path.stat().st_size),
            )
            for path in (self.root / repo_id).rglob("*")
            if path.is_file()
        ]
        return SimpleNamespace(siblings=files, sha="c0ffee")

    def hf_hub_download(self, repo_id, filename, *, revision, local_dir):
        self._call("download", filename, revision)
        Path(local_dir).mkdir(exist_ok=True)
        return str(shutil.copy(self.root / repo_id / filename, local_dir))

    def _call(self, *call):
        self.calls.append(call)
        if self.error is not None:
            raise self.error


@pytest.fixture
def api(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")
    made = FakeApi(tmp_path / "hub")
    monkeypatch.setattr(hub, "HfApi", lambda: made)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def run(tmp_path):
    return train("rl2", BANDIT, out=tmp_path / "run", **SMALL)


def test_a_run_is_pushed_and_pulled_with_its_tables(api, run, tmp_path):
    metarl.evaluate(run, num_tasks=5, references=["random"])
    metarl.plot([run])
    (run.path / "secret.py").write_text("raise SystemExit")
    assert metarl.push(run, "ada/rl2-bandit") == "https://huggingface.co/ada/rl2-bandit"
    assert api.calls[0] == ("create", "ada/rl2-bandit", True)  # private
    sent = {path.name for path in (tmp_path / "hub/ada/rl2-bandit").iterdir()}
    assert sent == NAMES | TABLES
    pulled = metarl.pull("ada/rl2-bandit")
    assert pulled.path == Path("runs/rl2-bandit")
    assert {path.name for path in pulled.path.iterdir()} == sent
    assert [path.name for path in Path("runs").iterdir()] == ["rl2-bandit"]
    ours, theirs = state_of(run), state_of(pulled)
    weights = [name for name in theirs if name != "updates"]
    assert weights
    assert all((ours[name] == theirs[name]).all() for name in weights)
    metarl.load_policy(pulled).begin_trial()
    assert len(metarl.compare([pulled]).rows) == 2


def test_a_table_of_another_form_replaces_that_of_an_earlier_push(api, run, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
    metarl.evaluate(run, num_tasks=5, references=False)
    metarl.push(run, "ada/one")
    metarl.evaluate(run, num_tasks=5, references=False, table="parquet")
    metarl.push(run, "ada/one")
    sent = {path.name for path in (tmp_path / "hub/ada/one").iterdir()}
    assert sent == NAMES | {"adaptation.parquet", "evaluation.json"}
    assert len(metarl.compare([metarl.pull("ada/one")]).rows) == 1


def test_what_a_run_does_not_have_is_not_fetched(api, run, tmp_path):
    metarl.push(run, "ada/one", public=True)
    assert api.calls[0] == ("create", "ada/one", False)
    folder = tmp_path / "hub/ada/one"
    (folder / "evil.py").write_text("raise SystemExit")
    (folder / "checkpoint.pkl").write_text("")
    (folder / "nested").mkdir()
    (folder / "nested" / "config.json").write_text("{}")
    pulled = metarl.pull("ada/one", out=tmp_path / "mine", revision="v1")
    assert {path.name for path in pulled.path.iterdir()} == NAMES
    fetched = [call for call in api.calls if call[0] == "download"]
    assert {name for _, name, _ in fetched} == NAMES
    assert {revision for *_, revision in fetched} == {"c0ffee"}  # one commit, whatever is pushed
    assert ("info", "ada/one", "v1") in api.calls


def edit(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("checkpoint.safetensors", b"no tensors", CheckpointError, "checkpoint"),
        ("config.json", b"{", RunFolderError, r"config\.json"),
        ("config.json", b'{"format": "metarl-run-3", "agent": "evil:x"}', RunFolderError, "config"),
    ],
)
def test_a_damaged_run_is_refused_and_leaves_no_folder(
    api, run, tmp_path, name, content, kind, message
):
    metarl.push(run, "ada/one")
    edit(tmp_path / "hub/ada/one", name, content)
    with pytest.raises(kind, match=message):
        metarl.pull("ada/one")
    assert [*Path("runs").iterdir()] == []


@pytest.mark.parametrize("room", [0, 0.5])
@pytest.mark.parametrize("name", ["config.json", "checkpoint.safetensors", "adaptation.csv"])
def test_a_run_that_does_not_fit_is_one_error_and_leaves_no_folder(
    api, run, monkeypatch, name, room
):
    metarl.evaluate(run, num_tasks=40, references=False)
    metarl.push(run, "ada/one")

    def fetched_elsewhere(repo_id, filename, *, revision, local_dir):
        return str(api.root / repo_id / filename)

    monkeypatch.setattr(api, "hf_hub_download", fetched_elsewhere)
    size = (api.root / "ada/one" / name).stat().st_size
    with (
        file_size_limit(int(size * room)),
        pytest.raises(RunFolderError, match=r"cannot be written \(File too large\): free some"),
    ):
        metarl.pull("ada/one")
    assert [*Path("runs").iterdir()] == []
    assert metarl.pull("ada/one").path == Path("runs/one")


def test_a_download_that_does_not_fit_is_no_error_of_the_connection(api, run):
    metarl.push(run, "ada/one")
    with file_size_limit(100), pytest.raises(RunFolderError, match="The files cannot be written"):
        metarl.pull("ada/one")
    assert [*Path("runs").iterdir()] == []


@pytest.mark.parametrize("out", ["/proc/nothing/one", "file/one", "n" * 300])
def test_a_folder_that_cannot_be_made_is_one_error(api, run, capsys, out):
    Path("file").write_text("")
    metarl.push(run, "ada/one")
    with pytest.raises(RunFolderError, match="cannot be written"):
        metarl.pull("ada/one", out=out)
    assert cli.main(["pull", "ada/one", "--out", out]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_dangling_link_is_not_replaced(api, run):
    metarl.push(run, "ada/one")
    Path("mine").symlink_to("nothing")
    with pytest.raises(RunFolderError, match="a run is fetched into a new folder"):
        metarl.pull("ada/one", out="mine")
    assert Path("mine").is_symlink()


def test_what_is_sent_needs_room_for_a_copy(api, run, monkeypatch):
    metarl.evaluate(run, num_tasks=400, references=False)
    size = (run.path / "adaptation.csv").stat().st_size
    with file_size_limit(size - 1), pytest.raises(RunFolderError, match="free some space"):
        metarl.push(run, "ada/one")
    monkeypatch.setattr("tempfile.tempdir", "/proc/nothing")
    with pytest.raises(RunFolderError, match="temporary files cannot be written"):
        metarl.push(run, "ada/one")
    assert api.calls == []


@pytest.mark.parametrize(
    ("size", "message"),
    [(10**10, "has at most 10,000,000. Nothing was fetched"), (None, "None bytes"), (3, "whole")],
)
def test_files_of_another_size_are_refused(api, run, size, message):
    metarl.push(run, "ada/one")
    api.sizes["config.json"] = size
    with pytest.raises(HubError, match=message):
        metarl.pull("ada/one")
    assert [*Path("runs").iterdir()] == []


def test_a_repository_of_something_else_is_refused(api, tmp_path):
    (tmp_path / "hub/ada/text").mkdir(parents=True)
    (tmp_path / "hub/ada/text/config.json").write_text("{}")
    with pytest.raises(HubError, match=r"holds no run of metarl: it lacks checkpoint\.safetensors"):
        metarl.pull("ada/text")


def test_an_existing_folder_is_not_overwritten(api, run):
    with pytest.raises(RunFolderError, match="a run is fetched into a new folder"):
        metarl.pull("ada/one", out=run.path)
    assert api.calls == []


def test_a_table_that_is_a_link_is_not_sent(api, run, tmp_path):
    (tmp_path / "secret").write_text("key")
    os.symlink(tmp_path / "secret", run.path / "adaptation.csv")
    with pytest.raises(RunFolderError, match="link"):
        metarl.push(run, "ada/one")
    assert api.calls == []


def http_error(kind, code):
    response = SimpleNamespace(
        status_code=code, headers={}, request=SimpleNamespace(url="", method="GET"), text=""
    )
    return kind("reason", response=response)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("RepositoryNotFoundError", 404, "has no ada/one, or it is private.*hf auth login"),
        ("GatedRepoError", 403, "is gated"),
        ("RevisionNotFoundError", 404, "no such revision"),
        ("HfHubHTTPError", 403, "your login may not do this.*hf auth login"),
        ("HfHubHTTPError", 500, "reason"),
    ],
)
def test_errors_of_the_hub_say_what_to_do(api, run, capsys, name, code, message):
    import huggingface_hub

    api.error = http_error(getattr(huggingface_hub.errors, name), code)
    for call in (lambda: metarl.pull("ada/one"), lambda: metarl.push(run, "ada/one")):
        with pytest.raises(HubError, match=message):
            call()
    assert cli.main(["pull", "ada/one"]) == 1
    assert "metarl:" in capsys.readouterr().err
    assert not Path("runs/one").exists()


def test_without_a_login_or_a_connection_the_error_says_so(api, run):
    import huggingface_hub

    api.error = huggingface_hub.errors.LocalTokenNotFoundError("no token")
    with pytest.raises(HubError, match=r"no login.*hf auth login"):
        metarl.push(run, "ada/one")
    api.error = ConnectionError("no route to host")
    with pytest.raises(HubError, match="cannot be reached: ConnectionError: no route to host"):
        metarl.push(run, "ada/one")


@pytest.mark.parametrize("name", ["one", "a/b/c", "../x", "ada/", "ada/..", "https://x/y"])
def test_other_names_are_refused(name, run):
    with pytest.raises(ConfigError, match="no name of a repository"):
        metarl.push(run, name)
    with pytest.raises(ConfigError, match="no name of a repository"):
        metarl.pull(name)


def test_a_missing_extra_is_reported(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for name in [one for one in sys.modules if one.split(".")[0] == "huggingface_hub"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert cli.main(["pull", "ada/one"]) == 2
    assert "pip install 'metarl-suite[hub]'" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_the_commands_push_and_pull(api, run, capsys):
    assert cli.main(["push", str(run.path), "ada/one"]) == 0
    assert capsys.readouterr().out == "https://huggingface.co/ada/one\n"
    assert cli.main(["pull", "ada/one", "--out", "mine"]) == 0
    printed = capsys.readouterr().out
    assert "rl2 on metarl/BernoulliBandit-v0 (arms=5, pulls=10), seed 0: mine" in printed
    assert cli.main(["evaluate", "mine", "--num-tasks", "5", "--no-progress"]) == 0
