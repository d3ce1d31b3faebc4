"""What a benchmark found: a value, its baseline from the same run, and the target for their ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Measure", "Target", "at_least", "at_most", "per_second", "quantile"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is promised, of the ratio to the baseline or of the value itself."""

    bound: Literal["at most", "at least"]
    limit: float
    of: Literal["ratio", "value"] = "ratio"

    def is_met(self, figure: float) -> bool:
        """Whether the figure keeps the promise; the limit itself does."""
        return figure <= self.limit if self.bound == "at most" else figure >= self.limit


def at_most(limit: float, of: Literal["ratio", "value"] = "ratio") -> Target:
    """No more than this."""
    return Target(bound="at most", limit=limit, of=of)


def at_least(limit: float, of: Literal["ratio", "value"] = "ratio") -> Target:
    """No less than this."""
    return Target(bound="at least", limit=limit, of=of)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One line of the table.

    Attributes:
        what: is measured.
        unit: of value and baseline.
        against: what the baseline is; empty where there is none.
    """

    what: str
    value: float
    unit: str
    baseline: float | None = None
    against: str = ""
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """Value to baseline; `None` without a baseline to divide by."""
        return self.value / self.baseline if self.baseline else None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; `None` where there is none, or nothing to judge it by."""
        if self.target is None:
            return None
        figure = self.value if self.target.of == "value" else self.ratio
        return None if figure is None else self.target.is_met(figure)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them does not exceed (nearest rank).

    Raises:
        ValueError: there are no values, or the share is not above 0 and at most 1.
    """
    if not values:
        raise ValueError("a quantile of nothing")
    if not 0 < share <= 1:
        raise ValueError("the share must be above 0 and at most 1")
    rank = -int(-share * len(values) // 1)  # rounded up
    return sorted(values)[rank - 1]


def per_second(count: float, seconds: float) -> float:
    """A rate; 0 when no time has passed."""
    return count / seconds if seconds > 0 else 0.0
