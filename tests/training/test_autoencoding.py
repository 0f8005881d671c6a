"""The autoencoder's learner: its bound on a model whose likelihood is known, what each further term is, and what
reaches what."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.test_vae import SIGMA, Linear, Posterior, batch, log_likelihood
from trilemma.errors import InputError
from trilemma.networks import Autoencoder, ConvClassifier, PatchDiscriminator
from trilemma.training import AutoencoderLearner, Batch
from trilemma.training.autoencoding import SPREAD_RATE, AutoencoderSettings, Critic, Features
from trilemma.training.bounds import Spread


class Exact(nn.Module):
    """A linear decoder and its exact posterior."""

    latent_channels = 2

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.posterior = Linear(), Posterior()

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[:, :, None, None]

    def decode(self, z: Tensor) -> Tensor:
        return self.linear(z[:, :, 0, 0])


class Scalar(nn.Module):
    """z = a x + e^{s/2} ε, x̂ = b z."""

    latent_channels = 1

    def __init__(self, a: float = 0.6, b: float = 1.3, s: float = -1.0) -> None:
        super().__init__()
        self.a, self.b, self.s = (nn.Parameter(torch.tensor(value)) for value in (a, b, s))

    def encode(self, x: Tensor) -> Tensor:
        return torch.cat([self.a * x, self.s.expand_as(x)], 1)

    def decode(self, z: Tensor) -> Tensor:
        return self.b * z


class Stages(nn.Module):
    """Feature maps x·(1, w) and x·(w, 0, 1) as two stages."""

    def __init__(self, w: float = 2.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def stages(self, x: Tensor) -> list[Tensor]:
        return [torch.cat([x, self.w + 0 * x], 1), torch.cat([self.w * x, 0 * x, 1 + 0 * x], 1)]


def learner(network: nn.Module | None = None, log_sigma: float = math.log(SIGMA), **given: Any) -> AutoencoderLearner:
    spread = Spread()
    nn.init.constant_(spread.log_sigma, log_sigma)
    return AutoencoderLearner(network or Scalar(), spread, **{"beta": 1.0, **given})


def critic(weight: float = 0.5, begins: int = 0) -> Critic:
    torch.manual_seed(1)
    return Critic(PatchDiscriminator(1, (8, 8), base_channels=4, layers=1), weight, begins)


def features(weight: float = 1.0) -> Features:
    return Features(Stages, weight)


def square_batch() -> Batch:
    images = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (6, 1, 8, 8)).astype(np.float32))
    return Batch(images, None, [(0, "train", 0, i) for i in range(6)])


def tiny(**given: Any) -> AutoencoderLearner:
    torch.manual_seed(0)
    shape = {"base_channels": 4, "multipliers": (1, 2), "blocks": 1, "latent_channels": 2, "middle_attention": False}
    return learner(Autoencoder(1, (8, 8), **shape), **given)


class TestBound:
    def test_with_the_exact_posterior_it_is_the_likelihood(self) -> None:
        whole = batch(3, repeats=8000)
        with torch.no_grad():
            found = learner(Exact()).losses(whole)
        each = found.each.view(8000, 3)
        errors = each.std(0) / 8000**0.5
        assert ((each.mean(0) + log_likelihood(whole.images[:3]) / 6).abs() < 4 * errors).all() and errors.max() < 5e-3

    def test_l1_is_laplace_s(self) -> None:
        made = learner(reconstruction="l1", log_sigma=-0.4)
        found, x = made.losses(batch(5)), batch(5).images
        *_, z = made.drawn(batch(5))
        expected = -torch.distributions.Laplace(made.decoded(z), math.exp(-0.4)).log_prob(x).flatten(1).mean(1)
        assert torch.allclose(found.parts["distortion"], expected, atol=1e-6)

    def test_every_weight_weighs_its_part(self) -> None:
        """Each is told from the loss by a change of the weight alone; the parts themselves stay."""
        whole = square_batch()
        given = {"alpha": 1.0, "features": features(), "critic": critic()}
        plain = learner(**given).losses(whole, heard=True)
        assert list(plain.parts) == ["distortion", "rate", "consistency", "perceptual", "adversarial"]
        for name, changed in {
            "rate": {"beta": 2.0},
            "distortion": {"alpha": 2.0},
            "perceptual": {"features": features(2.0)},
            "adversarial": {"critic": critic(1.5)},
        }.items():
            more = learner(**{**given, **changed}).losses(whole, heard=True)
            assert all(torch.equal(more.parts[key], plain.parts[key]) for key in plain.parts)
            assert torch.allclose(more.each - plain.each, plain.parts[name], atol=1e-5) and plain.parts[name].any()
        assert list(learner().losses(whole).parts) == ["distortion", "rate"]

    def test_sigma_is_learnt_at_a_rate_of_its_own(self, make_trainer: Callable[..., Any]) -> None:
        """To be the error's: σ² is the mean squared error where its gradient is zero."""
        made = learner()
        *_, z = made.drawn(square_batch())
        squares = (made.decoded(z) - square_batch().images).square().mean()
        with torch.no_grad():
            made.spread.log_sigma.copy_(0.5 * squares.log())
        made.losses(square_batch()).loss.backward()
        assert made.spread.log_sigma.grad.abs() < 1e-5 and made.autoencoder.b.grad.abs() > 0
        trainer, _ = make_trainer(learner=learner(), learning_rate=2e-3)
        rates = {
            parameter: group["lr"]
            for group in trainer.updates.optimizers["codec"].param_groups
            for parameter in group["params"]
        }
        own = trainer.learner
        assert rates.pop(own.spread.log_sigma) == pytest.approx(SPREAD_RATE * 2e-3)
        assert set(rates) == set(own.autoencoder.parameters()) and set(rates.values()) == {2e-3}


