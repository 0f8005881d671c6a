"""Networks side by side: what each costs, beside what its source printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trilemma.jobs.network_costs import NetworkCosts, Ratios, ratios
from trilemma.metrics.metric import significant
from trilemma.metrics.speed import Speed
from trilemma.recipes import Source
from trilemma.report.tables import DASH

Row = tuple[NetworkCosts, Ratios]
Columns = Sequence[tuple[str, Callable[[Row], str]]]


def network_tables(found: Sequence[NetworkCosts], machine: str) -> Group:
    """Two tables, one row a recipe: sizes, and times on `machine` if any were measured. Columns in which no row has a
    figure are left out. Times of different machines are compared as ratios to the first recipe, ours beside the
    source's."""
    rows = list(zip(found, ratios(found), strict=True))
    papers = {s.paper: f"{s.samples:,}" for one in found if (s := one.source) and s.fid is not None and s.samples}
    notes = [
        "Mi: 2²⁰. G: 10⁹, in one image's forward pass. Activations: what a training step keeps of one image, fp32.",
        *(f"FID in {paper}: of {count} images." for paper, count in papers.items()),
    ]
    parts: list[RenderableType] = [_table(rows, SIZES), *map(Text, notes)]
    speeds = [one.forward for one in found if one.forward]
    if speeds:
        first = speeds[0]
        notes = [
            f"On {machine}. fp32, batches of {first.batch}: an image's share; median, shortest and longest of "
            f"{first.repeats} passes.",
            f"Speed: forward passes a second; training: time of forward and backward; relative to {found[0].name}.",
            *(f"{one.name} is not timed: {one.untimed}." for one in found if one.untimed),
        ]
        parts += [_table(rows, TIMES), *map(Text, notes)]
    return Group(*parts)


def _table(rows: Sequence[Row], columns: Columns) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("recipe", overflow="fold", min_width=14)
    cells = []
    for title, show in columns:
        texts = [show(row) for row in rows]
        if any(text != DASH for text in texts):
            table.add_column(title, justify="right", no_wrap=True)
            cells.append(texts)
    for i, (one, _) in enumerate(rows):
        table.add_row(one.name, *(texts[i] for texts in cells))
    return table


def _number(value: float | None, form: str = "{:.2f}") -> str:
    return DASH if value is None else form.format(value)


def _time(speed: Speed | None) -> str:
    """Milliseconds an image: the median, and from where to where."""
    if speed is None:
        return DASH
    ends = (significant(1000 / rate) for rate in (speed.fastest, speed.slowest))
    return f"{significant(1000 * speed.seconds_per_image)} ({'–'.join(ends)})"


def _source(row: Row, figure: Callable[[Source], float | None]) -> str:
    return DASH if row[0].source is None else _number(figure(row[0].source))


SIZES: Columns = (
    ("parameters\nMi", lambda row: f"{row[0].parameters_mi:.2f}"),
    ("source's\nMi", lambda row: _source(row, lambda source: source.parameters_mi)),
    ("ours/its\n− 1", lambda row: _number(row[0].deviation, "{:+.1%}")),
    ("multiply-adds\nG", lambda row: significant(row[0].multiply_adds / 1e9)),
    ("activations\nMiB", lambda row: significant(row[0].activations / 2**20)),
    ("source's\nFID", lambda row: _source(row, lambda source: source.fid)),
)
TIMES: Columns = (
    ("forward\nms", lambda row: _time(row[0].forward)),
    ("forward and backward\nms", lambda row: _time(row[0].step)),
    ("speed\n", lambda row: _number(row[1].speed)),
    ("source's\nspeed", lambda row: _number(row[1].source_speed)),
    ("training\n", lambda row: _number(row[1].training)),
    ("source's\ntraining", lambda row: _number(row[1].source_training)),
)
