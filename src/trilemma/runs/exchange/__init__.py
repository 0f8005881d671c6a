"""Checkpoints of other libraries: theirs as runs of ours, and ours as folders of theirs."""

from trilemma.runs.exchange.exporting import EXPORT_FORMATS, export_run
from trilemma.runs.exchange.importing import IMPORT_FORMATS, import_run

__all__ = ["EXPORT_FORMATS", "IMPORT_FORMATS", "export_run", "import_run"]
