"""Pictures put together pixel by pixel, and what they weigh."""

from __future__ import annotations

import base64
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from trilemma.report.pictures import Picture, by_class, named, thin_strip, tile


def test_tile_puts_each_image_in_the_middle_of_its_cell():
    images = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((2, 3, 4, 5, 3), dtype=np.uint8)
    picture = tile(images, gap=2)
    assert picture.shape == (2 * 6, 3 * 7, 3)
    for row, column in itertools.product(range(2), range(3)):
        cell = picture[6 * row : 6 * row + 6, 7 * column : 7 * column + 7]
        assert (cell[1:5, 1:6] == 3 * row + column).all()
        assert (cell[0] == 255).all()
        assert (cell[:, 6] == 255).all()


def test_by_class_keeps_the_order_and_fills_up_with_white():
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    table, classes = by_class(images, np.array([5, 2, 5, 2, 5, 2, 9]), columns=2)
    assert classes == [2, 5, 9]
    np.testing.assert_array_equal(table[..., 0, 0, 0], [[1, 3], [0, 2], [6, 255]])
    with pytest.raises(ValueError, match="7 images, but 3 labels"):
        by_class(images, np.array([1, 2, 3]), columns=2)


def test_a_thinned_strip_keeps_both_ends():
    images = np.arange(101, dtype=np.uint8).reshape(1, 101, 1, 1, 1)
    thin, times = thin_strip(images, list(range(101)), most=6)
    assert times == [0, 20, 40, 60, 80, 100]
    assert thin.ravel().tolist() == times
    assert thin_strip(images[:, :3], [0, 1, 2], most=6)[1] == [0, 1, 2]


def test_small_pictures_are_kept_to_the_pixel_and_large_ones_small():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (60, 90, 1), dtype=np.uint8)
    picture = Picture.of(small, "digits", 300)
    assert (picture.width, picture.height, picture.alt) == (270, 180, "digits")
    kind, _, data = picture.uri.partition(";base64,")
    assert kind == "data:image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), small[:, :, 0])
    large = rng.integers(0, 256, (256, 3 * 256, 3), dtype=np.uint8)
    parts = [Picture.of(large, "photographs", 300, parts=parts).uri for parts in (1, 10)]
    assert all(one.startswith("data:image/jpeg") for one in parts)
    assert len(parts[1]) < 40_000 < len(parts[0])


def test_classes_have_their_names_where_these_are_known():
    assert named(["cat", "dog"], [1, 0]) == ["dog", "cat"]
    assert named([], [1, 0]) == ["1", "0"]
