"""What sampling would take of memory is known before anything is drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.guidance import ClassifierFree
from trilemma.machine import devices
from trilemma.process import Cosine, Denoiser
from trilemma.runs import Run
from trilemma.samplers import DDIM, Sampler
from trilemma.samplers import sampler as room
from trilemma.samplers.estimate import WIDEST, bytes_of_image, check_batch

SHAPE = (3, 6, 5)
CPU = torch.device("cpu")


class Wide(nn.Module):
    """A network of 40 channels on the way."""

    def __init__(self, channels: int = 40):
        super().__init__()
        self.up, self.down = nn.Conv2d(3, channels, 1), nn.Conv2d(channels, 3, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.down(self.up(x).tanh())


class Reading(Wide):
    """One that has to know its content."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return super().forward(x, time) if float(x.sum()) > -1e9 else x


class Keeping(Wide):
    """One that keeps what it once made."""

    kept: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = self.scale + torch.arange(5.0)
        return super().forward(x, time) * self.kept


def sampler(network: nn.Module, **settings: Any) -> Sampler:
    return Sampler(Denoiser(network, Cosine(steps=20), "v"), DDIM(), shape=SHAPE, steps=2, **settings)


def asked(network: nn.Module, count: int, **changes: Any) -> None:
    check_batch(network, SHAPE, count, **{"conditional": False, "precision": "fp32", "device": CPU, **changes})


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
def test_an_image_takes_its_largest_layer(precision: Any, size: int) -> None:
    network = Wide()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = bytes_of_image(network, SHAPE, conditional=False, precision=precision, device=CPU)
    assert found == 40 * 30 * size
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not torch.nn.modules.module._global_forward_hooks


def test_the_network_keeps_nothing_of_being_asked() -> None:
    network = Keeping()
    assert bytes_of_image(network, SHAPE, conditional=False, precision="fp32", device=CPU) == 40 * 30 * 4
    assert network.kept is None
    network(torch.zeros(1, *SHAPE), torch.zeros(1))
    assert bytes_of_image(network, SHAPE, conditional=False, precision="fp32", device=CPU) == 40 * 30 * 4


def test_a_batch_beyond_the_memory_is_refused_and_no_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Wide()
    weights = sum(parameter.numel() for parameter in network.parameters()) * 4
    for there, enough in ((weights + 1000 * 40 * 30 * 4, True), (weights + 1000 * 40 * 30 * 4 - 1, False)):
        monkeypatch.setattr(devices, "memory", lambda there=there: there)
        if enough:
            asked(network, 1000)
        else:
            with pytest.raises(InputError, match=r"sampling\.batch 1000: takes 0\.0 GiB .* \(0\.00 MiB an image\)"):
                asked(network, 1000)
    asked(network, 999)
    with pytest.raises(InputError, match=r"sampling\.batch 999"):
        asked(network, 999, rows=2)


def test_a_gpu_s_memory_counts_for_what_is_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 2**24))
    monkeypatch.setattr(devices, "memory", lambda: 2**60)
    monkeypatch.setattr("trilemma.samplers.estimate.bytes_of_image", lambda *_, **__: 4800)
    asked(Wide(), 3000, device=torch.device("cuda"))
    with pytest.raises(InputError, match=r"sampling\.batch 4000"):
        asked(Wide(), 4000, device=torch.device("cuda"))


def test_a_network_that_cannot_be_asked_is_not_refused_for_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Reading()
    assert bytes_of_image(network, SHAPE, conditional=False, precision="fp32", device=CPU) == 3 * 30 * 4
    monkeypatch.setattr(devices, "memory", lambda: 2**20)
    asked(network, 1000)
    with pytest.raises(InputError):
        asked(network, 3000)


def test_what_fits_in_any_case_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trilemma.samplers.estimate.bytes_of_image", lambda *_, **__: pytest.fail("it was"))
    monkeypatch.setattr(devices, "memory", lambda: 10 * 3 * 30 * 4 * WIDEST)
    asked(Wide(), 10)


class TestSampler:
    def test_refuses_before_anything_is_drawn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "memory", lambda: 2**16)
        monkeypatch.setattr(room, "noise_start", lambda *_: pytest.fail("it was drawn"))
        with pytest.raises(InputError, match=r"sampling\.batch 64: takes"):
            sampler(Wide())(64)

    def test_looks_once_for_a_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        monkeypatch.setattr(room, "check_batch", lambda network, shape, count, **_: asked.append(count))
        each = sampler(Wide(), batch=4)
        each(10), each(4)
        assert asked == [4, 2]

    def test_counts_the_images_that_are_made_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not those that there may be."""
        monkeypatch.setattr(devices, "memory", lambda: 2**16)
        assert len(sampler(Wide(), batch=10**9)(4)) == 4
        assert len(sampler(Wide(), batch=4)(64)) == 64
        with pytest.raises(InputError, match=r"sampling\.batch 64: takes"):  # padded to the batch
            sampler(Wide(), compile=True)(4)

    @pytest.mark.parametrize(("scale", "rows"), [(1.5, 2), (0.0, 1)])
    def test_counts_an_image_twice_that_is_asked_without_its_class_too(
        self, monkeypatch: pytest.MonkeyPatch, scale: float, rows: int
    ) -> None:
        told = []
        monkeypatch.setattr(room, "check_batch", lambda *_, rows, **__: told.append(rows))
        denoiser = Denoiser(Wide(), Cosine(steps=20), "v", no_class=3)
        Sampler(denoiser, DDIM(), shape=SHAPE, steps=2, guides=[ClassifierFree(scale)])(2, labels=[0, 1])
        assert told == [rows]

    def test_of_a_run_is_one(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "memory", lambda: 2**18)
        assert len(run.sample(2, steps=1, batch=10_000_000)) == 2
        with pytest.raises(InputError, match=r"sampling\.batch 100: takes"):
            run.sample(100, steps=1, batch=10_000_000)
