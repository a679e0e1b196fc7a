"""Names of task families, agents and presets.

Task families are registered with Gymnasium, agents, memories and presets here. The module of an
object is imported when the object is first built. Its options can be read before (`declared_agent`
and the like), without torch.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium

from metarl import plugins
from metarl.declarations import declared_class
from metarl.errors import ConfigError, UnknownNameError
from metarl.field_types import (
    checks_arguments,
    kind_of,
    require_instance,
    require_known,
    require_types,
    suggestion,
)
from metarl.modules import import_module_of, split_module
from metarl.options import option_names, plain_options, require_storable, typed_options
from metarl.plugins import load_object

if TYPE_CHECKING:
    from metarl.agent import AgentConfig
    from metarl.networks.memory import MemoryOptions
    from metarl.tasks.family import TaskDistribution, TaskFamily

Family = TypeVar("Family", bound="TaskDistribution")

FAMILY_KEY = "family"
"""keyword in a Gymnasium spec that holds 'module:Class' of the task family"""
RESERVED = frozenset(
    (
        *(FAMILY_KEY, "render_mode", "id", "max_episode_steps", "disable_env_checker"),
        *("num_envs", "vectorization_mode", "vector_kwargs", "wrappers", "autoreset_mode"),
        "new_task",
    )
)
"""names that options of a task family cannot have, because `gymnasium.make` takes them"""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Tuned hyper-parameters of one agent for one size of one family."""

    agent: str
    """name of the agent"""
    task: str
    """id of the family"""
    name: str
    """such as `pulls-100`"""
    agent_options: Mapping[str, Any]
    """fields of the agent's configuration that differ from its defaults"""
    task_options: Mapping[str, Any] = field(default_factory=dict)
    """fields of the family that differ from its defaults"""
    note: str
    """expected result of the final model, and the training time"""

    def __post_init__(self) -> None:
        require_types(type(self), vars(self))


_NO_TASK = (
    "A task is given by its id, such as 'metarl/BernoulliBandit-v0', or as a built task family; "
    "got {}. Register a class of your own with metarl.register_family or gymnasium.register, and "
    "give its id."
)

_bridges: dict[str, str] = {}
_agents: dict[str, str] = {}
_memories: dict[str, str] = {}
_presets: dict[tuple[str, str], dict[str, Preset]] = {}


def connect_bridges(*, env: str, vector_env: str, family: str, options: str) -> None:
    """Sets the conversions between task families and Gymnasium, each as `'module:name'`.

    Bridges import the registry, so the registry refers to them by name and loads them when needed.

    Args:
        env: makes a `gymnasium.Env` from a family and its options.
        vector_env: makes a `gymnasium.vector.VectorEnv` from the same.
        family: makes a family class from the id of an ordinary environment.
        options: makes a dataclass with the fields of that class, without torch.
    """
    _bridges.update({"env": env, "vector env": vector_env, "family": family, "options": options})


def register_family(task_id: str, family: "str | type[TaskFamily]", /, **options: Any) -> None:
    """Registers a task family with Gymnasium under `task_id`.

    `gymnasium.make`, `gymnasium.make_vec`, `metarl.make_family` and the command line then accept
    the id. A class of a notebook or script may be registered again, as where a cell runs twice: the
    newest definition counts.

    Args:
        task_id: `namespace/Name-v0`.
        family: the class, or `'module:Class'`, which is imported when first used.
        options: fields of the family that differ from its defaults under this id.

    Raises:
        ConfigError: the id is taken, the class is not defined at the top level of its module, or
            the default of an option cannot be stored in a run folder.
    """
    require_instance("task_id", task_id, str, "a text, such as 'lab/Lever-v0'")
    require_instance("family", family, (str, type), "the class, or 'module:Class'")
    if not isinstance(family, str):
        require_options(family)
    path = family if isinstance(family, str) else _import_path(family)
    if task_id in gymnasium.registry:
        if not _is_repeated(path, gymnasium.registry[task_id].kwargs.get(FAMILY_KEY)):
            raise ConfigError(
                f"The id {task_id!r} is already registered with Gymnasium; choose another name or "
                "raise its version number."
            )
        del gymnasium.registry[task_id]
    gymnasium.register(
        task_id,
        entry_point=_bridges["env"],
        vector_entry_point=_bridges["vector env"],
        kwargs={FAMILY_KEY: path, **options},
        # A family counts its own steps, so the limit can follow its options; Gymnasium would put
        # the limit of the defaults around all of them. `TaskEnv.spec` holds the right one.
        max_episode_steps=None,
    )


