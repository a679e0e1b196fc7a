"""Export of one acting step as a graph of `torch.export` or ONNX, which needs no metarl to run.

Axes: `L` lanes, then features (`D` observation, `A` action, `R` parameters of a distribution).
"""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metarl.agent import DistributionPolicy, Policy
from metarl.deployment.onnx_file import require_onnx, write_onnx
from metarl.errors import ConfigError
from metarl.field_types import checks_arguments
from metarl.networks.action_heads import GaussianHead
from metarl.networks.policies import StackedPolicy
from metarl.noise import LaneNoise
from metarl.results.files import atomic_write, make_parent
from metarl.seeding import Seeds
from metarl.training.provenance import versions
from metarl.training.run_folder import Run, as_run
from metarl.training.torch_defaults import torch_defaults
from metarl.trajectory import Percept, blank_action, first_percept

ENDINGS = (".pt2", ".onnx")
METADATA = "metarl.json"
"""name of the settings inside the file"""
_FORMAT = "metarl-policy-1"
_LANES = 2  # of the example that is traced; any number runs


class ActingStep(nn.Module):
    """Percept and memory -> parameters of the distribution, the most likely action, next memory."""

    def __init__(self, policy: DistributionPolicy, initial: Any) -> None:
        """One step of a policy whose memory is `initial`, of one lane, where a trial begins."""
        super().__init__()
        self._policy = policy
        parts = [getattr(policy, each.name) for each in fields(policy)]  # type: ignore[arg-type]
        self.parts = nn.ModuleList([part for part in parts if isinstance(part, nn.Module)])
        self._is_empty = initial is None
        leaves, self._structure = pytree.tree_flatten(() if self._is_empty else initial)
        self.initial = nn.ParameterList(
            [nn.Parameter(leaf, requires_grad=False) for leaf in leaves]
        )

    def forward(
        self,
        obs: Tensor,
        previous_action: Tensor,
        previous_reward: Tensor,
        previous_terminated: Tensor,
        previous_truncated: Tensor,
        first_of_episode: Tensor,
        first_of_trial: Tensor,
        memory: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """One step; where `first_of_trial` the given memory is not read."""
        percept = Percept(
            obs=obs,
            previous_action=previous_action,
            previous_reward=previous_reward,
            previous_terminated=previous_terminated,
            previous_truncated=previous_truncated,
            first_of_episode=first_of_episode,
            first_of_trial=first_of_trial,
        )
        fresh = [
            torch.where(first_of_trial.view(-1, *[1] * (given.ndim - 1)), start, given)
            for start, given in zip(self.initial, memory, strict=True)
        ]
        state = None if self._is_empty else pytree.tree_unflatten(fresh, self._structure)
        dist_params, after = self._policy.distribution(percept, state)
        kept = () if self._is_empty else tuple(pytree.tree_leaves(after))
        return dist_params, self._policy.head.mode(dist_params), kept


@checks_arguments("out")
@torch_defaults()
def export_policy(
    run: Run | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    modules: Sequence[str] = (),
) -> Path:
    """Writes one acting step of a run's final agent as a graph, for any number of lanes.

    The ending of the file selects the kind: .pt2 of torch.export, or .onnx.

        step = torch.export.load("policy.pt2").module()
        dist_params, likeliest, memory = step(*percept, memory)

    The inputs are the seven fields of a `Percept`, then the memory, a tuple of tensors [L, ...]; in
    the first step of a trial of a lane it is not read, so it may be zeros. Discrete actions have
    logits as parameters; Box actions have means, then logarithms of deviations, in units of half
    the range around its centre. `metarl.json` in the archive, or in the metadata of an ONNX file,
    holds shapes and settings. An agent that adapts by gradient steps is exported as it is before
    any step; of PLATIPUS one hypothesis is.

    Inputs of ONNX are the fields of a `Percept` by name, then `memory_0`, ...; outputs are
    `dist_params`, `likeliest_action` and `next_memory_0`, ...

    Args:
        run: a run or its folder.
        out: the file, with the ending .pt2 or .onnx.
        modules: modules that define the task or the agent and that you trust; see `load_run`.

    Returns:
        The path of the file.

    Raises:
        ConfigError: the memory grows in the trial, as that of attention, the policy draws more
            than its action, the file has another ending, or ONNX is not installed or has no
            operation for a part of the network.
        RunFolderError: there is no run in this folder, or the file cannot be written.
        CheckpointError: the run is not trained yet, or its checkpoint is broken.
    """
    path = Path(out)
    if path.suffix not in ENDINGS or path.is_dir():
        raise ConfigError(
            f"out={os.fspath(out)!r} must be a file with the ending .pt2, that of graphs of "
            "torch.export, or .onnx."
        )
    if path.suffix == ".onnx":
        require_onnx()
    run = as_run(run, modules=modules)
    family = run.config.make_family()
    agent = run.make_agent(family)
    run.load(agent)
    policy = agent.start(1, LaneNoise.of(Seeds(0), "start", 1))
    if isinstance(policy, StackedPolicy):
        policy = policy.for_lanes(1)
    label = run.config.make_agent_config().label
    step = ActingStep(_with_distribution(policy, label), _fixed_memory(policy, label)).eval()
    blank = blank_action(family.action_space)
    percept = first_percept(torch.zeros(_LANES, *family.observation_space.shape), blank)
    # Copies, because inputs that share memory would become one input of the graph.
    inputs = {each.name: getattr(percept, each.name).clone() for each in fields(Percept)}
    memory = tuple(part.repeat_interleave(_LANES, 0) for part in step.initial)
    described = {
        "format": _FORMAT,
        "run": asdict(run.config),
        "versions": versions(),
        "inputs": {name: _described(example) for name, example in inputs.items()},
        "memory": [_described(part) for part in memory],
        "outputs": ["dist_params [L, R]", "likeliest action", "memory"],
        "action": _described_action(step),
    }
    graph = _graph(step, (*inputs.values(), memory))
    metadata = {METADATA: json.dumps(described, indent=2)}
    make_parent(path)
    with atomic_write(path) as draft:
        if path.suffix == ".onnx":
            write_onnx(graph, draft, metadata)
        else:
            # In memory first, because torch ends the process where a file cannot be written.
            content = io.BytesIO()
            torch.export.save(graph, content, extra_files=metadata)
            draft.write_bytes(content.getvalue())
    return path


def _graph(step: ActingStep, inputs: tuple[Any, ...]) -> torch.export.ExportedProgram:
    lanes = torch.export.Dim("lanes")
    *percept, memory = inputs
    shapes = (*({0: lanes} for _ in percept), tuple({0: lanes} for _ in memory))
    with torch.no_grad():
        return torch.export.export(step, inputs, dynamic_shapes=shapes, strict=False)


def _with_distribution(policy: Policy, label: str) -> DistributionPolicy:
    if not isinstance(policy, DistributionPolicy):
        raise ConfigError(
            f"{label} cannot be exported: its policy {type(policy).__name__} has no method "
            "`distribution`, so its actions depend on more than percept and memory. Use it with "
            "metarl.load_policy."
        )
    return policy


def _fixed_memory(policy: Policy, label: str) -> Any:
    """The memory of one lane at the start of a trial; all of it tensors with an axis of lanes."""
    memory = policy.initial_memory(1, 1)
    leaves = [] if memory is None else pytree.tree_leaves(memory)
    if not all(isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == 1 for leaf in leaves):
        raise ConfigError(
            f"{label} cannot be exported: its memory grows with the steps of the trial, and a "
            "graph has tensors of fixed shapes. The memories gru, lstm, belief and none can be "
            "exported; use this one with metarl.load_policy."
        )
    return memory


def _described(example: Tensor) -> str:
    """Such as float32 [L, 64]."""
    shape = ", ".join(["L", *map(str, example.shape[1:])])
    return f"{str(example.dtype).removeprefix('torch.')} [{shape}]"


def _described_action(step: ActingStep) -> dict[str, Any]:
    head = step._policy.head
    if not isinstance(head, GaussianHead):
        return {"kind": "discrete", "dist_params": "logits"}
    return {
        "kind": "box",
        "dist_params": "means, then logarithms of deviations; action = centre + half_range * unit",
        "centre": head.units.centre.tolist(),
        "half_range": head.units.half_range.tolist(),
    }
