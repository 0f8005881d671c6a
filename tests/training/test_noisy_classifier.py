"""The learner of classifiers of noised images: what it sees, what it says, and what of its recipe reaches it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from tests.conftest import recipe_values
from trilemma.errors import InputError
from trilemma.jobs import train
from trilemma.process import SCHEDULES, ClassPosterior, Draw, Uniform, perturb, quarters
from trilemma.recipes import load
from trilemma.runs import Run
from trilemma.runs.build import build_learner
from trilemma.training import Affine, Batch, Batches, NoisyClassifierLearner

MakeBatches = Callable[..., Batches]
SCHEDULE = SCHEDULES["cosine"](steps=20)
NETWORK = {
    **{"name": "noisy_classifier", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": []},
    **{"middle_attention": False, "dropout": 0.0, "pool_head_channels": 8},
}


class Seen(nn.Module):
    """A linear classifier that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.given = nn.Linear(64, 4), []

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        self.given.append((x, time))
        return self.linear(x.flatten(1))


def made(**augment: Any) -> tuple[NoisyClassifierLearner, Seen]:
    torch.manual_seed(0)
    network = Seen()
    return NoisyClassifierLearner(ClassPosterior(network, SCHEDULE), Uniform(SCHEDULE), Affine(**augment), 0.1), network


def test_the_loss_is_cross_entropy_of_images_noised_to_drawn_times(make_batches: MakeBatches) -> None:
    """x_t = α x_0 + σ ε with the crop, t and ε of each image's own stream, in that order: t, crop, noise."""
    (learner, network), batch = made(crop=2), make_batches()[0]
    outcome = learner.losses(batch)
    draw = Draw(batch.keys)
    t = Uniform(SCHEDULE).sample(draw).t
    x0 = Affine(crop=2)(batch.images, draw)
    x_t = perturb(SCHEDULE, x0, t, draw.normal(x0))
    assert not torch.equal(x0, batch.images)
    torch.testing.assert_close(network.given[0][0], x_t)
    torch.testing.assert_close(network.given[0][1], SCHEDULE.network_time(t).float())
    logits = network.linear(x_t.flatten(1))
    expected = functional.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(outcome.each, expected.detach())
    assert outcome.loss.item() == pytest.approx(expected.mean().item(), rel=1e-6)
    assert torch.equal(outcome.times * SCHEDULE.T, t)
    assert torch.equal(outcome.parts["accuracy"], (logits.argmax(1) == batch.labels).float())


def test_what_an_image_gives_is_its_own(make_batches: MakeBatches) -> None:
    (learner, _), batch = made(crop=2, rotate=10.0, shift=0.1), make_batches()[0]
    whole, alone = learner.losses(batch), [learner.losses(part) for part in batch.split(1)]
    torch.testing.assert_close(torch.cat([each.each for each in alone]), whole.each)
    assert torch.equal(torch.cat([each.times for each in alone]), whole.times)


def test_validation_is_of_whole_images_at_times_that_cover_the_schedule() -> None:
    learner, network = made(crop=2)
    with torch.no_grad():
        network.linear.weight.zero_()
        network.linear.bias.copy_(torch.tensor([0.0, 0.0, 5.0, 0.0]))  # always class 2
    labels = torch.arange(200) % 4
    batch = Batch(torch.ones(200, 1, 8, 8), labels, [(0, "validation", i) for i in range(200)])
    found = learner.validate(batch)
    x, time = network.given[0]
    t = time.double() + 1
    assert torch.bincount(t.long(), minlength=21)[1:].min() >= 8  # ten each, evenly
    noise = Draw(batch.keys).normal(batch.images)
    torch.testing.assert_close(x, perturb(SCHEDULE, batch.images, t, noise))
    right = (labels == 2).float()
    assert torch.equal(found["validation_accuracy"], right)
    for q in range(4):
        assert torch.equal(found[f"validation_accuracy_t{q + 1}"], right[(t > 5 * q) & (t <= 5 * q + 5)])
    assert torch.equal(learner.validate(batch)["validation_loss"], found["validation_loss"])


def test_quarters() -> None:
    fractions = torch.tensor([1e-9, 0.25, 0.2501, 0.5, 0.75, 0.76, 1.0], dtype=torch.float64)
    assert quarters(fractions).tolist() == [0, 0, 1, 1, 2, 3, 3]


