from __future__ import annotations

import math

import numpy as np
import pytest

from trilemma.data import ShapesSet, open_data
from trilemma.data import shapes as shapes_module
from trilemma.errors import InputError

# Areas for radius 1. A crescent is a disc less a lens of two circles; a star has ten triangles from its centre.
_LENS = (
    0.9**2 * math.acos((0.25 + 0.81 - 0.5184) / 0.9)
    + 0.72**2 * math.acos((0.25 + 0.5184 - 0.81) / 0.72)
    - 0.5 * math.sqrt((-0.5 + 1.62) * (0.5 + 0.9 - 0.72) * (0.5 - 0.9 + 0.72) * (0.5 + 1.62))
)
AREAS = {
    "circle": math.pi * 0.81,
    "ring": math.pi * (0.92**2 - 0.52**2),
    "square": 1.4**2,
    "frame": 1.44**2 - (4 - math.pi) * 0.14**2 - 0.88**2,  # the outer corners are round
    "triangle": 3 * math.sqrt(3) / 4,
    "diamond": 1.2,
    "cross": 2 * 1.8 * 0.52 - 0.52**2,
    "star": 10 * 0.5 * 0.42 * math.sin(math.pi / 5),
    "crescent": math.pi * 0.81 - _LENS,
    "bars": 2 * 1.48 * 0.44,
}


@pytest.mark.parametrize("kind", AREAS)
def test_a_shape_covers_its_area(kind):
    draws = np.array([[0.5, 0.3, 0.7, 0.8, 0, 0, 0, 1, 1, 1]])
    pixels = shapes_module._render(kind, draws, (200, 240)) / 255
    radius = 200 * (0.24 + 0.18 * 0.5)
    assert pixels[..., 0].sum() == pytest.approx(AREAS[kind] * radius**2, rel=0.01)


def test_an_image_depends_on_seed_split_and_index_alone():
    few, many = ShapesSet(count=20, seed=3), ShapesSet(count=300, seed=3)
    np.testing.assert_array_equal(many.batch([7, 19, 0])[0], few.batch(range(20))[0][[7, 19, 0]])
    np.testing.assert_array_equal(many.batch([7])[0], few.batch([7])[0])
    assert (ShapesSet("test", count=20, seed=3).batch([7])[0] != few.batch([7])[0]).any()
    assert (ShapesSet(count=20, seed=4).batch([7])[0] != few.batch([7])[0]).any()


def test_images_kept_and_drawn_anew_agree(monkeypatch):
    kept = ShapesSet(count=30)
    monkeypatch.setattr(shapes_module, "MEMORY_LIMIT", 0)
    anew = ShapesSet(count=30)
    assert (kept.in_memory, anew.in_memory) == (True, False)
    for _ in range(2):
        np.testing.assert_array_equal(kept.batch([3, 3, 28])[0], anew.batch([3, 3, 28])[0])
    assert kept.fingerprint() == anew.fingerprint()


def test_shapes_are_inside_and_differ_from_the_ground():
    for size in ((32, 32), (16, 48)):
        pixels = ShapesSet(count=200, size=size).batch(range(200))[0].astype(int)
        edge = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
        assert (edge == edge[:, :1]).all()
        assert (np.abs(pixels - pixels[:, :1, :1]).max(axis=(1, 2, 3)) > 60).all()


def test_any_size_and_grey():
    assert open_data("shapes", size=(24, 40)).shape == (3, 24, 40)
    assert open_data("shapes", split="test", channels=1).shape == (1, 32, 32)
    with pytest.raises(InputError, match="at least 8x8"):
        open_data("shapes", size=4)
    with pytest.raises(InputError, match="count"):
        ShapesSet("all", count=3)


def test_stored_numbers():
    pixels = open_data("shapes").batch(range(1000))[0]
    assert pixels.mean(axis=(0, 1, 2)) == pytest.approx([128.661, 126.335, 129.750], abs=0.01)
