"""Checkpoints of other libraries: theirs as runs of ours, and ours as folders of theirs."""

from trilemma.exchange.exporting import export_run, not_exported, why_not_exported
from trilemma.exchange.importing import import_run

__all__ = ["export_run", "import_run", "not_exported", "why_not_exported"]
