"""The FID Inception network: its names, its layers, its figures, its inputs and its weights' file."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from trilemma.errors import InputError
from trilemma.metrics import MetricWarning, extract, inception_features, open_extractor
from trilemma.metrics.inception import BLOCKS, Block, ConvUnit, Inception, pool
from trilemma.metrics.inception_features import InceptionExtractor, bicubic, bilinear


def weights_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights that depend on nothing but NumPy's uniform numbers, and keep activations near 1."""
    weights = network.state_dict()
    for i, (name, value) in enumerate(sorted(weights.items())):
        if name.endswith("num_batches_tracked"):
            continue
        u = torch.from_numpy(np.random.default_rng(i).random(tuple(value.shape), dtype=np.float32))
        if name.endswith("conv.weight"):
            value.copy_((2 * u - 1) * (6 / value[0].numel()) ** 0.5)
        elif name.endswith(("bn.weight", "running_var")):
            value.copy_(0.75 + u / 2)
        else:
            value.copy_((2 * u - 1) / 10)
    return weights


@pytest.fixture(scope="module")
def network() -> Inception:
    network = Inception()
    network.load_state_dict(weights_of(network))
    return network.eval().requires_grad_(False)


@pytest.fixture
def extractor(network: Inception) -> InceptionExtractor:
    return InceptionExtractor(network, name="inception", sha256=inception_features.SHA256)


