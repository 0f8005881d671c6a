from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trilemma.data import Opening, available_splits, open_data, pack
from trilemma.errors import InputError


@pytest.mark.parametrize("opening", [Opening(), Opening(size=6), Opening(size=(4, 6), channels=1, resize="area")])
def test_what_is_packed_opens_the_same(folder, rgb, tmp_path, opening):
    where = str(folder({f"{('dog', 'cat')[i % 2]}/{i}.png": image for i, image in enumerate(rgb)}))
    pack(where, tmp_path / "new" / "set.zip", opening)
    pack(where, tmp_path / "set.npz", opening)
    direct = opening(where)
    zipped, arrays = open_data(str(tmp_path / "new" / "set.zip")), open_data(str(tmp_path / "set.npz"))
    assert direct.fingerprint() == zipped.fingerprint() == arrays.fingerprint()
    assert (zipped.classes, arrays.classes) == (("cat", "dog"), ("0", "1"))
    pack(where, tmp_path / "again.zip", opening)
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "new" / "set.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "again.zip") as archive:
        members = archive.infolist()
        table = json.loads(archive.read("dataset.json"))
        with Image.open(io.BytesIO(archive.read("00000/img00000005.png"))) as image:
            np.testing.assert_array_equal(np.array(image), direct.batch([5])[0][0].squeeze())
    assert {member.compress_type for member in members} == {zipfile.ZIP_STORED}
    assert table["labels"][:4] == [[f"00000/img0000000{i}.png", i // 3] for i in range(4)]


def test_splits_are_kept_or_one_is_taken(folder, rgb, tmp_path):
    where = str(folder({f"{('train', 'test')[i % 2]}/{'abc'[i // 2]}/{i}.png": image for i, image in enumerate(rgb)}))
    packed = pack(where, tmp_path / "set.zip")
    assert [(one.split, len(one)) for one in packed] == [("train", 3), ("test", 3)]
    assert available_splits(str(tmp_path / "set.zip")) == ("train", "test", "all")
    for split in ("train", "test", "all"):
        direct, again = (open_data(data, split=split) for data in (where, str(tmp_path / "set.zip")))
        assert (direct.fingerprint(), direct.classes) == (again.fingerprint(), again.classes)
    pack(where, tmp_path / "test.zip", split="test")
    assert open_data(str(tmp_path / "test.zip")).fingerprint() == open_data(where, split="test").fingerprint()
    assert available_splits(str(tmp_path / "test.zip")) == ("train", "all")
    with pytest.raises(InputError, match=r"set\.npz has no splits, and .* has train, test: name one, as .*:train"):
        pack(where, tmp_path / "set.npz")


def test_held_out_images_become_a_split(folder, rgb, tmp_path):
    where = str(folder({f"{i}.png": image for i, image in enumerate(rgb)}))
    pack(where, tmp_path / "set.zip", Opening(holdout=0.4))
    for split in ("train", "test"):
        again = open_data(str(tmp_path / "set.zip"), split=split)
        assert again.fingerprint() == open_data(where, split=split, holdout=0.4).fingerprint()
        assert again.classes is None


def test_what_cannot_be_packed(folder, rgb, tmp_path):
    where = folder({"a.png": rgb[0], "b.png": rgb[1, :4]})
    pack(str(where), tmp_path / "one.zip", Opening(size=4))
    with pytest.raises(InputError, match=r"set\.tar, expected a name that ends in \.zip or \.npz"):
        pack(str(where), tmp_path / "set.tar")
    with pytest.raises(InputError, match="images differ in size"):
        pack(str(where), tmp_path / "set.zip")
    with pytest.raises(InputError, match="would be overwritten"):
        pack(str(tmp_path / "one.zip"), tmp_path / "one.zip")
    assert not (tmp_path / "set.zip").exists()


@pytest.mark.parametrize(
    ("classes", "message"),
    [("ab", "expected a list of names"), (["a"], "1 classes, 1 different, expected 2"), (["a", "a"], "1 different")],
)
def test_class_names_that_do_not_fit(folder, rgb, classes, message):
    table = json.dumps({"labels": [["0.png", 0], ["1.png", 1]], "classes": classes}).encode()
    where: Path = folder({"0.png": rgb[0], "1.png": rgb[1], "dataset.json": table})
    with pytest.raises(InputError, match=message):
        open_data(str(where))
