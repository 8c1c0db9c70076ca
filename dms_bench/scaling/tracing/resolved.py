"""What a trace says: where masks may act, and which labels are one element of which width group."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dms_bench.scaling.modules.norm_kinds import UNBIASED
from dms_bench.scaling.modules.reparametrised import direction_of, layer_of
from dms_bench.scaling.space.elements import Group, RowSite, Site
from dms_bench.scaling.tracing.labels import FIXED, along, varying_dims
from dms_bench.scaling.tracing.records import RUN, Contraction, Trace

#: Weights whose rows, or first rows, make queries, and what is added to those: of layers, and of torch's attention.
_BIASES = {"weight": "bias", "in_proj_weight": "in_proj_bias", "q_proj_weight": "in_proj_bias"}


@dataclass(frozen=True)
class Members:
    """A width group, and the class of labels behind each of its elements."""

    group: Group
    roots: tuple[int, ...]
    #: Indices of the origins where they occur; groups are numbered in this order.
    signature: tuple[int, ...]


class ResolvedTrace:
    """What a trace says, once the classes of its labels are final.

    Attributes:
        origins: where labels come from: (first label, tensor, dimension); labels are numbered in this order.
        sites: weights that contractions sum over.
        rows: rows of layers that make queries, with labels for elements.
        zeroed: parameters that masks make zero where no weight sums over what they make.
    """

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self.model, self.trace = model, trace
        self.parameters = dict(model.named_parameters())
        self.origins: list[tuple[int, str, int]] = []
        for name, axes in trace.state.items():
            for axis in axes:
                (dim,) = varying_dims(axis)
                self.origins.append((int(along(axis, dim)[0]), name, dim))
        self._first_labels = [first for first, _, _ in self.origins]
        self._starts = {(name, dim): first for first, name, dim in self.origins}
        self._magnitudes = {normed.magnitude for normed in trace.normed.values()}
        self.zeroed: list[Site] = []
        self.sites, self.rows = self._sites(), self._rows()

    def resolve(self) -> None:
        """Take what is frozen, and united, by now as final."""
        #: The class of every label; and why those that are frozen are.
        self.roots, self.reasons = self.trace.labels.resolve()

    def freeze_all(self, reason: str) -> None:
        """Search no width."""
        for axes in self.trace.state.values():
            for axis in axes:
                self.trace.labels.freeze(axis, reason)

    def size(self, name: str, dim: int) -> int:
        """Size of a parameter or buffer."""
        return (self.parameters[name] if name in self.parameters else self.model.get_buffer(name)).size(dim)

    def contracted(self, contraction: Contraction) -> tuple[str, int] | None:
        """Return the weight, and the dimension of it, that a contraction sums over."""
        if contraction.contracted is None:
            return None
        _, name, dim = self._origin(int(contraction.contracted[0]))
        return name, dim

    def _origin(self, label: int) -> tuple[int, str, int]:
        return self.origins[bisect_right(self._first_labels, label) - 1]

    def _sites(self) -> list[Site]:
        """Weights that contractions sum over; what is summed over without a weight is frozen."""
        sites: dict[tuple[str, str, int], Site] = {}
        for contraction in self.trace.contractions:
            labels = contraction.contracted
            if labels is None:
                continue
            first, name, dim = self._origin(int(labels[0]))
            size = self.size(name, dim) if name else 0
            whole = name in self.parameters and len(labels) == size and int(labels[-1]) == first + size - 1
            if contraction.makers is not None and not (
                whole and contraction.makers == {(contraction.module, name, dim)}
            ):
                self.zeroed += [Site(*maker) for maker in sorted(contraction.makers)]
            elif whole and name in self.trace.normed and not self._layer_of(contraction.module, name):
                self.trace.labels.freeze(labels, "summed over with a weight under weight norm, outside of its layer")
            elif whole:
                sites.setdefault((contraction.module, name, dim), self._site(contraction.module, name, dim))
            else:
                self.trace.labels.freeze(labels, "summed over without a weight of its own")
        self.zeroed = [site for site in dict.fromkeys(self.zeroed) if site not in sites.values()]
        return list(sites.values())

    def _layer_of(self, module: str, direction: str) -> bool:
        """Whether a module is the layer that sums over its input with a weight of this direction."""
        layer = self.model.get_submodule(module)
        return isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and (
            direction_of(layer) is self.parameters[direction]
        )

    def _site(self, module: str, name: str, dim: int) -> Site:
        return Site(module, name, dim, standardised=module in self.trace.standardised)

    def _rows(self) -> list[RowSite]:
        """Rows of layers that make queries; queries of another make are frozen."""
        rows: dict[tuple[str, str], RowSite] = {}
        for product in self.trace.products:
            first, name, dim = self._origin(int(product.labels[0]))
            leaf = name.rpartition(".")[2]
            start = int(product.labels[0]) - first
            if dim != 0 or leaf not in _BIASES or start + product.rows > self.size(name, 0):
                self.trace.labels.freeze(product.labels, "queries that are no rows of a layer")
                continue
            for module, parameter in self._layers(name):
                labels = torch.arange(self.size(parameter, 0)) + self._starts[parameter, 0]
                labels[:start], labels[start + product.rows :] = FIXED, FIXED
                rows[module, parameter] = RowSite(module, parameter, labels, product.scaled)
        return list(rows.values())

    def _layers(self, weight: str) -> list[tuple[str, str]]:
        """Return the layers that share a weight, with that and their own biases, as the parameters are listed."""
        listed = {id(parameter): name for name, parameter in self.parameters.items()}
        leaf = weight.rpartition(".")[2]
        return [
            (module, listed[id(layer._parameters[each])])
            for module, layer in self.model.named_modules()
            if layer._parameters.get(leaf) is self.parameters[weight]
            for each in (leaf, _BIASES[leaf])
            if layer._parameters.get(each) is not None
        ]

    def members(self, names: set[str], known: Container[int] = ()) -> list[Members]:
        """Group the label classes that occur in the same dimensions of the same tensors.

        Args:
            names: of groups that there are already; those of new ones are added.
            known: classes that another trace has as well; groups with such are left out.
        """
        masked = {(site.parameter, site.dim) for site in self.sites}
        queries = {(row.parameter, 0) for row in self.rows}
        summed = queries | {(site.parameter, site.dim) for site in self.zeroed}
        occurrences: dict[int, list[int]] = {}
        for index, (first, name, dim) in enumerate(self.origins):
            for root in self.roots[first : first + self.size(name, dim)].tolist():
                if root != FIXED:
                    occurrences.setdefault(root, []).append(index)
        by_signature: dict[tuple[int, ...], list[int]] = {}
        for root, indices in occurrences.items():
            signature = tuple(sorted(set(indices)))
            dims = [self.origins[index][1:] for index in signature]  # (tensor, dimension)
            if not any(dim in masked or dim in summed for dim in dims):
                self.reasons.setdefault(root, "no weight sums over it")
                continue
            if not any(dim not in masked and dim[0] in self.parameters for dim in dims):
                self.reasons.setdefault(root, "features of a constant")
                continue
            by_signature.setdefault(signature, []).append(root)
        need_two = self._classes([norm.labels for norm in self.trace.norms if norm.kind in UNBIASED])
        in_runs = self._classes(self.trace.in_runs)
        suffixes = self._suffixes()
        result = []
        for signature in sorted(by_signature):
            roots = sorted(by_signature[signature])
            if len(roots) < 2 or any(root in known for root in roots):
                continue
            suffix = suffixes.get(roots[0], "")
            step = RUN if in_runs.intersection(roots) else 1
            if step > 1 and (suffix or len(roots) % step):
                self.reasons.update(dict.fromkeys(roots, f"a grouped product takes {step} at a time"))
                continue
            name = self._name(signature, masked, suffix)
            while name in names:
                name += "'"
            names.add(name)
            fewest = 2 if roots[0] in need_two and step == 1 else 1
            runs = len(roots) // step
            group = Group(name, runs, suffix == "heads", step, fewest, runs if step > 1 else None)
            result.append(Members(group, tuple(roots), signature))
        return result

    def _classes(self, vectors: Sequence[Tensor]) -> set[int]:
        return {root for labels in vectors for root in self.roots[labels].tolist()}

    def _head_labels(self) -> list[Tensor]:
        return [seen.labels for sizes in self.trace.heads.values() for seen in sizes]

    def _suffixes(self) -> dict[int, str]:
        """Return, by class, what of attention it is."""
        products = self.trace.products
        queries = self._classes([product.labels for product in products])
        values = self._classes([product.values for product in products if product.values is not None])
        heads = self._classes(self._head_labels())
        return {
            **dict.fromkeys(self._classes([labels for labels, _ in self.trace.inside.values()]) | values, "v_dims"),
            **{root: "dims" if root in values else "qk_dims" for root in queries},
            **dict.fromkeys(heads, "heads"),
        }

    def _name(self, signature: tuple[int, ...], masked: set[tuple[str, int]], suffix: str) -> str:
        """Name a group after the layer that makes it, or after what its layers have in common."""
        makers = []
        for index in signature:
            _, name, dim = self.origins[index]
            is_weight = name in self.parameters and self.parameters[name].dim() > 1 and name not in self._magnitudes
            if is_weight and (name, dim) not in masked:
                makers.append(layer_of(name) or name)
        makers = list(dict.fromkeys(makers)) or [self.origins[signature[0]][1]]
        name = makers[0]
        if len(makers) > 1:
            prefix = _common_path(makers)
            name = ".".join(prefix if suffix else [*prefix, "stream"])
        return ".".join(part for part in (name, suffix) if part)

    def frozen(self, searched: dict[tuple[str, int], Tensor]) -> dict[str, str]:
        """Name the output dimensions of weights that are not among those searched, with the reason."""
        excluded = {}
        for first, name, dim in self.origins:
            if self.makes(name, dim) and (name, 0) not in searched:
                excluded[layer_of(name) or name] = self.reason(range(first, first + self.size(name, dim)))
        return excluded

    def of_heads(self, labels: Tensor) -> Tensor:
        """Whether each of some labels is that of a head, [size]."""
        heads = self._classes(self._head_labels())
        return torch.isin(self.roots[labels], torch.tensor(sorted(heads - {FIXED}), dtype=torch.long))

    def makes(self, name: str, dim: int) -> bool:
        """Whether a dimension is that of a weight's outputs."""
        weight = name in self.parameters and self.parameters[name].dim() > 1
        return dim == 0 and weight and name not in self._magnitudes

    def reason(self, labels: Sequence[int]) -> str:
        """Why some labels are not searched."""
        classes = [root for root in self.roots[torch.as_tensor(labels)].tolist() if root != FIXED]
        reason = next((self.reasons[label] for label in (*labels, *classes) if label in self.reasons), None)
        return reason or "coupled with something that is not searched"


def _common_path(names: Sequence[str]) -> list[str]:
    """Return the leading parts that dotted names share."""
    shared = []
    for components in zip(*(name.split(".") for name in names), strict=False):
        if len(set(components)) > 1:
            break
        shared.append(components[0])
    return shared
