"""Runs on the Hugging Face Hub, an extra: what others need to use an agent is sent, or fetched.

Only files with known names travel. What is fetched is checked like any run of someone else, and
nothing of it is executed.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metarl.errors import ConfigError, HubError, RunFolderError
from metarl.evaluation.card import CARD_FILE, write_card
from metarl.extras import require_extra
from metarl.field_types import checks_arguments
from metarl.results.evaluation_files import ADAPTATION_FILES, SETTINGS_FILE, is_evaluated
from metarl.results.files import as_folder_error, atomic_write
from metarl.results.learning_curves import EVALUATION_CURVE_FILE
from metarl.results.reading import require_file, shortened
from metarl.text import visible
from metarl.training.checkpoint import CHECKPOINT_FILE
from metarl.training.run_folder import Run, as_run, load_run
from metarl.training.torch_defaults import torch_defaults
from metarl.training.zoo import results_path

CONFIG_FILE = "config.json"
TABLES = (*ADAPTATION_FILES.values(), SETTINGS_FILE, EVALUATION_CURVE_FILE)
"""of evaluations; a run may lack them"""
LOCAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)
"""a full disk, and places that may not be written"""
MAX_BYTES: Mapping[str, int] = {
    CONFIG_FILE: 10_000_000,
    CHECKPOINT_FILE: 4_000_000_000,
    CARD_FILE: 1_000_000,
    **dict.fromkeys(TABLES, 500_000_000),
}
"""the files that are sent and fetched, and the largest size of each"""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@checks_arguments("repository", "public")
@torch_defaults()
def push(
    run: Run | str | os.PathLike[str],
    repository: str,
    *,
    public: bool = False,
    modules: Sequence[str] = (),
) -> str:
    """Sends a run to the Hugging Face Hub: settings, weights, model card and tables of evaluations.

    The files are those of `write_card(run, share=...)`, and `adaptation.csv` (or `.parquet`),
    `evaluation.json` and `evaluation_curve.csv` where the run has them.

    Args:
        run: a run or its folder.
        repository: such as "user/name"; it is made if it does not exist.
        public: a repository that is made can be read by all.
        modules: modules that define the task or the agent and that you trust; see `load_run`.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: huggingface_hub is not installed, this is no name of a repository, or the agent
            has no weights apart from its optimiser.
        RunFolderError: there is no run in this folder, or a table is a link.
        CheckpointError: the run is not trained yet, or its checkpoint is broken.
        HubError: there is no login, it may not write there, or the Hub cannot be reached.
    """
    hub = _hub(repository)
    run = as_run(run, modules=modules)
    with _draft_folder(None, "metarl-push-") as parent:
        folder = parent / repository.partition("/")[2]
        write_card(run, share=folder)
        for name in TABLES:
            _copy_table(results_path(run.path) / name, folder / name)
        api = hub.HfApi()
        with _as_hub_error(hub, repository):
            made = api.create_repo(repository, private=not public, exist_ok=True)
            api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                allow_patterns=sorted(MAX_BYTES),
                delete_patterns=_other_tables(folder),
                commit_message=f"{run.config.agent} on {run.config.task}, seed {run.config.seed}",
            )
    return visible(made)


@checks_arguments("repository", "out", "revision")
@torch_defaults()
def pull(
    repository: str,
    *,
    out: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    modules: Sequence[str] = (),
) -> Run:
    """Fetches a run from the Hugging Face Hub into a new folder.

    Args:
        repository: such as "user/name".
        out: the new folder; by default runs/NAME.
        revision: a branch, tag or commit; by default the newest.
        modules: modules that define the task or the agent and that you trust; see `load_run`.

    Returns:
        The run. Its agent was built and its weights were loaded, to check them.

    Raises:
        ConfigError: huggingface_hub is not installed, or this is no name of a repository.
        RunFolderError: the folder exists, a file is damaged, or it names a module that is not
            imported.
        CheckpointError: the weights are damaged, or of another agent.
        HubError: there is no such repository, it is private, it holds no run or too large files, or
            the Hub cannot be reached.
    """
    hub = _hub(repository)
    folder = Path("runs") / repository.partition("/")[2] if out is None else Path(out).expanduser()
    with as_folder_error(folder):
        if os.path.lexists(folder):
            raise RunFolderError(
                f"{folder} exists, and a run is fetched into a new folder. Name one with --out."
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
    with _draft_folder(folder.parent, ".pull-") as parent:
        draft = parent / folder.name
        with as_folder_error(folder):
            draft.mkdir()
        with _as_hub_error(hub, repository):
            _download(hub.HfApi(), repository, revision, parent, draft)
        fetched = load_run(draft, modules=modules)
        fetched.load(fetched.make_agent(fetched.config.make_family()))
        with as_folder_error(folder):
            draft.rename(folder)
    return load_run(folder)


def _download(api: Any, repository: str, revision: str | None, parent: Path, draft: Path) -> None:
    """Fetches the known files of one commit, each into its place in `draft`."""
    found = api.model_info(repository, revision=revision, files_metadata=True)
    sizes = {each.rfilename: each.size for each in found.siblings or ()}
    wanted = [name for name in MAX_BYTES if name in sizes]
    if missing := sorted({CONFIG_FILE, CHECKPOINT_FILE} - set(wanted)):
        raise HubError(f"{repository} holds no run of metarl: it lacks {' and '.join(missing)}.")
    for name in wanted:
        if sizes[name] is None or sizes[name] > MAX_BYTES[name]:
            raise HubError(
                f"{repository} has a {name} of {sizes[name]} bytes; that of a run has at most "
                f"{MAX_BYTES[name]:,}. Nothing was fetched."
            )
    for name in wanted:
        path = api.hf_hub_download(
            repository, name, revision=found.sha, local_dir=parent / "download"
        )
        require_file(Path(path))
        if os.path.getsize(path) != sizes[name]:
            raise HubError(f"{name} of {repository} was not fetched whole. Try again.")
        _copy(Path(path), draft / name)


def _other_tables(folder: Path) -> list[str]:
    """The tables of an earlier push that `folder` replaces by one of another form."""
    names = ADAPTATION_FILES.values() if is_evaluated(folder) else ()
    return [name for name in names if not (folder / name).exists()]


def _copy_table(source: Path, target: Path) -> None:
    require_file(source)
    if source.is_symlink():
        raise RunFolderError(f"{source} is a link, which may lead to any file. Remove it.")
    if source.exists():
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    """Copies a file: whole, or not at all."""
    with atomic_write(target) as draft:
        try:
            file = source.open("rb")
        except OSError as error:
            raise RunFolderError(f"{source} cannot be read: {error.strerror}.") from error
        with file, draft.open("wb") as copy:
            shutil.copyfileobj(file, copy)


@contextmanager
def _draft_folder(parent: Path | None, prefix: str) -> Iterator[Path]:
    """A folder that is removed afterwards, by default in the system's one for temporary files."""
    with as_folder_error(Path(parent or "The folder for temporary files")):
        made = tempfile.TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True)
    with made as name:
        yield Path(name)


