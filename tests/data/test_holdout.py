from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.data import Opening, available_splits, open_data
from trilemma.data import trees as trees_module
from trilemma.data.holdout import held_out, of_bytes, of_pixels
from trilemma.errors import InputError

NUMBERS = st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=30).filter(lambda some: len(set(some)) > 1)
SHARES = st.floats(0.01, 0.99)


def small(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 2, 3, 3), dtype=np.uint8)


@given(NUMBERS, SHARES)
def test_each_side_has_an_image_and_copies_lie_on_one(numbers, share):
    held = held_out(numbers * 2, share, "x")
    assert 0 < held.sum() < len(held)
    np.testing.assert_array_equal(held[: len(numbers)], held[len(numbers) :])


@given(NUMBERS, NUMBERS, SHARES)
def test_images_keep_their_sides_while_the_data_grow(before, more, share):
    limit = share * 2**64
    if min(before) >= limit or max(before) < limit:  # one went over, so that no side was empty
        return
    np.testing.assert_array_equal(held_out(before + more, share, "x")[: len(before)], held_out(before, share, "x"))


def test_the_share_of_many():
    numbers = [of_pixels(image) for image in small(4000)]
    assert abs(held_out(numbers, 0.1, "x").mean() - 0.1) < 0.015
    assert of_pixels(np.zeros((2, 3, 1), np.uint8)) != of_pixels(np.zeros((3, 2, 1), np.uint8))


@pytest.mark.parametrize("lazy", [False, True])
def test_of_a_folder_by_its_files_bytes(folder, png, monkeypatch, lazy):
    monkeypatch.setattr(trees_module, "MEMORY_LIMIT", 0 if lazy else 2**28)
    images = small(40)
    where = str(folder({f"{'ab'[i % 2]}/{i:02d}.png": image for i, image in enumerate(images)}))
    train, test, both = (open_data(where, split=split, holdout=0.25) for split in ("train", "test", "all"))
    low = np.array([of_bytes(png(images[i])) < 2**62 for i in [*range(0, 40, 2), *range(1, 40, 2)]])
    np.testing.assert_array_equal(test.batch(range(len(test)))[0], both.batch(np.flatnonzero(low))[0])
    np.testing.assert_array_equal(train.batch(range(len(train)))[0], both.batch(np.flatnonzero(~low))[0])
    np.testing.assert_array_equal(test.labels, both.labels[low])
    assert (train.split, test.split, both.split) == ("train", "test", "all")
    assert train.classes == test.classes == ("a", "b")
    assert both.fingerprint() == open_data(where).fingerprint()
    assert len({train.fingerprint(), test.fingerprint(), both.fingerprint()}) == 3
    resized = Opening(size=1, holdout=0.25)(where, "test")
    assert (len(resized), resized.shape) == (len(test), (3, 1, 1))


def test_of_an_npz_by_its_pixels(tmp_path):
    images, labels = small(40), np.arange(40) % 3
    np.savez(tmp_path / "set.npz", images, labels)
    train, test = (open_data(str(tmp_path / "set.npz"), split=split, holdout=0.25) for split in ("train", "test"))
    low = np.array([of_pixels(image) < 2**62 for image in images])
    np.testing.assert_array_equal(test.batch(range(len(test)))[0], images[low])
    np.testing.assert_array_equal(train.labels, labels[~low])
    assert (train.split, test.split) == ("train", "test")


def test_what_cannot_be_held_out(folder, rgb):
    where = str(folder({"train/a.png": rgb[0], "val/b.png": rgb[1]}, "splits"))
    with pytest.raises(InputError, match=r"data\.holdout 0\.5: .*splits has its own splits \(train, val\), expected 0"):
        open_data(where, holdout=0.5)
    with pytest.raises(InputError, match=r"data\.holdout 0\.5: mnist5k has its own splits \(train, test\)"):
        open_data("mnist5k", holdout=0.5)
    with pytest.raises(InputError, match="no two different images"):
        open_data(str(folder({"a.png": rgb[0], "b.png": rgb[0]}, "copies")), holdout=0.5)
    for share in (-0.1, 1, True, float("nan")):
        with pytest.raises(InputError, match="expected a share from 0"):
            open_data("mnist5k", holdout=share)
    assert available_splits(where) == ("train", "val", "all")
