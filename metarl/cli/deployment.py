"""The commands that pass a trained agent on: export, card, push and pull."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tyro

from metarl.cli.modules import import_for_run
from metarl.cli.terminal import SUCCESS, parse, print_text, shell_command

# NOTE: each command imports the modules that it needs when it runs, so that --help is fast.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Writes one acting step of a run's agent as a graph of torch.export, or of ONNX.

    `torch.export.load(FILE).module()` runs it without metarl, and a file with the ending .onnx runs
    without torch: percept and memory to the parameters of the action distribution, the most likely
    action and the next memory. Example:

      metarl export runs/bandit --out policy.onnx
    """

    run: tyro.conf.Positional[Path]
    """run folder, as printed by `metarl train`"""
    out: Path = Path("policy.pt2")
    """the file, with the ending .pt2 or .onnx"""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """a module that defines the task or the agent, and that you trust: it is imported, from the
    current folder if it is not installed; may be repeated"""


def _export(arguments: Sequence[str]) -> int:
    command = parse(ExportCommand, arguments, "export")
    import_for_run(command.module, command.run)
    from metarl.deployment.export import export_policy

    print_text(str(export_policy(command.run, command.out)))
    return SUCCESS


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardCommand:
    """Writes a model card of a run: how it was trained, and what its last evaluation measured.

    The form is that of Hugging Face: README.md with a header of YAML.
    """

    run: tyro.conf.Positional[Path]
    """run folder, as printed by `metarl train`"""
    share: Path | None = None
    """make this folder, with the card, config.json, and the weights without the optimiser; by
    default the card is written into the run folder"""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """a module that defines the task or the agent, and that you trust: it is imported, from the
    current folder if it is not installed; may be repeated"""


def _card(arguments: Sequence[str]) -> int:
    command = parse(CardCommand, arguments, "card")
    import_for_run(command.module, command.run)
    from metarl.evaluation.card import write_card

    print_text(str(write_card(command.run, share=command.share)))
    return SUCCESS


@dataclasses.dataclass(frozen=True, kw_only=True)
class PushCommand:
    """Sends a run to the Hugging Face Hub: settings, weights, model card, tables of evaluations.

    Log in by `hf auth login` before. Example:

      metarl push runs/bandit ada/rl2-bandit
    """

    run: tyro.conf.Positional[Path]
    """run folder, as printed by `metarl train`"""
    repository: tyro.conf.Positional[str]
    """USER/NAME; it is made if it does not exist"""
    public: bool = False
    """a repository that is made can be read by all"""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """a module that defines the task or the agent, and that you trust: it is imported, from the
    current folder if it is not installed; may be repeated"""


def _push(arguments: Sequence[str]) -> int:
    command = parse(PushCommand, arguments, "push")
    import_for_run(command.module, command.run)
    from metarl.hub import push

    print_text(push(command.run, command.repository, public=command.public))
    return SUCCESS


@dataclasses.dataclass(frozen=True, kw_only=True)
class PullCommand:
    """Fetches a run from the Hugging Face Hub into a new folder, and checks it; executes nothing.

    Only files that a run has are fetched. Example:

      metarl pull ada/rl2-bandit --out runs/ada
    """

    repository: tyro.conf.Positional[str]
    """USER/NAME"""
    out: Path | None = None
    """the new folder; by default runs/NAME"""
    revision: str | None = None
    """a branch, tag or commit; by default the newest"""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """a module that defines the task or the agent, and that you trust: it is imported, from the
    current folder if it is not installed; may be repeated"""


def _pull(arguments: Sequence[str]) -> int:
    command = parse(PullCommand, arguments, "pull")
    import_for_run(command.module, command.out or Path("runs"))
    from metarl.hub import pull

    run = pull(command.repository, out=command.out, revision=command.revision)
    print_text(f"{run.config.agent} on {run.config.family}, seed {run.config.seed}: {run.path}")
    print_text(f"Evaluate it in test tasks:\n  {shell_command('evaluate', run.path)}")
    return SUCCESS


DEPLOYMENT: Mapping[str, Callable[[Sequence[str]], int]] = {
    "export": _export,
    "card": _card,
    "push": _push,
    "pull": _pull,
}
