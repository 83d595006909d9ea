"""Test tools: the contract of stores as tests, faults, releases, a clock.

`lazymig.testing.store_suite` and `lazymig.testing.store_machine` need pytest and Hypothesis and are imported by name;
so is `lazymig.testing.simulation`, which needs ``pip install 'lazymig[simulation]'``.
"""

from lazymig.testing.clock import ManualClock
from lazymig.testing.faults import Fault, FaultyStore
from lazymig.testing.releases import release

__all__ = ["Fault", "FaultyStore", "ManualClock", "release"]
