"""The U-Net against diffusers' UNet2DModel with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trilemma.networks import UNet

diffusers = pytest.importorskip("diffusers")


def copy(ours: Any, theirs: Any) -> None:
    ours.load_state_dict(theirs.state_dict())


def copy_residual(ours: Any, theirs: Any) -> None:
    for mine, name in (("norm1", "norm1"), ("conv1", "conv1"), ("embed", "time_emb_proj"), ("norm2", "norm2")):
        copy(getattr(ours, mine), getattr(theirs, name))
    copy(ours.conv2, theirs.conv2)
    if theirs.conv_shortcut is not None:
        copy(ours.shortcut, theirs.conv_shortcut)
    else:
        assert isinstance(ours.shortcut, nn.Identity)


def copy_attention(ours: Any, theirs: Any) -> None:
    copy(ours.norm, theirs.group_norm)
    for part in ("weight", "bias"):
        joined = torch.cat([getattr(layer, part) for layer in (theirs.to_q, theirs.to_k, theirs.to_v)])
        getattr(ours.qkv, part).data.copy_(joined.reshape(getattr(ours.qkv, part).shape))
        wanted = getattr(ours.project, part)
        wanted.data.copy_(getattr(theirs.to_out[0], part).reshape(wanted.shape))


def copy_levels(ours: Any, theirs: Any, resample: str) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        attentions = getattr(other, "attentions", [None] * len(other.resnets))
        for layer, residual, attention in zip(mine.layers, other.resnets, attentions, strict=True):
            copy_residual(layer.block, residual)
            if attention is not None:
                copy_attention(layer.attention, attention)
        found = getattr(other, resample)
        if found is None:
            assert mine.resample is None
        else:
            copy(getattr(mine.resample, "conv", mine.resample), found[0].conv)


@pytest.mark.parametrize(("heads", "classes"), [(1, 0), (2, 4)])
def test_the_same_weights_give_the_same_output(heads: int, classes: int) -> None:
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(128, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        attention_head_dim=256 // heads,
        downsample_padding=1,
        flip_sin_to_cos=True,
        freq_shift=0,
        norm_eps=1e-6,
        num_class_embeds=classes or None,
    ).eval()
    ours = UNet(
        2, 2, (8, 8), classes, base_channels=128, multipliers=(1, 2, 2), blocks=2, attention=(4,), heads=heads
    ).eval()
    embedding: Any = ours.embedding
    copy(embedding.time[1], theirs.time_embedding.linear_1)
    copy(embedding.time[3], theirs.time_embedding.linear_2)
    if classes:
        copy(embedding.label, theirs.class_embedding)
    copy(ours.stem, theirs.conv_in)
    copy_levels(ours.encoder, theirs.down_blocks, "downsamplers")
    copy_levels(ours.decoder, theirs.up_blocks, "upsamplers")
    first, second = ours.middle
    copy_residual(first.block, theirs.mid_block.resnets[0])
    copy_attention(first.attention, theirs.mid_block.attentions[0])
    copy_residual(second.block, theirs.mid_block.resnets[1])
    copy(ours.head[0], theirs.conv_norm_out)
    copy(ours.head[2], theirs.conv_out)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())

    x, time = torch.randn(3, 2, 8, 8), torch.tensor([0.0, 17.0, 999.0])
    label = torch.tensor([0, 3, 1]) if classes else None
    with torch.inference_mode():
        expected = theirs(x, time, class_labels=label).sample
        assert expected.std() > 0.05
        torch.testing.assert_close(ours(x, time, label), expected, rtol=1e-4, atol=1e-4)
