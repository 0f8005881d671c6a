"""What a source of images promises: what it says of itself, and, of those that need no download, what it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.contracts.made import at_hand, names
from trilemma.data import SOURCES, ImageSet, available_splits, open_data, outline
from trilemma.errors import InputError
from trilemma.inventory import entries


@pytest.fixture
def splits(name: str) -> dict[str, ImageSet]:
    return {split: open_data(name, split=split) for split in available_splits(name)}


def some(opened: ImageSet) -> list[int]:
    return [len(opened) - 1, 0, len(opened) // 2]


@pytest.mark.parametrize("name", names("data"))
class TestSource:
    def test_says_what_it_is(self, name: str) -> None:
        """Its outline, and its description, which says shape and classes too."""
        known = getattr(SOURCES[name], "outline", None)
        if known is None:
            return  # it is opened to know
        described = next(entry for entry in entries("data") if entry.name == name).headline
        assert "x".join(map(str, known.shape)) in described and "." not in described
        assert known.classes is None or f"{len(known.classes)} classes" in described
        assert available_splits(name) == (*known.splits, "all")

    def test_what_it_has_not_is_refused(self, name: str) -> None:
        with pytest.raises(InputError, match=f"unknown split of {name} 'tset'"):
            open_data(name, split="tset")
        with pytest.raises(InputError):
            open_data(name, root="/no/such/folder")


@pytest.mark.parametrize("name", at_hand("data", open_data))
class TestImages:
    def test_is_what_it_says(self, name: str, splits: dict[str, ImageSet]) -> None:
        for split, opened in splits.items():
            assert (opened.shape, opened.classes) == (outline(name).shape, outline(name).classes)
            assert (opened.name, opened.split) == (name, split)

    def test_all_is_its_splits_one_after_the_other(self, name: str, splits: dict[str, ImageSet]) -> None:
        whole, parts = splits.pop("all"), splits.values()
        assert len(whole) == sum(len(part) for part in parts) > 0
        begin = 0
        for part in parts:
            index = some(part)
            (images, labels), (same, numbers) = part.batch(index), whole.batch([begin + i for i in index])
            assert np.array_equal(images, same) and np.array_equal(labels, numbers)
            begin += len(part)

    def test_images_are_bytes_and_the_same_every_time(self, name: str, splits: dict[str, ImageSet]) -> None:
        opened = splits[available_splits(name)[-2]]
        images, labels = opened.batch(some(opened))
        channels, height, width = opened.shape
        assert images.dtype == np.uint8 and images.shape == (3, height, width, channels)
        if opened.classes is not None:
            assert labels is not None and labels.min() >= 0 and labels.max() < len(opened.classes)
        again = open_data(name, split=opened.split)
        assert again.fingerprint() == opened.fingerprint()
        with pytest.raises(IndexError):
            opened.batch([len(opened)])

    def test_any_size_and_channels_can_be_asked_for(self, name: str, splits: dict[str, ImageSet]) -> None:
        split = available_splits(name)[-2]
        for wanted in ({"size": (16, 12)}, {"size": 20, "channels": 1}, {"channels": 3}):
            given: dict[str, Any] = wanted
            assert open_data(name, split=split, **given).shape == outline(name, **given).shape
