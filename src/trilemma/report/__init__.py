"""Tables, figures and the HTML page made from a run's files and evaluations."""

from trilemma.report.chart import trilemma_chart
from trilemma.report.compare import Comparison, compare, comparison_json, comparison_markdown, comparison_table
from trilemma.report.figures import balance_figure, by_class, loss_figure, tile
from trilemma.report.html import build_report
from trilemma.report.likelihood import likelihood_figure, likelihood_table
from trilemma.report.network_drawing import draw_network, write_drawing
from trilemma.report.network_table import network_tables
from trilemma.report.schedules import schedule_figure, schedule_table
from trilemma.report.sources import read_compared, read_run, read_sources
from trilemma.report.table_views import to_html, to_markdown, to_rich
from trilemma.report.tables import Table, build_table
from trilemma.report.verdict import axis_verdicts, verdict

__all__ = [
    "Comparison",
    "Table",
    "axis_verdicts",
    "balance_figure",
    "build_report",
    "build_table",
    "by_class",
    "compare",
    "comparison_json",
    "comparison_markdown",
    "comparison_table",
    "draw_network",
    "likelihood_figure",
    "likelihood_table",
    "loss_figure",
    "network_tables",
    "read_compared",
    "read_run",
    "read_sources",
    "schedule_figure",
    "schedule_table",
    "tile",
    "to_html",
    "to_markdown",
    "to_rich",
    "trilemma_chart",
    "verdict",
    "write_drawing",
]
