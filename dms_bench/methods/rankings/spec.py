"""Specifications of the rankings: remove what matters least by a score of the weights, widths only, full depth.

They judge the weights that they are given: trained ones under DMSp and DMSp-, random ones under DMSnp, where
only the widths that the global ones choose can say anything.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from dms_bench.config.method import MethodSpec, Use


class ScopedRanking(MethodSpec):
    """A ranking that can compare within each width group, or over all of them."""

    needs_widths: ClassVar[bool] = True

    scope: Literal["local", "global"] = "local"
    """local: the same share of every group stays. global: one threshold for all groups, which so get their widths."""

    def label(self) -> str:
        """Return kind and scope: they are different methods in the literature."""
        return f"{self.kind} {self.scope}"


class L1(ScopedRanking):
    """Keep the channels with the largest L1 norm in the layer that makes them."""

    implementation: ClassVar[str] = "dms_bench.methods.rankings.search:MagnitudeSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights",)

    kind: Literal["l1"] = "l1"


class L2(ScopedRanking):
    """Keep the channels with the largest L2 norm in the layer that makes them."""

    implementation: ClassVar[str] = "dms_bench.methods.rankings.search:MagnitudeSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights",)

    kind: Literal["l2"] = "l2"


class Taylor(ScopedRanking):
    """Keep the channels whose removal changes the loss most, to first order."""

    implementation: ClassVar[str] = "dms_bench.methods.rankings.search:TaylorSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights", "data", "gradients")

    kind: Literal["taylor"] = "taylor"
    scope: Literal["local", "global"] = "global"


class GroupNorm(MethodSpec):
    """DepGraph: keep the channels with the largest norm over all layers that share them."""

    implementation: ClassVar[str] = "dms_bench.methods.rankings.search:GroupNormSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights",)
    needs_widths: ClassVar[bool] = True

    kind: Literal["group_norm"] = "group_norm"


class Isomorphic(MethodSpec):
    """Isomorphic pruning: Taylor scores compete among groups of the same topology."""

    implementation: ClassVar[str] = "dms_bench.methods.rankings.search:IsomorphicSearch"
    draws_on: ClassVar[tuple[Use, ...]] = ("weights", "data", "gradients")
    needs_widths: ClassVar[bool] = True

    kind: Literal["isomorphic"] = "isomorphic"
