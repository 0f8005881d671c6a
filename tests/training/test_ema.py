"""The average of the weights: its formula, its warm-up, buffers, and lending it to the module."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trilemma.training.ema import EMA


def set_weight(module: nn.Linear, value: float) -> None:
    with torch.no_grad():
        module.weight.fill_(value)


def test_follows_its_formula_through_the_warm_up() -> None:
    module = nn.Linear(1, 1, bias=False)
    set_weight(module, 1.0)
    ema, expected = EMA(module, decay=0.5), 1.0
    for n, value in enumerate([2.0, -3.0, 5.0, 7.0, 11.0, 0.5, 4.0, 8.0, 1.0, 6.0, 2.0, 3.0]):
        set_weight(module, value)
        ema.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
        assert ema.shadow["weight"].item() == pytest.approx(expected, rel=1e-6)
    assert (1 + 11) / (10 + 11) > 0.5, "the warm-up was left behind within the test"
    assert ema.updates == 12


def test_first_update_nearly_forgets_the_initialisation() -> None:
    module = nn.Linear(1, 1, bias=False)
    set_weight(module, 0.0)
    ema = EMA(module, decay=0.9999)
    set_weight(module, 1.0)
    ema.update()
    assert ema.shadow["weight"].item() == pytest.approx(0.9)


def test_buffers_are_copied_not_averaged() -> None:
    module = nn.BatchNorm1d(2)
    ema = EMA(module, decay=0.9)
    module.train()
    module(torch.randn(5, 2) + 3)
    ema.update()
    assert torch.equal(ema.shadow["running_mean"], module.running_mean)
    assert torch.equal(ema.shadow["running_var"], module.running_var)
    assert ema.shadow["num_batches_tracked"].item() == 1
    assert ema.shadow["num_batches_tracked"].dtype == torch.int64


def test_is_kept_in_fp32_under_bf16_weights() -> None:
    module = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    set_weight(module, 1.0)
    ema = EMA(module, decay=0.999)
    ema.updates = 10**6
    set_weight(module, 1.0078125)  # the next number of bf16
    ema.update()
    assert ema.shadow["weight"].dtype == torch.float32
    assert 1.0 < ema.shadow["weight"].item() < 1.0001


def test_is_kept_in_float64_beside_what_is_coarser() -> None:
    """A learned schedule's: each weight's average in its own type, or float32."""
    module = nn.ModuleDict({"fine": nn.Linear(1, 1, bias=False).double(), "coarse": nn.Linear(1, 1, bias=False)})
    for part in module.values():
        set_weight(part, 1.0)
    ema = EMA(module, decay=0.5)
    ema.updates = 10**6
    for part in module.values():
        set_weight(part, 1.0 + 2e-12)
    ema.update()
    assert ema.shadow["fine.weight"].dtype == torch.float64 and ema.shadow["coarse.weight"].dtype == torch.float32
    assert ema.shadow["fine.weight"].item() == pytest.approx(1.0 + 1e-12, abs=1e-15)


def test_does_not_share_memory_with_the_weights() -> None:
    module = nn.BatchNorm1d(2)
    ema = EMA(module, decay=0.9)
    with torch.no_grad():
        module.weight.fill_(7.0)
        module.running_mean.fill_(7.0)
    assert not (ema.shadow["weight"] == 7.0).any()
    assert not (ema.shadow["running_mean"] == 7.0).any()


def test_lends_itself_and_gives_the_weights_back() -> None:
    module = nn.Linear(2, 2)
    ema = EMA(module, decay=0.9)
    with torch.no_grad():
        module.weight.add_(1.0)
    own = module.weight.detach().clone()
    with ema.applied():
        assert torch.equal(module.weight, ema.shadow["weight"])
        assert not torch.equal(module.weight, own)
    assert torch.equal(module.weight, own)
    with pytest.raises(RuntimeError, match="broken"), ema.applied():
        raise RuntimeError("broken")
    assert torch.equal(module.weight, own), "an error inside the block lost the weights"
    assert not torch.equal(ema.shadow["weight"], own), "the average was overwritten"
