"""The page of the API: public names go in, what Sphinx's autodoc reads comes out."""

import importlib
import inspect
from importlib.util import find_spec
from typing import Any

from _docstrings import alias_text, first_line, linked, public_names
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

HOMES = {
    "metarl.tasks.family": "Task families",
    "metarl.agent": "Agents and policies",
    "metarl.registry": "Names",
    "metarl.training.loop": "Training",
    "metarl.training.run_folder": "Run folders",
    "metarl.results.learning_curves": "Learning curves",
    "metarl.evaluation.agents": "Evaluation",
    "metarl.results.curves": "Curves",
    "metarl.results.comparison": "Comparison",
    "metarl.results.bootstrap": "Uncertainty",
    "metarl.plots.plot": "Pictures",
    "metarl.rollout": "The engine",
    "metarl.trajectory": "Experience",
    "metarl.tasks.batched_env": "Worlds",
    "metarl.bridges.varied_env": "Environments that vary",
    "metarl.bridges.trial_wrapper": "Trials as episodes",
    "metarl.bridges.trial_env": "Trials as episodes, batched",
    "metarl.bridges.sb3_vec_env": "stable-baselines3: environments",
    "metarl.bridges.sb3_policy": "stable-baselines3: models",
    "metarl.evaluation.policies": "Evaluation of any policy",
    "metarl.video.record": "Films",
    "metarl.seeding": "Randomness",
    "metarl.training.process": "The processor",
}
"""modules in the order in which one meets them; those not named here follow"""
BESIDE = {
    "metarl.training.loop": ["RunOptions"],
    "metarl.training.run_folder": ["RunConfig", "Progress"],
    "metarl.bridges.sb3_vec_env": ["FamilyVecEnv"],
    "metarl.bridges.sb3_policy": ["SB3Policy"],
}
"""what public functions take, though `metarl` itself does not show it"""
WHOLE = ("metarl.testing", "metarl.errors")
"""modules of which all is public, as far as they exist"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers how names are looked up."""
    app.connect("missing-reference", _by_last_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def api() -> str:
    """Every public name, by the module it lives in."""
    homes: dict[str, list[str]] = {home: [] for home in HOMES}
    for name, home in sorted(public_names().items()):
        homes.setdefault(home, []).append(name)
    parts = []
    for home, names in homes.items():
        module = importlib.import_module(home)
        if names:
            parts += [f"## {HOMES.get(home, home)}", linked(first_line(module))]
            parts += [_directive(module, "metarl", name) for name in names]
            parts += [
                _directive(module, module.__name__, name)
                for name in BESIDE.get(home, ())
                if name not in names
            ]
    for whole in filter(find_spec, WHOLE):
        module = importlib.import_module(whole)
        names = getattr(module, "__all__", None) or _defined_in(module)
        parts += [f"## {whole}", linked(first_line(module))]
        parts += [_directive(module, whole, name) for name in names]
    return "\n\n".join(parts) + "\n"


def _defined_in(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _directive(module: Any, shown_in: str, name: str) -> str:
    """What documents one name, in reStructuredText."""
    value = getattr(module, name)
    if inspect.isclass(value) and value.__module__.startswith("metarl."):
        if issubclass(value, BaseException):
            lines = [f".. autoexception:: {shown_in}.{name}", "   :show-inheritance:"]
        else:
            lines = [f".. autoclass:: {shown_in}.{name}"]
    elif inspect.isfunction(value):
        lines = [f".. autofunction:: {shown_in}.{name}"]
    else:  # another name for a type
        text = alias_text(module, name).replace("`", "``")
        meaning = str(value).replace("typing.", "")
        lines = [f".. py:type:: {shown_in}.{name}", f"   :canonical: {meaning}", "", f"   {text}"]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def _by_last_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Docstrings and annotations name things by their last name: finds the one that has it."""
    if node.get("refdomain") != "py":
        return None
    last = node["reftarget"].rpartition(".")[2]
    known = env.domains.python_domain.objects
    found = {known[name].node_id: name for name in known if name.rpartition(".")[2] == last}
    if len(found) != 1:
        return None
    (name,) = found.values()
    there = known[name]
    return nodes.reference(
        "",
        "",
        content,
        internal=True,
        refuri=f"{app.builder.get_relative_uri(node['refdoc'], there.docname)}#{there.node_id}",
        reftitle=name,
    )