def test_the_consistency_s_target_is_held_fixed() -> None:
    """½ (sg(z) − a b z)² of a scalar: its slopes by hand, z = a x + e^{s/2} ε being followed inside e(g(z)) alone."""
    whole = batch(5)
    with_it, without = (learner(Scalar(), alpha=alpha) for alpha in (1.0, None))
    for made in (with_it, without):
        made.losses(whole).loss.backward()
    network = with_it.autoencoder
    a, b, s = (weight.item() for weight in (network.a, network.b, network.s))
    x = whole.images
    eps = whole.draw().normal(x)
    z = a * x + math.exp(s / 2) * eps
    off = z - a * b * z
    assert torch.allclose(with_it.losses(whole).parts["consistency"], 0.5 * off.square().flatten(1).mean(1), atol=1e-6)
    expected = {
        "a": -(off * (b * z + a * b * x)).mean(),
        "b": -(off * a * z).mean(),
        "s": -(off * a * b * 0.5 * math.exp(s / 2) * eps).mean(),
    }
    for name, slope in expected.items():
        found = with_it.autoencoder.get_parameter(name).grad - without.autoencoder.get_parameter(name).grad
        assert float(found.detach()) == pytest.approx(float(slope.detach()), rel=1e-4), name


class TestPerceptual:
    def test_is_the_squared_difference_of_features_of_length_1(self) -> None:
        x, y = (np.random.default_rng(seed).normal(size=(3, 1, 4, 4)).astype(np.float32) for seed in (0, 1))
        each = []
        for maps in (lambda v: [v, 2 + 0 * v], lambda v: [2 * v, 0 * v, 1 + 0 * v]):
            a, b = (np.concatenate(maps(v), 1) for v in (x, y))
            a, b = (v / np.sqrt((v**2).sum(1, keepdims=True)) for v in (a, b))
            each.append(((a - b) ** 2).sum(1).mean((1, 2)))
        found = features().difference(torch.from_numpy(x), torch.from_numpy(y))
        np.testing.assert_allclose(found.detach().numpy(), np.mean(each, 0), rtol=1e-5)
        assert not features().difference(torch.from_numpy(x), torch.from_numpy(x)).any()

    def test_its_network_is_opened_once_and_is_no_part_of_what_is_trained(self) -> None:
        opened: list[nn.Module] = []

        def open_() -> nn.Module:
            torch.manual_seed(0)
            opened.append(ConvClassifier(1, 4, widths=[[4], [8]]).eval().requires_grad_(False))
            return opened[-1]

        made = tiny(features=Features(open_, 1.0))
        assert not opened, "a trained run is opened without it"
        made.ready()
        made.losses(square_batch()).loss.backward()
        made.validate(square_batch())
        assert len(opened) == 1
        assert not set(opened[0].parameters()) & set(made.network.parameters())
        assert all(weight.grad is None for weight in opened[0].parameters())
        assert [tuple(found.shape[1:]) for found in opened[0].stages(square_batch().images)] == [(4, 8, 8), (8, 4, 4)]

    def test_a_network_without_stages_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"learner.perceptual: network Linear has no stages\(x\)"):
            tiny(features=Features(lambda: nn.Linear(1, 1), 1.0)).ready()


