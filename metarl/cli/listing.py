"""The command `metarl list`: what is installed, one line each, or all about one name.

Options are read without importing families and agents, except for the spaces of a family that is
named.
"""

import dataclasses
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tyro

from metarl import registry
from metarl.cli.modules import find_named
from metarl.cli.terminal import SUCCESS, parse, print_text
from metarl.errors import MetaRLError, UnknownNameError
from metarl.field_types import option_name, suggestions
from metarl.modules import split_module
from metarl.options import plain_options
from metarl.results.adaptation_curves import describe_family
from metarl.results.run_config import read_config
from metarl.training import zoo

MAX_SPACE_LENGTH = 200
"""characters shown of a space"""
TEXT_WIDTH = 78
"""of wrapped texts"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Lists the installed task families, agents and memories.

    What is named is shown with its options and presets, and a family with its spaces. These depend
    on the options, so the family is made, which loads torch.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """of families, agents or memories to show; by default a list of all"""
    zoo: bool = False
    """list the trained agents that come with metarl, to be given as zoo:NAME"""


def list_names(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(ListOptions, arguments, "list")
    if options.zoo:
        _print_zoo()
        return SUCCESS
    names = options.names
    for name in names:
        print_text("\n    ".join(_details(name)))
    if not names:
        print_overview()
        print_text("`metarl list NAME` shows the options and presets of one.")
    return SUCCESS


def print_overview(*, agents: bool = True) -> None:
    """One line for each family, and for each agent and memory if wanted."""
    print_section("Task families:", registry.task_ids(), lambda n: registry.declared_family(n)[0])
    if agents:
        print_section("Agents:", registry.agent_names(), registry.declared_agent)
        title = "Memories of agents that adapt in memory (--memory NAME):"
        print_section(title, registry.memory_names(), registry.declared_memory)


def print_section(title: str, names: Sequence[str], declared: Callable[[str], type[Any]]) -> None:
    """A title, one line for each name that can be imported, and one for each reason why not."""
    print_text(title)
    width = max(map(len, names), default=0)
    missing: dict[str, list[str]] = {}
    for name in names:
        try:
            print_text(f"  {name:{width}}  {first_line(declared(name))}")
        except Exception as error:  # one broken package must not hide the others
            reason = str(error) if isinstance(error, MetaRLError) else repr(error)
            missing.setdefault(reason, []).append(name)
    for reason, owners in missing.items():
        print_text(f"  cannot be imported: {', '.join(owners)}: {reason}")


def _print_zoo() -> None:
    print_text("Trained agents; `metarl evaluate zoo:NAME`, metarl.load_policy('zoo:NAME'):")
    for name in zoo.zoo_names():
        config = read_config(zoo.run_path(zoo.PREFIX + name))
        family = describe_family(config["task"], config["task_options"])
        print_text(f"  zoo:{name}\n    {config['agent']} on {family}, seed {config['seed']}")


def first_line(cls: type[Any]) -> str:
    """The first line of a docstring."""
    return (cls.__doc__ or "").strip().partition("\n")[0]


def preset_lines(preset: registry.Preset, name: str) -> list[str]:
    """A preset in wrapped lines: its name, the values that it sets, and what to expect of it."""
    options = {f"task.{option}": value for option, value in preset.task_options.items()}
    values = " ".join(f"{n}={v}" for n, v in {**options, **preset.agent_options}.items())
    return [name, *_indented(f"{values or 'the defaults'}"), *_indented(f"({preset.note})")]


def _indented(text: str) -> list[str]:
    indent = " " * 4
    return textwrap.wrap(text, TEXT_WIDTH, initial_indent=indent, subsequent_indent=indent)


def _details(name: str) -> Iterator[str]:
    """The lines about a family, an agent or a memory."""
    if name in registry.memory_names():
        yield name
        yield from _option_lines(registry.declared_memory(name), "--memory-options {} {}", {})
        return
    if split_module(name)[1] in registry.agent_names():
        find_named(name)
        cls = registry.declared_agent(name)
        yield name
        yield from _option_lines(cls, "--{} {}", {})
        yield from _presets(lambda preset: preset.agent == split_module(name)[1])
        return
    find_named(name)
    cls, registered = _declared_family(name)
    yield name
    values = plain_options(registry.build_family(cls, registered))
    yield from _option_lines(cls, "--task.{} {}", values)
    yield from _spaces(name)
    yield from _presets(lambda preset: preset.task == split_module(name)[1])


def _declared_family(name: str) -> tuple[type[Any], dict[str, Any]]:
    """As `registry.declared_family`; a short name of nothing may be meant for an agent, too."""
    try:
        return registry.declared_family(name)
    except UnknownNameError:
        if "/" in name or ":" in name:
            raise
    known = [*registry.agent_names(), *registry.memory_names(), *registry.task_ids()]
    raise UnknownNameError(
        f"No agent, memory or task family is called {name!r}.{suggestions(name, known)} "
        "`metarl list` names them all."
    )


def _option_lines(cls: type[Any], form: str, values: Mapping[str, Any]) -> Iterator[str]:
    """The first line of the docstring, and each option with its default."""
    yield first_line(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        name, default = option_name(field), field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        text = form.format(name.replace("_", "-"), values.get(name, default))
        yield f"{text:34} {field.metadata.get('help', '')}".rstrip()


def _spaces(task_id: str) -> Iterator[str]:
    family = registry.make_family(task_id)
    for name in ("observation", "action", "task"):
        text = textwrap.shorten(str(getattr(family, f"{name}_space")), MAX_SPACE_LENGTH)
        yield f"{name:12} {text}"


def _presets(is_wanted: Callable[[registry.Preset], bool]) -> Iterator[str]:
    for preset in registry.all_presets():
        if is_wanted(preset):
            command = f"metarl train {preset.agent} {preset.task} --preset {preset.name}"
            yield from preset_lines(preset, command)
