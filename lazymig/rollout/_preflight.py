"""Preflight: the migrations of a sweep, run on copies of what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazymig.rollout._sweep_report import SweepReport


async def rehearse(*args: Any, **options: Any) -> SweepReport:
    """Run the migrations on copies."""
    raise NotImplementedError(args, options)
