"""A run of parts of one's own: named on the command line, written down with the run, not imported by opening it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Command = Callable[..., Any]

PLUGIN = '''
from pathlib import Path
import trilemma as tl
from trilemma.samplers import DDIM

Path("imported").touch()

@tl.register("sampler", "mine")
class Mine(DDIM):
    """DDIM by another name. It is."""
'''

pytestmark = pytest.mark.usefixtures("forget")


@pytest.fixture
def mine(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that names the plugin's sampler, in the working directory, beside the plugin."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)
    values = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**values, "sampling": {"sampler": "mine", "batch": 4}}))
    return recipe


def test_the_option_may_stand_before_the_command_and_after_it(mine: Path, command: Command) -> None:
    assert "unknown sampling.sampler 'mine'" in command("train", mine, "--out", "run").err
    for arguments in (("--plugin", "mine.py", "list", "samplers"), ("list", "samplers", "--plugin=mine.py")):
        found = command(*arguments)
        assert found.code == 0 and "DDIM by another name" in found.out and "plugin mine.py" in found.out


def test_a_run_says_what_it_needs_and_opening_it_imports_nothing(
    mine: Path, command: Command, tmp_path: Path, forget: Callable[[], None]
) -> None:
    assert command("--plugin", "mine.py", "train", mine, "--out", "run").code == 0
    saved = (tmp_path / "run" / "recipe.yaml").read_text()
    assert yaml.safe_load(saved)["requires"] == {"sampler": {"mine": "plugin mine.py"}}
    assert command("sample", "run", "-n", 2, "--plugin", "mine.py").code == 0

    forget()
    (tmp_path / "imported").unlink()
    for arguments in (("sample", "run"), ("evaluate", "run"), ("train", mine, "--out", "run", "--resume")):
        found = command(*arguments)
        assert found.code == 2 and found.err.count("\n") == 1
        assert arguments[0] == "train" or found.err.endswith(
            "sampler 'mine' is not there: it came from plugin mine.py; add --plugin mine.py\n"
        )
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("requires", ["mine.py", {"sampelr": {}}, {"sampler": "mine.py"}, [1]])
def test_what_says_nothing_of_what_it_needs_is_refused(recipe: Path, command: Command, requires: Any) -> None:
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), "requires": requires}))
    found = command("train", recipe, "--dry-run")
    assert found.code == 2 and found.err.startswith("error: requires: ") and found.err.count("\n") == 1


def test_a_plugin_that_cannot_be_imported_is_said_in_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import nothing_of_this_name")
    found = command("list", "--plugin", tmp_path / "bad.py")
    assert found.code == 2 and found.err.count("\n") == 1 and "No module named 'nothing_of_this_name'" in found.err
