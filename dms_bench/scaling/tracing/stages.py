"""Stages: runs of residual blocks that can be taken out of a network."""

from __future__ import annotations

from collections import Counter

from torch import nn

from dms_bench.scaling.modules.blocks import block_of, features_of
from dms_bench.scaling.modules.tied import sharing
from dms_bench.scaling.space.elements import Stage
from dms_bench.scaling.tracing.records import Trace

#: Residual blocks by their class, also where there is one alone.
BLOCKS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
#: A module whose inner residual modules hold this share of its weights is a run of blocks, not a block.
RUN_SHARE = 0.9

REPEATED = "a block that runs more than once"
SHARES = "a block that shares a weight with what is outside of it"


def find_stages(model: nn.Module, trace: Trace) -> tuple[tuple[Stage, ...], dict[str, str], dict[str, int]]:
    """Return the runs of removable blocks, blocks that have to stay with the reason, and the lengths of tuples.

    A block is removable when its output is its input plus something: the input tensor reaches the
    output through additions and activations alone; also through norms behind additions, if the block is one of several
    of its class in a row, or its class is a known one. Of nested ones the inner
    count where they make up nearly all of the outer one (a run of blocks), else the outer (a block of residual
    branches and more). Of blocks that return a tuple its length is told, and its first entry counts.
    """
    modules = dict(model.named_modules())
    times = Counter(call.name for call in trace.calls)
    removable: list[str] = []
    repeated: list[str] = []
    for call in sorted(trace.calls, key=lambda call: call.order):
        entry, output = call.entry, features_of(call.output)
        if not call.name or entry is None or output is None:
            continue
        known = isinstance(modules[call.name], BLOCKS) or (
            _repeated(call.name, modules) and id(entry) in call.normed_of
        )
        adds = known or (id(entry) in call.residual_of and output is not entry)
        if adds and output.shape == entry.shape and any(True for _ in modules[call.name].parameters()):
            (removable if times[call.name] == 1 else repeated).append(call.name)
    stages: dict[str, list[str]] = {}
    blocks = _blocks(removable, {name: _weights(modules[name]) for name in removable})
    bound = sharing(model, blocks)
    for name in [name for name in blocks if name not in bound]:
        stages.setdefault(name.rpartition(".")[0], []).append(name)
    result = []
    for container, members in stages.items():
        siblings = sum(1 for child in modules[container].children() if any(True for _ in child.parameters()))
        result.append(Stage(container or "network", tuple(members), minimum=int(siblings == len(members))))
    outer = [
        name for name in repeated if block_of(name, [*blocks, *(block for block in repeated if block != name)]) < 0
    ]
    outputs = {call.name: call.output for call in trace.calls}
    tuples = {name: len(outputs[name]) for name in blocks if isinstance(outputs[name], tuple)}
    return tuple(result), dict.fromkeys(outer, REPEATED) | {name: SHARES for name in blocks if name in bound}, tuples


def _repeated(name: str, modules: dict[str, nn.Module]) -> bool:
    """Whether a module has siblings of its own class."""
    siblings = modules[name.rpartition(".")[0]].children()
    return sum(1 for sibling in siblings if type(sibling) is type(modules[name])) > 1


def _blocks(removable: list[str], weights: dict[str, int]) -> list[str]:
    """Choose between nested residual modules, in the order of their calls."""
    gone: set[str] = set()
    for name in removable:  # outer modules are called before inner ones
        inner = [block for block in removable if block.startswith(name + ".")]
        top = [block for block in inner if not any(block.startswith(around + ".") for around in inner)]
        if name in gone or sum(weights[block] for block in top) < RUN_SHARE * weights[name]:
            gone.update(inner)
        else:
            gone.add(name)
    return [name for name in removable if name not in gone]


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
