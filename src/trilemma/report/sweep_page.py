"""A sweep's page: the dial's price, the Pareto front, the table, samples of the front, and what was run."""

from __future__ import annotations

from html import escape
from pathlib import Path

from trilemma.machine.files import check_writable, write_text
from trilemma.report.chart import trilemma_chart
from trilemma.report.html import chart_section, samples_section, table_section
from trilemma.report.page import drawn, section, text_html, whole
from trilemma.report.provenance import provenance_html
from trilemma.report.sweep import FRONT, Sweep
from trilemma.report.sweep_figure import against, dial_figure, dials
from trilemma.report.table_views import MARK


def _head(sweep: Sweep) -> tuple[str, str]:
    evaluations = [row.evaluation for row in sweep.table.rows]
    recipes = " and ".join(dict.fromkeys(one.subject.recipe or "" for one in evaluations))
    names = " × ".join(name.replace("_", " ") for name in sweep.axes)
    first = evaluations[0]
    parts = [f"{len(evaluations)} point{'s' * (len(evaluations) != 1)} of {first.samples.count} images"]
    parts += [f"against {first.reference.spec} by {first.features.name} features"]
    hardware = {one.environment.hardware for one in evaluations}
    parts += [f"on {known}" for known in hardware if known and len(hardware) == 1]
    parts += [max((one.created or "")[:10] for one in evaluations)]
    return f"{recipes}: {names or 'one point'}", " · ".join(filter(None, parts))


def _front_section(sweep: Sweep) -> str:
    if not sweep.deciding:
        return ""
    rule = f'<div class="key">The front is of quality, coverage and speed: {FRONT}.</div>'
    return f'<section id="verdict" class="verdict"><p>{text_html(sweep.verdict)}</p>{rule}</section>'


def _dial_section(sweep: Sweep, dial: str) -> str:
    wide, narrow = dial_figure(sweep, dial), dial_figure(sweep, dial, across=1)
    if wide is None:
        return ""
    lead = "Bars are one standard error. Filled points are on the Pareto front."
    alt = f"{', '.join(column.title for column in sweep.dials)} against {against(dial)}; the table has the same figures"
    return section(f"Against {against(dial)}", drawn(wide, alt, narrow=narrow), name=f"dial-{dial}", lead=lead)


def _chart_section(sweep: Sweep) -> str:
    speed = next((column for column in sweep.deciding if column.metric.axis == "speed"), None)
    quality = next((column for column in sweep.deciding if column.metric.axis == "quality"), None)
    if speed is None or quality is None:
        return ""
    lead = [
        f"Up is better quality ({text_html(quality.title)}), right is faster ({escape(speed.title)}); the size and "
        "colour of a mark are its recall. Named and ringed: the points on the Pareto front."
    ]
    return chart_section("The Pareto front", trilemma_chart(sweep.table, speed.metric.name, sweep.front), lead)


def render(sweep: Sweep) -> str:
    """The whole page as text. Raises InputError where a samples file that an evaluation names cannot be read."""
    title, subtitle = _head(sweep)
    sections = [
        _front_section(sweep),
        *(_dial_section(sweep, dial) for dial in dials(sweep)),
        _chart_section(sweep),
        table_section(sweep.table, sweep.front, f"{MARK} on the Pareto front."),
        samples_section(sweep.front),
        section("What was run, and on what", provenance_html(sweep.table, []), name="provenance"),
    ]
    return whole("trilemma sweep", title, subtitle, sections, [row.evaluation for row in sweep.table.rows])


def write_page(sweep: Sweep, folder: Path, out: Path | None = None) -> tuple[Path, list[Path]]:
    """Write the page, and each figure of it as SVG beside it, as `out` or into the folder under the sweep's name; gives
    the page and the figures. Raises InputError where that cannot be done."""
    page = out or folder / f"{sweep.name}.html"
    check_writable(page, "--out", suffix=".html")
    figures = {dial: dial_figure(sweep, dial) for dial in dials(sweep)}
    written = [
        write_text(page.with_name(f"{page.stem}-{dial}.svg"), svg, "--out") for dial, svg in figures.items() if svg
    ]
    return write_text(page, render(sweep), "--out"), written
