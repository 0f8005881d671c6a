"""The machine this runs on: its processes and devices, its files, and what is shown to whoever started it."""

from trilemma.machine.progress import say, show, show_rows

__all__ = ["say", "show", "show_rows"]
