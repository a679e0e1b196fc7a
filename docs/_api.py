"""Generates the API page: autodoc directives for all public names."""

import importlib
import inspect
from importlib.util import find_spec
from typing import Any

from _docstrings import alias_text, first_line, linked, public_names
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

SECTIONS = {
    "metarl.training.loop": "Training",
    "metarl.training.seeds": "Training with several seeds",
    "metarl.training.callbacks": "Callbacks",
    "metarl.evaluation.periodic": "Evaluation in the course of training",
    "metarl.evaluation.card": "Model cards",
    "metarl.training.run_folder": "Run folders",
    "metarl.evaluation.agents": "Evaluation",
    "metarl.evaluation.policies": "Evaluation of any policy",
    "metarl.results.comparison": "Comparison",
    "metarl.plots.plot": "Plots",
    "metarl.reports.report": "Reports",
    "metarl.deployment.trained_policy": "Trained policies",
    "metarl.deployment.export": "Exported networks",
    "metarl.video.record": "Videos",
    "metarl.registry": "Registry",
    "metarl.tasks.family": "Task families",
    "metarl.split": "Splits of tasks",
    "metarl.agent": "Agents and policies",
    "metarl.results.learning_curves": "Learning curves",
    "metarl.results.adaptation_curves": "Curves",
    "metarl.results.bootstrap": "Uncertainty",
    "metarl.rollout": "Rollout engine",
    "metarl.trajectory": "Trajectories",
    "metarl.tasks.batched_env": "Batched environments",
    "metarl.bridges.varied_env": "Varied environments",
    "metarl.bridges.trial_wrapper": "Trials as episodes",
    "metarl.bridges.trial_env": "Trials as episodes, batched",
    "metarl.bridges.sb3_vec_env": "stable-baselines3: environments",
    "metarl.bridges.sb3_policy": "stable-baselines3: models",
    "metarl.deployment.sb3_predictor": "stable-baselines3: trained policies",
    "metarl.results.files": "Files that are written whole",
    "metarl.seeding": "Random streams",
    "metarl.noise": "Random streams of lanes",
    "metarl.training.process": "Process settings",
}
"""section titles by module, in the order of the page; other modules follow"""
ADDITIONAL = {
    "metarl.training.loop": ["RunOptions"],
    "metarl.training.run_folder": ["RunConfig", "Progress"],
    "metarl.evaluation.agents": ["EvaluationOptions"],
    "metarl.plots.plot": ["PlotOptions"],
    "metarl.reports.report": ["ReportOptions"],
    "metarl.video.record": ["VideoOptions"],
    "metarl.results.sweeps": ["SweepRecord", "SweepRow", "SweptSetting"],
    "metarl.agent": ["ShownTargets"],
    "metarl.deployment.sb3_predictor": ["LaneState", "LaneArrays"],
    "metarl.bridges.sb3_vec_env": ["FamilyVecEnv"],
    "metarl.bridges.sb3_policy": ["SB3Policy"],
}
"""names that public functions take or return but `metarl` does not export"""
PUBLIC_MODULES = ("metarl.testing", "metarl.errors")
"""modules in which every name is public; a missing module is skipped"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the resolver of cross-references."""
    app.connect("missing-reference", _by_last_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def api() -> str:
    """Every public name, by the module that defines it."""
    by_module: dict[str, list[str]] = {module: [] for module in SECTIONS}
    for name, module_name in sorted(public_names().items()):
        by_module.setdefault(module_name, []).append(name)
    parts = []
    for module_name, names in by_module.items():
        module = importlib.import_module(module_name)
        if names:
            parts += [f"## {SECTIONS.get(module_name, module_name)}", linked(first_line(module))]
            parts += [_directive(module, "metarl", name) for name in names]
            parts += [
                _directive(module, module.__name__, name)
                for name in ADDITIONAL.get(module_name, ())
                if name not in names
            ]
    for module_name in filter(find_spec, PUBLIC_MODULES):
        module = importlib.import_module(module_name)
        names = getattr(module, "__all__", None) or _defined_in(module)
        parts += [f"## {module_name}", linked(first_line(module))]
        parts += [_directive(module, module_name, name) for name in names]
    return "\n\n".join(parts) + "\n"


def _defined_in(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _directive(module: Any, shown_in: str, name: str) -> str:
    """The directive that documents one name, in reStructuredText."""
    value = getattr(module, name)
    if inspect.isclass(value) and value.__module__.startswith("metarl."):
        if issubclass(value, BaseException):
            lines = [f".. autoexception:: {shown_in}.{name}", "   :show-inheritance:"]
        else:
            lines = [f".. autoclass:: {shown_in}.{name}"]
    elif inspect.isfunction(value):
        lines = [f".. autofunction:: {shown_in}.{name}"]
    else:  # a type alias
        text = alias_text(module, name).replace("`", "``")
        meaning = str(value).replace("typing.", "")
        lines = [f".. py:type:: {shown_in}.{name}", f"   :canonical: {meaning}", "", f"   {text}"]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def _by_last_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Resolves a reference by its last component, which docstrings and annotations use."""
    if node.get("refdomain") != "py":
        return None
    last = node["reftarget"].rpartition(".")[2]
    known = env.domains.python_domain.objects
    found = {known[name].node_id: name for name in known if name.rpartition(".")[2] == last}
    if len(found) != 1:
        return None
    (name,) = found.values()
    target = known[name]
    return nodes.reference(
        "",
        "",
        content,
        internal=True,
        refuri=f"{app.builder.get_relative_uri(node['refdoc'], target.docname)}#{target.node_id}",
        reftitle=name,
    )
