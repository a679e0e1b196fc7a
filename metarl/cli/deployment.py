"""The commands that use a trained agent outside the engine: export."""

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


DEPLOYMENT: Mapping[str, Callable[[Sequence[str]], int]] = {"export": _export}