def _is_repeated(path: str, registered: str | None) -> bool:
    """Whether a name is registered for the same class of a notebook or script once more."""
    return path == registered and path.partition(":")[0] == "__main__"


def require_options(family: "type[TaskFamily]") -> None:
    """Raises `ConfigError` unless the options of a family can be set, stored and read again."""
    if not dataclasses.is_dataclass(family):
        raise ConfigError(
            f"{family.__name__} is not a dataclass, so it has no options to store: write "
            "@dataclass(frozen=True, kw_only=True) above the class."
        )
    if taken := sorted(RESERVED & set(option_names(family))):
        raise ConfigError(
            f"{family.__name__} has the option {', '.join(taken)}, a name that gymnasium.make "
            f"takes itself; rename it. Reserved are {', '.join(sorted(RESERVED))}."
        )
    require_storable(family)


def _import_path(family: "type[TaskFamily]") -> str:
    """`'module:Class'`, by which any process can import the class."""
    if "." in family.__qualname__:
        raise ConfigError(
            f"The class {family.__qualname__} of {family.__module__} is defined inside a function "
            "or another class, but a family is imported by the name of its module and its class, "
            "also by other processes. Define it at the top level of the module."
        )
    return f"{family.__module__}:{family.__qualname__}"


@checks_arguments("name", "config")
def register_agent(name: str, config: str) -> None:
    """Registers an agent: its name and `'module:Class'` of its `AgentConfig`.

    Raises:
        ConfigError: the name is taken.
    """
    if name in _agents and not _is_repeated(config, _agents[name]):
        raise ConfigError(
            f"An agent called {name!r} is already registered: {_agents[name]}. Choose another name."
        )
    _agents[name] = config


@checks_arguments("name", "options")
def register_memory(name: str, options: str) -> None:
    """Registers a memory: its name and `'module:Class'` of its `MemoryOptions`.

    Raises:
        ConfigError: the name is taken.
    """
    if name in _memories and not _is_repeated(options, _memories[name]):
        raise ConfigError(
            f"A memory called {name!r} is already registered: {_memories[name]}. Choose another "
            "name."
        )
    _memories[name] = options


def memory_names() -> list[str]:
    """Names of all registered memories, in the order of registration."""
    return list(_memories)


def memory_options(name: str) -> "type[MemoryOptions]":
    """The options class of a memory.

    Raises:
        ConfigError: no memory has this name; the nearest is suggested.
    """
    if name not in _memories:
        raise ConfigError(
            f"memory={name!r} is not one of {', '.join(_memories)}.{suggestion(name, _memories)}"
        )
    options: type[MemoryOptions] = load_object(_memories[name])
    return options


def declared_memory(name: str) -> type[Any]:
    """A dataclass with docstring and fields of the options of a memory; loads no torch.

    See `metarl.declarations`.
    """
    return declared_class(_memories[name])


def make_memory_options(name: str, given: Mapping[str, Any]) -> "MemoryOptions":
    """The options of a memory, with some set.

    Raises:
        ConfigError: no memory has this name, it has no such option, or a value is of another
            type.
    """
    options = memory_options(name)
    require_known(f"The memory {name!r}", given, option_names(options))
    return options(**typed_options(options, given))


