"""Stages: runs of residual blocks that can be taken out of a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container
from dataclasses import dataclass, field

from torch import nn

from dms_bench.scaling.modules.blocks import FEATURES, block_of, features_of
from dms_bench.scaling.modules.tied import sharing
from dms_bench.scaling.space.elements import Stage
from dms_bench.scaling.tracing.records import ModuleCall, Trace
from dms_bench.scaling.tracing.streams import adds_to_streams, answers_of, tells_sizes

#: Residual blocks by their class, also where there is one alone.
BLOCKS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
#: A module whose inner residual modules hold this share of its weights is a run of blocks, not a block.
RUN_SHARE = 0.9

REPEATED = "a block that runs more than once"
SHARES = "a block that shares a weight with what is outside of it"
LENDS = "a block of which code outside of it runs a part"


@dataclass(frozen=True)
class Depth:
    """What of a network's depth is searched.

    Attributes:
        stages: runs of removable blocks.
        bound: blocks that have to stay, with the reason.
        answers: of blocks that return a tuple: block -> what stands for each entry when it is gone.
        added: blocks that are branches, to which the code around them adds their input: removed, they answer zero.
    """

    stages: tuple[Stage, ...] = ()
    bound: dict[str, str] = field(default_factory=dict)
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    added: frozenset[str] = frozenset()


def find_stages(model: nn.Module, trace: Trace) -> Depth:
    """Return the runs of removable blocks.

    A block is removable when its output is its input plus something: the input tensor reaches the
    output through additions and activations alone; also through norms behind additions, if the block is one of several
    of its class in a row, or its class is a known one. Of nested ones the inner
    count where they make up nearly all of the outer one (a run of blocks), else the outer (a block of residual
    branches and more). Of blocks that return a tuple its first entry counts, or all of its tensors where each is an
    argument of the block plus something. Where the code of a module that is no block adds what others return to their
    input, those are blocks (`added`), if there are several of a class in a list.
    """
    modules = dict(model.named_modules())
    times = Counter(call.name for call in trace.calls)
    removable: list[str] = []
    repeated: list[str] = []
    answers: dict[str, tuple[str, ...]] = {}
    telling: set[str] = set()
    for call in sorted(trace.calls, key=lambda call: call.order):
        if not call.name or not any(True for _ in modules[call.name].parameters()):
            continue
        answered = _answered(call, modules)
        if answered is not None:
            answers[call.name] = answered
            if tells_sizes(call, answered):
                telling.add(call.name)
            (removable if times[call.name] == 1 else repeated).append(call.name)
    stages: dict[str, list[str]] = {}
    blocks = _blocks(removable, {name: _weights(modules[name]) for name in removable}, telling)
    added = _added_branches(trace.calls, modules, {*blocks, *repeated})
    blocks += [name for names in added.values() for name in names]
    bound = dict.fromkeys(sharing(model, blocks), SHARES) | dict.fromkeys(_lending(model, trace.calls, blocks), LENDS)
    lists = {name: container for container, names in added.items() for name in names}
    for name in [name for name in blocks if name not in bound]:
        stages.setdefault(lists.get(name, name.rpartition(".")[0]), []).append(name)
    result = []
    for container, members in stages.items():
        prefix = container + "." if container else ""
        siblings = {
            child: block_of(prefix + child, members) >= 0
            or any(name.startswith(f"{prefix}{child}.") for name in members)
            for child, module in modules[container].named_children()
            if any(True for _ in module.parameters())
        }
        result.append(Stage(container or "network", tuple(members), minimum=int(all(siblings.values()))))
    outer = [
        name for name in repeated if block_of(name, [*blocks, *(block for block in repeated if block != name)]) < 0
    ]
    for call in trace.calls:
        if call.name in lists and type(call.output) is tuple:
            answers[call.name] = (FEATURES, *answers_of(call, norms=False)[1:])
    answers = {name: answers[name] for name in blocks if answers.get(name)}
    stay = dict.fromkeys(outer, REPEATED) | bound
    return Depth(tuple(result), stay, answers, frozenset(lists))


def _added_branches(
    calls: list[ModuleCall], modules: dict[str, nn.Module], blocks: Collection[str]
) -> dict[str, list[str]]:
    """Return the outermost branches that the code around them adds, by list: several of a class in lists of modules.

    Args:
        calls: of the forward pass; a branch may run several times.
        modules: of the network.
        blocks: residual blocks, outside and inside of which there are no branches to look for.
    """
    others = {call.name for call in calls if call.read_elsewhere or not call.joined}
    joined = {
        call.name: call.order
        for call in calls
        if call.name not in others
        and any(parameter.dim() > 1 for parameter in modules[call.name].parameters())
        and block_of(call.name, list(blocks)) < 0
        and not any(block.startswith(call.name + ".") for block in blocks)
    }
    called = {call.name for call in calls}
    lists: dict[str, list[str]] = {}
    for name in sorted(joined, key=joined.__getitem__):
        container = name.rpartition(".")[0]
        if block_of(container, list(joined)) >= 0 or container in called:
            continue
        while isinstance(modules[container.rpartition(".")[0]], nn.ModuleList | nn.ModuleDict):
            container = container.rpartition(".")[0]
        lists.setdefault(container, []).append(name)
    for container, names in lists.items():
        kinds = Counter(type(modules[name]) for name in names)
        lists[container] = [name for name in names if kinds[type(modules[name])] > 1]
    return {container: names for container, names in lists.items() if names}


def _lending(model: nn.Module, calls: list[ModuleCall], blocks: list[str]) -> list[str]:
    """Return the blocks of which a module ran while they did not, unless others have that module as well."""
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    known = {names[0]: names for names in paths.values()}
    return [
        block
        for block in blocks
        if any(
            block not in call.within and all(path.startswith(block + ".") for path in known[call.name])
            for call in calls
        )
    ]


def _answered(call: ModuleCall, modules: dict[str, nn.Module]) -> tuple[str, ...] | None:
    """Return what a residual block answers in a tuple when it is gone, nothing for a tensor; None if it is no block."""
    entry, output = call.entry, features_of(call.output)
    repeated = _repeated(call.name, modules)
    answers = answers_of(call, norms=repeated)
    if entry is not None and output is not None:
        known = isinstance(modules[call.name], BLOCKS) or (repeated and id(entry) in call.normed_of)
        adds = known or (id(entry) in call.residual_of and output is not entry)
        if adds and output.shape == entry.shape:
            return (FEATURES, *answers[1:]) if answers else ()
    return answers if adds_to_streams(call, answers) else None


def _repeated(name: str, modules: dict[str, nn.Module]) -> bool:
    """Whether a module has siblings of its own class."""
    siblings = modules[name.rpartition(".")[0]].children()
    return sum(1 for sibling in siblings if type(sibling) is type(modules[name])) > 1


def _blocks(removable: list[str], weights: dict[str, int], telling: Container[str]) -> list[str]:
    """Choose between nested residual modules, in the order of their calls; an outer one that tells sizes is none."""
    gone: set[str] = set()
    for name in removable:  # outer modules are called before inner ones
        inner = [block for block in removable if block.startswith(name + ".")]
        top = [block for block in inner if not any(block.startswith(around + ".") for around in inner)]
        run = (bool(top) and name in telling) or sum(weights[block] for block in top) >= RUN_SHARE * weights[name]
        if name in gone or not run:
            gone.update(inner)
        else:
            gone.add(name)
    return [name for name in removable if name not in gone]


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
