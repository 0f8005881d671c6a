"""Files that others wrote: what is opened, what is parsed, and up to where."""

from __future__ import annotations

import io
import os
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from trilemma.errors import InputError
from trilemma.machine import untrusted
from trilemma.machine.untrusted import (
    NESTING,
    NODES,
    kind_of,
    open_arrays,
    parse_json,
    parse_yaml,
    read_array,
    read_text,
)


def header(text: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An .npy file of this header, whatever it says."""
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text.encode("latin1") + data


def described(dtype: str, shape: object, fortran: bool = False) -> str:
    return f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape}}}"


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., Path]:
    """Write an .npz whose arr_0.npy holds these bytes."""

    def write(content: bytes, method: int = zipfile.ZIP_STORED) -> Path:
        with zipfile.ZipFile(tmp_path / "set.npz", "w", method) as archive:
            archive.writestr("arr_0.npy", content)
        return tmp_path / "set.npz"

    return write


class TestKindOf:
    def test_files_folders_and_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()
        (tmp_path / "link").symlink_to("a")
        (tmp_path / "broken").symlink_to("nowhere")
        names = ("a", "link", ".", "broken", "nowhere", "a/below")
        kinds = ["file", "file", "folder", None, None, None]
        assert [kind_of(tmp_path / name) for name in names] == kinds

    def test_what_is_no_file_is_named(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(os.path.relpath(tmp_path / "socket"))  # a socket's path has room for 100 characters
        (tmp_path / "circle").symlink_to("circle")
        for path, words in {
            tmp_path / "pipe": "is a named pipe, expected a file",
            tmp_path / "socket": "is a socket",
            Path("/dev/zero"): "is a device",
            tmp_path / "circle": "levels of symbolic links",
            tmp_path / ("x" * 300): "xxx…: File name too long",
            Path("a\0b"): "null",
        }.items():
            with pytest.raises(InputError, match=words) as caught:
                kind_of(path)
            assert len(str(caught.value)) < 400

    def test_a_text_is_bounded_and_utf_8(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_bytes("ᾱ".encode())
        assert read_text(path, 3) == "ᾱ"
        with pytest.raises(ValueError, match="more than 2 bytes"):
            read_text(path, 2)
        path.write_bytes(b"\xff")
        with pytest.raises(ValueError, match="utf-8"):
            read_text(path)


class TestText:
    @pytest.mark.parametrize("depth", [NESTING + 1, 900, 100_000])
    def test_json_and_yaml_are_nested_so_deep_at_most(self, depth: int) -> None:
        for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            with pytest.raises(ValueError, match=f"deeper than {NESTING} levels"):
                parse_json(text)
        for text in ("[" * (depth + 1) + "]" * (depth + 1), "{a: " * (depth + 1) + "}" * (depth + 1)):
            with pytest.raises(ValueError, match=f"deeper than {NESTING} levels"):
                parse_yaml(text)
        with pytest.raises(ValueError, match=f"deeper than {NESTING} levels"):
            parse_yaml("- " * (depth + 1) + "a")

    @pytest.mark.parametrize("opened", ["[", "{a: ", "- ", "? ", "[{", "a:\n"])
    def test_yaml_is_scanned_no_deeper(self, opened: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every token looks through all brackets that are open, so that 100 000 of them would take seconds."""
        asked = 0
        fetch = yaml.scanner.Scanner.fetch_more_tokens

        def counted(scanner: yaml.scanner.Scanner) -> None:
            nonlocal asked
            asked += 1
            fetch(scanner)

        monkeypatch.setattr(yaml.scanner.Scanner, "fetch_more_tokens", counted)
        indents = (" " * i for i in range(1000)) if opened.endswith("\n") else [""] * 10_000
        with pytest.raises(ValueError, match=f"deeper than {NESTING} levels"):
            parse_yaml("".join(indent + opened for indent in indents))
        assert 0 < asked < 10 * NESTING

    def test_up_to_there_they_are_read(self) -> None:
        text = "[" * NESTING + "]" * NESTING
        assert parse_json(text) == parse_yaml(text)
        assert parse_yaml("") is None and parse_yaml("a: &x [1]\nb: *x") == {"a": [1], "b": [1]}

    @pytest.mark.parametrize(
        "bomb",
        [
            "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)),
            # Merged keys are written out while the YAML is constructed.
            "a0: &a0 {k: 1}\n"
            + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10)),
        ],
        ids=["lists", "merged"],
    )
    def test_aliases_count_as_what_they_stand_for(self, bomb: str) -> None:
        with pytest.raises(ValueError, match=f"more than {NODES:,} values"):
            parse_yaml(bomb)

    def test_an_alias_is_a_value_of_its_own(self) -> None:
        found = parse_yaml("a: &a {b: [1]}\nc: *a\nd: [*a, {<<: *a}]")
        assert found == {"a": {"b": [1]}, "c": {"b": [1]}, "d": [{"b": [1]}, {"b": [1]}]}
        places = [found["a"], found["c"], *found["d"]]
        assert len({id(place) for place in places}) == len({id(place["b"]) for place in places}) == 4

    def test_no_more_are_read_than_there_may_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(untrusted, "NODES", 1000)
        assert len(parse_yaml("[" + "a," * 999 + "]")) == 999
        for count in (1000, 4_000_000):  # which take minutes to read
            with pytest.raises(ValueError, match=r"more than .* values"):
                parse_yaml("[" + "a," * count + "]")

    def test_aliases_are_as_deep_as_what_they_stand_for(self) -> None:
        half = NESTING // 2
        chain = ["a0: &a0 x"] + [f"a{i}: &a{i} {'[' * half}*a{i - 1}{']' * half}" for i in range(1, 4)]
        assert parse_yaml("\n".join(chain[:2]))
        with pytest.raises(ValueError, match="deeper"):
            parse_yaml("\n".join(chain))

    def test_an_alias_of_what_it_lies_in_has_no_end(self) -> None:
        with pytest.raises(ValueError, match="deeper"):
            parse_yaml("&a [1, *a]")

    @pytest.mark.parametrize(
        "text",
        [
            *("2001-99-99", "!!int x", "!!int ''", "!!bool x", "!!timestamp x", "0b_", "9" * 5000),
            *("!!python/object/apply:os.system [x]", "{[a]: 1}", "\0", "[", "*a"),
        ],
    )
    def test_yaml_that_says_nothing_is_one_kind_of_error(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
            parse_yaml(text)


class TestArrays:
    def test_are_what_numpy_reads(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        arrays: dict[str, Any] = {
            "f": np.asfortranarray(rng.random((3, 4))),
            "big": np.arange(5, dtype=">i4"),
            "text": np.array("ᾱ"),
            "none": np.zeros((0, 4, 4, 1), np.uint8),
            "scalar": np.float64(3),
        }
        np.savez_compressed(tmp_path / "a.npz", **arrays)
        with open_arrays(tmp_path / "a.npz") as found, np.load(tmp_path / "a.npz") as expected:
            assert set(found) == set(arrays) and "g" not in found and len(found) == 5
            for name in arrays:
                assert found[name].dtype == expected[name].dtype
                np.testing.assert_array_equal(found[name], expected[name])
        np.save(tmp_path / "a.npy", arrays["f"])
        np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), arrays["f"])

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (header(described("|u1", (10**12,)), bytes(99)), "more than the 99 bytes that are there"),
            (header(described("|u1", (1000, 1000, 1000, 1000), fortran=True), bytes(99)), "more than the 99 bytes"),
            (header(described("|u1", (2**62, 4, 1, 1)), bytes(99)), "more than the 99 bytes"),
            (header(described("|u1", "(" + "9" * 4000 + ",)")), "more than the 0 bytes"),
            (header(described("|u1", (-1, 8)), bytes(99)), "header says"),
            (header(described("<U500000000", (1,)), bytes(99)), "more than the 99 bytes"),
            (header(described("|O", (1,)), bytes(99)), "pickled objects are never loaded"),
            (header("{'descr': [('r', '|u1')], 'fortran_order': False, 'shape': (9,)}", bytes(9)), "plain numbers"),
            (header("{'descr': [('a',)], 'fortran_order': False, 'shape': (9,)}", bytes(9)), "arr_0"),
            (header(described("|u1", "('a',)"), bytes(9)), "arr_0"),
            (header("-" * 9000 + "1"), "arr_0"),
            (header("{'descr': '''"), "arr_0"),
            (header("{}", version=(3, 0)), "version"),
            (b"no array", "arr_0"),
            (b"", "arr_0"),
        ],
    )
    def test_a_header_promises_what_is_there(self, npz: Callable[..., Path], content: bytes, says: str) -> None:
        with open_arrays(npz(content)) as arrays, pytest.raises(InputError, match=says) as caught:
            arrays["arr_0"]
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 700

    def test_more_than_memory_is_refused_before_it_is_taken(
        self, npz: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(untrusted, "memory", lambda: 1000)
        monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("it was read"))
        path, says = npz(header(described("|u1", (1001,)), bytes(1001))), "takes 1,001 bytes of memory, of which there"
        with open_arrays(path) as arrays, pytest.raises(InputError, match=says):
            arrays["arr_0"]

    def test_an_archive_unpacks_to_so_much_at_most(
        self, npz: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bomb = npz(header(described("|u1", (2**22,)), bytes(2**22)), zipfile.ZIP_DEFLATED)
        with open_arrays(bomb) as arrays:
            assert arrays["arr_0"].nbytes == 2**22  # nothing of this size is a bomb
        monkeypatch.setattr(untrusted, "RATIO_FROM", 2**20)
        with pytest.raises(InputError, match="would unpack to 4,19"), open_arrays(bomb):
            pass

    def test_its_members_are_counted_before_they_are_listed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(untrusted, "MEMBERS", 9)
        for count in (9, 10):
            with zipfile.ZipFile(tmp_path / f"{count}.npz", "w") as archive:
                for i in range(count):
                    archive.writestr(f"{i}.npy", header(described("|u1", (1,)), b"\1"))
        with open_arrays(tmp_path / "9.npz") as arrays:
            assert len(arrays) == 9 and arrays["8"].tolist() == [1]
        monkeypatch.setattr(zipfile, "ZipInfo", lambda *_: pytest.fail("it was listed"))
        with pytest.raises(InputError, match=r"10\.npz: more than 9 members"), open_arrays(tmp_path / "10.npz"):
            pass

    def test_the_list_of_members_has_so_many_bytes_at_most(
        self, npz: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = npz(header(described("|u1", (1,)), b"\1"))
        size = 46 + len("arr_0.npy")
        for limit, enough in ((size, True), (size - 1, False)):
            monkeypatch.setattr(untrusted, "DIRECTORY", limit)
            if enough:
                with open_arrays(path) as arrays:
                    assert set(arrays) == {"arr_0"}
            else:
                with pytest.raises(InputError, match=rf"set\.npz: its list of members has {size}"), open_arrays(path):
                    pass

    @pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
    def test_what_cannot_be_unpacked_bit_by_bit_is_refused(self, npz: Callable[..., Path], method: int) -> None:
        with pytest.raises(InputError, match=f"packed by method {method}"), open_arrays(npz(bytes(9), method)):
            pass

    def test_members_that_share_their_bytes_are_refused(self, tmp_path: Path) -> None:
        single = io.BytesIO()
        with zipfile.ZipFile(single, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("0.npy", np.random.default_rng(0).bytes(3000))
        content = single.getvalue()
        start, end = content.rfind(b"PK\x01\x02"), content.rfind(b"PK\x05\x06")
        entries = b"".join(content[start:end].replace(b"0.npy", b"%d.npy" % i) for i in range(10))
        tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 10, 10, len(entries), start, 0)
        (tmp_path / "set.npz").write_bytes(content[:start] + entries + tail)
        with pytest.raises(InputError, match="share their bytes"), open_arrays(tmp_path / "set.npz"):
            pass

    def test_an_encrypted_one_is_named(self, npz: Callable[..., Path]) -> None:
        path = npz(header(described("|u1", (9,)), bytes(9)))
        content = bytearray(path.read_bytes())
        content[6] |= 1
        content[content.rfind(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(content)
        with open_arrays(path) as arrays, pytest.raises(InputError, match=r"set\.npz: arr_0: .*password"):
            arrays["arr_0"]


def test_memory_is_what_this_process_may_take() -> None:
    assert 2**27 < untrusted.memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
