"""Latencies of any number of messages, in memory of a few KiB, that can be added up over processes."""

from collections import Counter
from collections.abc import Mapping

_EXACT = 128
"""Whole microseconds below this have a bucket each; above, 64 buckets to each doubling: an error under 1.6 %."""


class Latencies:
    """A histogram of microseconds."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self._counts: Counter[int] = Counter(counts)

    def add(self, microseconds: int) -> None:
        """Count one message; a clock that ran backwards counts as 0."""
        self._counts[_bucket(max(microseconds, 0))] += 1

    def merge(self, other: "Latencies") -> None:
        """Add what another process has counted."""
        self._counts += other._counts

    @property
    def count(self) -> int:
        """How many messages were counted."""
        return self._counts.total()

    def percentile(self, percent: float) -> int:
        """The least latency, in microseconds, that so many percent of the messages did not exceed.

        Args:
            percent: above 0, up to 100; 100 is the maximum.

        Raises:
            ValueError: nothing was counted.
        """
        if not self._counts:
            raise ValueError("no latency was counted")
        wanted = percent * self.count / 100 - 1e-9  # 99.9 % of 1,000 are 999, whatever binary fractions say
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                break
        return _upper_end(bucket)

    def to_map(self) -> dict[str, int]:
        """For the way from one process to another, as JSON."""
        return {str(bucket): count for bucket, count in self._counts.items()}

    @classmethod
    def from_map(cls, counts: Mapping[str, int]) -> "Latencies":
        """What `to_map` gave."""
        return cls({int(bucket): count for bucket, count in counts.items()})


def _bucket(value: int) -> int:
    shift = max(value.bit_length() - _EXACT.bit_length() + 1, 0)
    return (shift << 8) | (value >> shift)


def _upper_end(bucket: int) -> int:
    shift, top = bucket >> 8, bucket & 0xFF
    return ((top + 1) << shift) - 1
