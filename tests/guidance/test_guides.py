"""What a guide refuses, where it acts, and what the sampler makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.proofs.labelled import ExactLabelled, ExactPosterior
from trilemma.errors import InputError
from trilemma.guidance import Autoguidance, ClassifierFree, ClassifierGuidance, bind
from trilemma.networks import UNet
from trilemma.process import ClassPosterior, Condition, Cosine, Denoiser, Linear
from trilemma.samplers import DDIM, Ancestral, Heun, Sampler

SCHEDULE = Linear(steps=50, beta_end=0.25)
SMALL: dict[str, Any] = {
    "base_channels": 8,
    "multipliers": [1],
    "blocks": 1,
    "attention": [],
    "middle_attention": False,
}
LABEL = Condition(torch.tensor([1]))


class Logits(nn.Module):
    """A linear classifier of noised images, which knows the time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) * (1 + time[:, None] / 50)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    network = UNet(1, 1, (8, 8), 4, **SMALL, zero_init=False)
    return Denoiser(network, SCHEDULE, "v", no_class=3)


@pytest.fixture(scope="module")
def posterior() -> ClassPosterior:
    torch.manual_seed(1)
    return ClassPosterior(Logits(), SCHEDULE)


@pytest.mark.parametrize(
    ("scale", "interval", "message"),
    [
        (-1.0, None, "guidance -1: expected a scale of 0"),
        (float("nan"), None, "guidance nan: expected"),
        (1.0, (80.0, 10.0), "guidance_interval 80,10: expected two times, the smaller first"),
        (1.0, (-1.0, 10.0), "guidance_interval -1,10"),
        (1.0, (1.0, 2.0, 3.0), "guidance_interval 1,2,3"),
    ],
)
def test_scales_and_intervals_that_are_none(scale: float, interval: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassifierFree(scale, interval=interval)


def test_what_does_not_fit_is_refused(denoiser: Denoiser, posterior: ClassPosterior) -> None:
    plain = Denoiser(denoiser.network, SCHEDULE, "v")
    with pytest.raises(InputError, match="guidance 2: this model was trained without label dropout"):
        bind(plain, LABEL, [ClassifierFree(2.0)])
    for guide in (ClassifierFree(2.0), ClassifierGuidance(2.0, posterior)):
        with pytest.raises(InputError, match="guidance 2: towards which class"):
            bind(denoiser, Condition(), [guide])
    other = ClassPosterior(Logits(), Cosine(steps=50))
    with pytest.raises(InputError, match=r"guide noisy: its schedule is Cosine.*the model's Linear.*expected the same"):
        bind(denoiser, LABEL, [ClassifierGuidance(1.0, other, name="noisy")])
    for schedule in (Linear(steps=50), Linear(steps=100, beta_end=0.25)):
        with pytest.raises(InputError, match="guide weak: its schedule"):
            bind(denoiser, LABEL, [Autoguidance(1.0, Denoiser(denoiser.network, schedule, "v"), name="weak")])
    shifted = Denoiser(denoiser.network, SCHEDULE, "v", data_range=(0.0, 1.0))
    with pytest.raises(InputError, match=r"guide weak: its images lie in \[0\.0, 1\.0\]"):
        bind(denoiser, LABEL, [Autoguidance(1.0, shifted, name="weak")])
    with pytest.raises(InputError, match="class 3 is asked for, and it knows 3"):
        bind(plain, Condition(torch.tensor([3])), [ClassifierGuidance(1.0, posterior)])(
            torch.zeros(1, 1, 8, 8), torch.tensor(3.0, dtype=torch.float64)
        )


def test_an_interval_that_no_time_lies_in_is_refused(denoiser: Denoiser) -> None:
    how: dict[str, Any] = {"steps": 5, "shape": (1, 8, 8)}
    for within in ((41.0, 49.0), (60.0, 90.0)):
        with pytest.raises(InputError, match="none of the walk's 5 times lies in it, from 50 to 1"):
            Sampler(denoiser, DDIM(), guides=[ClassifierFree(1.0, interval=within)], **how)
        assert Sampler(denoiser, DDIM(), guides=[ClassifierFree(0.0, interval=within)], **how).evaluations == 5


@pytest.mark.parametrize("kernel", [Ancestral(), DDIM()])
def test_without_signal_no_classifier_is_asked(kernel: Any, denoiser: Denoiser) -> None:
    """A network has some gradient where x_t is pure noise; it is none of log p(y | x_t)."""
    schedule = Linear(steps=50, beta_end=0.25, terminal_snr=0.0)
    asked: list[float] = []
    posterior = ClassPosterior(Logits(), schedule)
    posterior.network.register_forward_hook(
        lambda _, __, given, ___: asked.append(float(given["time"])), with_kwargs=True
    )
    model = Denoiser(denoiser.network, schedule, "v")
    sampler = Sampler(model, kernel, steps=3, shape=(1, 8, 8), guides=[ClassifierGuidance(5.0, posterior)])
    sampler.generate([0], np.array([1]))
    assert max(asked) < 50
    assert sampler.evaluations == 3 + len(asked) == 5


def test_image_i_is_its_seed_s_whatever_the_batch(denoiser: Denoiser, posterior: ClassPosterior) -> None:
    weaker = Denoiser(UNet(1, 1, (8, 8), 4, **SMALL), SCHEDULE, "v")
    for guide in (ClassifierFree(1.5), ClassifierGuidance(2.0, posterior), Autoguidance(1.0, weaker)):
        shared: dict[str, Any] = {"steps": 5, "shape": (1, 8, 8), "guides": [guide]}
        labels = np.arange(9) % 3
        whole = Sampler(denoiser, DDIM(), batch=64, **shared)(seeds=range(9), labels=labels).images
        alone = Sampler(denoiser, DDIM(), batch=1, **shared)(seeds=range(9), labels=labels).images
        assert np.abs(whole.astype(int) - alone.astype(int)).max() <= 1
        plain = Sampler(denoiser, DDIM(), batch=64, steps=5, shape=(1, 8, 8))(seeds=range(9), labels=labels).images
        assert (plain != whole).mean() > 0.05


def test_every_network_that_is_asked_is_counted(denoiser: Denoiser, posterior: ClassPosterior) -> None:
    asked: list[int] = []
    weaker = Denoiser(UNet(1, 1, (8, 8), 4, **SMALL), SCHEDULE, "v")
    for network in (denoiser.network, weaker.network, posterior.network):
        network.register_forward_hook(lambda _, given, __: asked.append(len(given[0])))
    inside = (10.0, 30.0)
    for guides in (
        [ClassifierFree(1.0)],
        [ClassifierFree(1.0, interval=inside), ClassifierGuidance(1.0, posterior)],
        [Autoguidance(1.0, weaker, interval=inside)],
        [Autoguidance(0.0, weaker)],
    ):
        for kernel in (DDIM(), Heun()):
            sampler = Sampler(denoiser, kernel, steps=6, shape=(1, 8, 8), guides=guides)
            asked.clear()
            sampler.generate([3], np.array([1]))
            assert sum(asked) == sampler.evaluations


def test_words_and_modes(denoiser: Denoiser, posterior: ClassPosterior) -> None:
    posterior.network.train()
    guides = [ClassifierFree(2.0), ClassifierGuidance(0.5, posterior, name="c", interval=(0.0, 9.0))]
    sampler = Sampler(denoiser, DDIM(), steps=4, shape=(1, 8, 8), guides=guides)
    assert sampler.label == "DDIM, 4 steps, guidance 2, guidance 0.5 by c t 0 to 9"
    modes: list[bool] = []
    posterior.network.register_forward_hook(lambda module, *_: modes.append(module.training))
    sampler.generate([0], np.array([1]))
    assert modes
    assert not any(modes)
    assert posterior.network.training


def test_bf16_changes_the_gradient_s_precision_and_not_its_type() -> None:
    guide = ClassifierGuidance(1.0, ExactPosterior(Linear()))
    x = torch.linspace(-1, 1, 4).reshape(2, 1, 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = guide.gradient(x, torch.tensor(300.0, dtype=torch.float64), Condition(torch.tensor([0, 2])))
    assert found.dtype == torch.float32
    assert ExactLabelled(Linear()).no_class == 3
