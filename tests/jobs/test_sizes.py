"""The size that images are trained at, and the patches that fit it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.jobs.sizes import ALIKE, SIDES, nearest_side, patch_for, size_for

SIDE = st.integers(8, 2000)


@pytest.mark.parametrize(
    ("sizes", "longest", "found", "said"),
    [
        ({(48, 48): 300}, 64, (48, 48), "all images have it"),
        ({(30, 42): 9}, 64, (30, 42), "all images have it"),
        ({(512, 512): 9}, 64, (64, 64), "all are 512×512, and beyond 64 this machine is slow (--size)"),
        ({(480, 640): 9}, 64, (64, 88), "in their proportions"),
        ({(480, 640): 5, (960, 1280): 5}, 256, (256, 344), "in their proportions"),
        ({(480, 640): 5, (640, 480): 5}, 256, (256, 256), "cropped to squares"),
        ({(70, 70): 95, (20, 20): 5}, 64, (64, 64), "19 of 20 have 70 or more"),
        ({(70, 70): 94, (20, 20): 6}, 64, (20, 20), "19 of 20 have 20 or more"),
    ],
)
def test_what_is_chosen(sizes: dict[tuple[int, int], int], longest: int, found: tuple[int, int], said: str) -> None:
    size, why = size_for(sizes, longest)
    assert size == found and said in why


@given(st.dictionaries(st.tuples(SIDE, SIDE), st.integers(1, 50), min_size=1, max_size=6), st.sampled_from((64, 256)))
def test_few_images_are_enlarged(sizes: dict[tuple[int, int], int], longest: int) -> None:
    size, _ = size_for(sizes, longest)
    enlarged = sum(count for size_, count in sizes.items() if min(size_) < min(size))
    assert enlarged <= ALIKE * sum(sizes.values()) or min(size) == 8  # which multiples of eight may need
    assert min(size) <= longest


@given(st.integers(1, 8), st.tuples(st.integers(4, 300), st.integers(4, 300)))
def test_patches_divide_the_image_and_leave_some(patch: int, size: tuple[int, int]) -> None:
    found = patch_for(patch, size)
    assert size[0] % found == 0 and size[1] % found == 0
    assert found == 1 or min(size) // found >= 7
    if size[0] % patch == 0 and size[1] % patch == 0 and min(size) >= 7 * patch:
        assert found == patch


@given(SIDE)
def test_the_nearest_of_the_recipes_is_a_square_s_own(side: int) -> None:
    found = nearest_side((side, side), SIDES)
    assert all(abs(math.log(found / side)) <= abs(math.log(other / side)) + 1e-9 for other in SIDES)
