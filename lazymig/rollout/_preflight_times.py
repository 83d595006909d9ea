"""How long something took, of any number of times, in bounded memory.

Times are counted by buckets that grow by a constant factor, so a percentile is right within a per cent whatever the
times are, and counts of several runs can be added: DDSketch (Masson, Rim, Lee, VLDB 2019).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FACTOR = 1.02
_SHORTEST = 1e-7
"""Seconds; what is shorter counts as this: no clock tells more."""


@dataclass(frozen=True, slots=True)
class Times:
    """Counted times, in seconds.

    Attributes:
        counts: Bucket to how many.
        longest: Of them.
    """

    counts: Mapping[int, int] = field(default_factory=dict)
    longest: float = 0.0

    def __add__(self, other: Times) -> Times:
        """Return the times of both."""
        return Times(Counter(self.counts) + Counter(other.counts), max(self.longest, other.longest))

    def percentile(self, share: float) -> float:
        """Return the time that a share of all, above 0 and up to 1, does not exceed; 0.0 without any."""
        left = math.ceil(share * sum(self.counts.values()))
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return min(_SHORTEST * _FACTOR**bucket * 2 / (1 + _FACTOR), self.longest)
        return 0.0

    @property
    def p50(self) -> float:
        """What half of them don't exceed."""
        return self.percentile(0.5)

    @property
    def p95(self) -> float:
        """What 95 of a hundred don't exceed."""
        return self.percentile(0.95)

    @property
    def p99(self) -> float:
        """What 99 of a hundred don't exceed."""
        return self.percentile(0.99)


def bucket_of(seconds: float) -> int:
    """Return where a time is counted."""
    return math.ceil(math.log(max(seconds, _SHORTEST) / _SHORTEST, _FACTOR))
