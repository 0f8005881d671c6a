"""What every page is made of: the templates, drawings for wide and narrow pages, and the names of runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from trilemma.evaluations.record import Evaluation
from trilemma.metrics import AXES
from trilemma.report.chart import NARROW, WIDE, Chart, trilemma_chart
from trilemma.report.figures import svg_uri
from trilemma.report.table_views import ARROWS, KEY, MARK
from trilemma.report.tables import Row, Table, warnings_of
from trilemma.runs.cascades import split_spec


@dataclass(frozen=True)
class Drawn:
    """A figure that stands still, for a page and for one as narrow as a telephone's, as data URIs; `alt` says it."""

    wide: str
    narrow: str
    alt: str
    caption: str = ""

    @staticmethod
    def of(wide: str, narrow: str, alt: str, caption: str = "") -> Drawn:
        """Of two SVG texts."""
        return Drawn(svg_uri(wide), svg_uri(narrow), alt, caption)


def _whole(text: str) -> str:
    """Text in which a name such as FD-500 is not broken at its hyphen."""
    return re.sub(r"\b(FI?D)-(?=\d)", "\\1\N{NON-BREAKING HYPHEN}", text)


def _in_order(groups: Iterable[tuple[str, list[Any]]]) -> list[tuple[str, list[Any]]]:
    """Columns by axis in the order quality, coverage, speed."""
    return sorted(groups, key=lambda group: AXES.index(group[0]))


_TEMPLATES = Environment(
    loader=PackageLoader("trilemma.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"whole": _whole, "in_order": _in_order}
_TEMPLATES.globals |= {"key": KEY, "arrows": ARROWS, "warnings": warnings_of, "mark": MARK}


def fill(template: str, evaluations: Sequence[Evaluation], **content: Any) -> str:
    """A page as text: the template, the versions that made the evaluations, and what else it is made of."""
    versions = sorted({one.environment.trilemma or "" for one in evaluations} - {""})
    return _TEMPLATES.get_template(template).render(versions=versions, **content).lstrip()


def run_names(evaluations: Iterable[Evaluation]) -> list[str]:
    """What was measured, by the names of its folders or files, each once; real images are not counted."""
    paths = [one.subject.path for one in evaluations if not one.yardstick and one.subject.path]
    return list(dict.fromkeys(Path(split_spec(Path(path))[-1]).name for path in paths))


def charts(table: Table, speed: str = "images_per_second", front: Collection[Row] | None = None) -> dict[str, Chart]:
    """The trilemma chart for a wide page and a narrow one, by that word; empty where there is none."""
    drawn = {word: trilemma_chart(table, speed, front, size) for word, size in (("wide", WIDE), ("narrow", NARROW))}
    return {word: chart for word, chart in drawn.items() if chart is not None}
