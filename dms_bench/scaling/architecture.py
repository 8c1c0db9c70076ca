"""An architecture is data: which elements of each group and which blocks of each stage stay."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Architecture:
    """The result of a search.

    Attributes:
        groups: kept element indices of each width group, ascending.
        stages: kept block indices of each stage, ascending.
        macs: multiply-accumulates of one forward pass of one sample.
        params: number of parameters.
    """

    groups: dict[str, tuple[int, ...]]
    stages: dict[str, tuple[int, ...]]
    macs: int
    params: int

    def to_json(self) -> str:
        """Return the architecture as JSON."""
        return json.dumps(asdict(self), indent=None, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is not an architecture.
        """
        try:
            data = json.loads(text)
            return cls(
                groups={str(name): tuple(int(i) for i in kept) for name, kept in data["groups"].items()},
                stages={str(name): tuple(int(i) for i in kept) for name, kept in data["stages"].items()},
                macs=int(data["macs"]),
                params=int(data["params"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not an architecture: {error!r}") from error