def _hub(repository: str) -> Any:
    if not _REPOSITORY.fullmatch(repository):
        raise ConfigError(
            f"{repository!r} is no name of a repository on the Hugging Face Hub. Give USER/NAME."
        )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    need = "The Hugging Face Hub needs the package huggingface_hub"
    require_extra("huggingface_hub.errors", "hub", need)
    return require_extra("huggingface_hub", "hub", need)


@contextmanager
def _as_hub_error(hub: Any, repository: str) -> Iterator[None]:
    """Converts the errors of the Hub to one that says what to do."""
    errors = hub.errors
    login = "Log in by `hf auth login`, or set HF_TOKEN."
    try:
        yield
    except (HubError, RunFolderError):
        raise
    except errors.LocalTokenNotFoundError as error:
        raise HubError(f"There is no login of the Hugging Face Hub. {login}") from error
    except errors.GatedRepoError as error:
        raise HubError(f"{repository} is gated: ask for access on its page first.") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{repository} has no such revision.") from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"The Hugging Face Hub has no {repository}, or it is private and your login may not "
            f"read it. {login}"
        ) from error
    except errors.HfHubHTTPError as error:
        code = getattr(error.response, "status_code", None)
        reason = "your login may not do this" if code in (401, 403) else shortened(error)
        raise HubError(f"{repository} on the Hugging Face Hub: {reason}. {login}") from error
    except OSError as error:
        # Those of connections are of this type, too, but name no file.
        if error.filename is not None or error.errno in LOCAL_ERRORS:
            raise RunFolderError(f"The files cannot be written: {shortened(error)}.") from error
        raise _unreachable(error) from error
    except Exception as error:  # of the connection; the library for it differs by version
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> HubError:
    reason = f"{type(error).__name__}: {shortened(error)}"
    return HubError(f"The Hugging Face Hub cannot be reached: {reason}")