def recipe_of(data: Path, place: Path, **changes: Any) -> Path:
    values = {**recipe_values(data), "learner": {"name": "noisy_classifier", "crop": 1}, "network": NETWORK, **changes}
    values["training"] = {**values["training"], "steps": 6, "validate_every": 3}
    (place / "noisy.yaml").write_text(yaml.safe_dump(values))
    return place / "noisy.yaml"


def test_its_run_tells_accuracy_by_quarter_and_gives_the_posterior(data: Path, tmp_path: Path) -> None:
    run = train(recipe_of(data, tmp_path), out=tmp_path / "run")
    lines = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in line}
    for figure in ("accuracy", "validation_accuracy", "loss"):
        assert {f"{figure}_t{q}" for q in (1, 2, 3, 4)} | {figure} <= names
    told = [value for line in lines for name, value in line.items() if "accuracy" in name]
    assert told and all(0 <= value <= 1 for value in told)
    posterior = run.posterior()
    logits = posterior(torch.zeros(2, 1, 8, 8), torch.tensor(3.0, dtype=torch.float64))
    assert logits.shape == (2, 4) and posterior.schedule.steps == 8
    assert not any(weight.requires_grad for weight in posterior.parameters()) and not posterior.network.training
    with pytest.raises(InputError, match="trains a noisy_classifier model, not a classifier of clean images"):
        run.classifier()
    with pytest.raises(InputError, match="trains a noisy_classifier, which does not generate images"):
        run.sample(1)


def test_a_denoiser_is_no_posterior(run: Run) -> None:
    with pytest.raises(InputError, match="trains a denoising model, not a classifier of noised images"):
        run.posterior()


def test_what_its_section_says_reaches_it(data: Path, tmp_path: Path) -> None:
    path = recipe_of(data, tmp_path)
    settings = ["learner.crop=2", "learner.rotate=5", "learner.shift=0.1", "learner.scale=0.2"]
    more = ["learner.label_smoothing=0.3", "learner.times={name: importance, bins: 2}"]
    images = {"channels": 1, "height": 8, "width": 8, "classes": ["a", "b", "c"]}
    recipe = load({**yaml.safe_load(path.read_text()), "name": "noisy", "images": images}, [*settings, *more])
    learner: Any = build_learner(recipe)  # type: ignore[arg-type]
    assert learner.augment == Affine(5.0, 0.1, 0.2, 2) and learner.label_smoothing == 0.3
    assert learner.times.width == 2 and learner.schedule.steps == 8
    assert learner.network.head.out_features == 3
    assert learner.state_dict()["times"]["counts"].shape == (4,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": None}, "schedule is missing: a noisy_classifier learner needs one"),
        ({"learner": {"name": "noisy_classifier", "crop": 8}}, "learner.crop 8: expected 0 to 7 pixels"),
        ({"learner": {"name": "noisy_classifier", "crop": -1}}, "learner.crop"),
        ({"network": {"name": "classifier"}}, "'classifier': did you mean 'noisy_classifier'"),
        ({"network": {**NETWORK, "pool_head_channels": 5}}, "pool_head_channels 5 does not divide 16"),
        (
            {"network": {"name": "unet", "base_channels": 8, "multipliers": [1], "blocks": 1, "attention": []}},
            r"network of a noisy_classifier learner 'unet' \(known: noisy_classifier\)",
        ),
        ({"learner": {"name": "classifier"}}, "network of a classifier learner 'noisy_classifier'"),
        ({"learner": {"name": "denoising"}}, "network of a denoising learner 'noisy_classifier'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_run_is_begun(
    changes: dict[str, Any], message: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        train(recipe_of(data, tmp_path, **changes), out=tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_time_sampler_s_batches_to_look_at_reach_it(make_batches: MakeBatches) -> None:
    """The losses told are the batch's, unweighted, at their times."""
    told: list[tuple[Tensor, Tensor]] = []
    (learner, _), batch = made(), make_batches()[0]
    learner.times.observe = lambda t, loss: told.append((t, loss))  # type: ignore[method-assign]
    outcome = learner.losses(batch)
    learner.observe(replace(outcome, loss=outcome.loss.detach()))
    assert torch.equal(told[0][0], outcome.times * 20) and torch.equal(told[0][1], outcome.each)


def test_the_demo_s_classifier_fits_the_demo() -> None:
    classifier, demo = load("demo-classifier"), load("demo")
    assert classifier.schedule == demo.schedule and classifier.data.name == demo.data.name
    assert classifier.data.range == demo.data.range
