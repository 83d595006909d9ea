"""What a dry run of a sweep found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Preflight:
    """What running the migrations on copies showed."""

    def __add__(self, other: Preflight) -> Preflight:
        """Return what both found."""
        return self

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {}
