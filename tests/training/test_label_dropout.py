"""Label dropout: which labels the network is shown, in training and in validation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.objectives import Simple
from trilemma.process import Denoiser, Linear, Uniform
from trilemma.recipes import load
from trilemma.runs.build import build_learner, completed, open_images
from trilemma.training import DenoisingLearner
from trilemma.training.batches import Batch


class Listening(nn.Module):
    """Keeps the labels that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[int] = []
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        self.shown += label.tolist()
        return x * self.weight


def batch(count: int) -> Batch:
    labels = torch.arange(count) % 4
    return Batch(torch.zeros(count, 1, 2, 2), labels, [(0, 7, i) for i in range(count)])


def learner(part: float, no_class: int | None = 4) -> tuple[DenoisingLearner, Listening]:
    network, schedule = Listening(), Linear(steps=20)
    denoiser = Denoiser(network, schedule, no_class=no_class)
    return DenoisingLearner(denoiser, Simple(), Uniform(schedule), True, part), network


def test_a_part_of_the_labels_is_none_in_training_alone() -> None:
    made, network = learner(0.2)
    made.losses(batch(2000))
    dropped = [label == 4 for label in network.shown]
    assert sum(dropped) / 2000 == pytest.approx(0.2, abs=0.03)
    kept = [(label, i % 4) for i, label in enumerate(network.shown) if label != 4]
    assert all(label == own for label, own in kept)
    first = list(network.shown)
    network.shown.clear()
    made.losses(batch(2000))
    assert network.shown == first  # each image's by its own stream
    network.shown.clear()
    made.validate(batch(100))
    assert network.shown == [i % 4 for i in range(100)]


def test_none_without_it() -> None:
    made, network = learner(0.0, None)
    made.losses(batch(100))
    assert 4 not in network.shown


def test_a_denoiser_without_a_label_for_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"label_dropout 0\.1: the denoiser has no label that stands for none"):
        learner(0.1, None)


def test_a_recipe_s_network_has_a_class_more() -> None:
    recipe = load("demo", ["learner.label_dropout=0.1", "network.base_channels=8"])
    made = build_learner(completed(recipe, open_images(recipe)))
    assert made.denoiser is not None
    assert made.denoiser.no_class == 10
    assert made.denoiser.network.classes == 11
    assert isinstance(made, DenoisingLearner)
    assert made.label_dropout == 0.1


def test_labels_have_to_be_there() -> None:
    with pytest.raises(InputError, match=r"label_dropout 0\.1: there are labels with conditional true only"):
        load("demo", ["learner.conditional=false", "learner.label_dropout=0.1"])
