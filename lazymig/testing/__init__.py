"""Test tools: the contract of stores as tests, faults, releases, golden states."""

from lazymig.testing.releases import release

__all__ = ["release"]
