"""Specifications of the controls: what a search has to beat, and the ceiling."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from dms_bench.config.method import MethodSpec, Use
from dms_bench.config.own_network import NetworkName
from dms_bench.config.supernet import SpaceSpec, SupernetSpec


class Uniform(MethodSpec):
    """One ratio for every width group, full depth."""

    implementation: ClassVar[str] = "dms_bench.methods.controls.uniform:UniformSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights",)
    needs_widths: ClassVar[bool] = True

    kind: Literal["uniform"] = "uniform"


class Random(MethodSpec):
    """A random architecture of the space at the budget: the control."""

    implementation: ClassVar[str] = "dms_bench.methods.controls.random:RandomArchitecture"
    draws_on: ClassVar[tuple[Use, ...]] = ()

    kind: Literal["random"] = "random"


class WholeSupernet(MethodSpec):
    """The supernet itself, not cut: the ceiling."""

    implementation: ClassVar[str] = "dms_bench.methods.controls.whole:KeepSupernet"
    draws_on: ClassVar[tuple[Use, ...]] = ()
    uses_budget: ClassVar[bool] = False

    kind: Literal["supernet"] = "supernet"


class Resolution(MethodSpec):
    """The whole supernet on smaller pictures, the largest that meet the budget: what one does instead of cutting.

    Parameters stay, so that a budget has to bound MACs.
    """

    implementation: ClassVar[str] = "dms_bench.methods.controls.whole:KeepSupernet"
    draws_on: ClassVar[tuple[Use, ...]] = ()
    shrinks_pictures: ClassVar[bool] = True

    kind: Literal["resolution"] = "resolution"


class Longer(MethodSpec):
    """The supernet itself, not cut, trained for the epochs of search and retraining together."""

    implementation: ClassVar[str] = "dms_bench.methods.controls.whole:KeepSupernet"
    draws_on: ClassVar[tuple[Use, ...]] = ()
    uses_budget: ClassVar[bool] = False
    adds_search_epochs: ClassVar[bool] = True

    kind: Literal["longer"] = "longer"


class Designed(MethodSpec):
    """Another network, not cut: what people have designed for that budget."""

    # Keeps all of the network that `network` names.
    implementation: ClassVar[str] = "dms_bench.methods.controls.whole:KeepSupernet"
    draws_on: ClassVar[tuple[Use, ...]] = ()
    example: ClassVar[dict[str, Any]] = {
        "method": {"kind": "designed", "model": "resnet18", "args": {"channels": [32, 64, 128, 256]}}
    }

    kind: Literal["designed"] = "designed"
    model: NetworkName
    """Name of the network, as in `supernet.model`."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments for building it, as in `supernet.args`."""

    def label(self) -> str:
        """Return the network's name and arguments: every other is another method."""
        args = (f"{name}={value}".replace(" ", "") for name, value in self.args.items())
        return " ".join(("designed", self.model, *args))

    def network(self, supernet: SupernetSpec) -> SupernetSpec:
        """Return the designed network, of which nothing is searched."""
        return SupernetSpec(model=self.model, args=self.args, space=SpaceSpec(width=False, depth=False))