def register_preset(preset: Preset) -> None:
    """Registers a preset.

    Raises:
        ConfigError: this agent and family have a preset of that name.
    """
    require_instance("preset", preset, Preset, "metarl.Preset(...)")
    known = _presets.setdefault((preset.agent, preset.task), {})
    if preset.name in known:
        raise ConfigError(
            f"{preset.agent} on {preset.task} has a preset {preset.name!r} already. Choose another "
            "name."
        )
    known[preset.name] = preset


def presets(agent: str, task_id: str) -> Mapping[str, Preset]:
    """The presets of an agent on a family, by name; numbers in names are in the order of size."""
    known = _presets.get((split_module(agent)[1], split_module(task_id)[1]), {})
    return {name: known[name] for name in sorted(known, key=_by_size)}


def all_presets() -> list[Preset]:
    """All presets, by agent, family and name."""
    return [one for pair in sorted(_presets) for one in presets(*pair).values()]


def _by_size(name: str) -> list[tuple[str, int]]:
    """A key by which `episodes-3` comes before `episodes-10`."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def find_preset(agent: str, task_id: str, name: str) -> Preset:
    """The preset of this name.

    Raises:
        UnknownNameError: there is none; the message lists the existing ones.
    """
    require_instance("preset", name, str, "the name of a preset")
    known = presets(agent, task_id)
    if name not in known:
        raise UnknownNameError(
            f"{agent} on {task_id} has no preset {name!r}.{suggestion(name, known)} "
            f"Known: {', '.join(known) or 'none'}."
        )
    return known[name]


def task_ids() -> list[str]:
    """Sorted ids of all task families: registered ones, and the plugins' own environments."""
    packages = {module.partition(".")[0] for module in plugins.loaded}
    return sorted(
        name
        for name, spec in gymnasium.registry.items()
        if FAMILY_KEY in spec.kwargs or _package(spec.entry_point) in packages
    )


def _package(entry_point: Any) -> str:
    """The top-level package of an environment's entry point."""
    module = entry_point if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
    return str(module).partition(":")[0].partition(".")[0]


def agent_names() -> list[str]:
    """Names of all registered agents, sorted."""
    return sorted(_agents)


def agent_config(name: str) -> "type[AgentConfig]":
    """The configuration class of an agent.

    Args:
        name: its registered name, or `module:name` to import `module` first.

    Raises:
        UnknownNameError: no agent has this name; the message suggests the nearest.
    """
    config: type[AgentConfig] = load_object(_config_path(name))
    return config


def declared_agent(name: str) -> type[Any]:
    """A dataclass with docstring and fields of the configuration of an agent; loads no torch.

    See `metarl.declarations`.

    Raises:
        UnknownNameError: no agent has this name; the message suggests the nearest.
    """
    return declared_class(_config_path(name))


def _config_path(name: str) -> str:
    if not isinstance(name, str):
        raise ConfigError(
            f"An agent is given by its name, such as 'rl2', and its hyper-parameters as options; "
            f"got {kind_of(name)}. Call metarl.register_agent('name', 'your_module:Config') for "
            "one of your own, and give its name."
        )
    name = import_module_of(name, "agent")
    if name not in _agents:
        raise UnknownNameError(
            f"No agent is called {name!r}.{suggestion(name, _agents)} Known agents: "
            f"{', '.join(agent_names())}. For an agent of your own write 'your_module:name', so "
            "that the module that registers it is imported first."
        )
    return _agents[name]


def family_class(task_id: str) -> "tuple[type[TaskDistribution], dict[str, Any]]":
    """The family's class, and the options that are set by its id.

    An ordinary environment becomes a family: see `metarl.bridges.gym_family`.

    Args:
        task_id: `namespace/Name-v0`, or `module:namespace/Name-v0` to import `module` first.

    Raises:
        UnknownNameError: the id is not registered; the message suggests the nearest.
    """
    family: type[TaskDistribution]
    options = _registered_arguments(task_id)
    if FAMILY_KEY not in options:
        family = load_object(_bridges["family"])(task_id)
        return family, {}
    family = load_object(options.pop(FAMILY_KEY))
    return family, options


