"""Features by the timm library, which stands in here: a module that has the two functions we call."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trilemma.errors import InputError
from trilemma.metrics import extract, open_extractor
from trilemma.metrics.features import hash_of

CONFIG = {
    "input_size": (3, 20, 24),
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.3, 0.4),
    "interpolation": "bicubic",
    "crop_pct": 0.9,
}


class Network(nn.Module):
    """The mean over positions of a few convolutions; or of nothing, if maps are asked for."""

    def __init__(self, channels: int = 3, maps: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.maps = nn.Conv2d(channels, 5, 3), nn.BatchNorm2d(5), maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x)).relu()
        return y if self.maps else y.mean((2, 3))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in with one network, `tiny`, and the config above."""
    module: Any = ModuleType("timm")

    def create_model(name: str, pretrained: bool, num_classes: int) -> nn.Module:
        assert pretrained and num_classes == 0
        if name == "offline":
            raise ConnectionError("could not reach the hub\nwith a second line")
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        return Network(module.config["input_size"][0], module.maps)

    module.create_model, module.config, module.maps = create_model, dict(CONFIG), False
    module.data = ModuleType("timm.data")
    module.data.resolve_model_data_config = lambda network: module.config
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def images(n: int = 3, height: int = 32, width: int = 28, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def test_images_are_resized_and_normalised_as_the_config_says(timm: Any) -> None:
    x = images(40)
    extractor = open_extractor("timm:tiny")
    found = extract([x[:35], x[35:]], extractor)
    inside = torch.from_numpy(x).permute(0, 3, 1, 2) / 255
    inside = F.interpolate(inside, (20, 24), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    inside = torch.stack([(inside[:, c] - CONFIG["mean"][c]) / CONFIG["std"][c] for c in range(3)], 1)
    network = Network().eval()
    with torch.no_grad():
        np.testing.assert_allclose(found.pooled, network(inside), atol=1e-5)
    assert found.logits is None and found.spatial is None
    assert extractor.record() == {
        "name": "timm:tiny",
        "sha256": hash_of(network.state_dict()),
        "dim": 5,
        "resize": "bicubic-20x24 antialiased",
        "grey": "repeated",
    }


def test_the_filter_is_the_configs(timm: Any) -> None:
    bicubic = open_extractor("timm:tiny")
    timm.config["interpolation"] = "bilinear"
    bilinear = open_extractor("timm:tiny")
    assert bilinear.resize.startswith("bilinear")
    assert np.abs(bicubic(images()).pooled - bilinear(images()).pooled).max() > 1e-4


def test_grey_is_repeated_and_other_channels_are_refused(timm: Any) -> None:
    extractor = open_extractor("timm:tiny")
    grey = images(2, channels=1)
    assert (extractor(grey).pooled == extractor(grey.repeat(3, 3)).pooled).all()
    with pytest.raises(InputError, match="features 'timm:tiny': images have 4 channels, expected 1 or 3"):
        extractor(images(2, channels=4))
    timm.config |= {"input_size": (1, 20, 24), "mean": (0.5,), "std": (0.5,)}
    extractor = open_extractor("timm:tiny")
    assert extractor(grey).dim == 5
    with pytest.raises(InputError, match="3 channels, expected 1"):
        extractor(images(2))


def test_a_network_that_does_not_pool_is_refused(timm: Any) -> None:
    timm.maps = True
    with pytest.raises(InputError, match=r"gives \[1, 5, 18, 22\], expected \[n, d\]"):
        open_extractor("timm:tiny")


@pytest.mark.parametrize(
    ("name", "reason"), [("resnett18", r"Unknown model \(resnett18\)"), ("offline", "ConnectionError: could not reach")]
)
def test_what_timm_cannot_give_is_said_in_one_line(timm: Any, name: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"'timm:{name}'.*{reason}.*timm.list_models") as refused:
        open_extractor(f"timm:{name}")
    assert "\n" not in str(refused.value)


def test_without_timm_the_install_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"features 'timm:resnet18'.*pip install 'trilemma\[timm\]'"):
        open_extractor("timm:resnet18")
