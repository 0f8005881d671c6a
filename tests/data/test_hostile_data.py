"""Data that is made to hang, to fill the memory or to be counted twice: refused at once, in one line that names it."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trilemma.data import DamagedImageError, available_splits, check, image_set, open_data, read_samples
from trilemma.data import images as images_module
from trilemma.data import stores as stores_module
from trilemma.data.decoding import PIXEL_LIMIT, check_size, decode
from trilemma.data.images import CLASS_LIMIT
from trilemma.errors import InputError
from trilemma.machine import untrusted
from trilemma.metrics import load_statistics

Folder = Callable[..., Path]


pytestmark = pytest.mark.usefixtures("at_once")


@contextmanager
def little_memory(limit: int = 2**24) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak:,} bytes were taken"


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG that says it is so large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


class TestLinks:
    def test_that_lead_in_a_circle_are_counted_once(self, folder: Folder, rgb: np.ndarray) -> None:
        where = folder({"cat/1.png": rgb[0], "dog/2.png": rgb[1]})
        (where / "cat" / "up").symlink_to(where, target_is_directory=True)
        (where / "dog" / "self").symlink_to(".", target_is_directory=True)
        images = open_data(str(where))
        assert len(images) == 2 and images.classes == ("cat", "dog")

    def test_each_folder_is_counted_once_by_its_own_name(self, folder: Folder, rgb: np.ndarray) -> None:
        # Each of nine folders links to all of them: the ways through are more than 9!.
        where = folder({f"d{i}/{i}.png": rgb[i % 6] for i in range(9)})
        for i in range(9):
            for j in range(9):
                (where / f"d{i}" / f"a{j}").symlink_to(where / f"d{j}", target_is_directory=True)
        images = open_data(str(where))
        assert len(images) == 9 and images.classes == tuple(f"d{i}" for i in range(9))

    def test_to_folders_elsewhere_are_followed(self, folder: Folder, rgb: np.ndarray) -> None:
        elsewhere = folder({"cat/a/1.png": rgb[0], "dog/2.png": rgb[1]}, "elsewhere")
        where = folder({}, "linked")
        where.mkdir()
        for name in ("cat", "dog"):
            (where / name).symlink_to(elsewhere / name, target_is_directory=True)
        images = open_data(str(where))
        assert len(images) == 2 and images.classes == ("cat", "dog")

    def test_to_nothing_are_named(self, folder: Folder, rgb: np.ndarray) -> None:
        where = folder({"1.png": rgb[0]})
        (where / "2.png").symlink_to("2.png")
        with pytest.raises(DamagedImageError, match=r"2\.png: .*symbolic links"):
            open_data(str(where))
        (where.parent / "circle").symlink_to("circle")
        with pytest.raises(InputError, match=r"circle: .*symbolic links"):
            open_data(str(where.parent / "circle"))


class TestPipes:
    @pytest.mark.parametrize("name", ["pipe", "pipe.npz", "pipe.zip", "pipe.npy"])
    def test_are_no_data(self, tmp_path: Path, name: str) -> None:
        os.mkfifo(tmp_path / name)
        path = str(tmp_path / name)
        for opens in (open_data, read_samples, available_splits, check, load_statistics):
            with pytest.raises(InputError, match=rf"{name} is a named pipe, expected a file or a folder"):
                opens(path)  # type: ignore[operator]
        with pytest.raises(InputError, match="is a named pipe"):
            open_data("cifar10", root=path)

    def test_among_images_are_damaged_ones(self, folder: Folder, rgb: np.ndarray) -> None:
        where = folder({"1.png": rgb[0]})
        os.mkfifo(where / "2.png")
        (where / "3.png").symlink_to("/dev/zero")
        with pytest.raises(DamagedImageError, match=r"2\.png: cannot be read as an image \(is a named pipe"):
            open_data(str(where))
        found = check(str(where))
        assert found.count == 1
        assert [reason.split(",")[0] for _, reason in found.damaged] == ["is a named pipe", "is a device"]

    def test_in_place_of_labels_are_refused(self, folder: Folder, rgb: np.ndarray) -> None:
        where = folder({"1.png": rgb[0]})
        os.mkfifo(where / "dataset.json")
        with pytest.raises(InputError, match=r"dataset\.json: .*is a named pipe"):
            open_data(str(where))

    @pytest.mark.parametrize("name", ["mnist", "cifar10"])
    def test_in_place_of_a_source_s_files_are_refused(self, tmp_path: Path, name: str) -> None:
        for file in ("train-images-idx3-ubyte.gz", "cifar-10-binary.tar"):
            os.mkfifo(tmp_path / file)
        with pytest.raises(InputError, match="is a named pipe"):
            open_data(name, root=str(tmp_path))


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".npz", "/".join(["x" * 200] * 30), "a\0b"])
def test_names_that_no_file_can_have(name: str) -> None:
    for opens in (open_data, read_samples, check):
        with pytest.raises(InputError) as caught:
            opens(name)  # type: ignore[operator]
        assert len(str(caught.value)) < 400
    with pytest.raises(InputError):
        open_data("cifar10", root=name)


class TestLabels:
    @pytest.mark.parametrize("label", [CLASS_LIMIT, 10**9, 2**64 - 1])
    def test_are_bounded(self, folder: Folder, rgb: np.ndarray, tmp_path: Path, label: int) -> None:
        labels = np.array([0, 1, 2, 3, 4, label], dtype=np.uint64)
        np.savez(tmp_path / "set.npz", rgb, labels)
        listed = json.dumps({"labels": [[f"{i}.png", int(k)] for i, k in enumerate(labels)]})
        where = folder({f"{i}.png": image for i, image in enumerate(rgb)} | {"dataset.json": listed.encode()})
        with little_memory(), pytest.raises(InputError, match=f"label {label}, expected labels below {CLASS_LIMIT}"):
            open_data(str(tmp_path / "set.npz"))
        with (
            little_memory(),
            pytest.raises(InputError, match=rf"label {label} of 5\.png, expected .* {CLASS_LIMIT - 1}"),
        ):
            open_data(str(where))

    def test_of_images_at_hand_are_bounded_too(self, rgb: np.ndarray) -> None:
        with little_memory(), pytest.raises(InputError, match=f"digits: label {10**9}, expected labels below"):
            image_set((rgb[:2], np.array([0, 10**9])), "digits")

    def test_up_to_there_count_classes(self, rgb: np.ndarray, tmp_path: Path) -> None:
        np.savez(tmp_path / "set.npz", rgb[:1], np.array([CLASS_LIMIT - 1]))
        assert len(open_data(str(tmp_path / "set.npz")).classes or ()) == CLASS_LIMIT

    @pytest.mark.parametrize(
        "text",
        [
            *(
                "[" * 100_000,
                '{"labels": ' + "[" * 200 + "]" * 200 + "}",
                '{"labels": [["0.png", ' + "9" * 5000 + "]]}",
            ),
            *('{"labels": [["0.png", 1e999]]}', '{"labels": [["0.png", [[]]]]}', '{"labels": 5}', "null", "\ufeff{}"),
        ],
    )
    def test_that_are_none_are_one_line(self, folder: Folder, rgb: np.ndarray, text: str) -> None:
        where = folder({"0.png": rgb[0], "dataset.json": text.encode()})
        with pytest.raises(InputError, match=r"dataset\.json: ") as caught:
            open_data(str(where))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


class TestBombs:
    def test_a_zip_that_unpacks_to_much_more(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(untrusted, "RATIO_FROM", 2**20)
        with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for i in range(5):
                archive.writestr(f"{i}.png", bytes(2**23))
        with little_memory(2**22), pytest.raises(InputError, match=r"set\.zip: .* unpack to 41,943,040 bytes"):
            open_data(str(tmp_path / "set.zip"))

    def test_a_zip_of_too_many_members(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for i in range(10):
                archive.writestr(f"{i}.png", b"")
        monkeypatch.setattr(untrusted, "MEMBERS", 9)
        with pytest.raises(InputError, match=r"set\.zip: .*\(more than 9 members\)"):
            open_data(str(tmp_path / "set.zip"))

    def test_a_zip_that_says_it_does_not(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("0.png", bytes(2**26))
        content = bytearray((tmp_path / "set.zip").read_bytes())
        at = content.rfind(b"PK\x01\x02") + 24
        content[at : at + 4] = struct.pack("<I", 100)
        (tmp_path / "set.zip").write_bytes(content)
        with little_memory(), pytest.raises(DamagedImageError, match=r"set\.zip:0\.png"):
            open_data(str(tmp_path / "set.zip"))

    def test_an_npz_whose_header_promises_more_than_there_is(self, tmp_path: Path) -> None:
        head = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000, 1000, 1)}"
        with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
            archive.writestr("arr_0.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode())
        with little_memory():
            for opens in (open_data, read_samples):
                with pytest.raises(InputError, match=r"set\.npz: arr_0: its header says uint8 \(1000000, 1000"):
                    opens(str(tmp_path / "set.npz"))  # type: ignore[operator]

    def test_images_in_fortran_order_are_images(self, rgb: np.ndarray, tmp_path: Path) -> None:
        np.savez(tmp_path / "f.npz", np.asfortranarray(rgb))
        np.savez(tmp_path / "c.npz", rgb)
        assert open_data(str(tmp_path / "f.npz")).fingerprint() == open_data(str(tmp_path / "c.npz")).fingerprint()

    @pytest.mark.parametrize("size", [(9500, 9500), (13_000, 13_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
    def test_an_image_of_too_many_pixels(
        self, folder: Folder, size: tuple[int, int], recwarn: pytest.WarningsRecorder
    ) -> None:
        with little_memory(), pytest.raises(DamagedImageError, match=r"0\.png: .*(pixels|exceed|large)"):
            open_data(str(folder({"0.png": png(*size)})))
        assert not recwarn.list, "a warning besides is a second line"

    @pytest.mark.parametrize("size", [10_000, (2**20, 2**20), 10**12])
    def test_a_size_of_too_many_pixels(self, size: int | tuple[int, int]) -> None:
        with pytest.raises(InputError, match=f"at most {PIXEL_LIMIT:,} pixels"):
            check_size(size)

    def test_no_format_that_runs_programs(self) -> None:
        eps = io.BytesIO()
        Image.new("RGB", (4, 4)).save(eps, "EPS")
        with pytest.raises(DamagedImageError, match="no known image format"):
            decode(eps.getvalue(), "a.png")

    def test_a_set_larger_than_memory(self, monkeypatch: pytest.MonkeyPatch, folder: Folder, rgb: np.ndarray) -> None:
        monkeypatch.setattr(images_module, "memory", lambda: 1000)
        with pytest.raises(InputError, match="6 images 3x8x10 take 1,440 bytes of memory, of which there are 1,000"):
            open_data(str(folder({f"{i}.png": image for i, image in enumerate(rgb)})))
        with pytest.raises(InputError, match="500 images 1x64x64 take"):
            open_data("mnist5k", split="test", size=64)

    @pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
    def test_a_tar_that_unpacks_to_much_more(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes
    ) -> None:
        monkeypatch.setattr(stores_module, "TAR_LIMIT", 2**20)
        member = tarfile.TarInfo("data_batch_1.bin")
        member.type, member.size = kind, 2**26
        with gzip.open(tmp_path / "cifar-10-binary.tar.gz", "wb") as file:
            file.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(2**26))
        with little_memory(), pytest.raises(InputError, match=r"tar\.gz: .*1,048,576"):
            open_data("cifar10", root=str(tmp_path))

    def test_idx_files_that_unpack_to_much_more(self, tmp_path: Path) -> None:
        head = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)
        for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
            with gzip.open(tmp_path / name, "wb") as file:
                file.write(head)
        with pytest.raises(InputError, match=f"header promises {(2**32 - 1) ** 3}"):
            open_data("mnist", root=str(tmp_path))
        with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
            for _ in range(17):
                file.write(bytes(2**24))
        with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz: cannot be read \(more than 268,435,456"):
            open_data("mnist", root=str(tmp_path))


def test_names_in_a_zip_are_only_names(rgb: np.ndarray, folder: Folder, tmp_path: Path) -> None:
    image = (folder({"a.png": rgb[0]}) / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("../../out.png", "/absolute.png", "a[/b].png", "a.png"):
            archive.writestr(name, image)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", image)
    before = sorted(tmp_path.rglob("*"))
    assert len(open_data(str(tmp_path / "set.zip"))) == 3, "a name given twice is one image, ../ is a hidden folder"
    assert sorted(tmp_path.rglob("*")) == before
