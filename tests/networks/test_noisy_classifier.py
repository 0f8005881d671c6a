"""ADM's classifier: the U-Net's trunk, attention pooling, logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.networks.test_unet import awake, images
from trilemma.networks import NoisyClassifier, UNet
from trilemma.networks.classifier import AttentionPool
from trilemma.recipes.components import arguments_model

SMALL: dict[str, Any] = {
    **{"base_channels": 16, "multipliers": (1, 2), "blocks": 1, "attention": (), "dropout": 0.0},
    **{"head_channels": 8, "pool_head_channels": 8, "entry": "adagn", "down": "biggan"},
}
TIME = torch.tensor([3.0, 40.0, 400.0])


def build(size: tuple[int, int] = (8, 8), **changes: Any) -> Any:
    return awake(NoisyClassifier(2, 5, size, **{**SMALL, **changes}))


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (9, 7), (5, 12)])
@pytest.mark.parametrize("skips", ["block", "level"])
def test_logits_are_linear_in_the_features(size: tuple[int, int], skips: str) -> None:
    network = build(size, skips=skips)
    x = images(3, 2, *size)
    features = network.features(x, TIME)
    assert features.shape == (3, network.dim) == (3, 32)
    torch.testing.assert_close(network(x, TIME), functional.linear(features, network.head.weight, network.head.bias))


def test_the_trunk_is_the_u_nets() -> None:
    """Given a U-Net's weights, what is pooled are that U-Net's coarsest features."""
    network = build()
    unet: Any = awake(UNet(2, 2, (8, 8), **{k: v for k, v in SMALL.items() if k != "pool_head_channels"}), 7)
    network.trunk.load_state_dict(unet.trunk.state_dict())
    x = images(3, 2, 8, 8)
    coarsest, _, _ = unet.trunk(x, TIME, None)
    assert coarsest.shape == (3, 32, 4, 4)
    torch.testing.assert_close(network.features(x, TIME), network.pool(network.out(coarsest)))


@pytest.mark.parametrize("heads", [1, 4])
def test_pooling_is_pytorchs_attention_from_the_mean(heads: int) -> None:
    pool = AttentionPool(12, (3, 5), heads)
    ours = nn.MultiheadAttention(12, heads, batch_first=True)
    with torch.no_grad():
        ours.in_proj_weight.copy_(pool.qkv.weight)
        ours.in_proj_bias.copy_(pool.qkv.bias)
        ours.out_proj.weight.copy_(torch.eye(12))
        ours.out_proj.bias.zero_()
    x = images(2, 12, 3, 5)
    tokens = torch.cat([x.mean((2, 3))[:, None], x.flatten(2).mT], dim=1) + pool.position.T
    expected, _ = ours(tokens, tokens, tokens)
    torch.testing.assert_close(pool(x), expected[:, 0])


def test_time_and_position_matter() -> None:
    network, x = build(), images(3, 2, 8, 8)
    found = network(x, TIME)
    assert (network(x, TIME + 50) - found).abs().amax(1).min() > 1e-3
    with torch.no_grad():
        network.pool.position.zero_()
    pooled = images(1, 32, 4, 4)
    torch.testing.assert_close(network.pool(pooled), network.pool(pooled.flip(-1)))  # without positions: a set


def test_an_image_is_judged_alone() -> None:
    network, x = build(), images(3, 2, 8, 8)
    torch.testing.assert_close(network(x[1:2], TIME[1:2]), network(x, TIME)[1:2], rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    network = build().train()
    functional.cross_entropy(network(images(3, 2, 8, 8), TIME), torch.tensor([0, 1, 4])).backward()
    # A bias of all keys alike changes no attention: its gradient is zero but for rounding; it stands beside others.
    assert all(p.grad is not None and p.grad.abs().max() > 1e-6 for p in network.parameters())
    keys = network.pool.qkv.bias.grad.chunk(3)[1]
    torch.testing.assert_close(keys, torch.zeros_like(keys), rtol=0, atol=1e-6)


def test_gradients_reach_the_image() -> None:
    """Guidance asks for ∇ log p(y | x_t), each image's its own."""
    network = build()
    x = images(3, 2, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x, TIME)[1].logsumexp(0), x)
    assert gradient[1].abs().max() > 1e-6
    assert torch.equal(gradient[[0, 2]], torch.zeros(2, 2, 8, 8))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pool_head_channels 5 does not divide 32"):
        build(pool_head_channels=5)
    with pytest.raises(ValueError, match=r"network.patch and network.upsampler"):
        build(patch=2)
    with pytest.raises(ValueError, match=r"over 64 positions: made for images with 16"):
        build()(images(3, 2, 16, 16), TIME)


def test_its_arguments_are_the_u_nets_and_its_own() -> None:
    own, unet = (set(arguments_model(kind).model_fields) for kind in (NoisyClassifier, UNet))
    assert own - unet == {"pool_head_channels"} and unet < own
