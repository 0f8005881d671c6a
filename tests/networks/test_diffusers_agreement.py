"""The U-Net against diffusers' UNet2DModel with the same weights: the output, and the gradients that train it. More of
its settings, each way: `tests/runs/test_exchange_diffusers.py`."""

from __future__ import annotations

import pytest
import torch

from trilemma.exchange.diffusers import layout
from trilemma.exchange.weights import correspondence, to_ours
from trilemma.networks import UNet

diffusers = pytest.importorskip("diffusers")


@pytest.mark.parametrize(("heads", "classes"), [(1, 0), (2, 4)])
def test_the_same_weights_give_the_same_output_and_gradients(heads: int, classes: int) -> None:
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(128, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=256 // heads,
        norm_eps=1e-6,
        num_class_embeds=classes or None,
    )
    ours = UNet(2, 2, (8, 8), classes, multipliers=(1, 2, 2), attention=(4,), heads=heads, dropout=0.0)
    table = correspondence(ours, layout(sine_first=False))
    ours.load_state_dict(to_ours(table, theirs.state_dict(), ours.state_dict(), "theirs"))

    x, time = torch.randn(3, 2, 8, 8), torch.tensor([0.0, 17.0, 999.0])
    label = torch.tensor([0, 3, 1]) if classes else None
    found, expected = ours(x, time, label), theirs(x, time, class_labels=label).sample
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for output in (found, expected):
        output.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    wanted = to_ours(table, gradients, ours.state_dict(), "theirs")
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-3, atol=1e-6)
