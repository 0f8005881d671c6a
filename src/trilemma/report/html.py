"""The report page: one self-contained HTML file, for a screen and for paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trilemma.evaluations.record import Evaluation
from trilemma.evaluations.statements import Statement
from trilemma.machine.files import check_writable, write_text
from trilemma.report import curves
from trilemma.report.balance import balance
from trilemma.report.chart import left_out
from trilemma.report.page import Drawn, charts, fill, run_names
from trilemma.report.pictures import ShownStrip, sample_blocks, shown_strip
from trilemma.report.provenance import provenance, training_words
from trilemma.report.sources import RunFiles, is_evaluations, read_sources
from trilemma.report.tables import Table, build_table
from trilemma.report.verdict import axis_verdicts, deciding_column, rested_on, standing_lines, verdict
from trilemma.runs.cascades import split_spec


def _title(runs: Sequence[RunFiles], table: Table) -> str:
    """The runs' own names."""
    names = [run.name for run in runs] or run_names(row.evaluation for row in table.models)
    return " and ".join(names) if 0 < len(names) < 4 else "Diffusion models compared"


def _subtitle(runs: Sequence[RunFiles], table: Table) -> list[str]:
    """What was compared, and in which circumstances."""
    ways = sum(row.evaluation.samples.cut_from is None for row in table.models)
    parts = [f"{ways} way{'s' * (ways != 1)} of sampling on three axes: quality, coverage, speed"] if ways else []
    if len(runs) == 1 and (trained := training_words(runs[0].log)):
        parts.append("trained for " + ", ".join(p for p in trained.split(", ") if "steps" in p or "minutes" in p))
    hardware = {row.evaluation.environment.hardware for row in table.models}
    if len(hardware) == 1 and (known := hardware.pop()):
        parts.append(f"measured on {known}")
    days = sorted((row.evaluation.created or "")[:10] for row in table.rows)
    return [*parts, *(day for day in days[-1:] if day)]


def _strips(runs: Sequence[RunFiles]) -> list[ShownStrip]:
    shown = []
    for run in runs:
        for strip, way, note in (
            (run.forward, "Forward", "from image to noise"),
            (run.reverse, "Reverse", "from noise to image"),
        ):
            if strip is not None:
                shown.append(shown_strip(strip, way + _of(run, runs), note))
    return shown


def _curves(runs: Sequence[RunFiles]) -> list[Drawn]:
    drawn = []
    for run in runs:
        caption = run.name if len(runs) > 1 else ""
        for draw, what, own in (
            (curves.loss_figure, "Loss by quarter of t against the training step", caption),
            (curves.progress_figure, "Fréchet distance during training", ""),
        ):
            wide, narrow = draw(run.log), draw(run.log, curves.NARROW)
            if wide and narrow:
                drawn.append(Drawn.of(wide, narrow, what + _of(run, runs), own))
    return drawn


def _of(run: RunFiles, runs: Sequence[RunFiles]) -> str:
    return f" of {run.name}" if len(runs) > 1 else ""


def render(runs: Sequence[RunFiles], evaluations: Sequence[Evaluation], standing: Sequence[Statement] = ()) -> str:
    """The whole page as text. Sections without material are left out. `standing`: sentences on where a run stands and
    what to try next, which come first.

    Raises InputError where a samples file that an evaluation names is there but cannot be read."""
    table = build_table(evaluations, also=rested_on(standing))
    quality = deciding_column(table, "quality")
    folders = {run.path.resolve(): run.classes for run in runs}

    def names(one: Evaluation) -> Sequence[str]:
        """Of a run's evaluation, which lies in its folder, the run's classes."""
        return folders.get(one.path.resolve().parent.parent, ()) if one.path else ()

    return fill(
        "report.html",
        evaluations,
        kind="report",
        title=_title(runs, table),
        subtitle=_subtitle(runs, table),
        standing=standing,
        sentences=verdict(table, single=not standing),  # what matters of one way the standing says
        axes=axis_verdicts(table),
        table=table,
        charts=charts(table),
        quality=quality.title if quality else "",
        left_out=left_out(table),
        samples=sample_blocks(table.rows, names),
        strips=_strips(runs),
        curves=_curves(runs),
        balance=balance(table, names),
        provenance=provenance(table, runs),
    )


def build_report(sources: Sequence[Path], out: Path | None = None) -> Path:
    """Write one self-contained HTML report of run directories and evaluation files; gives the file written.

    out: by default RUN/report.html for a single run directory, else report.html in the working directory. The file
    appears whole or not at all. Raises InputError for a source that is neither a run nor an evaluation, for an invalid
    file in a run, and for an `out` that cannot be written."""
    sources = [Path(split_spec(source)[-1]) for source in sources]  # a cascade's evaluations lie in its last run
    sources = [source.parent if is_evaluations(source) else source for source in sources]
    if out is None:
        out = sources[0] / "report.html" if len(sources) == 1 and sources[0].is_dir() else Path("report.html")
    check_writable(out, "--out", suffix=".html")
    runs, evaluations = read_sources(sources)
    standing = standing_lines(runs, evaluations, named=len(runs) > 1)
    return write_text(out, render(runs, evaluations, standing), "--out")
