"""Text is UTF-8 whatever the locale: in the files that are read and written, and on a terminal that knows less."""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trilemma.cli import main

SOURCE = Path(__file__).resolve().parents[1] / "src" / "trilemma"


def opened_as_text(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls that open a file as text: `open`, and the methods `open` (with a mode or nothing), `read_text` and
    `write_text`. (`store.open(name)` and `Image.open(file)` are given no mode.)"""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = [*node.args, *(word.value for word in node.keywords if word.arg == "mode")]
        modes = [arg.value for arg in given if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        binary = any({*mode} & {"b", "|"} for mode in modes)  # r| is of a tar
        if isinstance(node.func, ast.Name):
            if node.func.id in ("open", "NamedTemporaryFile") and not binary:
                yield node
        elif isinstance(node.func, ast.Attribute):
            opens = (node.func.attr == "open" and (modes or not given)) or node.func.attr == "NamedTemporaryFile"
            if node.func.attr in ("read_text", "write_text") or (opens and not binary):
                yield node


def encoding_stated(call: ast.Call) -> bool:
    return any(word.arg == "encoding" for word in call.keywords)


def test_every_file_is_opened_with_its_encoding() -> None:
    calls = {path: list(opened_as_text(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCE.rglob("*.py")}
    assert sum(map(len, calls.values())) > 15, "the search finds nothing"
    bare = [f"{path}:{call.lineno}" for path, found in calls.items() for call in found if not encoding_stated(call)]
    assert not bare


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        *(("open(p)", True), ("p.open()", True), ("p.open('a')", True), ("p.open('rb')", False)),
        *(("p.read_text()", True), ("p.write_text('b')", True), ("open(p, mode='wb')", False)),
        *(("archive.open(name)", False), ("Image.open(p)", False), ("tempfile.NamedTemporaryFile('w')", True)),
    ],
)
def test_the_search_sees_what_opens_text(line: str, seen: bool) -> None:
    assert [not encoding_stated(call) for call in opened_as_text(ast.parse(line))] == [True] * seen


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["list", "metrics"], 0, b"?"),
        (["train", "r\u00e9cipe.yaml"], 2, b"error: unknown key in network 'x?_0'"),
        # As Python has the name's bytes under an ASCII locale.
        (["train", "r\udcc3\udca9cipe.yaml"], 2, b"error: 'r\\udcc3\\udca9cipe.yaml' is not UTF-8"),
        (["train", "demo", "--out", "r\udcc3\udca9n"], 2, b"error: 'r\\udcc3\\udca9n' is not UTF-8"),
        (["schedule", "linear", "--picture", "\u03b2\u0303.png"], 0, b"??.png"),
    ],
)
def test_output_survives_a_terminal_of_ascii(
    arguments: list[str], code: int, says: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r\u00e9cipe.yaml").write_text("base: demo\nnetwork: {x\u0302_0: 1}\n", encoding="utf-8")
    terminal = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(terminal, encoding="ascii", write_through=True))
    monkeypatch.setattr(sys, "argv", ["trilemma", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or 0) == code
    assert says in terminal.getvalue() and terminal.getvalue().isascii()


@pytest.mark.parametrize("name", ["r\u00e9n", "r\udcc3\udca9n"])
def test_a_folder_of_any_name_is_one_line_or_works(
    name: str, command: Callable[..., Any], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    run.path.rename("run")
    for arguments in (
        ("train", "demo", "--dry-run", "--set", "training.batch=2", "--set", "training.grid_every=0"),
        ("sample", "run", "-n", 2, "--steps", 2, "--out", "a.npz", "--picture", "a.png"),
        ("report", "run", "--out", "a.html"),
    ):
        code, _, err = command(*arguments)
        assert code == 0 or (code == 2 and err.startswith("error: ") and err.count("\n") == 1), err
