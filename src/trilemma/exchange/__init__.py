"""Checkpoints of other libraries: theirs as runs of ours, and ours as folders of theirs."""

from trilemma.exchange.exporting import EXPORT_FORMATS, export_run
from trilemma.exchange.importing import IMPORT_FORMATS, import_run

__all__ = ["EXPORT_FORMATS", "IMPORT_FORMATS", "export_run", "import_run"]
