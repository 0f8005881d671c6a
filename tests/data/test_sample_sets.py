from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from trilemma.data import check_out, open_data, read_samples, write_png, write_samples
from trilemma.data import samples as samples_module
from trilemma.errors import InputError
from trilemma.process import image_grid

LABELS = np.array([3, 0, 1, 3, 2, 0])


@pytest.mark.parametrize("name", ["new/samples.npz", "new/samples", "new/eta-0.5"])
@pytest.mark.parametrize("labels", [LABELS, None])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_again(tmp_path, rgb, name, labels, channels):
    images = rgb[..., :channels]
    out = write_samples(tmp_path / name, images, labels)
    found, numbers = read_samples(out)
    np.testing.assert_array_equal(found, images)
    assert (numbers is None) == (labels is None)
    if labels is not None:
        np.testing.assert_array_equal(numbers, labels)
        assert numbers is not None
        assert numbers.dtype == np.int64
    np.testing.assert_array_equal(open_data(str(out)).batch(range(6))[0], images)
    assert [path.name for path in out.parent.iterdir()] == [out.name]  # nothing temporary is left


def test_formats_are_those_of_other_tools(tmp_path, rgb):
    with np.load(write_samples(tmp_path / "s.npz", rgb, LABELS), allow_pickle=False) as stored:
        assert stored.files == ["arr_0", "arr_1"]
        assert (stored["arr_0"].dtype, stored["arr_1"].dtype) == (np.uint8, np.int64)
    folder = write_samples(tmp_path / "s", rgb, LABELS)
    np.testing.assert_array_equal(np.array(Image.open(folder / "000004.png")), rgb[4])
    assert json.loads((folder / "dataset.json").read_text())["labels"][4] == ["000004.png", 2]


def test_an_npz_is_replaced_whole_and_a_failure_leaves_the_old_one(tmp_path, rgb, monkeypatch):
    out = write_samples(tmp_path / "s.npz", rgb)
    write_samples(out, rgb[:2])
    assert len(read_samples(out)[0]) == 2

    def fail(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(InputError, match=r"cannot write .*s\.npz \(No space left on device\)"):
        write_samples(out, rgb)
    assert len(read_samples(out)[0]) == 2
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_that_fails_leaves_nothing(tmp_path, rgb, monkeypatch):
    def fail(image):
        raise KeyboardInterrupt

    monkeypatch.setattr(samples_module, "png", fail)
    with pytest.raises(KeyboardInterrupt):
        write_samples(tmp_path / "s", rgb)
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_written(tmp_path, rgb):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old.png").write_text("x")
    (tmp_path / "dir.npz").mkdir()
    cases = {
        "file/s.npz": r"cannot write .*file/s\.npz",
        "file/below/s": "cannot write",
        "file": "is a file, expected a folder",
        "full": "is not empty",
        "dir.npz": "is a folder, expected an .npz",
        "s.png": "neither an .npz file nor a folder",
    }
    for name, message in cases.items():
        for attempt in (lambda out: check_out(out), lambda out: write_samples(out, rgb)):
            with pytest.raises(InputError, match=message):
                attempt(tmp_path / name)
    with pytest.raises(InputError, match="out: cannot write"):
        write_png(tmp_path / "file" / "g.png", rgb[0])
    assert check_out(tmp_path / "new" / "s.npz") == tmp_path / "new" / "s.npz"
    assert list((tmp_path / "new").iterdir()) == []


def test_samples_that_do_not_fit(tmp_path, rgb):
    with pytest.raises(InputError, match="float64, expected uint8"):
        write_samples(tmp_path / "s.npz", rgb / 255)
    with pytest.raises(InputError, match="labels are int32"):
        write_samples(tmp_path / "s.npz", rgb, LABELS.astype(np.int32))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="does not exist"):
        read_samples(tmp_path / "s.npz")


def test_a_grid_has_each_image_in_its_place(rgb):
    grid = image_grid(rgb, 4, padding=1, fill=7)
    assert grid.shape == (2 * 9 + 1, 4 * 11 + 1, 3)
    np.testing.assert_array_equal(grid[10:18, 12:22], rgb[5])
    assert (grid[0] == 7).all()
    assert (grid[:, 11] == 7).all()
    assert (grid[10:18, 23:] == 7).all()  # the places that stay empty
    assert image_grid(rgb[:2, :, :, :1], 8).shape == (8 + 4, 2 * 12 + 2, 1)
    with pytest.raises(InputError, match="at least one"):
        image_grid(rgb, 0)


def test_a_png(tmp_path, rgb):
    np.testing.assert_array_equal(np.array(Image.open(write_png(tmp_path / "a" / "g.png", rgb[0]))), rgb[0])
    np.testing.assert_array_equal(
        np.array(Image.open(write_png(tmp_path / "g.png", rgb[0, :, :, 1:2]))), rgb[0, :, :, 1]
    )