class TestDiscriminator:
    def turns(self, trainer: Any, batches: Any) -> Iterator[tuple[set[str], set[str]]]:
        """Which networks each step changes, and what it tells."""
        before = {name: value.clone() for name, value in trainer.network.named_parameters()}
        for report in trainer.run(batches):
            now = {name: value.clone() for name, value in trainer.network.named_parameters()}
            yield {n.split(".")[0] for n in before if not torch.equal(before[n], now[n])}, set(report.outcome.parts)
            before = now

    def test_is_trained_and_heard_from_its_step_on(self, make_trainer: Callable[..., Any]) -> None:
        trainer, batches = make_trainer(learner=tiny(critic=critic(begins=2)), steps=4, warmup=0)
        both = {"codec", "spread", "discriminator"}
        turns = list(self.turns(trainer, batches))
        assert [changed for changed, _ in turns] == [both - {"discriminator"}] * 2 + [both] * 2
        told = {"adversarial", "discriminator_loss", "logit_real", "logit_fake"}
        assert [told <= parts for _, parts in turns] == [False, False, True, True]
        assert trainer.ema.module is trainer.learner.autoencoder and trainer.ema.updates == 4

    def test_takes_no_gradients_of_the_autoencoder_s_update_nor_gives_its_own(
        self, make_trainer: Callable[..., Any]
    ) -> None:
        trainer, batches = make_trainer(learner=tiny(critic=critic()), steps=1)
        parts, plain = trainer.network, trainer.updates.descend
        seen: list[list[Tensor | None]] = []

        def descend(*given: Any) -> Any:
            outcome = plain(*given)
            for name in ("codec", "discriminator"):
                seen.append([None if w.grad is None else w.grad.clone() for w in parts[name].parameters()])
            return outcome

        trainer.updates.descend = descend
        list(trainer.run(batches))
        of_codec, of_nothing, still, of_its_own = seen
        assert all(gradient is None for gradient in of_nothing)
        assert all(gradient is not None for gradient in [*of_codec, *of_its_own])
        for before, after in zip(of_codec, still, strict=True):
            assert before is not None and after is not None and torch.equal(before, after)

    def test_its_say_reaches_the_autoencoder_by_its_weight(self) -> None:
        slopes = []
        for weight, heard in ((1.0, False), (1.0, True), (3.0, True)):
            made = tiny(critic=critic(weight))
            made.losses(square_batch(), heard=heard).loss.backward()
            slopes.append(torch.cat([w.grad.flatten() for w in made.autoencoder.parameters()]))
        without, once, thrice = slopes
        assert (once - without).abs().max() > 1e-4
        assert torch.allclose(thrice - without, 3 * (once - without), rtol=1e-3, atol=1e-6)

    def test_its_losses_are_the_hinge_s_and_leave_the_autoencoder_alone(self) -> None:
        made, whole = tiny(critic=critic()), square_batch()
        assert made.critic is not None
        found = made.discriminator_losses(whole)
        real, fake = (made.critic.network(images) for images in (whole.images, made.decoded(made.drawn(whole)[-1])))
        assert torch.allclose(found.each, (1 - real).clamp(min=0) + (1 + fake).clamp(min=0), atol=1e-5)
        found.loss.backward()
        assert all(weight.grad is None for weight in made.autoencoder.parameters())
        adversarial = made.losses(whole, heard=True).parts["adversarial"]
        assert torch.allclose(adversarial, -fake, atol=1e-4)


class TestValidation:
    def test_tells_the_loss_its_parts_and_the_error_of_the_means(self) -> None:
        made, whole = tiny(alpha=2.0, critic=critic(), features=features()), square_batch()
        made.network.eval()
        found, again = made.validate(whole), made.validate(whole)
        assert all(torch.equal(found[key], again[key]) for key in found)
        parts = ("loss", "distortion", "rate", "consistency", "perceptual", "adversarial", "rmse")
        assert set(found) == {f"validation_{name}" for name in parts}
        assert torch.equal(found["validation_loss"], made.losses(whole).each)
        images = made.autoencoder(whole.images).clamp(-1, 1)
        expected = 127.5 * (images - whole.images).square().mean((1, 2, 3)).sqrt()
        assert torch.allclose(found["validation_rmse"], expected, rtol=1e-5)

    def test_the_error_is_of_255_whatever_the_range(self) -> None:
        wide = learner(Scalar(1.0, 0.5), low_high=(-4.0, 4.0)).validate(square_batch())["validation_rmse"]
        narrow = learner(Scalar(1.0, 0.5)).validate(square_batch())["validation_rmse"]
        assert torch.allclose(4 * wide, narrow)


def test_its_codec_is_of_the_weights_of_the_moment() -> None:
    made = tiny()
    assert made.codec.network is made.averaged and made.codec.scale == 1
    with torch.no_grad():
        made.spread.log_sigma.fill_(-2)
    assert float(made.codec.log_sigma) == -2 and not made.codec.log_sigma.requires_grad
    assert tiny(reconstruction="l1").codec.log_sigma is None


@pytest.mark.parametrize("key", ["adversarial", "adversarial_from", "perceptual_weight"])
def test_a_weight_of_what_is_not_there_is_refused(key: str) -> None:
    with pytest.raises(InputError, match=f"learner.{key} 3: it goes with learner"):
        AutoencoderSettings(**{key: 3})
