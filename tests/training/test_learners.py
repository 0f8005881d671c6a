"""What learners say of a batch: times, validation figures, distortion, classification."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from trilemma.errors import InputError
from trilemma.parts import GIVEN
from trilemma.process import VARIANCES, Draw, Schedule, Times, TimeSampler
from trilemma.training import Affine, Batch, Batches, ClassifierLearner, DenoisingLearner, Trainer
from trilemma.training.denoising import DenoisingSettings

MakeLearner = Callable[..., DenoisingLearner]
MakeBatches = Callable[..., Batches]


class TestDenoising:
    def test_loss_is_the_mean_over_images(self, make_learner: MakeLearner, make_batches: MakeBatches) -> None:
        outcome = make_learner(dropout=0.0).losses(make_batches()[0])
        assert outcome.loss.requires_grad and not outcome.each.requires_grad
        assert outcome.loss.item() == pytest.approx(outcome.each.mean().item(), rel=1e-6)

    def test_times_are_fractions_of_the_schedule(self, make_learner: MakeLearner, make_batches: MakeBatches) -> None:
        learner = make_learner()
        seen = torch.cat([learner.losses(make_batches()[step]).times for step in range(30)])  # 180 of 20 times
        assert set((seen * 20).round().int().tolist()) == set(range(1, 21))

    def test_an_image_s_loss_is_its_own(self, make_learner: MakeLearner, make_batches: MakeBatches) -> None:
        learner, batch = make_learner(dropout=0.0), make_batches()[0]
        whole = learner.losses(batch)
        alone = [learner.losses(part) for part in batch.split(1)]
        torch.testing.assert_close(torch.cat([o.each for o in alone]), whole.each)
        assert torch.equal(torch.cat([o.times for o in alone]), whole.times)

    def test_validation_times_cover_the_schedule(self, make_learner: MakeLearner) -> None:
        learner, asked = make_learner(), []
        learner.objective = lambda denoiser, x0, condition, times, draw: (
            asked.append(times.t) or type("L", (), {"total": times.t})
        )
        batch = Batch(torch.zeros(200, 1, 8, 8), torch.zeros(200, dtype=torch.long), [(0, "v", i) for i in range(200)])
        learner.validate(batch)
        counts = torch.bincount(asked[0].long(), minlength=21)[1:]
        assert counts.min() >= 8 and counts.max() <= 12  # ten each, evenly

    def test_a_recipe_that_says_nothing_trains_ho_et_al_s(self) -> None:
        """ε-prediction by L_simple at uniform times, σ² = β, without labels (Ho et al. 2020, sections 3.2 and 3.4)."""
        silent = DenoisingSettings()
        assert (silent.objective, silent.times, silent.parameterization) == ("simple", "uniform", "epsilon")
        assert (silent.variance, silent.conditional) == ("fixed_large", False)

    def test_an_objective_goes_with_the_variances_it_trains(self) -> None:
        for objective, variance in (("simple", "learned_range"), ("hybrid", "fixed_small"), ("hybrid", "fixed_large")):
            with pytest.raises(InputError, match=f"'{variance}': objective '{objective}' goes with "):
                DenoisingSettings(objective=objective, variance=variance)
        assert DenoisingSettings(objective="hybrid", variance="learned_range").variance == "learned_range"
        for variance in VARIANCES:  # of one that is to be given again nothing is known
            assert DenoisingSettings(objective={"name": GIVEN, "of": "mine.Own"}, variance=variance)


class Weighted(TimeSampler):
    """Time 3 + j and weight 2ʲ for image j of the batch; keeps what it is told."""

    extra = 2

    def __init__(self, schedule: Schedule):
        super().__init__(schedule)
        self.told: list[tuple[torch.Tensor, torch.Tensor]] = []

    def sample(self, draw: Draw) -> Times:
        position = torch.tensor([int(key[-1]) for key in draw.keys], dtype=torch.float64)
        return Times(3.0 + position, 2.0**position)

    def observe(self, t: torch.Tensor, loss: torch.Tensor) -> None:
        self.told.append((t, loss))


class TestImportanceWeights:
    """The loss that is descended on is weighted, or the mean over times is biased; what the sampler learns from is not,
    or its probabilities chase their own inverse (Nichol & Dhariwal 2021, section 3.3)."""

    WEIGHTS = 2.0 ** torch.arange(6)

    def learner(self, make_learner: MakeLearner) -> DenoisingLearner:
        plain = make_learner(dropout=0.0)
        return DenoisingLearner(plain.denoiser, plain.objective, Weighted(plain.denoiser.schedule))

    def test_weigh_the_loss_and_not_its_report(self, make_learner: MakeLearner, make_batches: MakeBatches) -> None:
        learner, batch = self.learner(make_learner), make_batches()[0]
        expected = learner.losses_at(batch, learner.times.sample(batch.draw()), batch.draw()).total.detach()
        outcome = learner.losses(batch)
        torch.testing.assert_close(outcome.each, expected)
        torch.testing.assert_close(outcome.loss.detach(), (expected * self.WEIGHTS).mean())

    def test_are_in_the_gradient(self, make_learner: MakeLearner, make_batches: MakeBatches) -> None:
        """The batch's gradient is the weighted mean of what its images alone would give at weight 1."""
        learner, batch = self.learner(make_learner), make_batches()[0]
        weight = list(learner.network.parameters())[-1]
        learner.losses(batch).loss.backward()
        found = weight.grad.clone()
        alone = []
        for part in batch.split(1):
            weight.grad = None
            learner.losses_at(part, learner.times.sample(part.draw()), part.draw()).total.sum().backward()
            alone.append(weight.grad.clone())
        torch.testing.assert_close(found, sum(w * g for w, g in zip(self.WEIGHTS, alone, strict=True)) / 6)
        assert found.abs().max() > 0

    def test_the_sampler_is_told_the_losses_without_them(
        self, make_learner: MakeLearner, make_trainer: Callable[..., tuple[Trainer, Batches]]
    ) -> None:
        """Of the batch trained on and of the two others, in this order; the others are of other images."""
        learner = self.learner(make_learner)
        trainer, batches = make_trainer(learner=learner, steps=1, learning_rate=1e-12, warmup=0)
        reports = list(trainer.run(batches))
        seen = [batches[0], *batches.extra(0, 2)]
        assert len(learner.times.told) == 3
        for (t, loss), batch in zip(learner.times.told, seen, strict=True):
            assert t.tolist() == pytest.approx([3, 4, 5, 6, 7, 8])
            expected = learner.losses_at(batch, learner.times.sample(batch.draw()), batch.draw()).total.detach()
            torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
        assert reports[0].loss == pytest.approx(learner.times.told[0][1].mean().item())