def declared_family(task_id: str) -> tuple[type[Any], dict[str, Any]]:
    """A dataclass with docstring and fields of a family, and the options that are set by its id.

    Torch is not loaded, except by an ordinary environment that needs it: see `metarl.declarations`.
    Arguments and errors are those of `family_class`.
    """
    options = _registered_arguments(task_id)
    if FAMILY_KEY not in options:
        return load_object(_bridges["options"])(task_id), {}
    return declared_class(options.pop(FAMILY_KEY)), options


def _registered_arguments(task_id: str) -> dict[str, Any]:
    """The constructor arguments in the Gymnasium spec of an id, after importing its module."""
    if not isinstance(task_id, str):
        raise ConfigError(_NO_TASK.format(kind_of(task_id)))
    name = import_module_of(task_id, "task")
    if name not in gymnasium.registry:
        raise UnknownNameError(
            f"No task environment is called {name!r}.{suggestion(name, task_ids())} For a task of "
            "your own write 'your_module:namespace/Name-v0', so that the module that registers it "
            "is imported first."
        )
    return dict(gymnasium.registry[name].kwargs)


def make_family(task_id: str, /, **options: Any) -> "TaskDistribution":
    """Builds a registered task family.

    Args:
        task_id: as in `gymnasium.make`.
        options: fields of the family, such as `arms=10`.

    Raises:
        UnknownNameError: unknown id.
        ConfigError: the family has no such option, or its value is out of range.
    """
    family, registered = family_class(task_id)
    return build_family(family, {**registered, **options})


def resolve_family(
    task: "str | TaskDistribution", options: Mapping[str, Any] | None = None
) -> "TaskDistribution":
    """The family itself, or the one that `make_family` builds from an id and its options.

    Args:
        task: a family, or the id of one.
        options: fields of the family, where `task` is an id.

    Raises:
        UnknownNameError: unknown id.
        ConfigError: options are given next to a family, or do not fit the id, or `task` is
            something else, such as a class or an environment.
    """
    require_instance("task_options", options or {}, Mapping, "a mapping of options by name")
    if isinstance(task, str):
        return make_family(task, **(options or {}))
    if not hasattr(type(task), "open_env"):
        raise ConfigError(_NO_TASK.format(kind_of(task)))
    if options:
        raise ConfigError(
            f"Got the options {', '.join(options)} and a {type(task).__name__} that is already "
            "built. Options are for a family given by its id; build the family with them instead."
        )
    return task


def build_family(family: str | type[Family], options: dict[str, Any]) -> Family:
    """Builds a family from its class (or `'module:Class'`) and its options."""
    cls: type[Family] = load_object(family) if isinstance(family, str) else family
    require_known(cls.__name__, options, option_names(cls))
    return cls(**typed_options(cls, options))


def name_of(family: "TaskDistribution") -> tuple[str, dict[str, Any]]:
    """The id and all options from which `make_family` builds an equal family.

    The id includes the module of a class outside the plugins, so that any process can import it.

    Raises:
        UnknownNameError: its class is not registered, so a run folder could not refer to it.
    """
    options = plain_options(family)
    if isinstance(env_id := getattr(family, "task_id", None), str):
        return env_id, options
    path = f"{type(family).__module__}:{type(family).__qualname__}"
    for task_id in task_ids():
        if gymnasium.registry[task_id].kwargs.get(FAMILY_KEY) == path:
            plugin = any(path.startswith(f"{module}.") for module in plugins.loaded)
            return task_id if plugin else f"{type(family).__module__}:{task_id}", options
    raise UnknownNameError(
        f"The family {path} is not registered, so a run could not be loaded again; call "
        f"metarl.register_family('your_namespace/{type(family).__name__}-v0', "
        f"{type(family).__name__}) first."
    )
