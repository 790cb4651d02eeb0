"""Estimates with their 95 % confidence intervals."""

from math import isnan
from typing import NamedTuple

# The 97.5 % quantile of the normal distribution.
_Z = 1.959963984540054


class Interval(NamedTuple):
    """An estimate, and the ends of its 95 % confidence interval; these are NaN if there is too little data."""

    value: float
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float] | None:
        """(low, high), or None if there is too little data."""
        return None if isnan(self.low) else (self.low, self.high)

    @classmethod
    def around(cls, value: float, error: float, *, least: float = float("-inf")) -> "Interval":
        """The normal interval of a standard error, cut off at `least`."""
        return cls(value, max(least, value - _Z * error), value + _Z * error)

    @classmethod
    def of_share(cls, share: float, count: int) -> "Interval":
        """The interval of a share of `count` things (Wilson, 1927)."""
        scale = 1 + _Z**2 / count
        centre = (share + _Z**2 / (2 * count)) / scale
        half = _Z / scale * (share * (1 - share) / count + _Z**2 / (4 * count**2)) ** 0.5
        return cls(share, max(0.0, centre - half), min(1.0, centre + half))
