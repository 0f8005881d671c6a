from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from trilemma.data import Opening, check
from trilemma.data.cifar10 import CLASSES
from trilemma.errors import InputError


def test_a_folder_with_everything_in_it(folder, rgb, png):
    grey = rgb[0, :, :, :1]
    palette = io.BytesIO()
    Image.fromarray(rgb[1]).quantize(4).save(palette, format="PNG")
    where = folder(
        {
            "cat/a.png": rgb[0],
            "cat/b.png": rgb[0],
            "cat/c.png": grey,
            "dog/d.png": rgb[2, :5, :5],
            "dog/e.png": b"this is a text file",
            "dog/f.png": png(rgb[3])[:-40],
            "dog/g.gif": palette.getvalue(),
        }
    )
    report = check(str(where))
    assert (report.name, report.split, report.count) == ("pictures", "all", 5)
    assert report.sizes == {(8, 10): 4, (5, 5): 1}
    assert report.modes == {"RGB": 3, "L": 1, "P": 1}
    assert report.classes == {"cat": 3, "dog": 2}
    assert [file.rsplit("/", 1)[1] for file, _ in report.damaged] == ["e.png", "f.png"]
    assert all(reason for _, reason in report.damaged)
    assert report.duplicates == 1
    assert not report.ok
    assert any("data.size=5" in note for note in report.notes)
    rows = report.rows()
    assert ("classes", "2 (cat: 3, dog: 2)") in rows
    assert sum(heading == "damaged" for heading, _ in rows) == 2


def test_a_clean_source():
    report = check("mnist5k", split="test")
    assert (report.count, report.sizes, report.modes) == (500, {(28, 28): 500}, {"L": 500})
    assert report.classes == {str(k): 50 for k in range(10)}
    assert (report.lowest, report.highest, report.damaged, report.notes) == (0, 255, (), ())
    assert report.ok
    assert ("damaged", "none") in report.rows()


def test_advice(folder, rgb):
    small = check(str(folder({"a.png": np.ones((4, 4, 1), dtype=np.uint8)}, "small")))
    assert any("not scaled" in note for note in small.notes)
    grey = check(str(folder({"a.png": np.repeat(rgb[0, :, :, :1], 3, axis=2)}, "grey")))
    assert any("data.channels=1" in note for note in grey.notes)
    stray = check(str(folder({"cat/a.png": rgb[0], "dog/b.png": rgb[1], "c.png": rgb[2]}, "stray")))
    assert any("not taken as classes" in note for note in stray.notes)
    split = check(str(folder({"train/a/1.png": rgb[0], "train/b/2.png": rgb[1], "test/a/3.png": rgb[2]})), split="test")
    assert any("no images of b" in note for note in split.notes)


def test_nothing_but_damage_still_reports(folder):
    report = check(str(folder({"a.png": b"", "b.jpg": b"text"})))
    assert (report.count, len(report.damaged), report.lowest, report.ok) == (0, 2, None, False)


def test_a_member_of_a_zip_with_a_bad_checksum(tmp_path, rgb, png):
    data = png(rgb[0])
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.png", data)
        archive.writestr("b.png", png(rgb[1]))
    content = path.read_bytes()
    at = content.index(data) + len(data) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    report = check(str(path))
    assert report.count == 1
    assert report.damaged[0][0].endswith("set.zip:a.png")


def test_cifar10_as_image_files(tmp_path, rgb, png):
    path = tmp_path / "c.tar"
    with tarfile.open(path, "w") as archive:
        for kind in CLASSES:
            for split in ("train", "test"):
                content = png(rgb[0]) if kind != "cat" else b"text"
                info = tarfile.TarInfo(f"{split}/{kind}/0.jpg")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    report = check("cifar10", opening=Opening(str(path)))
    assert (report.name, report.count, len(report.damaged)) == ("cifar10-jpeg", 18, 2)


def test_nothing_to_check(tmp_path):
    with pytest.raises(InputError, match="holds no images"):
        check(str(tmp_path))
    with pytest.raises(InputError, match="unknown data"):
        check("mnits")
