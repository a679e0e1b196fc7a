"""The commands that pass a trained agent on: export and card."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tyro

from metarl.cli.modules import import_for_run
from metarl.cli.terminal import SUCCESS, parse, print_text

# NOTE: each command imports the modules that it needs when it runs, so that --help is fast.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Writes one acting step of a run's agent as a graph of torch.export.

    `torch.export.load(FILE).module()` runs it without metarl: percept and memory to the parameters
    of the action distribution, the most likely action and the next memory.
    """

    run: tyro.conf.Positional[Path]
    """run folder, as printed by `metarl train`"""
    out: Path = Path("policy.pt2")
    """the file"""
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


DEPLOYMENT: Mapping[str, Callable[[Sequence[str]], int]] = {"export": _export, "card": _card}
