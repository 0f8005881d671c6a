"""The sampler by itself: images from seeds without a run, pictures of them, and a compiled network."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.process import Cosine, Denoiser
from trilemma.samplers import DDIM, SAMPLERS, Ancestral, DPMSolver, Kernel, Sampler

SHAPE = (3, 6, 5)


class Small(nn.Module):
    """A network that answers to all it is given, and otherwise while it trains."""

    def __init__(self, classes: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.rows = nn.Parameter(torch.randn(max(classes, 1), 3, generator=generator))
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(self.conv.weight.shape, generator=generator) / 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        shift = 0.0 if label is None else self.rows[label][:, :, None, None]
        return self.drop(torch.tanh(self.conv(x) + time[:, None, None, None] / 50 + shift))


def sampler(kernel: Kernel | None = None, **settings: Any) -> Sampler:
    how: dict[str, Any] = {"steps": 4, **settings}
    return Sampler(Denoiser(Small(4), Cosine(steps=20), "v"), kernel or DDIM(), shape=SHAPE, **how)


class TestCall:
    def test_gives_images_with_their_seeds(self) -> None:
        samples = sampler()(5)
        assert samples.images.shape == (5, 6, 5, 3) and samples.images.dtype == np.uint8
        assert samples.seeds == [0, 1, 2, 3, 4] and samples.labels is None and len(samples) == 5
        assert len({image.tobytes() for image in samples.images}) == 5

    @pytest.mark.parametrize("kernel", [DDIM(eta=1.0), Ancestral(), DPMSolver(stochastic=True)], ids=repr)
    def test_an_image_depends_on_its_own_seed_alone(self, kernel: Kernel) -> None:
        together = sampler(kernel)(seeds=[4, 9, 2])
        alone = sampler(kernel, batch=1)(seeds=range(9, 10))
        assert np.abs(together.images[1].astype(int) - alone.images[0]).max() <= 1

    def test_classes_are_told_to_the_network(self) -> None:
        one, same, each = sampler()(3, labels=2), sampler()(3, labels=[2, 2, 2]), sampler()(3, labels=[2, 0, 1])
        assert one.labels.tolist() == [2, 2, 2] and np.array_equal(one.images, same.images)
        assert np.array_equal(one.images[0], each.images[0]) and not np.array_equal(one.images[1], each.images[1])

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            ({"seeds": [1, 1]}, "twice"),
            ({"n": 0}, "none given"),
            ({"n": 3, "labels": [0, 1]}, "labels: 2 for 3 images"),
        ],
    )
    def test_refuses(self, asked: dict[str, Any], says: str) -> None:
        with pytest.raises(InputError, match=says):
            sampler()(**asked)

    def test_training_networks_are_asked_as_in_evaluation_and_left_training(self) -> None:
        made = sampler()
        network = made.denoiser.network
        network.conv.eval()  # type: ignore[union-attr]
        expected = made(4).images
        assert np.array_equal(made(4).images, expected), "dropout was at work"
        assert network.training and network.drop.training and not network.conv.training  # type: ignore[union-attr]
        network.eval()
        assert np.array_equal(made(4).images, expected) and not network.training

    def test_the_denoisers_range_is_black_and_white(self) -> None:
        """Data in [0, 1]: x̂_0 is held there."""
        denoiser = Denoiser(Small(), Cosine(steps=20), "v", data_range=(0.0, 1.0))
        made = Sampler(denoiser, DDIM(), shape=SHAPE, steps=4)
        *_, last = made.walk([0, 1])
        assert last.x.min() >= 0 and last.x.max() <= 1
        assert np.array_equal(made(2).images, (last.x * 255).round().byte().permute(0, 2, 3, 1).numpy())


class TestWords:
    def test_a_label_says_the_way(self) -> None:
        assert sampler().label == "DDIM, 4 steps"
        assert sampler(DDIM(eta=0.5), steps=1, spacing="log_snr").label == "DDIM, 1 step, eta 0.5, log_snr"
        assert sampler(Ancestral(clip="none"), steps=None).label == "Ancestral, all 20 steps, clip none"
        assert (
            sampler(DPMSolver(stochastic=True, order=1), skip=1).label == "SDE-DPM-Solver++, 3 steps, order 1, skip 1"
        )
        assert sampler(steps=None, times=[5.0, 2.0]).label == "DDIM, 2 steps, own times"

    def test_forms_of_a_sampler_have_labels_of_their_own(self) -> None:
        assert len({kernel().label for kernel in SAMPLERS.values()} | {DPMSolver(stochastic=True).label}) == 7

    def test_a_flag_without_a_label_is_in_it(self) -> None:
        @dataclass(frozen=True, kw_only=True)
        class Mine(DDIM):
            fast: bool = False

        assert Mine().label == "Mine" and sampler(Mine(fast=True)).label == "Mine, fast, 4 steps"

    def test_objects_print_themselves(self) -> None:
        assert repr(sampler()) == "Sampler(DDIM, 4 steps: 4 network evaluations)"
        assert repr(sampler()(seeds=[3, 4, 5], labels=[0, 1, 0])) == "Samples(3 images 6×5×3, seeds 3-5, 2 classes)"
        assert repr(sampler().strip([0, 1], columns=3)) == "Strip(2 images at 3 times, 20 to 0)"


def shown(thing: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(thing._repr_png_())))


class TestPictures:
    def test_samples_are_ten_a_row(self) -> None:
        samples = sampler()(12)
        assert shown(samples).shape == (2 * 8 + 2, 10 * 7 + 2, 3)
        assert np.array_equal(shown(samples)[2:8, 2:7], samples.images[0])
        assert np.array_equal(samples.picture(), shown(samples))

    def test_a_strip_is_a_row_a_seed_and_ends_in_the_sample(self) -> None:
        strip = sampler().strip([7, 3], columns=3)
        assert strip.images.shape == (2, 3, 6, 5, 3) and strip.times == (20.0, 7.0, 0.0)
        assert shown(strip).shape == (2 * 8 + 2, 3 * 7 + 2, 3)
        assert np.array_equal(strip.images[:, -1], sampler()(seeds=[7, 3]).images)


@pytest.mark.slow
def test_compiled_images_are_the_same_and_a_smaller_batch_is_padded() -> None:
    """Up to a grey value; one compilation serves the last batch too, and the weights stay the network's own."""
    torch._dynamo.reset()
    eager = sampler(batch=4)
    compiled = replace(eager, compile=True)
    for labels in (None, [0, 1, 2, 3, 0, 1]):
        expected, found = (each(6, labels=labels).images.astype(int) for each in (eager, compiled))
        assert np.abs(found - expected).max() <= 1
    with torch.no_grad():
        eager.denoiser.network.conv.weight.mul_(-1)  # type: ignore[union-attr, operator]
    changed, found = (each(6, labels=3).images.astype(int) for each in (eager, compiled))
    assert np.abs(found - changed).max() <= 1 and np.abs(changed - expected).max() > 10
    # With and without labels: two graphs, none of them for the batch of two.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
