"""A sweep's page: the dial's price, the Pareto front, the table, samples of the front, and what was run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trilemma.machine.files import check_writable, write_text
from trilemma.report.page import Drawn, charts, fill, run_names
from trilemma.report.pictures import sample_blocks
from trilemma.report.provenance import provenance
from trilemma.report.sweep import FRONT, Sweep
from trilemma.report.sweep_figure import against, dial_figure, dials
from trilemma.report.verdict import deciding_column


def _title(sweep: Sweep) -> str:
    names = " × ".join(name.replace("_", " ") for name in sweep.axes)
    return f"{' and '.join(run_names(row.evaluation for row in sweep.table.rows))}: {names or 'one point'}"


def _subtitle(sweep: Sweep) -> list[str]:
    evaluations = [row.evaluation for row in sweep.table.rows]
    first = evaluations[0]
    parts = [f"{len(evaluations)} point{'s' * (len(evaluations) != 1)} of {first.samples.count} images"]
    parts += [f"against {first.reference.spec} by {first.features.name} features"]
    hardware = {one.environment.hardware for one in evaluations}
    parts += [f"on {known}" for known in hardware if known and len(hardware) == 1]
    return [part for part in (*parts, max((one.created or "")[:10] for one in evaluations)) if part]


def _drawn(sweep: Sweep) -> dict[str, tuple[str, str]]:
    """Figures as SVG texts, wide and narrow, by what they are drawn against."""
    both = {dial: (dial_figure(sweep, dial), dial_figure(sweep, dial, across=1)) for dial in dials(sweep)}
    return {dial: (wide, narrow) for dial, (wide, narrow) in both.items() if wide and narrow}


def render(sweep: Sweep) -> str:
    """The whole page as text. Raises InputError where a samples file that an evaluation names cannot be read."""
    return _page(sweep, _drawn(sweep))


def _page(sweep: Sweep, drawn: Mapping[str, tuple[str, str]]) -> str:
    speed = next((column for column in sweep.deciding if column.metric.axis == "speed"), None)
    quality = deciding_column(sweep.table, "quality")
    titles = ", ".join(column.title for column in sweep.dials)
    return fill(
        "sweep.html",
        [row.evaluation for row in sweep.table.rows],
        kind="sweep",
        title=_title(sweep),
        subtitle=_subtitle(sweep),
        standing=[],
        sweep=sweep,
        rule=FRONT,
        dials={
            dial: Drawn.of(*both, f"{titles} against {against(dial)}; the table has the same figures")
            for dial, both in drawn.items()
        },
        against=against,
        charts=charts(sweep.table, speed.metric.name, sweep.front) if speed else {},
        quality=quality.title if quality else "",
        speed=speed.title if speed else "",
        samples=sample_blocks(sweep.front),
        provenance=provenance(sweep.table, []),
    )


def write_page(sweep: Sweep, folder: Path, out: Path | None = None) -> tuple[Path, list[Path]]:
    """Write the page, and each figure of it as SVG beside it, as `out` or into the folder under the sweep's name; gives
    the page and the figures. Raises InputError where that cannot be done."""
    page = out or folder / f"{sweep.name}.html"
    check_writable(page, "--out", suffix=".html")
    drawn = _drawn(sweep)
    written = [
        write_text(page.with_name(f"{page.stem}-{dial}.svg"), wide, "--out") for dial, (wide, _) in drawn.items()
    ]
    return write_text(page, _page(sweep, drawn), "--out"), written
