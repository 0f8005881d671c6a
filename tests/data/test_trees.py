from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest

from trilemma.data import DamagedImageError, available_splits, open_data
from trilemma.data import trees as trees_module
from trilemma.errors import InputError


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return str(path)


def test_a_flat_folder_is_unlabelled_and_sorted(folder, rgb):
    where = folder({"c.png": rgb[2], "a.png": rgb[0], "B.PNG": rgb[1], "notes.txt": b"x", ".hidden.png": b"x"})
    images = open_data(str(where))
    assert (images.name, images.split, images.classes, images.shape) == ("pictures", "all", None, (3, 8, 10))
    np.testing.assert_array_equal(images.batch(range(3))[0], rgb[[1, 0, 2]])
    assert images.batch([0])[1] is None


def test_sub_folders_are_classes(folder, rgb):
    where = folder({"dog/x/1.png": rgb[0], "cat/2.png": rgb[1], "dog/0.png": rgb[2]})
    images = open_data(str(where))
    assert images.classes == ("cat", "dog")
    pixels, labels = images.batch(range(3))
    np.testing.assert_array_equal(pixels, rgb[[1, 2, 0]])
    assert labels is not None
    assert labels.tolist() == [0, 1, 1]


def test_shared_folders_and_stray_images_make_no_classes(folder, rgb):
    assert open_data(str(folder({"images/a.png": rgb[0]}, "one"))).classes is None
    assert open_data(str(folder({"cat/a.png": rgb[0], "dog/b.png": rgb[1], "c.png": rgb[2]}, "two"))).classes is None
    assert open_data(str(folder({"top/cat/a.png": rgb[0], "top/dog/b.png": rgb[1]}, "three"))).classes == ("cat", "dog")


def test_split_folders(folder, rgb):
    where = str(folder({"train/cat/a.png": rgb[0], "train/dog/b.png": rgb[1], "val/dog/c.png": rgb[2]}))
    assert available_splits(where) == ("train", "val", "all")
    train, val, both = (open_data(where, split=split) for split in ("train", "val", "all"))
    assert [len(part) for part in (train, val, both)] == [2, 1, 3]
    assert train.classes == val.classes == both.classes == ("cat", "dog")
    assert val.labels is not None
    assert (val.split, val.labels.tolist()) == ("val", [1])
    with pytest.raises(InputError, match=r"unknown split of pictures 'test' .*known: all, train, val"):
        open_data(where, split="test")


def test_a_whole_has_no_test_split(folder, rgb):
    with pytest.raises(InputError, match="known: all, train"):
        open_data(str(folder({"a.png": rgb[0]})), split="test")


def test_lazy_and_decoded_sets_agree(folder, rgb, monkeypatch):
    files = {f"{'ab'[i % 2]}/{i}.png": image for i, image in enumerate(rgb)}
    where = str(folder(files))
    decoded = open_data(where)
    monkeypatch.setattr(trees_module, "MEMORY_LIMIT", rgb.nbytes)
    lazy = open_data(where)
    assert (decoded.in_memory, lazy.in_memory) == (True, False)
    np.testing.assert_array_equal(lazy.batch([5, 0])[0], decoded.batch([5, 0])[0])
    np.testing.assert_array_equal(lazy.batch([5, 0])[1], decoded.batch([5, 0])[1])
    assert lazy.fingerprint() == decoded.fingerprint()
    with pytest.raises(IndexError):
        lazy.batch([6])


def test_folder_zip_and_npz_of_the_same_images_have_one_fingerprint(folder, rgb, tmp_path):
    where = folder({f"{'ab'[i % 2]}/{i}.png": image for i, image in enumerate(rgb)})
    members = {path.relative_to(where).as_posix(): path.read_bytes() for path in where.rglob("*.png")}
    archive = zipped(tmp_path / "pictures.zip", members)
    labels = np.array([0, 0, 0, 1, 1, 1])
    np.savez(tmp_path / "pictures.npz", rgb[[0, 2, 4, 1, 3, 5]], labels)
    prints = {open_data(str(path)).fingerprint() for path in (where, archive, tmp_path / "pictures.npz")}
    assert len(prints) == 1


