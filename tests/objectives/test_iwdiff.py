"""IWDiff (A algorithm 3): its cases by hand, L_simple as k = 1, its gradients, and its memory."""

from __future__ import annotations

import math
import weakref
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.exact import Given, linear_alpha_bar
from trilemma.errors import InputError
from trilemma.networks import UNet
from trilemma.objectives import IWDiff, Simple
from trilemma.process import Condition, Denoiser, Draw, Linear, Times

SCHEDULE, TABLE = Linear(steps=50, beta_end=0.2), linear_alpha_bar(50, end=0.2)
AT = (1, 20, 50)
TIMES = Times(torch.tensor(AT, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
KEYS = [(0, "train", 3, j) for j in range(3)]


class Scaled(nn.Module):
    """F = w x, so that every loss and every gradient can be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.w * x


def images(seed: int) -> Tensor:
    return torch.randn(3, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_hand(noises: list[Tensor], x0: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The mean squared error of each noise of each image [k, n] under F = 0.4 x, and its slope in w."""
    losses, slopes = [], []
    for eps in noises:
        bar = TABLE[list(AT)][:, None, None, None]
        x_t = np.sqrt(bar) * x0.numpy() + np.sqrt(1 - bar) * eps.numpy()
        error = eps.numpy() - 0.4 * x_t
        losses.append((error**2).mean((1, 2, 3)))
        slopes.append((-2 * error * x_t).mean((1, 2, 3)))
    return np.array(losses), np.array(slopes)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("c", [0.5, 2.0])
@pytest.mark.parametrize("exponent", ["sum", "mean"])
@pytest.mark.parametrize("weighting", ["printed", "iwae"])
@pytest.mark.parametrize("accumulate", [False, True])
class TestByHand:
    def test_loss_and_gradient(self, weighting: Any, exponent: Any, c: float, k: int, accumulate: bool) -> None:
        """w_i ∝ e^{l_i} as printed, e^{−c l_i} as IWAE has it; l summed or averaged over pixels in the exponent, a mean
        in the loss; the gradient Σ w_i ∇l_i, the weights constants in it."""
        x0, noises, network = images(0), [images(10 + i) for i in range(k)], Scaled()
        objective = IWDiff(k=k, weighting=weighting, exponent=exponent, c=c, accumulate=accumulate)
        given = Given(*noises)
        found = objective(Denoiser(network, SCHEDULE), x0, Condition(), TIMES, cast(Any, given))
        losses, slopes = by_hand(noises, x0)
        exponents = losses * (8 if exponent == "sum" else 1) * (1.0 if weighting == "printed" else -c)
        weights = np.exp(exponents) / np.exp(exponents).sum(0)
        np.testing.assert_allclose(found.total.detach().numpy(), (weights * losses).sum(0), rtol=1e-9)
        found.total.sum().backward()
        assert network.w.grad is not None
        assert network.w.grad.item() == pytest.approx((weights * slopes).sum(), rel=1e-9)
        assert given.used == k
        assert torch.equal(found.parts["iwdiff"], found.total)


class TestWeights:
    LOSSES = torch.tensor([[0.1, 2.0], [0.3, 1.0], [0.2, 1.5]], dtype=torch.float64)

    @pytest.mark.parametrize("exponent", ["sum", "mean"])
    @pytest.mark.parametrize("weighting", ["printed", "iwae"])
    def test_they_sum_to_1_over_the_noises(self, weighting: Any, exponent: Any) -> None:
        weights = IWDiff(k=3, weighting=weighting, exponent=exponent).weights(self.LOSSES, 5)
        torch.testing.assert_close(weights.sum(0), torch.ones(2, dtype=torch.float64))

    def test_as_printed_the_largest_loss_weighs_most_and_by_iwae_the_smallest(self) -> None:
        printed = IWDiff(weighting="printed").weights(self.LOSSES, 5)
        iwae = IWDiff(weighting="iwae").weights(self.LOSSES, 5)
        assert printed.argmax(0).tolist() == self.LOSSES.argmax(0).tolist()
        assert iwae.argmax(0).tolist() == self.LOSSES.argmin(0).tolist()

    def test_a_case_by_hand(self) -> None:
        """Two noises of 4 pixels with mean errors ¼ and ½: sums 1 and 2. Printed e/(e + e²); IWAE with c = ½
        e^{−½}/(e^{−½} + e^{−1})."""
        losses = torch.tensor([[0.25], [0.5]], dtype=torch.float64)
        e = math.e
        cases = {
            ("printed", "sum"): e / (e + e**2),
            ("printed", "mean"): e**0.25 / (e**0.25 + e**0.5),
            ("iwae", "sum"): e**-0.5 / (e**-0.5 + e**-1),
            ("iwae", "mean"): e**-0.125 / (e**-0.125 + e**-0.25),
        }
        for (weighting, exponent), first in cases.items():
            found = IWDiff(weighting=cast(Any, weighting), exponent=cast(Any, exponent)).weights(losses, 4)
            assert found.flatten().tolist() == pytest.approx([first, 1 - first], rel=1e-12)

    def test_large_sums_do_not_overflow(self) -> None:
        weights = IWDiff().weights(torch.tensor([[1.0], [1.1]]), 3 * 256 * 256)
        assert weights.flatten().tolist() == [0.0, 1.0]

    def test_defaults_are_the_printed_algorithm(self) -> None:
        assert IWDiff() == IWDiff(k=2, weighting="printed", exponent="sum", c=0.5, accumulate=False)


def unet(dtype: torch.dtype = torch.float32, **settings: Any) -> UNet:
    torch.manual_seed(0)
    chosen: dict[str, Any] = {"base_channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "dropout": 0.3}
    made = UNet(1, 1, (8, 8), **{**chosen, **settings}).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.15)
    return made.train()


def gradients(objective: Any, network: nn.Module, dtype: torch.dtype = torch.float64) -> tuple[Tensor, list[Tensor]]:
    """Losses and gradients of three 8×8 images, dropout on and from a fixed seed."""
    x0 = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    network.zero_grad()
    torch.manual_seed(5)
    losses = objective(Denoiser(network, SCHEDULE), x0, Condition(), TIMES, Draw(KEYS))
    losses.total.mean().backward()
    return losses.total.detach(), [cast(Tensor, p.grad).clone() for p in network.parameters()]


@pytest.mark.parametrize("weighting", ["printed", "iwae"])
@pytest.mark.parametrize("exponent", ["sum", "mean"])
@pytest.mark.parametrize("accumulate", [False, True])
def test_one_noise_is_simple_bit_for_bit(weighting: Any, exponent: Any, accumulate: bool) -> None:
    """The same draws, the same dropout: the losses and every gradient are equal, not close."""
    network = unet()
    objective = IWDiff(k=1, weighting=weighting, exponent=exponent, accumulate=accumulate)
    expected = gradients(Simple(), network, torch.float32)
    found = gradients(objective, network, torch.float32)
    assert torch.equal(found[0], expected[0])
    assert all(torch.equal(a, b) for a, b in zip(found[1], expected[1], strict=True))


@pytest.mark.parametrize("weighting", ["printed", "iwae"])
@pytest.mark.parametrize("k", [2, 4])
def test_accumulated_and_one_pass_gradients_agree_with_dropout_on(weighting: Any, k: int) -> None:
    network = unet(torch.float64)
    passed = gradients(IWDiff(k=k, weighting=weighting), network)
    accumulated = gradients(IWDiff(k=k, weighting=weighting, accumulate=True), network)
    torch.testing.assert_close(accumulated[0], passed[0], rtol=1e-12, atol=0)
    for found, expected in zip(accumulated[1], passed[1], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
    torch.manual_seed(6)
    other = Simple()(Denoiser(network, SCHEDULE), torch.zeros(3, 1, 8, 8).double(), Condition(), TIMES, Draw(KEYS))
    torch.manual_seed(7)
    again = Simple()(Denoiser(network, SCHEDULE), torch.zeros(3, 1, 8, 8).double(), Condition(), TIMES, Draw(KEYS))
    assert not torch.equal(other.total, again.total), "dropout is off, and nothing was shown"


def test_the_random_state_after_it_is_the_one_pass_s() -> None:
    """What is drawn after a step must not depend on how its gradient was taken."""
    states = []
    for accumulate in (False, True):
        gradients(IWDiff(k=3, accumulate=accumulate), unet(torch.float64))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_batch_normalisation_is_refused_by_name() -> None:
    network = unet(
        block="double",
        norm="batch",
        down="max",
        up="bilinear",
        entry="bottom",
        skips="level",
        attention=(),
        middle_attention=False,
    )
    with pytest.raises(
        InputError, match=r"objective\.accumulate: the network has batch normalisation \(.+\); set it to"
    ):
        gradients(IWDiff(accumulate=True), network, torch.float32)
    gradients(IWDiff(accumulate=False), network, torch.float32)


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that operations have made and that still live, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage not in self.known:
                    self.known.add(storage)
                    self._count(storage.nbytes())
                    weakref.finalize(storage, self._count, -storage.nbytes())
        return result

    def _count(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


def peak(objective: Any) -> int:
    """The most bytes alive at once in a step's forward and backward pass, of a batch whose activations outweigh the
    weights' gradients."""
    settings: dict[str, Any] = {"base_channels": 16, "multipliers": (1, 2), "blocks": 1, "attention": ()}
    network = UNet(1, 1, (16, 16), middle_attention=False, dropout=0.3, **settings).train()
    times = Times(torch.full((24,), 20.0, dtype=torch.float64), torch.ones(24, dtype=torch.float64))
    keys = [(0, "train", 3, j) for j in range(24)]
    with Live() as live:
        losses = objective(Denoiser(network, SCHEDULE), torch.zeros(24, 1, 16, 16), Condition(), times, Draw(keys))
        losses.total.mean().backward()
        assert live.now > 0
    return live.peak


def test_accumulated_memory_is_one_noise_s() -> None:
    """At k = 8, at most 1.15 of what k = 1 holds; in one pass several times as much."""
    one = peak(IWDiff(k=1))
    assert peak(IWDiff(k=8)) > 6 * one
    assert peak(IWDiff(k=8, accumulate=True)) <= 1.15 * one
