"""What a feature extractor promises, of those that can be had without a download."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.contracts.made import at_hand
from trilemma.errors import InputError
from trilemma.metrics import Extractor, open_extractor


@pytest.fixture
def opened(name: str) -> Extractor:
    return open_extractor(name)


def images(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)


@pytest.mark.parametrize("name", at_hand("features", open_extractor))
class TestFeatures:
    def test_an_image_s_are_its_own(self, opened: Extractor) -> None:
        whole = opened(images())
        for i in (0, 4):
            alone = opened(images()[i : i + 1])
            np.testing.assert_allclose(alone.pooled[0], whole.pooled[i], rtol=1e-4, atol=1e-5)
            if whole.logits is not None and alone.logits is not None:
                np.testing.assert_allclose(alone.logits[0], whole.logits[i], rtol=1e-4, atol=1e-4)
        assert np.array_equal(opened(images()).pooled, whole.pooled)

    def test_are_finite_numbers_as_many_as_it_says(self, opened: Extractor) -> None:
        found = opened(images())
        assert found.pooled.dtype == np.float32 and np.isfinite(found.pooled).all()
        assert found.pooled.shape == (6, opened.dim or found.dim)
        if opened.classes is not None:
            assert found.logits is not None and found.logits.shape == (6, len(opened.classes))

    def test_what_they_are_is_recorded(self, opened: Extractor, name: str) -> None:
        record = opened.record(3)
        assert json.loads(json.dumps(record)) == record
        assert record["name"].partition(":")[0] == name and len(record["sha256"]) == 64

    def test_what_is_no_uint8_image_is_refused(self, opened: Extractor) -> None:
        for wrong in (images().astype(np.float32), images()[..., 0]):
            with pytest.raises(InputError, match="expected uint8"):
                opened(wrong)
