"""Names and parts: who may take a name, where a part comes from, and what is imported when."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from trilemma.errors import InputError
from trilemma.inventory import entries
from trilemma.registry import KINDS, OWN, Preset, load_plugin, preset, register, registry

PLUGIN = '''
"""A plugin."""
from pathlib import Path

from trilemma.process import PARAMETERIZATIONS
from trilemma.registry import register

Path(__file__).with_suffix(".imported").touch()

@register("parameterization", "backwards")
class Backwards:
    """F is −ε. Nothing else."""

    def __init__(self, *, by: float = -1.0):
        self.by = by
'''

pytestmark = pytest.mark.usefixtures("forget")


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


class TestNames:
    def test_stand_for_what_was_registered(self) -> None:
        @register("block", "mine")
        class Mine: ...

        assert registry("block")["mine"] is Mine and "mine" in registry("block")
        assert list(registry("block"))[-1] == "mine" and len(registry("block")) == len(list(registry("block")))

    def test_that_are_taken_are_refused(self) -> None:
        for name in ("ddim", "linear-100"):
            kind: Any = "sampler" if name == "ddim" else "schedule"
            with pytest.raises(InputError, match=rf"{kind} '{name}' of plugin .*: the name is taken by trilemma"):
                register(kind, name)(object)

    def test_may_be_registered_anew_by_the_same_module(self) -> None:
        """As a notebook's cell does that is run twice."""
        for part in (object(), last := object()):
            register("block", "mine")(part)
        assert registry("block")["mine"] is last

    def test_that_do_not_exist_are_refused_with_the_nearest(self) -> None:
        with pytest.raises(InputError, match="unknown kind of part 'sampelr': did you mean 'sampler'"):
            register("sampelr", "x")  # type: ignore[arg-type]
        assert "did you mean 'ddim'" in str(registry("sampler").unknown("dddim"))
        with pytest.raises(KeyError):
            registry("sampler")["dddim"]

    def test_that_are_missing_are_said_to_come_from_where_they_did(self) -> None:
        registry("sampler").expect("euler", "plugin mine.py")
        registry("features").expect("looks", "package their-package")
        assert str(registry("sampler").unknown("euler")).endswith("it came from plugin mine.py; add --plugin mine.py")
        assert str(registry("features").unknown("looks:x")).endswith("package their-package; pip install their-package")

    def test_every_kind_has_its_own_parts(self) -> None:
        for kind in KINDS:
            own = [entry.name for entry in entries(kind)]
            assert sorted(own) == sorted(registry(kind)), kind
            assert all(registry(kind).origin(name) == OWN for name in own)


def test_a_preset_is_another_part_with_arguments() -> None:
    preset("schedule", "short", "linear", steps=3, beta_end=0.4)
    assert isinstance(registry("schedule")["short"], Preset)
    assert registry("schedule")["short"]().steps == 3
    assert registry("schedule")["short"](steps=5).steps == 5


class TestPlugins:
    def test_a_file_registers_its_parts_once(self, plugin: Path) -> None:
        load_plugin(str(plugin))
        part = registry("parameterization")["backwards"]
        assert registry("parameterization").origin("backwards") == f"plugin {plugin}"
        load_plugin(str(plugin))
        assert registry("parameterization")["backwards"] is part
        (entry,) = (entry for entry in entries("parameterization") if entry.origin != OWN)
        assert (entry.headline, entry.arguments) == ("F is −ε", {"by": "-1.0"})

    def test_the_packages_own_parts_stay_its_own(self, plugin: Path) -> None:
        """Though it is the plugin that has their rooms imported."""
        load_plugin(str(plugin))
        assert registry("parameterization").origin("epsilon") == OWN

    def test_two_files_of_one_name_are_two(self, plugin: Path, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "mine.py").write_text(PLUGIN.replace("backwards", "forwards"))
        for path in (plugin, tmp_path / "other" / "mine.py"):
            load_plugin(str(path))
        assert {"backwards", "forwards"} <= registry("parameterization").keys()

    def test_a_module_is_looked_for_in_the_working_directory_too(
        self, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plugin.rename(tmp_path / "my_parts_of_this_test.py")
        monkeypatch.chdir(tmp_path)
        load_plugin("my_parts_of_this_test")
        assert registry("parameterization").origin("backwards") == "plugin my_parts_of_this_test"
        del sys.modules["my_parts_of_this_test"]

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (None, "FileNotFoundError"),
            ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
            ("def", "SyntaxError"),
            (PLUGIN.replace("backwards", "epsilon"), "the name is taken by trilemma"),
        ],
    )
    def test_what_cannot_be_imported_is_said(self, tmp_path: Path, content: str | None, says: str) -> None:
        if content is not None:
            (tmp_path / "bad.py").write_text(content)
        for _ in range(2):
            with pytest.raises(InputError, match=says):
                load_plugin(str(tmp_path / "bad.py"))


def test_arguments_that_a_class_inherits_are_listed() -> None:
    """In its file or another's, its own in their place."""
    learners = {entry.name: entry.arguments for entry in entries("learner")}
    assert learners["ddgan"]["r1"] == "0.02" and learners["ddgan"]["generator_samples"] == "1"
    assert learners["gan"]["discriminator_steps"] == "5" and "timed" not in learners["ddgan"]
    samplers = {entry.name: entry.arguments for entry in entries("sampler")}
    assert {arguments["clip"] for arguments in samplers.values()} == {"'static'"}
    assert samplers["ddim"]["eta"] == "0.0" and "draws" not in samplers["ancestral"]
