from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trilemma.networks import ConvClassifier


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("widths", [((4,), (6, 7)), ((5,),), ((4,), (8,), (8, 12))])
@pytest.mark.parametrize("size", [(28, 28), (9, 14)])
def test_features_are_the_last_width(widths: tuple[tuple[int, ...], ...], size: tuple[int, int]) -> None:
    network = ConvClassifier(3, 10, widths=widths).eval()
    x = images(4, 3, *size)
    features = network.features(x)
    assert network.dim == widths[-1][-1]
    assert features.shape == (4, network.dim)
    logits = network(x)
    assert logits.shape == (4, 10)
    torch.testing.assert_close(logits, features @ network.head.weight.T + network.head.bias)


def test_features_are_means_of_the_last_maps() -> None:
    network = ConvClassifier(1, 3, widths=((4,), (6,))).eval()
    x = images(2, 1, 8, 8)
    maps = x
    for layer in list(network.trunk.children())[:-2]:
        maps = layer(maps)
    assert maps.shape == (2, 6, 4, 4)
    torch.testing.assert_close(network.features(x), maps.mean((2, 3)))


def test_gradients_reach_every_parameter() -> None:
    network = ConvClassifier(2, 4, widths=((4,), (6, 7)))
    torch.nn.functional.cross_entropy(network(images(6, 2, 8, 8)), torch.tensor([0, 1, 2, 3, 0, 1])).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_dropout_is_on_the_features_in_training_only() -> None:
    network = ConvClassifier(1, 3, dropout=0.9).eval()
    x = images(4, 1, 8, 8)
    assert torch.equal(network(x), network(x))
    network.train()
    torch.manual_seed(0)
    assert not torch.allclose(network(x), network(x))
