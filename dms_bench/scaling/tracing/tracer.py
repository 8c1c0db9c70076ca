"""One forward pass, watched: labels travel through the operators, module calls are recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from dms_bench.scaling.cost.counter import countable
from dms_bench.scaling.example import Example, outputs_in
from dms_bench.scaling.modules.attention import OpenAttention, in_the_open, openable
from dms_bench.scaling.modules.blocks import entry_of, features_of
from dms_bench.scaling.modules.hooked import hooked
from dms_bench.scaling.modules.modes import modes_kept
from dms_bench.scaling.modules.norm_kinds import UNIT, recognise_norms, weights_of
from dms_bench.scaling.space.elements import NormedWeight
from dms_bench.scaling.tracing.added import AddedBranches
from dms_bench.scaling.tracing.calls import FILLS, ShapeCallRecorder, head_counts, sizes_kept
from dms_bench.scaling.tracing.labels import Axes, Labels, along, canonical, lay, varying_dims
from dms_bench.scaling.tracing.operators import CONTRACTIONS, has_numbers, is_pointwise
from dms_bench.scaling.tracing.paths import ResidualPaths
from dms_bench.scaling.tracing.records import ModuleCall, NormCall, Seen, Trace
from dms_bench.scaling.tracing.recurrent import first_state, unite_states
from dms_bench.scaling.tracing.zeros import Makers, Zeros

#: A rule gets the tracer, the operator's arguments and result, and returns the result's axes (of the
#: first result where there are several), or a list of axes when the result is a list of equals.
Rule = Callable[["Tracer", tuple[Any, ...], dict[str, Any], Any], "Axes | list[Axes]"]


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Carries labels through the operators of a forward pass, by rules.

    An operator without a rule freezes what it touches: not searched, never wrong.

    Args:
        model: the network.
        rules: by operator.
        whole_heads: of features that are split into heads, follow the heads; else what lies inside of one.
        pack_qkv: let queries, keys and values that one layer makes have sizes of their own.
    """

    def __init__(
        self, model: nn.Module, rules: dict[str, Rule], *, whole_heads: bool = True, pack_qkv: bool = False
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.whole_heads = whole_heads
        #: Number of the operator that is running: the same in every trace of a network, as labels (which differ) are
        #: integers and what is done to them is not counted.
        self.at = 0
        self.labels = Labels()
        self.trace = Trace(self.labels, {})
        self._model = model
        self._rules = rules
        self._axes: dict[int, Axes] = {}
        self._alive: list[Any] = []  # ids stay unique only while their tensors live
        self._stack: list[ModuleCall] = []
        #: Ids of what was made from the network's input, of `_batch` samples; the rest is computed once.
        self._fed: set[int] = set()
        self._paths = ResidualPaths()
        self._added = AddedBranches(self._paths.made_of)
        self._storages = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        #: Of the parameters that were read.
        self._read: set[int] = set()
        #: The parameters that a tensor is a product with: id of the result -> parameters.
        self._products: dict[int, list[Tensor]] = {}
        self._batch = 1
        #: Name of the operator that is running, without the underscore of in-place variants.
        self.operator = ""
        self._modules = dict(model.named_modules())
        names = {id(module): name for name, module in self._modules.items()}
        self._recorder = ShapeCallRecorder(names, self.along, pack_qkv, self._keep)
        self.trace.shape_calls = self._recorder.shape_calls
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if has_numbers(tensor) and tensor.dim() > 0:
                axes = tuple(
                    lay(self.labels.fresh(size), dim, tensor.shape) for dim, size in enumerate(tensor.shape) if size > 1
                )
                self._axes[id(tensor)] = axes
                self.trace.state[name] = axes
        self._zeros = Zeros(self.along, {id(parameter): name for name, parameter in model.named_parameters()})
        self._recognised = recognise_norms(model)
        opened = set(openable(model).values())
        for module in self._modules.values():
            if getattr(module, "proj_size", 0) and isinstance(module, nn.RNNBase):
                self._freeze_cells(module)
            if isinstance(module, nn.MultiheadAttention) and module not in opened:
                self.freeze(
                    *module.parameters(), reason="inside attention of torch's of an unusual form (bias_kv, zeros)"
                )

    @property
    def module(self) -> str:
        """Name of the innermost module that is running."""
        return self._stack[-1].name if self._stack else ""

    @property
    def shows_heads(self) -> bool:
        """Whether what runs is torch's attention, which shows an average over its heads, mostly to nobody."""
        return isinstance(self._modules.get(self.module), OpenAttention)

    @property
    def divides(self) -> bool:
        """Whether what runs is torch's attention, which divides by the square root of the head size that it sees."""
        return self._recorder.divides or self.shows_heads

    def axes(self, value: Any) -> Axes:
        """Return the axes of an operand; none for numbers and unlabelled tensors."""
        return self._axes.get(id(value), ()) if isinstance(value, Tensor) else ()

    def along(self, tensor: Tensor, dim: int) -> Tensor | None:
        """Return the labels along one dimension of a tensor, if it has any there, [size(dim)]."""
        for axis in self.axes(tensor):
            if varying_dims(axis) == [dim % tensor.dim()]:
                return along(axis, dim)
        return None

    def freeze(self, *values: Any, reason: str) -> None:
        """Exclude all labels of some operands."""
        for value in values:
            for axis in self.axes(value):
                self.labels.freeze(axis, reason)

    def _keep(self, *values: Any) -> None:
        self.freeze(*values, reason="inside torch's function of attention, which takes its input's size for all heads")

    def _freeze_cells(self, module: nn.RNNBase) -> None:
        """Exclude the cells of a layer that projects them: torch tells states from cells by their sizes."""
        for leaf, weight in module.named_parameters(recurse=False):
            cells = self.along(weight, 1) if leaf.startswith("weight_hr") else None
            if cells is not None:
                self.labels.freeze(cells, "cells of a recurrent layer that projects them")

    def one_dim(self, axes: Axes) -> Axes:
        """Reduce every axis to one varying dimension by uniting over the others.

        A dimension that was split, say into (3, heads, head size), can only shrink along one of the new
        dimensions, because the others' sizes stand in the model's code. Heads where the running module names
        them (where the space is one of head sizes: the largest of the others), the largest dimension otherwise.
        """
        result = []
        for axis in axes:
            axis = canonical(axis)
            dims = varying_dims(axis)
            if len(dims) > 1:
                named = self._head_dims(axis, dims)
                if named and not self.whole_heads:
                    named_heads, named = named[0], []
                    chosen = max((dim for dim in dims if dim != named_heads), key=lambda dim: axis.size(dim))
                    labels = along(axis, chosen)
                    self.trace.inside[int(labels[0])] = (labels, axis.size(named_heads))
                else:
                    chosen = named[0] if named else max(dims, key=lambda dim: axis.size(dim))
                reference = axis
                for dim in dims:
                    if dim != chosen:
                        reference = reference.narrow(dim, 0, 1)
                reference = reference.expand(axis.shape)
                self.labels.unite(axis, reference)
                axis = reference
                if named:
                    self._note(self.trace.heads, axis, chosen, 0)
            if dims:
                result.append(axis)
            else:  # a single element was picked out: it has to stay
                self.labels.freeze(axis, "picked out by its position")
        return tuple(result)

    def rows_of(self, left: Tensor, right: Tensor) -> int | None:
        """Return the rows of the layer that makes `left`, if it is features of heads multiplied with an activation."""
        labels = self.along(left, -1)
        inside = self.trace.inside.get(int(labels[0])) if labels is not None and id(right) in self._fed else None
        return None if inside is None else inside[1] * left.size(-1)

    def note_norm(self, labels: Tensor) -> bool:
        """Record that the running LayerNorm (or group norm of one group) takes its statistics over `labels`.

        Returns:
            Whether the running module is such a norm, whose input shows those labels.
        """
        module = self._modules[self.module] if self._stack else None
        if not isinstance(module, nn.LayerNorm) and not (isinstance(module, nn.GroupNorm) and module.num_groups == 1):
            return False
        sizes_alike = []
        for tensor in self._stack[-1].inputs[:1]:
            for axis in self.axes(tensor):
                (dim,) = varying_dims(axis)
                if axis.size(dim) == len(labels):
                    sizes_alike.append((torch.equal(along(axis, dim), labels), dim))
        if not sizes_alike:
            return False
        # As many samples or positions as features: those with these labels are the features.
        _, dim = max(sizes_alike)
        self.trace.norms.append(NormCall(self.module, labels, dim, at=self.at))
        return True

    def note_standardised(self, data: Tensor) -> bool:
        """Record that the running convolution standardises its own weight (BiT, normaliser-free networks).

        Returns:
            Whether `data` is a convolution's weight [1, out, in x kernel] and not an activation.
        """
        module = self._modules.get(self.module)
        if not isinstance(module, nn.modules.conv._ConvNd) or id(data) in self._fed or data.shape[0] != 1:
            return False
        if data.numel() != module.weight.numel() or not isinstance(getattr(module, "eps", None), float):
            return False
        self.trace.standardised.add(self.module)
        return True

    def note_normed(self, magnitude: Tensor, direction: Tensor, dim: int) -> bool:
        """Record a weight under weight norm; whether it is made of parameters, so that a cut can change them."""
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        g, v = names.get(id(magnitude)), names.get(id(direction))
        if g is None or v is None:
            return False
        normed = NormedWeight(g, v, dim)
        return self.trace.normed.setdefault(v, normed) == normed

    def note_product(self, operands: list[Tensor], out: Any) -> None:
        """Record that a tensor is a product, element by element, or now none, with parameters among its operands."""
        self._products[id(out)] = [operand for operand in operands if self._is_parameter(operand)]

    def summed_with(self, tensor: Tensor, dim: int) -> Tensor | None:
        """Return the labels along a dimension of the parameter that makes the summands, or is them, [size(dim)].

        Summands are zero where the parameter is; so are the squares under the root of its own length.
        """
        own = [tensor] if self._is_parameter(tensor) else []
        makers = own if self.operator == "linalg_vector_norm" else self._products.get(id(tensor), [])
        found = (self.along(maker, dim - tensor.dim()) for maker in makers if maker.dim() >= tensor.dim() - dim)
        return next((labels for labels in found if labels is not None), None)

    def makers_of(self, tensor: Tensor, dim: int) -> Makers | None:
        """Return the parameters whose zeros make a tensor's features along a dimension zero; None if not known."""
        return self._zeros.makers(tensor, dim, self.module)

    def makers_of_product(self, left: Tensor, right: Tensor) -> Makers | None:
        """Return those that make one side of a matrix product zero where it sums, of sides that are no parameters."""
        if self._is_parameter(left) or self._is_parameter(right):
            return None
        makers = (self.makers_of(side, dim) for side, dim in ((right, -2), (left, -1)) if side.dim() > 1)
        return next((found for found in makers if found is not None), None)

    def _is_parameter(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter, or a view of one."""
        strided = tensor.layout == torch.strided
        return strided and tensor.untyped_storage()._cdata in self._storages

    def run(self, example: Example, samples: int = 1) -> Trace:
        """Run the model on an example and return what was seen; outputs are frozen.

        Args:
            example: the input.
            samples: how many it has, to count the MACs of one.
        """
        self._watch(example, samples)
        self.trace.idle = any(
            parameter.numel() > 0 and parameter.untyped_storage()._cdata not in self._read
            for parameter in self._model.parameters()
        )
        return self.trace

    def follow_training(self, example: Example, samples: int) -> None:
        """Follow what runs in training mode alone as well (auxiliary outputs), after `run`.

        Labels go on as they are, and what was seen before stays; layers that had not run are searched without counting
        as cost. Parameters and buffers are left as they were. Nothing happens where the network does not run on the
        example then.

        Args:
            example: the input.
            samples: how many it has.
        """
        trace = self.trace
        before = (list(trace.contractions), list(trace.norms), list(trace.calls))
        called = {call.name for call in trace.calls}
        buffers = {name: dict(module._buffers) for name, module in self._modules.items()}
        values = [(tensor, tensor.clone()) for tensor in [*self._model.parameters(), *self._model.buffers()]]
        with modes_kept(self._model), torch.random.fork_rng(devices=[]):
            try:
                self._watch(example, samples, self._model.train())
            except Exception:  # whatever its code makes of an input without targets
                self._stack.clear()  # it wants more in training (targets) than in use
        for name, module in self._modules.items():
            module._buffers.clear()
            module._buffers.update(buffers[name])
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
        contractions, norms = trace.contractions[len(before[0]) :], trace.norms[len(before[1]) :]
        trace.contractions, trace.norms, trace.calls = before
        trace.contractions += [replace(each, macs=0.0) for each in contractions]
        trace.norms += [each for each in norms if each.module not in called]

    def _watch(self, example: Example, samples: int, model: nn.Module | None = None) -> None:
        self._batch = samples
        self._fed.update(id(tensor) for tensor in example.tensors())
        model = model or self._model
        handles = []
        for name, module in self._modules.items():
            handles.append(module.register_forward_pre_hook(self._enter(name), with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave))
        with hooked(handles), torch.no_grad(), in_the_open(model), countable(model), self, self._recorder:
            output = example(model)
        for tensor in outputs_in(output):
            self.freeze(tensor, reason="output of the network")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        self.operator = name.rstrip("_")
        out = func(*args, **kwargs)
        values = [value for value in tree_flatten((args, kwargs, out))[0] if isinstance(value, Tensor)]
        self.at += any(value.is_floating_point() for value in values)
        operands = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        self._read.update(value.untyped_storage()._cdata for value in operands if self._is_parameter(value))
        if self._stack and self._is_recognised(self._stack[-1]):
            self._added.read("norm", operands, out)
            self._alive.append((args, out))
            self._fed.update(id(value) for value in tree_flatten(out)[0] if isinstance(value, Tensor))
            return out
        self._alive.append((operands, out))
        self._paths.track(name, operands, out)
        self._added.read(name, operands, out)
        fed = any(id(value) in self._fed for value in operands) or self._feeds(operands, out)
        if fed:
            self._fed.update(id(value) for value in tree_flatten(out)[0] if isinstance(value, Tensor))
        if self.operator in FILLS:
            running = self._modules.get(self.module)
            state = first_state(running, out, self.along) if self.operator == "zeros" else ()
            self._set(out, state or self._filled(running, out))
            self._zeros.filled(self.operator, out)
            return out
        if self.operator not in CONTRACTIONS and not any(self.axes(value) for value in operands):
            return out
        rule = self._rules.get(name) or self._rules.get(name.rstrip("_"))
        if rule is None and is_pointwise(func, name):
            rule = self._rules["pointwise"]
        if rule is None:
            self.freeze(*operands, reason=f"operator {name} has no rule")
            return out
        before = len(self.trace.contractions)
        try:
            axes = rule(self, args, kwargs, out)
        except (RuntimeError, ValueError, IndexError, TypeError):
            self.freeze(*operands, reason=f"operator {name} in a form that its rule does not know")
            return out
        contractions = self.trace.contractions
        for index in range(before, len(contractions)):
            contraction = replace(contractions[index], at=self.at)
            if fed:
                contraction = replace(contraction, macs=contraction.macs / self._batch, data=id(args[0]))
            contractions[index] = contraction
        if self.operator == "cat" and getattr(self._modules.get(self.module), "drops_repeats", False):
            self.trace.joins[id(out)] = (out, list(args[0]))
        if isinstance(axes, list):
            for index, (tensor, its_axes) in enumerate(zip(out, axes, strict=True)):
                self._set(tensor, its_axes, index)
        else:
            self._set(out if isinstance(out, Tensor) else out[0], axes)
        self._zeros.follow(name, args, operands, out, self.module)
        return out

    def _filled(self, module: nn.Module | None, out: Tensor) -> Axes:
        """Return axes of a tensor of one number everywhere, along what may be sizes that the running module keeps.

        Such a size is what the tensor meets; where it meets nothing that is searched, nothing comes of it.
        """
        known = sizes_kept(module) if module is not None and has_numbers(out) else set()
        return tuple(
            lay(self.labels.fresh(size), dim, out.shape) for dim, size in enumerate(out.shape) if size in known
        )

    def _feeds(self, operands: list[Tensor], out: Any) -> bool:
        """Whether what is the same for all samples (learned queries) is repeated for each of them."""
        if self.operator not in ("expand", "repeat") or self._batch == 1:
            return False
        (operand,) = operands
        return out.dim() > 0 and out.size(0) == self._batch and (operand.dim() < out.dim() or operand.size(0) == 1)

    def _set(self, tensor: Tensor, axes: Axes, index: int = 0) -> None:
        axes = self.one_dim(axes)
        if not self.whole_heads:
            axes = self._without_heads(axes)
        self._axes[id(tensor)] = axes
        for axis in axes:
            (dim,) = varying_dims(axis)
            self._note(self.trace.sizes, axis, dim, index)

    def _without_heads(self, axes: Axes) -> Axes:
        """Leave out heads that a table of theirs has labels for, where their features lie along the same dimension."""
        inside = [axis for axis in axes if int(along(axis, varying_dims(axis)[0])[0]) in self.trace.inside]
        taken = [varying_dims(axis) for axis in inside]
        kept = []
        for axis in axes:
            if any(axis is followed for followed in inside) or varying_dims(axis) not in taken:
                kept.append(axis)
            else:
                self.labels.freeze(axis, "heads, of which the size is followed")
        return tuple(kept)

    def _note(self, by_module: dict[str, list[Seen]], axis: Tensor, dim: int, index: int) -> None:
        labels = along(axis, dim)
        by_module.setdefault(self.module, []).append(Seen(len(labels), labels, (self.at, index, dim)))

    def _head_dims(self, axis: Tensor, dims: list[int]) -> list[int]:
        """Return which of an axis' varying dimensions are heads, as the running module names their number or size."""
        module = self._modules.get(self.module)
        counts = head_counts(module) if module is not None else set()
        named = [dim for dim in dims if axis.size(dim) in counts]
        if len(dims) > 2 and dims[1] in named:  # (3, heads, head size), also where heads are 3
            return [dims[1]]
        if not named and len(dims) == 2 and axis.size(dims[1]) == getattr(module, "head_dim", None):
            return [dims[0]]  # transformers' modules know the heads' size alone
        return named

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
            self._recorder.begin(module)
            call = ModuleCall(name, tensors, order=len(self.trace.calls), entry=entry_of(args, kwargs))
            call.arguments = {str(index): value for index, value in enumerate(args)} | kwargs
            call.within = tuple(around.name for around in self._stack)
            self.trace.calls.append(call)
            self._stack.append(call)
            for index, tensor in enumerate(tensors):
                for axis in self.axes(tensor):
                    self._note(self.trace.given, axis, varying_dims(axis)[0], index)
            if getattr(module, "keeps_sizes", False):
                self.freeze(*tensors, *module.parameters(), reason="read by code that needs its present sizes")

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, nn.RNNBase):
            unite_states(module, output, self.along, self.labels)
        call = self._stack.pop()
        call.output = output
        if self._is_recognised(call):
            self._own_norm(call, output)
        if (self._is_recognised(call) or isinstance(module, nn.LayerNorm | nn.RMSNorm)) and len(call.inputs) == 1:
            self._paths.normalised(call.inputs[0], output)
        call.residual_of, call.normed_of = self._paths.of(features_of(output))
        if type(output) is tuple:
            call.entries = [self._paths.of(entry if isinstance(entry, Tensor) else None) for entry in output]
            tensors = {key: value for key, value in call.arguments.items() if isinstance(value, Tensor)}
            call.made_of = {key: frozenset[int]().union(*self._paths.of(value)) for key, value in tensors.items()}
        self._added.returned(call)

    def _is_recognised(self, call: ModuleCall) -> bool:
        """Whether a call is a recognised norm of its one input; some take a residual as well and add it."""
        return call.name in self._recognised and len(call.inputs) == 1

    def _own_norm(self, call: ModuleCall, output: Tensor) -> None:
        """Label the output of a recognised norm like its input; its own operators were passed over."""
        (tensor,) = call.inputs
        kind, dim = self._recognised[call.name]
        dim %= tensor.dim()
        labels = self.along(tensor, dim)
        for parameter in self._modules[call.name].parameters():
            for axis in self.axes(parameter):
                features = along(axis, varying_dims(axis)[0])
                if labels is None:
                    self.labels.freeze(features, "normalises features of fixed size")
                else:
                    self.labels.unite(labels, features)
        if labels is not None:
            self.trace.norms.append(NormCall(call.name, labels, dim, kind, self.at))
        for axis in self.axes(tensor):
            if kind == "response" and varying_dims(axis) != [dim]:
                self.labels.freeze(axis, "a response norm runs over it")
        self._set(output, self.axes(tensor))
        module = self._modules[call.name]
        weights = weights_of(module)
        if weights is not None and weights.scale and kind != "response" and not kind.endswith(UNIT):
            scale, shift = (module.get_parameter(name) if name else None for name in weights)
            self._zeros.normed(scale, shift, output, dim, call.name)
