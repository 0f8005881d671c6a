from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from trilemma.data import MemorySet
from trilemma.errors import InputError
from trilemma.process import to_model, to_uint8


@pytest.mark.parametrize("range", [(-1.0, 1.0), (0.0, 1.0)])
def test_every_byte_survives_the_way_to_the_model_and_back(range):
    bytes_ = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    floats = to_model(bytes_, range)
    assert floats.dtype == torch.float32
    assert floats.shape == (1, 1, 16, 16)
    assert (floats.min().item(), floats.max().item()) == range
    np.testing.assert_array_equal(to_uint8(floats, range), bytes_)


def test_the_axes_are_moved_not_reshaped(rgb):
    floats = to_model(rgb)
    assert floats.shape == (6, 3, 8, 10)
    assert floats.is_contiguous()
    assert floats[2, 1, 3, 4].item() == pytest.approx(rgb[2, 3, 4, 1] / 127.5 - 1, abs=1e-6)
    np.testing.assert_array_equal(to_uint8(floats), rgb)


def test_floats_are_rounded_and_clamped():
    low_high = torch.tensor([-7.0, 7.0, float("nan"), float("inf"), 0.5 / 127.5 - 1 + 1e-3]).reshape(1, 1, 1, 5)
    assert to_uint8(low_high).ravel().tolist() == [0, 255, 0, 255, 1]
    assert to_uint8(torch.full((1, 1, 1, 1), -0.999, dtype=torch.bfloat16)).item() == 0


def test_other_arrays_are_refused(rgb):
    with pytest.raises(InputError, match="float32, expected uint8"):
        to_model(rgb.astype(np.float32))
    with pytest.raises(InputError, match="looks like NCHW"):
        MemorySet(rgb.transpose(0, 3, 1, 2), name="turned")


def test_a_batch_is_in_the_order_asked_for(rgb):
    labels = np.array([0, 1, 0, 1, 2, 2])
    images = MemorySet(rgb, labels, name="six", classes=("a", "b", "c"))
    pixels, numbers = images.batch([4, 0, 4])
    np.testing.assert_array_equal(pixels, rgb[[4, 0, 4]])
    assert numbers is not None
    assert numbers.tolist() == [2, 0, 2]
    assert (len(images), images.shape, images.in_memory) == (6, (3, 8, 10), True)
    assert images.batch([])[0].shape == (0, 8, 10, 3)
    assert MemorySet(rgb, name="six").batch([1])[1] is None
    for outside in ([6], [-1]):
        with pytest.raises(IndexError, match="outside"):
            images.batch(outside)


def test_labels_must_fit(rgb):
    with pytest.raises(InputError, match="label 2 is out of range, expected 0 to 1"):
        MemorySet(rgb, np.array([0, 1, 2, 0, 0, 0]), name="six", classes=("a", "b"))
    with pytest.raises(InputError, match="expected int64"):
        MemorySet(rgb, np.array([0, 1]), name="six", classes=("a", "b"))
    with pytest.raises(InputError, match="together"):
        MemorySet(rgb, np.zeros(6, dtype=np.int64), name="six")


def test_the_fingerprint_is_the_hash_of_what_a_model_sees(rgb):
    labels = np.array([0, 1, 0, 1, 2, 2])
    images = MemorySet(rgb, labels, name="six", classes=("a", "b", "c"))
    head = json.dumps({"count": 6, "labelled": True, "shape": [3, 8, 10]})
    assert images.fingerprint() == hashlib.sha256(head.encode() + rgb.tobytes() + labels.tobytes()).hexdigest()
    changed = rgb.copy()
    changed[5, 7, 9, 2] ^= 1
    others = [
        MemorySet(changed, labels, name="six", classes=("a", "b", "c")),
        MemorySet(rgb, labels[::-1].copy(), name="six", classes=("a", "b", "c")),
        MemorySet(rgb, name="six"),
        MemorySet(rgb.reshape(6, 10, 8, 3), labels, name="six", classes=("a", "b", "c")),
    ]
    assert len({images.fingerprint(), *(other.fingerprint() for other in others)}) == 5
