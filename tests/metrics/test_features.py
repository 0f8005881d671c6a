from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trilemma.errors import InputError
from trilemma.metrics import (
    ClassifierExtractor,
    Extractor,
    Features,
    extract,
    features,
    load_classifier,
    open_extractor,
)
from trilemma.metrics.features import hash_of
from trilemma.networks.classifier import ConvClassifier

NETWORK = {"widths": [[4], [6]], "dropout": 0.5}


@pytest.fixture
def network() -> ConvClassifier:
    torch.manual_seed(0)
    return ConvClassifier(1, 10, **NETWORK)


@pytest.fixture
def weights(network, tmp_path, monkeypatch):
    """A folder with an untrained digit classifier, where the packaged one is looked for."""
    save_file(network.state_dict(), tmp_path / "digits.safetensors")
    sha256 = hashlib.sha256((tmp_path / "digits.safetensors").read_bytes()).hexdigest()
    (tmp_path / "digits.json").write_text(json.dumps({"network": NETWORK, "sha256": sha256}))
    monkeypatch.setattr(features, "WEIGHTS", tmp_path)
    return tmp_path


def images(n: int = 5, height: int = 28, width: int = 28, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def test_pixels_are_the_images_channel_by_channel():
    x = images(3, 4, 5, 2)
    found = open_extractor("pixels")(x)
    assert found.pooled.dtype == np.float32
    assert found.logits is None
    assert found.dim == 40
    np.testing.assert_allclose(found.pooled[1, 20:25], x[1, 0, :, 1] / 255, rtol=1e-6)


def test_digits_are_the_networks_features_and_logits(weights, network):
    x = images()
    extractor = open_extractor("digits")
    found = extractor(x)
    network.eval()
    with torch.no_grad():
        inside = torch.from_numpy(x[..., 0]).float()[:, None] / 127.5 - 1
        np.testing.assert_allclose(found.pooled, network.features(inside).numpy(), atol=1e-6)
        np.testing.assert_allclose(found.logits, network(inside).numpy(), atol=1e-6)
    assert extractor.record() == {"name": "digits", "sha256": extractor.sha256, "dim": 6, "resize": "none"}
    assert extractor.sha256 == hashlib.sha256((weights / "digits.safetensors").read_bytes()).hexdigest()


def test_padded_digits_are_cropped(weights):
    x = images()
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=9)
    extractor = open_extractor("digits")
    assert (extractor(padded).pooled == extractor(x).pooled).all()


@pytest.mark.parametrize("shape", [(28, 28, 3), (32, 32, 3), (28, 32, 1), (64, 64, 1)])
def test_digits_refuse_other_images(weights, shape):
    height, width, channels = shape
    with pytest.raises(InputError, match=f"{channels}x{height}x{width} .* expected 1x28x28 or 1x32x32"):
        open_extractor("digits")(images(2, *shape))


def test_read_only_images_are_read(weights):
    x = images()
    x.flags.writeable = False
    assert len(open_extractor("digits")(x)) == 5


def test_no_image_and_mixed_sizes_are_refused():
    pixels = open_extractor("pixels")
    with pytest.raises(InputError, match="no images"):
        extract([images(0)], pixels)
    with pytest.raises(InputError, match=r"features of \[784, 1024\]"):
        extract([images(1), images(1, 32, 32)], pixels)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="did you mean 'digits'"):
        open_extractor("digit")
    for name in ("inceptoin", "timm", "timm:", "classifier", "digits:x"):
        with pytest.raises(InputError, match=r"classifier:RUN, digits, .*inception:PATH, pixels, timm:NAME"):
            open_extractor(name)


class Halves(Extractor):
    """The left and the right half of grey images: pooled, logits and spatial features that tests can tell apart."""

    name, dim, sha256 = "halves", 1, ""

    def __call__(self, images):
        x = images.astype(np.float32)
        x[images == 13] = np.nan
        return Features(x.mean((1, 2)), x[:, :, 0].mean(1), x[:, 0, :, 0])


def test_all_kinds_of_features_are_joined_in_order():
    x = images(5, 3, 4) | 16  # no 13
    found = extract([x[:2], x[:0], x[2:]], Halves())
    for kind in ("pooled", "logits", "spatial"):
        np.testing.assert_array_equal(getattr(found, kind), getattr(Halves()(x), kind))


def test_nan_features_are_named_with_their_image():
    x = images(5, 3, 4) | 16
    x[[3, 4], 1, 1] = 13
    with pytest.raises(InputError, match=r"features 'halves': 2 of 5 images have NaN .*first is image 3"):
        extract([x[:2], x[2:]], Halves())


def test_a_classifier_sees_the_range_it_was_trained_on(network):
    x = images(2)
    usual = ClassifierExtractor(network, name="a", sha256="", shape=(1, 28, 28))
    other = ClassifierExtractor(network, name="a", sha256="", shape=(1, 28, 28), bounds=(0.0, 1.0))
    with torch.no_grad():
        inside = torch.from_numpy(x[..., 0]).float()[:, None] / 255
        np.testing.assert_allclose(other(x).pooled, network.eval().features(inside), atol=1e-6)
    assert np.abs(other(x).pooled - usual(x).pooled).max() > 1e-3


def test_a_colour_classifier_refuses_grey_images():
    colour = ClassifierExtractor(ConvClassifier(3, 10, **NETWORK), name="colour", sha256="", shape=(3, 28, 28))
    with pytest.raises(InputError, match=r"features 'colour': images are 1x28x28 .*expected 3x28x28"):
        colour(images())


def test_the_hash_of_weights_is_of_names_types_shapes_and_values():
    weights = {"a": torch.arange(6.0), "b": torch.tensor(3, dtype=torch.int64)}
    same = hash_of(dict(reversed(weights.items())))
    assert hash_of(weights) == same and len(same) == 64
    changes = [
        {"a": torch.arange(6.0) + 1e-6},
        {"a": torch.arange(6.0).view(2, 3)},
        {"a": torch.arange(6.0).view(torch.int32)},
        {"b": torch.tensor(4)},
        {"c": torch.tensor(0.0, dtype=torch.bfloat16)},
    ]
    assert len({same, *(hash_of(weights | change) for change in changes)}) == 6


def test_missing_and_damaged_weights_are_refused(weights):
    path = weights / "digits.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(InputError, match="the card says"):
        open_extractor("digits")
    (weights / "digits.json").write_text(json.dumps({"network": NETWORK}))
    with pytest.raises(InputError, match="does not hold the card's network"):
        open_extractor("digits")
    path.write_bytes(content)
    (weights / "digits.json").write_text(json.dumps({"network": {"widths": [[4], [7]]}}))
    with pytest.raises(InputError, match="does not hold the card's network") as refused:
        open_extractor("digits")
    assert "\n" not in str(refused.value)
    (weights / "digits.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        open_extractor("digits")
    path.unlink()
    with pytest.raises(InputError, match=r"lacks .*digits\.safetensors"):
        open_extractor("digits")


def test_weights_may_be_kept_in_half_precision(weights, network):
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()},
        weights / "half.safetensors",
    )
    (weights / "half.json").write_text(json.dumps({"network": NETWORK}))
    half = load_classifier(weights, "half", shape=(1, 28, 28), classes=10)
    found, exact = half(images()), open_extractor("digits")(images())
    assert found.pooled.dtype == np.float32
    np.testing.assert_allclose(found.pooled, exact.pooled, rtol=0.02, atol=1e-3)
