"""Files and folders replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from trilemma.errors import InputError
from trilemma.machine import files
from trilemma.machine.files import check_writable, replacing, sha256, write_json, write_npz, write_text

LIMITED = """
import resource, signal, sys
from pathlib import Path
from trilemma.errors import InputError
from trilemma.machine.files import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(Path(sys.argv[1]), "x" * 100_000)
except InputError as error:
    print(error)
"""


def test_what_was_there_stays_until_its_successor_is_whole(tmp_path: Path) -> None:
    place = write_text(tmp_path / "a" / "b.txt", "old")
    with replacing(place) as partial:
        partial.write_text("new")
        assert place.read_text() == "old"
    assert place.read_text() == "new"
    with suppress(KeyboardInterrupt), replacing(place) as partial:
        partial.write_text("newer")
        raise KeyboardInterrupt
    assert [(file.name, file.read_text()) for file in place.parent.iterdir()] == [("b.txt", "new")]


def test_a_folder_is_replaced_likewise_and_only_an_empty_one(tmp_path: Path) -> None:
    place = tmp_path / "set"
    place.mkdir()
    with replacing(place) as partial:
        partial.mkdir()
        (partial / "1.png").touch()
    assert [file.name for file in place.iterdir()] == ["1.png"]
    with pytest.raises(InputError, match=r"out: .*set is a folder that is not empty"), replacing(place):
        pytest.fail("begun")
    assert [file.name for file in tmp_path.rglob("*")] == ["set", "1.png"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")], ids=["pipe", "device"])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, make: object) -> None:
    place = tmp_path / "out.json"
    make(place)  # type: ignore[operator]
    for attempt in (lambda: check_writable(place), lambda: write_json(place, {})):
        with pytest.raises(InputError, match=r"out: .*out\.json is a device or the like"):
            attempt()
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]
    assert not place.is_file()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """Stood in for by a limit on a file's size."""
    place = write_text(tmp_path / "kept.txt", "old")
    said = subprocess.run([sys.executable, "-c", LIMITED, str(place)], capture_output=True, text=True, check=True)
    reason = os.strerror(errno.EFBIG)
    assert said.stdout == f"out: cannot write {place} ({reason}); what stood there is as it was\n"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("kept.txt", "old")]


def test_a_place_that_cannot_be_is_said_so_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for place, says in (("file/below", "cannot write"), ("n" * 300, "cannot write"), (".", "is a folder")):
        with pytest.raises(InputError, match=f"--out: .*{says}|--out: {says}"):
            check_writable(tmp_path / place, "--out")
    check_writable(tmp_path / "new" / "file")
    check_writable(tmp_path / "file")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["file", "new"]
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("text", ['{"mine": 1}', '{"format": "trilemma-other/1"}', "[1]", "notes", "[" * 100_000])
def test_json_that_is_not_of_the_same_format_is_never_replaced(tmp_path: Path, text: str) -> None:
    place = tmp_path / "out.json"
    place.write_text(text)
    for attempt in (
        lambda: check_writable(place, format="trilemma-one/2"),
        lambda: write_json(place, {"format": "trilemma-one/2"}),
    ):
        with pytest.raises(InputError, match=r"out\.json is there already, and no trilemma-one file"):
            attempt()
    assert place.read_text() == text
    for own in ("", '{"format": "trilemma-one/1"}'):
        place.write_text(own)
        check_writable(place, format="trilemma-one/2")
        assert write_json(place, {"format": "trilemma-one/2"}).stat().st_size


def test_json_is_looked_into_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.json"
    write_json(place, {"format": "trilemma-one/1"})
    monkeypatch.setattr(files, "JSON_LIMIT", place.stat().st_size)
    check_writable(place, format="trilemma-one/1")
    monkeypatch.setattr(files, "JSON_LIMIT", place.stat().st_size - 1)
    monkeypatch.setattr(files, "read_text", lambda *_: pytest.fail("it was read"))
    with pytest.raises(InputError, match="no trilemma-one file"):
        check_writable(place, format="trilemma-one/1")


def test_what_a_command_reads_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in ("data.npz", "set/1.npz"):
        (tmp_path / name).write_text("kept")
    for source, place in (("data.npz", "data.npz"), ("data.npz:train", "set/../data.npz"), ("set", "set/1.npz")):
        with pytest.raises(InputError, match="is read by this command and would be overwritten"):
            check_writable(tmp_path / place, suffix=".npz", source=str(tmp_path / source))
    check_writable(tmp_path / "set" / "2.npz", source=str(tmp_path / "set"))
    with pytest.raises(InputError, match=r"should end in \.npz"):
        check_writable(tmp_path / "data", suffix=".npz")


def test_arrays_come_back_and_equal_files_have_equal_hashes(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array("text")}
    places = [write_npz(tmp_path / f"{i}.npz", arrays, compressed=bool(i)) for i in range(2)]
    for place in places:
        with np.load(place, allow_pickle=False) as held:
            assert held["b"] == "text"
            np.testing.assert_array_equal(held["a"], arrays["a"])
    assert sha256(places[0]) == sha256(write_npz(tmp_path / "again.npz", arrays)) != sha256(places[1])
