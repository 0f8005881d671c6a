"""What is printed is what was said."""

from __future__ import annotations

import pytest
from rich.table import Table

from trilemma.machine.progress import progress, say, show


def test_a_name_between_colons_is_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    """`mnist5k:train: 10/10 images` would be a locomotive."""
    say("one:train: said")
    with progress("two:train", 3, "images") as advance:
        advance(3, "")
    table = Table()
    table.add_row("three:train: shown")
    show(table)
    out = capsys.readouterr().out
    assert "one:train: said" in out and "two:train: 3/3 images" in out and "three:train: shown" in out
