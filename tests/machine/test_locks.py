"""One writer to a place: who holds it, who is refused, and what a holder that is gone leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from trilemma.errors import InputError
from trilemma.machine import locks
from trilemma.machine.locks import locked

HOLD = """
import sys, time
from pathlib import Path
from trilemma.machine.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def leave(place: Path, **changes: Any) -> Path:
    """A lock that somebody left, like this process's but for the changes."""
    path = place.with_name(f"{place.name}.lock")
    path.write_text(json.dumps({**locks._me(), **changes}))
    return path


def test_it_is_there_while_it_is_held_and_names_its_holder(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "one"
    with locked(place):
        with (
            pytest.raises(InputError, match=rf"one is being written by another process \({os.getpid()} on "),
            locked(place),
        ):
            pytest.fail("held twice")
        assert [entry.name for entry in place.parent.iterdir()] == ["one.lock"]
    assert list(place.parent.iterdir()) == []
    with locked(place):
        pass


def test_another_process_is_refused_and_one_that_was_killed_is_not_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"another process \({other.pid} on "), locked(place):
            pytest.fail("held twice")
        other.kill()
    with locked(place):
        assert json.loads((tmp_path / "out.lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    "changes",
    [{"started": "1"}, {"pid": 2**22 + 1}, {"boot": "another"}],
    ids=["its number is another process's now", "no such process", "the machine was started anew"],
)
def test_a_stale_lock_of_this_machine_is_taken_over(tmp_path: Path, changes: dict[str, Any]) -> None:
    leave(tmp_path / "out", **changes)
    with locked(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_lock_that_was_broken_off_holds_nobody_up(tmp_path: Path, text: str) -> None:
    (tmp_path / "out.lock").write_text(text)
    with locked(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


class TestElsewhere:
    """On another machine of a shared file system: whose process number says nothing here."""

    @pytest.fixture(autouse=True)
    def _fast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(locks, "BEAT", 0.02)

    def test_one_that_counts_is_alive(self, tmp_path: Path) -> None:
        place = tmp_path / "out"
        held = {**locks._me(), "host": "elsewhere"}
        path, over = leave(place, **held), threading.Event()
        beat = threading.Thread(target=locks._count, args=(path, held, over))
        beat.start()
        try:
            with pytest.raises(InputError, match="on elsewhere"), locked(place):
                pytest.fail("held twice")
        finally:
            over.set()
            beat.join()

    def test_one_that_stands_still_is_stale(self, tmp_path: Path) -> None:
        leave(tmp_path / "out", host="elsewhere")
        with locked(tmp_path / "out"):
            pass
        assert list(tmp_path.iterdir()) == []


def test_of_many_at_once_one_holds_it(tmp_path: Path) -> None:
    """All find the same stale lock."""
    leave(tmp_path / "out", boot="another")
    held, refused, gate, done = [], [], threading.Barrier(8), threading.Event()

    def attempt() -> None:
        gate.wait()
        try:
            with locked(tmp_path / "out"):
                held.append(1)
                done.wait(5)
        except InputError:
            refused.append(1)
            if len(refused) == 7:
                done.set()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)


def test_a_lock_that_came_after_the_stale_one_stays(tmp_path: Path) -> None:
    """Seen stale, and before it is removed another has taken it over: never for a moment is that one's lock away."""
    path = leave(tmp_path / "out", boot="another")
    stale = json.loads(path.read_text())
    path.unlink()
    theirs = leave(tmp_path / "out").stat()
    locks._remove_stale(path, stale)
    assert os.path.samestat(path.stat(), theirs)


def test_the_stale_one_is_removed_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at a lock and its removal another one removes it and takes the place: it has to wait."""
    path = leave(tmp_path / "out", boot="another")
    stale, read, second = json.loads(path.read_text()), locks._read, threading.Event()

    def faster() -> None:
        second.set()
        locks._remove_stale(path, stale)
        leave(tmp_path / "out")

    other = threading.Thread(target=faster)

    def slow(path: Path) -> dict[str, Any] | None:
        found = read(path)
        if threading.current_thread() is not other and not second.is_set():
            other.start()
            second.wait()
            other.join(0.2)
        return found

    monkeypatch.setattr(locks, "_read", slow)
    locks._remove_stale(path, stale)
    other.join()
    assert locks._read(path) is not None and read(path) != stale