def test_stylegan_zip(folder, rgb, tmp_path, monkeypatch):
    where = folder({f"{i}.png": image for i, image in enumerate(rgb)})
    names = [f"0000{i // 3}/img{i:08d}.png" for i in range(6)]
    members = {name: (where / f"{i}.png").read_bytes() for i, name in enumerate(names)}
    pairs = [[name, 3 * (i % 2)] for i, name in enumerate(names)]
    labelled = zipped(tmp_path / "a.zip", {**members, "dataset.json": json.dumps({"labels": pairs})})
    bare = zipped(tmp_path / "b.zip", {**members, "dataset.json": json.dumps({"labels": None})})
    images = open_data(labelled)
    assert (images.name, images.classes) == ("a.zip", ("0", "1", "2", "3"))
    pixels, labels = images.batch(range(6))
    np.testing.assert_array_equal(pixels, rgb)
    assert labels is not None
    assert labels.tolist() == [0, 3, 0, 3, 0, 3]
    assert open_data(bare).classes is None  # 00000 and 00001 are no classes
    monkeypatch.setattr(trees_module, "MEMORY_LIMIT", 0)
    lazy = pickle.loads(pickle.dumps(open_data(labelled)))  # as worker processes get it
    np.testing.assert_array_equal(lazy.batch([4])[0], rgb[[4]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["0.png", 1]], r"has no label for 1\.png"),
        ([["0.png", 1], ["1.png", [0.5, 0.5]]], "expected a whole number"),
        ([["0.png", 1], ["1.png", -1]], "label -1"),
        ([1, 2], "expected"),
    ],
)
def test_a_dataset_json_that_does_not_fit(folder, rgb, labels, message):
    where = folder({"0.png": rgb[0], "1.png": rgb[1], "dataset.json": json.dumps({"labels": labels}).encode()})
    with pytest.raises(InputError, match=message):
        open_data(str(where))


def test_mixed_sizes_name_two_files_and_the_remedy(folder, rgb):
    where = str(folder({"a.png": rgb[0], "b.png": rgb[1], "c.png": rgb[2, :6, :5]}))
    with pytest.raises(InputError, match=r"a\.png is 8x10, .*c\.png is 6x5 .*data\.size=5"):
        open_data(where)
    assert open_data(where, size=5).shape == (3, 5, 5)
    assert open_data(where, size=(4, 6), channels=1).shape == (1, 4, 6)


def test_channels_follow_the_files(folder, rgb):
    grey = rgb[:, :, :, :1]
    assert open_data(str(folder({"a.png": grey[0], "b.png": grey[1]}, "grey"))).shape == (1, 8, 10)
    mixed = open_data(str(folder({"a.png": grey[0], "b.png": rgb[1]}, "mixed")))
    assert mixed.shape == (3, 8, 10)
    np.testing.assert_array_equal(mixed.batch([0])[0][0], np.repeat(grey[0], 3, axis=2))


@pytest.mark.parametrize("size", [None, 8])
def test_a_text_file_named_png_is_named_on_opening(folder, rgb, size):
    where = str(folder({"a.png": rgb[0], "b.png": b"just text"}))
    with pytest.raises(DamagedImageError, match=r"b\.png: cannot be read as an image"):
        open_data(where, size=size)


def test_a_damaged_file_of_a_lazy_set_is_named_in_its_batch(folder, rgb, monkeypatch):
    good = folder({"a.png": rgb[0]}, "good") / "a.png"
    where = str(folder({"a.png": rgb[0], "b.png": good.read_bytes()[:-60]}))
    monkeypatch.setattr(trees_module, "MEMORY_LIMIT", 0)
    images = open_data(where)
    images.batch([0])
    with pytest.raises(DamagedImageError, match=r"b\.png"):
        images.batch([0, 1])


def test_nothing_to_open(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        open_data(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="cannot be read as a zip"):
        open_data(str(folder({"x.zip": b"PK not really"}) / "x.zip"))
    with pytest.raises(InputError, match=r"expected a folder of images, a \.zip or a \.tar"):
        open_data(str(folder({"x.csv": b"1,2"}) / "x.csv"))
