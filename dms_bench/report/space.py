"""A search space as people and programs read it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dms_bench.report import format as fmt

if TYPE_CHECKING:
    from dms_bench.scaling import SearchSpace
    from dms_bench.scaling.space.elements import Group as WidthGroup

#: Layers that are named for each reason why something is not searched.
_NAMED = 3


def describe_space(model: str, input: Sequence[int] | str, space: SearchSpace) -> dict[str, Any]:
    """Return what of a network is searched, ready for JSON.

    Args:
        model: the network's name.
        input: channels, height and width of an image, or an input of another kind in words.
        space: what was found.
    """
    costs = {"macs": space.macs_model, "params": space.params_model}
    reachable = {resource: [round(end) for end in space.reachable(cost)] for resource, cost in costs.items()}
    return {
        "model": model,
        "input": input if isinstance(input, str) else list(input),
        "macs": space.macs,
        "params": space.params,
        "searchable_macs_fraction": 1 - reachable["macs"][0] / space.macs if space.macs else 0.0,
        "reachable": reachable,
        "proof_error": space.proof_error if math.isfinite(space.proof_error) else None,
        **({"macs_vary": True} if space.macs_vary else {}),
        "seconds": round(space.seconds, 3),
        "groups": [
            {"name": group.name, "size": group.members, "heads": group.heads, **_coarse(group)}
            for group in space.groups
        ],
        "stages": [
            {"name": stage.name, "size": stage.size, "minimum": stage.minimum, "blocks": list(stage.blocks)}
            | ({} if stage.maximum is None else {"maximum": stage.maximum})
            for stage in space.stages
        ],
        **({"round_to": space.round_to} if space.round_to > 1 else {}),
        "excluded": dict(space.excluded),
    }


def _coarse(group: WidthGroup) -> dict[str, int | str]:
    """Step and bounds of a coarse group, in channels or heads, and the pattern of those that it is as wide as."""
    if group.maximum is None:
        return {}
    bounds: dict[str, int | str] = {"minimum": group.minimum * group.step, "maximum": group.maximum * group.step}
    return {"step": group.step, **bounds} | ({"equal": group.tie} if group.tie else {})


def render_space(description: Mapping[str, Any]) -> RenderableType:
    """Return what `describe_space` says as tables with a summary."""
    parts: list[RenderableType] = [_units(description)]
    if description["excluded"]:
        parts.append(_excluded(description["excluded"]))
    return Group(*parts, Text(_summary(description)))


def _units(description: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("searched", overflow="fold")
    table.add_column("what")
    table.add_column("size", justify="right")
    for group in description["groups"]:
        table.add_row(Text(group["name"]), "heads" if group["heads"] else "width", _size(group))
    for stage in description["stages"]:
        table.add_row(Text(stage["name"]), "blocks", _size(stage))
    return table


def _size(unit: Mapping[str, Any]) -> str:
    """Write a size, that of a coarse unit as `192 to 240 of 240 by 24`."""
    size = str(unit["size"])
    if "maximum" in unit:
        size = f"{unit['minimum']} to {unit['maximum']} of {size}"
    return f"{size} by {unit['step']}" if unit.get("step", 1) > 1 else size


def _excluded(excluded: Mapping[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("not searched because", "number", "such as"):
        table.add_column(column, overflow="fold", justify="right" if column == "number" else "left")
    for reason in dict.fromkeys(excluded.values()):
        names = [name for name, cause in excluded.items() if cause == reason]
        examples = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        table.add_row(Text(reason), str(len(names)), Text(examples))
    return table


#: Of frames, proposals or tokens per expert.
_VARY = "they are those of this input, and were not compared with a count"


def _summary(description: Mapping[str, Any]) -> str:
    groups, stages = description["groups"], description["stages"]
    elements = sum(group["size"] // group.get("step", 1) for group in groups)
    blocks = sum(stage["size"] for stage in stages)
    error = description["proof_error"]
    reachable = {"MACs": description["reachable"]["macs"], "parameters": description["reachable"]["params"]}
    example = description["input"]
    shown = f"on {example}" if isinstance(example, str) else f"at {' x '.join(map(str, example))}"
    lines = [
        f"{description['model']} {shown}: "
        f"{fmt.number_of(len(groups), 'group')} with {fmt.number_of(elements, 'element')}, "
        f"{fmt.number_of(len(stages), 'stage')} with {fmt.number_of(blocks, 'removable block')}",
        *(
            f"{quantity}: {fmt.count(low)} to {fmt.count(high)}, so {1 - low / high:.1%} searchable"
            for quantity, (low, high) in reachable.items()
            if high
        ),
        *(f"all of {tie!r} keep equally many" for tie in dict.fromkeys(g["equal"] for g in groups if "equal" in g)),
        *([f"its MACs depend on what it computes: {_VARY}"] if description.get("macs_vary") else []),
        *([f"cuts keep multiples of {description['round_to']} channels"] if "round_to" in description else []),
        f"proven: cut and masked networks differ by {'an unknown amount' if error is None else f'{error:.1e}'} "
        f"relatively (found and proven in {description['seconds']:.1f} s"
        f"{', read from the cache' if description.get('cached') else ''})",
    ]
    return "\n".join(lines)
