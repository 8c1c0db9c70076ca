"""The base of every specification: immutable, closed to unknown fields, hashable by content."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A piece of configuration.

    Unknown fields are errors: a misspelt option must never be silently ignored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def content_hash(self, length: int = 12) -> str:
        """Return a hash of the content that is stable between processes and field orders."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:length]