@pytest.fixture(scope="module")
def saved(network: Inception, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights as PyTorch writes them, without the counts of batches."""
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    weights = {k: v.contiguous() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(weights, path)
    return path


def images(n: int = 2, height: int = 32, width: int = 32, channels: int = 3) -> np.ndarray:
    """Waves, the same on every machine."""
    i, y, x, c = np.meshgrid(*(np.arange(k) for k in (n, height, width, channels)), indexing="ij")
    return (127.5 + 127 * np.sin(0.3 * x + 0.2 * y * (c + 1) + i)).round().astype(np.uint8)


class TestNetwork:
    def test_names_and_shapes_are_the_published_files(self) -> None:
        """The hash is of those that pytorch-fid 0.3.0 and torch-fidelity 0.4.0 load strictly."""
        shapes = {
            name: "x".join(map(str, value.shape))
            for name, value in Inception().state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        assert len(shapes) == 472
        assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == "160x160x7x1"
        assert shapes["fc.weight"] == "1008x2048"
        text = "\n".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))
        assert (
            hashlib.sha256(text.encode()).hexdigest()
            == "50e9a2d761bfa13f69a95a0a5ba08b27eb36b9f157cc0b3509410debc9b8cc7b"
        )

    def test_average_pools_leave_the_padding_out(self) -> None:
        ones = torch.ones(1, 2, 5, 4)
        assert torch.equal(pool("average", ones), ones)

    def test_max_pools_keep_the_size_or_halve_it(self) -> None:
        x = torch.arange(49.0).view(1, 1, 7, 7)
        assert pool("max", x).shape == x.shape
        assert pool("max", -x)[0, 0, 0, 0] == 0
        assert torch.equal(pool("halve", x)[0, 0], x[0, 0, 2::2, 2::2])

    def test_a_unit_is_convolution_normalisation_relu(self) -> None:
        unit = ConvUnit(3, BLOCKS["Mixed_6b"][1][1]._replace(kernel=(1, 7)))
        unit.load_state_dict(weights_of(unit))
        x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 6, 9))).float()
        y = torch.stack([F.pad(x, (3, 3))[..., k : k + 9] for k in range(7)], -1)
        y = torch.einsum("nchwk,dck->ndhw", y, unit.conv.weight[:, :, 0])
        mean, var, gain, bias = (
            value[:, None, None] for value in (unit.bn.running_mean, unit.bn.running_var, unit.bn.weight, unit.bn.bias)
        )
        expected = ((y - mean) / (var + 0.001).sqrt() * gain + bias).clamp(min=0)
        torch.testing.assert_close(unit.eval()(x), expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize(
        ("name", "channels", "chains"),
        [
            ("Mixed_5d", 288, ["branch1x1", "branch5x5_1 branch5x5_2", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3"]),
            (
                "Mixed_6d",
                768,
                [
                    "branch1x1",
                    "branch7x7_1 branch7x7_2 branch7x7_3",
                    "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5",
                ],
            ),
            (
                "Mixed_7b",
                1280,
                [
                    "branch1x1",
                    "branch3x3_1 branch3x3_2a",
                    "branch3x3_1 branch3x3_2b",
                    "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a",
                    "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3b",
                ],
            ),
        ],
    )
    def test_a_blocks_branches_are_chains_joined_in_order(self, name: str, channels: int, chains: list[str]) -> None:
        block = Block(channels, BLOCKS[name])
        block.load_state_dict(weights_of(block))
        block.eval().requires_grad_(False)
        x = torch.from_numpy(np.random.default_rng(1).random((1, channels, 6, 5))).float()
        parts = []
        for chain in chains:
            y = x
            for unit in chain.split():
                y = block.get_submodule(unit)(y)
            parts.append(y)
        # A mean over the pixels there are: sums of nine with zeros outside, over how many lie inside.
        kernel = torch.ones(channels, 1, 3, 3)
        inside = F.conv2d(torch.ones(1, 1, 6, 5), kernel[:1], padding=1)
        parts.append(block.branch_pool(F.conv2d(x, kernel, padding=1, groups=channels) / inside))
        torch.testing.assert_close(block(x), torch.cat(parts, 1), atol=1e-4, rtol=1e-5)

    def test_the_last_block_pools_by_the_maximum(self) -> None:
        block = Block(8, BLOCKS["Mixed_7c"])
        block.load_state_dict(weights_of(block))
        x = torch.from_numpy(np.random.default_rng(2).random((1, 8, 5, 5))).float()
        largest = F.unfold(F.pad(x, (1, 1, 1, 1), value=-9), 3).view(1, 8, 9, 5, 5).amax(2)
        with torch.no_grad():
            torch.testing.assert_close(block.eval()(x)[:, -192:], block.branch_pool(largest))

    def test_gives_what_pytorch_fid_gives(self, network: Inception) -> None:
        """Stored: `pooled` by pytorch-fid 0.3.0, the others by torch-fidelity 0.4.0, on the same weights and inputs."""
        with torch.no_grad():
            pooled, logits, spatial = network.outputs(bilinear(images()))
        assert (pooled.shape, logits.shape, spatial.shape) == ((2, 2048), (2, 1008), (2, 2023))
        np.testing.assert_allclose(pooled[:, :4], POOLED, atol=1e-4)
        np.testing.assert_allclose(logits[:, :4], LOGITS, atol=1e-4)
        np.testing.assert_allclose(spatial[:, :4], SPATIAL, atol=1e-4)
        np.testing.assert_allclose([float(v.double().mean()) for v in (pooled, logits, spatial)], MEANS, atol=1e-4)

    def test_spatial_features_run_over_rows_columns_channels(self, network: Inception) -> None:
        seen = {}
        hook = network.Mixed_6d.branch1x1.register_forward_hook(lambda module, x, y: seen.update(y=y))
        with torch.no_grad():
            spatial = network.outputs(bilinear(images(1)))[2]
        hook.remove()
        assert torch.equal(spatial.view(17, 17, 7)[5, 11], seen["y"][0, :7, 5, 11])


POOLED = [[0.006144, 0.0, 2.035655, 0.376766], [0.002069, 0.0, 2.042297, 0.400758]]
LOGITS = [[-5.316775, -2.26983, 3.331575, -0.277563], [-5.316148, -2.161824, 3.32373, -0.393217]]
SPATIAL = [[1.236014, 0.699875, 0.666845, 0.0], [1.436481, 0.401684, 0.118848, 0.0]]
MEANS = [0.909474, 0.061219, 1.224946]


class TestResize:
    def test_bilinear_is_torchs_between_pixel_centres(self) -> None:
        x = images(2, 20, 31)
        expected = F.interpolate(torch.from_numpy(x).permute(0, 3, 1, 2) / 255, size=(299, 299), mode="bilinear")
        torch.testing.assert_close(bilinear(x), 2 * expected - 1, atol=1e-6, rtol=0)
        # Where a pixel of 299 falls: centre (i + 0.5)·31/299 − 0.5 between its neighbours.
        at = 150.5 * 31 / 299 - 0.5
        row = np.interp(150.5 * 20 / 299 - 0.5, np.arange(20), range(20))
        top, below = (np.interp(at, np.arange(31), x[0, int(row) + k, :, 0]) for k in (0, 1))
        value = top + (row - int(row)) * (below - top)
        assert float(bilinear(x)[0, 0, 150, 150]) == pytest.approx(value / 127.5 - 1, abs=1e-5)

    def test_images_of_299_are_left_alone(self) -> None:
        x = images(1, 299, 299)
        plain = torch.from_numpy(x).permute(0, 3, 1, 2).double()
        torch.testing.assert_close(bilinear(x).double(), plain / 127.5 - 1, atol=1e-6, rtol=0)
        torch.testing.assert_close(bicubic(x).double(), (plain - 128) / 128, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("size", [(20, 31), (700, 650)])
    def test_bicubic_is_an_antialiased_cubic_held_in_range(self, size: tuple[int, int]) -> None:
        x = images(2, *size)
        found = bicubic(x)
        plain = torch.from_numpy(x).permute(0, 3, 1, 2).float()
        torchs = F.interpolate(plain, size=(299, 299), mode="bicubic", antialias=True, align_corners=False)
        torch.testing.assert_close(found, (torchs.clamp(0, 255) - 128) / 128, atol=2e-4, rtol=0)
        rounded = np.asarray(Image.fromarray(x[1]).resize((299, 299), Image.Resampling.BICUBIC)).astype(np.float32)
        assert np.abs(found[1].permute(1, 2, 0).numpy() * 128 + 128 - rounded).max() < 1.51  # rounded twice
        assert found.min() >= -1 and found.max() <= 127 / 128

    def test_fine_detail_is_averaged_by_bicubic_alone(self) -> None:
        stripes = np.zeros((1, 8, 598, 3), np.uint8)
        stripes[:, :, ::2] = 255
        assert bicubic(stripes).std() < 0.02
        stripes = np.zeros((1, 8, 897, 3), np.uint8)
        stripes[:, :, 1::3] = 255
        assert bilinear(stripes).min() == 1, "a third of the pixels is all it sees"


class TestExtractor:
    def test_gives_the_networks_outputs_whatever_the_batches(self, extractor, network) -> None:
        x = images(3)
        found = extract([x[:1], x[1:]], extractor)
        with torch.no_grad():
            pooled, logits, spatial = network.outputs(bilinear(x))
        np.testing.assert_allclose(found.pooled, pooled, atol=1e-4)
        np.testing.assert_allclose(found.logits, logits, atol=1e-4)
        np.testing.assert_allclose(found.spatial, spatial, atol=1e-4)
        assert found.pooled.dtype == found.spatial.dtype == np.float32

    def test_more_than_a_batch_of_its_own(self, extractor) -> None:
        extractor.batch = 2
        x = images(3)
        np.testing.assert_allclose(extractor(x).pooled[2:], extractor(x[2:]).pooled, atol=1e-4)

    def test_grey_is_repeated_and_said(self, extractor) -> None:
        x = images(1, 24, 24, 1)
        found = extractor(x)
        assert (found.pooled == extractor(x.repeat(3, axis=3)).pooled).all()
        record = extractor.record()
        assert record == {
            "name": "inception",
            "sha256": inception_features.SHA256,
            "dim": 2048,
            "resize": "bilinear-299 (pytorch-fid)",
            "grey": "repeated to three channels",
        }

    def test_images_of_several_sizes_are_all_resized(self, extractor) -> None:
        found = extract([images(1, 16, 16), images(1, 20, 12)], extractor)
        assert found.pooled.shape == (2, 2048) and found.spatial.shape == (2, 2023)

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (images(1, channels=2), "2 channels, expected 1 or 3"),
            (images(1, channels=4), "4 channels, expected 1 or 3"),
            (images(0), "no images"),
            (images(1) / np.float32(255), "expected uint8"),
        ],
    )
    def test_other_images_are_refused(self, extractor, bad, message) -> None:
        with pytest.raises(InputError, match=message):
            extractor(bad)

    def test_nan_features_are_named(self, extractor, network, monkeypatch) -> None:
        outputs = network.outputs

        def broken(x):
            pooled, *rest = outputs(x)
            return torch.where(torch.arange(len(x))[:, None] == 1, torch.nan, pooled), *rest

        monkeypatch.setattr(network, "outputs", broken)
        with pytest.raises(InputError, match=r"features 'inception': 1 of 2 images have NaN .*the first is image 1"):
            extract([images(2)], extractor)


class TestWeights:
    def test_a_file_is_read_from_its_path(self, saved: Path, network: Inception, tmp_path: Path) -> None:
        x = images(1)
        save_file(torch.load(saved, weights_only=True), tmp_path / "weights.safetensors")
        expected = network.outputs(bilinear(x))[0]
        for path in (saved, tmp_path / "weights.safetensors"):
            extractor = open_extractor(f"inception:{path}")
            with pytest.warns(MetricWarning, match="not the published file"):
                np.testing.assert_allclose(extractor(x).pooled, expected, atol=1e-4)
            assert extractor.name == "inception"
            assert extractor.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_clean_looks_through_another_resize(self, saved: Path, network: Inception) -> None:
        extractor = open_extractor(f"inception-clean:{saved}")
        assert extractor.record()["name"] == "inception-clean"
        assert extractor.record()["resize"] == "bicubic-299 (clean-fid)"
        x = images(1)
        with pytest.warns(MetricWarning):
            found = extractor(x).pooled
        np.testing.assert_allclose(found, network.outputs(bicubic(x))[0], atol=1e-4)
        assert np.abs(found - network.outputs(bilinear(x))[0].numpy()).max() > 1e-3

    def test_the_published_file_is_taken_from_the_environment(self, saved: Path, monkeypatch) -> None:
        monkeypatch.setenv("TRILEMMA_INCEPTION", str(saved))
        with pytest.raises(InputError, match=r"have sha256 .*expected 6726825d0af5.*'inception:PATH' takes others"):
            open_extractor("inception")
        monkeypatch.setattr(inception_features, "SHA256", hashlib.sha256(saved.read_bytes()).hexdigest())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(open_extractor("inception")(images(1))) == 1

    def test_else_it_is_downloaded_once_with_its_hash_checked(self, saved: Path, monkeypatch, tmp_path: Path) -> None:
        asked = []

        def retrieve(url, known_hash, fname, path):
            asked.append((url, known_hash, Path(path) / fname))
            return str(saved)

        monkeypatch.delenv("TRILEMMA_INCEPTION", raising=False)
        monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path))
        monkeypatch.setattr(pooch, "retrieve", retrieve)
        with pytest.raises(InputError, match="have sha256"):  # a stand-in
            open_extractor("inception")
        [(url, known_hash, place)] = asked
        assert url.startswith("https://github.com/mseitzer/pytorch-fid/releases/") and place.name in url
        assert known_hash == f"sha256:{inception_features.SHA256}" and place.parent.parent == tmp_path
        assert known_hash[7:15] == place.stem[-8:] == "6726825d"

    @pytest.mark.parametrize(
        ("error", "reason"),
        [(ConnectionError("no route"), "ConnectionError"), (ValueError("SHA256 hash of …"), "not have the published")],
    )
    def test_a_failed_download_says_what_to_do(self, monkeypatch, error: Exception, reason: str) -> None:
        def retrieve(*args, **kwargs):
            raise error

        monkeypatch.delenv("TRILEMMA_INCEPTION", raising=False)
        monkeypatch.setattr(pooch, "retrieve", retrieve)
        with pytest.raises(InputError, match=f"{reason}.*set TRILEMMA_INCEPTION to its path"):
            open_extractor("inception-clean")

    @pytest.mark.parametrize("damage", ["cut", "noise", "empty", "other", "list", "missing"])
    def test_files_that_hold_something_else_are_refused(self, saved: Path, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "bad.pth"
        content = saved.read_bytes()
        if damage == "cut":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "noise":
            path.write_bytes(np.random.default_rng(0).bytes(1000))
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "other":
            torch.save({"fc.weight": torch.zeros(1000, 2048)}, path)
        elif damage == "list":
            torch.save([torch.zeros(1)], path)
        if damage == "missing":
            with pytest.raises(InputError, match="cannot be read"):
                open_extractor(f"inception:{path}")
            return
        with pytest.raises(InputError, match="do not hold the FID Inception network") as refused:
            open_extractor(f"inception:{path}")
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 600

    def test_nothing_but_tensors_is_unpickled(self, tmp_path: Path) -> None:
        torch.save({"fc.weight": Path(tmp_path)}, tmp_path / "code.pth")
        with pytest.raises(InputError, match="do not hold"):
            open_extractor(f"inception:{tmp_path / 'code.pth'}")
