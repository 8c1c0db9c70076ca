"""Weights that several modules share: one parameter, several owners.

Torch lists a shared parameter once, under the first of its names. Masks have to act in every module that uses it,
integers of all of them change with it, and it stays as long as one of them does.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dms_bench.scaling.modules.blocks import block_of

#: A module, and the name of a parameter there.
Owner = tuple[nn.Module, str]


def owners_of(model: nn.Module) -> dict[int, list[Owner]]:
    """Return every module that has a parameter, and its name there, by the parameter's id."""
    owners: dict[int, list[Owner]] = {}
    for module in model.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((module, leaf))
    return owners


def first_names(model: nn.Module) -> dict[str, str]:
    """Return the name under which torch lists each parameter, by each of the names that it has."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    return {name: first[id(parameter)] for name, parameter in model.named_parameters(remove_duplicate=False)}


def sharing(model: nn.Module, blocks: Sequence[str]) -> set[str]:
    """Return the blocks that share a parameter with what is outside of them: it stays when they go."""
    users: dict[str, set[int]] = {}  # of each parameter: the blocks that have it, -1 for what lies outside of all
    for name, first in first_names(model).items():
        users.setdefault(first, set()).add(block_of(name, blocks))
    return {blocks[index] for indices in users.values() if len(indices) > 1 for index in indices if index >= 0}
