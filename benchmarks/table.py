"""The one table, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.figures import Measure, Target

__all__ = ["figure", "grid", "results"]

_HEAD = ("row", "what", "measured", "baseline", "ratio", "target", "met")
_LEFT_ALONE = "-"


def results(rows: Mapping[str, Sequence[Measure]], failed: Mapping[str, str]) -> str:
    """All measures by row; a row that failed says so in its own line."""
    lines = [_line(row, each) for row, measures in rows.items() for each in measures]
    lines += [(row, f"not measured: {why}", *[_LEFT_ALONE] * 5) for row, why in failed.items()]
    return grid(_HEAD, lines)


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    shown = [head, ["---"] * len(head), *lines]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in shown
    )


def figure(value: float) -> str:
    """Three digits that count, or all before the point, grouped."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _line(row: str, measure: Measure) -> tuple[str, ...]:
    baseline = _LEFT_ALONE
    if measure.baseline is not None:
        baseline = f"{figure(measure.baseline)} {measure.unit} ({measure.against})"
    return (
        row,
        measure.what,
        f"{figure(measure.value)} {measure.unit}".rstrip(),
        baseline,
        _LEFT_ALONE if measure.ratio is None else figure(measure.ratio),
        _promise(measure.target, measure.unit),
        {None: _LEFT_ALONE, True: "yes", False: "no"}[measure.is_met],
    )


def _promise(target: Target | None, unit: str) -> str:
    if target is None:
        return _LEFT_ALONE
    sign = "≤" if target.bound == "at most" else "≥"
    return f"{sign} {figure(target.limit)} {unit if target.of == 'value' else 'x'}".rstrip()
