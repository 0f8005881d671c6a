"""The report page: one self-contained HTML file, for a screen and for paper."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from trilemma.evaluations.record import Evaluation
from trilemma.machine.files import check_writable, write_text
from trilemma.report import figures
from trilemma.report.chart import left_out, trilemma_chart
from trilemma.report.page import WIDTH, drawn, enlarged, section, text_html, whole
from trilemma.report.provenance import provenance_html, training_words
from trilemma.report.sources import RunFiles, read_sources, same_seeds
from trilemma.report.table_views import ARROWS, KEY, to_html
from trilemma.report.tables import Row, Table, build_table
from trilemma.report.verdict import axis_verdicts, deciding_column, verdict
from trilemma.runs.cascades import split_spec
from trilemma.samplers import Strip

_MOST_WAYS = 6


def _head(table: Table, runs: Sequence[RunFiles]) -> tuple[str, str]:
    """Title and subtitle: what was compared, and in which circumstances."""
    recipes = dict.fromkeys(row.evaluation.subject.recipe for row in table.models)
    names = [name for name in recipes if name] or [run.path.resolve().name for run in runs]
    title = " and ".join(names) if 0 < len(names) < 4 else "Diffusion models compared"
    ways = len(table.models)
    parts = [f"{ways} way{'s' * (ways != 1)} of sampling on three axes: quality, coverage, speed"] if ways else []
    if len(runs) == 1 and (trained := training_words(runs[0].log)):
        parts.append("trained for " + ", ".join(p for p in trained.split(", ") if "steps" in p or "minutes" in p))
    hardware = {row.evaluation.environment.hardware for row in table.models}
    if len(hardware) == 1 and (known := hardware.pop()):
        parts.append(f"measured on {known}")
    days = sorted((row.evaluation.created or "")[:10] for row in table.rows)
    return title, " · ".join([*parts, *[day for day in days[-1:] if day]])


def _verdict_section(table: Table) -> str:
    sentences = "".join(f"<p>{text_html(sentence)}</p>" for sentence in verdict(table))
    if not sentences:
        return ""
    cards = ""
    if len(table.models) > 1:
        for v in axis_verdicts(table):
            who = " · ".join([*v.leaders[:3], *([f"{len(v.leaders) - 3} others"] if len(v.leaders) > 3 else [])])
            who = "Level" if len(v.leaders) == len(table.models) else who or "Undecided"
            cards += (
                f'<div class="{v.axis}"><div class="name">{v.axis}</div><div class="who">{escape(who)}</div>'
                f'<div class="why">{text_html(v.figure)}; {text_html(v.detail)}</div></div>'
            )
    return f'<section id="verdict" class="verdict">{sentences}<div class="axes">{cards}</div></section>'


def table_section(table: Table, marked: Collection[Row] = (), note: str = "") -> str:
    """The table with its key and what its figures mean; `note` says of the `marked` rows why they are."""
    if not table.columns:
        return ""
    key = f"Bold: {KEY}; nothing, where standard errors are not known. {ARROWS}. {note}".rstrip()
    if any(row.evaluation.warnings for row in table.rows):
        key += ' Some figures come with <a href="#warnings">warnings</a>.'
    meanings = "; ".join(
        f"<b>{text_html(column.title)}</b> {escape(column.metric.description)}" for column in table.columns
    )
    body = f'{to_html(table, marked)}<p class="key">{key}</p><p class="key">{meanings}.</p>'
    return section("Figures", body, name="figures")


def chart_section(title: str, chart: go.Figure | None, aside: Sequence[str]) -> str:
    """A trilemma chart beside what is to be said of it; empty without one."""
    if chart is None:
        return ""
    plot = chart.to_html(
        full_html=False, include_plotlyjs=True, div_id="trilemma-chart", default_width="680px", default_height="430px",
        config={"displayModeBar": False, "responsive": False},
    )  # fmt: skip
    text = "".join(f"<p>{sentence}</p>" for sentence in aside)
    return section(
        title,
        '<div class="chart"><div class="plot" role="img" aria-label="Quality against speed, coverage as size and '
        f'colour; the table holds the same figures.">{plot}<noscript>This chart needs JavaScript; the table '
        f'holds the same figures.</noscript></div><div class="aside">{text}</div></div>',
        name="trilemma",
    )


def _trilemma_section(table: Table) -> str:
    chart, quality = trilemma_chart(table), deciding_column(table, "quality")
    if chart is None or quality is None:
        return ""
    aside = [
        f"Up is better quality ({text_html(quality.title)}), right is faster; the size and colour of a mark are its "
        "recall. The ideal is a large, bright mark in the upper right corner."
    ]
    if table.yardsticks:
        aside.append("The dashed line is what real images measure against the same reference.")
    if missing := left_out(table):
        aside.append(f"Not drawn, for want of comparable figures: {escape(', '.join(missing))}.")
    return chart_section("The trilemma", chart, aside)


def samples_section(rows: Sequence[Row]) -> str:
    """Samples of the first ways whose files are there."""
    shown: list[tuple[Row, np.ndarray, np.ndarray | None]] = []
    for row in rows:
        found = row.evaluation.images() if len(shown) < _MOST_WAYS else None
        if found is not None and len(found[0]):
            shown.append((row, found[0], found[1]))
    if not shown:
        return ""
    across = min(3, len(shown))
    blocks = "".join(_samples_block(*one, across=across) for one in shown)
    labelled = any(labels is not None for _, _, labels in shown)
    lead = []
    if labelled:
        lead.append("One row a class, with the share of its images that the classifier recognises, where measured.")
    if same_seeds([row.evaluation for row, _, _ in shown]):
        lead.append("The same place holds the same seed in each block.")
    if len(shown) == _MOST_WAYS < len(rows):
        lead.append(f"The first {_MOST_WAYS} ways are shown.")
    return section(
        "Samples by class" if labelled else "Samples",
        f'<div class="ways" style="--across: {across}">{blocks}</div>',
        name="samples",
        lead=" ".join(lead),
    )


def _samples_block(row: Row, images: np.ndarray, labels: np.ndarray | None, *, across: int) -> str:
    room = (WIDTH - 20 * (across - 1)) // across - 50
    cell = images.shape[2] + 2
    columns = max(3, min(12, room // (2 * cell)))
    caption = f"<figcaption>{escape(row.label)}</figcaption>"
    if labels is None:
        down = max(1, min(8, len(images) // columns))
        columns = min(columns, len(images))
        grid = images[: down * columns].reshape(down, columns, *images.shape[1:])
        return f"<figure>{caption}{enlarged(figures.tile(grid), f'Samples: {row.label}', room)}</figure>"
    grid, classes = figures.by_class(images, labels, columns=columns)
    picture = enlarged(figures.tile(grid), f"Samples by class: {row.label}", room)
    names = "".join(f"<span>{label}</span>" for label in classes)
    known = row.evaluation.metrics.get("recognised_by_class")
    shares = ""
    if isinstance(known, list) and max(classes) < len(known):
        texts = [f"{100 * known[c]:.0f} %" if isinstance(known[c], int | float) else "" for c in classes]
        shares = f'<div class="share">{"".join(f"<span>{text}</span>" for text in texts)}</div>'
    return f'<figure>{caption}<div class="byclass"><div class="class">{names}</div>{picture}{shares}</div></figure>'


def _strip(strip: Strip, caption: str, note: str) -> str:
    cell = strip.images.shape[3] + 2
    images, times = figures.thin_strip(strip.images, strip.times, most=max(4, min(16, WIDTH // (2 * cell))))
    picture = figures.tile(images[:6])
    width = picture.shape[1] * max(1, min(4, WIDTH // picture.shape[1]))
    labels = "".join(f"<span>{'t = ' if i == 0 else ''}{t:.3g}</span>" for i, t in enumerate(times))
    return (
        f"<figure><figcaption>{escape(caption)} <small>{escape(note)}</small></figcaption>"
        f'<div class="times" style="width: {width}px">{labels}</div>'
        f"{enlarged(picture, f'{caption}, {note}', WIDTH)}</figure>"
    )


def _of(run: RunFiles, runs: Sequence[RunFiles]) -> str:
    return f" of {run.path.resolve().name}" if len(runs) > 1 else ""


def _strips_section(runs: Sequence[RunFiles]) -> str:
    body = ""
    for run in runs:
        if run.forward:
            body += _strip(run.forward, f"Forward{_of(run, runs)}", "from image to noise")
        if run.reverse:
            body += _strip(run.reverse, f"Reverse{_of(run, runs)}", "from noise to image")
    return section("Forward and reverse", body, name="strips")


def _loss_section(runs: Sequence[RunFiles]) -> str:
    body = ""
    for run in runs:
        if svg := figures.loss_figure(run.log):
            caption = f"<figcaption>{escape(run.path.resolve().name)}</figcaption>" if len(runs) > 1 else ""
            body += drawn(svg, f"Loss by quarter of t against the training step{_of(run, runs)}", caption)
        if svg := figures.progress_figure(run.log):
            body += drawn(svg, f"Fréchet distance during training{_of(run, runs)}")
    lead = "An average over all t hides where a model still learns: the quarters, from clean to noisy, show it."
    return section("Loss by quarter of t", body, name="loss", lead=lead)


def _balance_section(table: Table) -> str:
    held = {row.label: row.evaluation.metrics.get("class_counts") for row in table.rows}
    counts = {label: found for label, found in held.items() if isinstance(found, list)}
    asked = {row.evaluation.samples.classes for row in table.models if row.label in counts}
    even = asked == {"balanced"}
    svg = figures.balance_figure(counts, even=even, yardsticks=[row.label for row in table.yardsticks])
    if svg is None:
        return ""
    lead = "The class that the classifier sees in each image." + (" The dashed line is the even share." if even else "")
    body = drawn(svg, "Share of images in each class, one panel a way of sampling")
    return section("Class balance", body, name="balance", lead=lead)


def render(runs: Sequence[RunFiles], evaluations: Sequence[Evaluation]) -> str:
    """The whole page as text. Sections without material are left out.

    Raises InputError where a samples file that an evaluation names is there but cannot be read."""
    table = build_table(evaluations)
    title, subtitle = _head(table, runs)
    sections = [
        _verdict_section(table),
        table_section(table),
        _trilemma_section(table),
        samples_section(table.rows),
        _strips_section(runs),
        _loss_section(runs),
        _balance_section(table),
        section("What was run, and on what", provenance_html(table, runs), name="provenance"),
    ]
    return whole("trilemma report", title, subtitle, sections, evaluations)


def build_report(sources: Sequence[Path], out: Path | None = None) -> Path:
    """Write one self-contained HTML report of run directories and evaluation files; gives the file written.

    out: by default RUN/report.html for a single run directory, else report.html in the working directory. The file
    appears whole or not at all. Raises InputError for a source that is neither a run nor an evaluation, for an invalid
    file in a run, and for an `out` that cannot be written."""
    sources = [Path(split_spec(source)[-1]) for source in sources]  # a cascade's evaluations lie in its last run
    if out is None:
        out = sources[0] / "report.html" if len(sources) == 1 and sources[0].is_dir() else Path("report.html")
    check_writable(out, "--out", suffix=".html")
    return write_text(out, render(*read_sources(sources)), "--out")
