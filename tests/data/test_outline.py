"""What is known of data without its files is what its files say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trilemma.data import Outline, outline
from trilemma.errors import InputError


def test_a_path_is_looked_into(tmp_path: Path) -> None:
    images = np.zeros((4, 6, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", arr_0=images, arr_1=np.array([0, 2, 1, 2]))
    assert outline(str(tmp_path / "set.npz")) == Outline(str(tmp_path / "set.npz"), (3, 6, 8), ("0", "1", "2"))
    np.savez(tmp_path / "bare.npz", arr_0=images)
    assert outline(str(tmp_path / "bare.npz"), size=4).shape == (3, 4, 4)
    assert outline(str(tmp_path / "bare.npz")).classes is None


def test_imagenet_need_not_be_there(tmp_path: Path) -> None:
    known = outline(str(tmp_path / "imagenet"), size=64)
    assert known.shape == (3, 64, 64) and len(known.classes or ()) == 1000
    with pytest.raises(InputError, match="imagenet"):
        outline(str(tmp_path / "imagenet"))  # its images are of any size


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'cifar10'"):
        outline("cifar")
    with pytest.raises(InputError, match="size"):
        outline("cifar10", size=0)