class TestAffine:
    def draw(self, n: int = 4) -> Draw:
        return Draw.for_seeds(range(n), "affine")

    def test_of_nothing_changes_nothing(self) -> None:
        images = torch.rand(4, 1, 9, 9)
        torch.testing.assert_close(Affine(0, 0, 0)(images, self.draw()), images)

    def test_stays_within_its_bounds(self) -> None:
        ramp = torch.linspace(-1, 1, 41)[None, None, None].expand(4, 1, 41, 41).contiguous()
        moved = Affine(0, 0.1, 0)(ramp, self.draw())[:, 0, 20, 20]  # the ramp's value is the shift, twice as a fraction
        assert moved.abs().max() <= 0.2 * 41 / 40 and moved.abs().max() > 0.02
        zoomed = Affine(0, 0, 0.2)(ramp, self.draw())[:, 0, 20]
        slopes = (zoomed[:, 25] - zoomed[:, 15]) / (ramp[0, 0, 0, 25] - ramp[0, 0, 0, 15])
        assert (slopes - 1).abs().max() <= 0.2 and slopes.std() > 0.02

    def test_turns_without_distorting(self) -> None:
        y, x = torch.meshgrid(torch.linspace(-1, 1, 41), torch.linspace(-1, 1, 41), indexing="ij")
        disc = ((x**2 + y**2) < 0.5).float()[None, None].expand(4, 1, 41, 41).contiguous()
        turned = Affine(90, 0, 0)(disc, self.draw())
        assert (turned - disc).abs().mean() < 0.03
        bar = (x.abs() < 0.1).float()[None, None].expand(4, 1, 41, 41).contiguous()
        assert (Affine(90, 0, 0)(bar, self.draw()) - bar).abs().mean() > 0.05

    def test_turns_by_degrees(self) -> None:
        """A quarter turn, where the draw says as far as may be: what was to the right is up."""
        images = torch.rand(1, 1, 9, 9, dtype=torch.float64)
        furthest = SimpleNamespace(uniform=lambda: torch.ones(1, dtype=torch.float64))
        torch.testing.assert_close(Affine(90, 0, 0)(images, furthest), images.rot90(1, (2, 3)), rtol=0, atol=1e-9)

    def test_is_each_image_s_own(self) -> None:
        images = torch.rand(1, 1, 9, 9).expand(3, 1, 9, 9).contiguous()
        affine = Affine(20, 0.1, 0.1)
        together = affine(images, self.draw(3))
        assert not torch.allclose(together[0], together[1])
        alone = affine(images[:1], Draw.for_seeds([1], "affine"))
        torch.testing.assert_close(alone[0], together[1])

    def test_crops_are_all_the_shifts_by_whole_pixels(self) -> None:
        """Every one of (2 · 2 + 1)² is as likely, and each is a view of the image with its edge repeated."""
        image = torch.rand(1, 2, 7, 9)
        padded = functional.pad(image, [2] * 4, mode="replicate")[0]
        views = torch.stack([padded[:, i : i + 7, j : j + 9] for i in range(5) for j in range(5)])
        found = Affine(crop=2)(image.expand(2000, 2, 7, 9).contiguous(), self.draw(2000))
        which = (found[:, None] == views).all(-1).all(-1).all(-1)
        assert torch.equal(which.sum(1), torch.ones(2000, dtype=torch.int64))
        counts = which.sum(0)
        assert counts.min() > 45 and counts.max() < 125  # 80 each, give or take five standard deviations

    def test_a_crop_is_each_image_s_own(self) -> None:
        images = torch.rand(1, 1, 9, 9).expand(8, 1, 9, 9).contiguous()
        together = Affine(crop=3)(images, self.draw(8))
        for i in range(8):
            assert torch.equal(Affine(crop=3)(images[:1], Draw.for_seeds([i], "affine"))[0], together[i])

    def test_a_crop_comes_before_the_distortion(self) -> None:
        images, both = torch.rand(4, 1, 9, 9), Affine(0, 0, 0.2, crop=2)
        draw = self.draw()
        assert torch.equal(both(images, self.draw()), Affine(0, 0, 0.2)(Affine(crop=2)(images, draw), draw))


class TestClassifier:
    def learner(self, smoothing: float = 0.0) -> ClassifierLearner:
        torch.manual_seed(0)
        return ClassifierLearner(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), Affine(0, 0, 0), smoothing)

    def test_loss_is_cross_entropy(self, make_batches: MakeBatches) -> None:
        batch = make_batches()[0]
        learner = self.learner(0.1)
        expected = functional.cross_entropy(learner.network(batch.images), batch.labels, label_smoothing=0.1)
        torch.testing.assert_close(learner.losses(batch).loss, expected, rtol=1e-4, atol=1e-5)
        assert learner.losses(batch).times is None

    def test_validation_counts_what_is_right(self, make_batches: MakeBatches) -> None:
        batch = make_batches()[0]
        learner = self.learner()
        nn.init.zeros_(learner.network[1].weight)
        with torch.no_grad():
            learner.network[1].bias.copy_(torch.tensor([0.0, 0.0, 5.0, 0.0]))  # always class 2
        assert torch.equal(learner.validate(batch)["validation_accuracy"], (batch.labels == 2).float())
