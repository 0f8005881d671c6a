"""What a network promises: the images' shape whatever their size, that it hears time and class, and that an image's
answer is its own; and what its blocks do."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contracts.made import make, names, small
from tests.networks.test_unet import awake
from trilemma.networks.norms import ACTIVATIONS, Style, norm_of
from trilemma.registry import registry

DENOISING = ["in_channels", "out_channels", "size", "classes"]
CLASSIFYING = ["in_channels", "classes"]
CLASSIFYING_NOISED = [*CLASSIFYING, "size"]
GENERATING = ["out_channels", "size", "classes"]
JUDGING = ["in_channels", "size", "classes"]
ENCODING = ["in_channels", "size", "outputs"]
AUTOENCODING = ["in_channels", "size"]


def given(name: str) -> list[str]:
    """What a network is given besides its own arguments."""
    parameters = inspect.signature(registry("network")[name]).parameters.values()
    return [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]


DENOISERS = [name for name in names("network") if given(name) == DENOISING]
CLASSIFIERS = [name for name in names("network") if given(name) in (CLASSIFYING, CLASSIFYING_NOISED)]
GENERATORS = [name for name in names("network") if given(name) == GENERATING]
DISCRIMINATORS = [name for name in names("network") if given(name) == JUDGING]
ENCODERS = [name for name in names("network") if given(name) == ENCODING]
AUTOENCODERS = [name for name in names("network") if given(name) == AUTOENCODING]


def test_every_network_is_of_a_kind_that_is_tested() -> None:
    kinds = DENOISERS, CLASSIFIERS, GENERATORS, DISCRIMINATORS, ENCODERS, AUTOENCODERS
    assert sorted(name for kind in kinds for name in kind) == names("network")


def images(size: tuple[int, int] = (8, 8), count: int = 3) -> Tensor:
    return torch.randn(count, 2, *size, generator=torch.Generator().manual_seed(0))


TIME, LABEL = torch.tensor([3.0, 250.0, 900.0]), torch.tensor([0, 3, 2])


def denoiser(name: str, size: tuple[int, int] = (8, 8), classes: int = 4, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = make("network", name, 2, 3, size, classes, **{**small(name), **more})
    return network


@pytest.mark.parametrize("name", DENOISERS)
class TestDenoiser:
    def test_gives_channels_of_the_images_size(self, name: str) -> None:
        for size in ((8, 8), (16, 8)):
            assert denoiser(name, size)(images(size), TIME, LABEL).shape == (3, 3, *size)

    def test_takes_odd_sizes_or_refuses_them_at_once(self, name: str) -> None:
        with suppress(ValueError):
            assert denoiser(name, (7, 9))(images((7, 9)), TIME, LABEL).shape == (3, 3, 7, 9)

    def test_hears_time_and_class(self, name: str) -> None:
        network, x = awake(denoiser(name)), images()
        whole = network(x, TIME, LABEL)
        for other in (network(x, TIME + 50, LABEL), network(x, TIME, (LABEL + 1) % 4)):
            assert ((other - whole).abs().amax((1, 2, 3)) > 1e-4).all()
        with pytest.raises(ValueError, match="label"):
            network(x, TIME)
        assert denoiser(name, classes=0)(x, TIME).shape == (3, 3, 8, 8)

    def test_an_image_s_answer_is_its_own(self, name: str) -> None:
        network, x = awake(denoiser(name)), images()
        whole = network(x, TIME, LABEL)
        for i in range(3):
            alone = network(x[i : i + 1], TIME[i : i + 1], LABEL[i : i + 1])
            torch.testing.assert_close(alone[0], whole[i], rtol=1e-4, atol=1e-4)

    def test_gradients_reach_every_weight(self, name: str) -> None:
        network = awake(denoiser(name)).train()
        network(images(), TIME, LABEL).square().mean().backward()
        # A network that grows holds weights back until they are due.
        idle = [key for key, weight in network.named_parameters() if weight.grad is None]
        assert not idle or hasattr(network, "grow")

    def test_weights_go_round(self, name: str) -> None:
        network, again = awake(denoiser(name)), denoiser(name).eval()
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(images(), TIME, LABEL), network(images(), TIME, LABEL))

    def test_the_same_seed_is_the_same_network(self, name: str) -> None:
        first, second = denoiser(name).state_dict(), denoiser(name).state_dict()
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", CLASSIFIERS)
class TestClassifier:
    """Of clean images, f(x), or of noised ones, f(x, time)."""

    def classifier(self, name: str) -> Any:
        torch.manual_seed(0)
        size = [(8, 8)] if given(name) == CLASSIFYING_NOISED else []
        return make("network", name, 2, 5, *size, **small(name))

    def told(self, name: str, chosen: slice = slice(None)) -> list[Tensor]:
        return [images()[chosen], *([TIME[chosen]] if given(name) == CLASSIFYING_NOISED else [])]

    def test_gives_logits_and_features(self, name: str) -> None:
        network = self.classifier(name).eval()
        assert network(*self.told(name)).shape == (3, 5)
        assert network.features(*self.told(name)).shape == (3, network.dim)

    def test_an_image_s_answer_is_its_own(self, name: str) -> None:
        network = awake(self.classifier(name))
        alone = network(*self.told(name, slice(1, 2)))[0]
        torch.testing.assert_close(alone, network(*self.told(name))[1], rtol=1e-4, atol=1e-4)

    def test_hears_the_time_it_is_told(self, name: str) -> None:
        network, (x, *time) = awake(self.classifier(name)), self.told(name)
        for each in time:
            assert ((network(x, each + 50) - network(x, each)).abs().amax(1) > 1e-4).all()

    def test_weights_go_round(self, name: str) -> None:
        network, again = awake(self.classifier(name)), self.classifier(name).eval()
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(*self.told(name)), network(*self.told(name)))


SIZES = ((8, 8), (16, 8), (7, 9))


def adversary(name: str, *given: Any) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = make("network", name, *given, **small(name))
    return network


@pytest.mark.parametrize("name", GENERATORS)
class TestGenerator:
    """Of latent vectors alone, f(z), or of them and classes, f(z, label)."""

    def latent(self, network: Any, seed: int = 0) -> Tensor:
        return torch.randn(3, network.latent, generator=torch.Generator().manual_seed(seed))

    def test_gives_bounded_images_of_its_size(self, name: str) -> None:
        for size in SIZES:
            network = awake(adversary(name, 3, size))
            found = network(self.latent(network))
            assert found.shape == (3, 3, *size) and found.abs().max() <= 1

    def test_hears_its_latent_vector_and_its_class(self, name: str) -> None:
        network = awake(adversary(name, 3, (8, 8), 4))
        z = self.latent(network)
        whole = network(z, LABEL)
        for other in (network(self.latent(network, 1), LABEL), network(z, (LABEL + 1) % 4)):
            assert ((other - whole).abs().amax((1, 2, 3)) > 1e-4).all()
        with pytest.raises(ValueError, match="label"):
            network(z)

    def test_an_image_is_its_own(self, name: str) -> None:
        network = awake(adversary(name, 3, (8, 8), 4))
        z = self.latent(network)
        alone = network(z[1:2], LABEL[1:2])[0]
        torch.testing.assert_close(alone, network(z, LABEL)[1], rtol=1e-4, atol=1e-4)

    def test_gradients_reach_every_weight_and_weights_go_round(self, name: str) -> None:
        network, again = awake(adversary(name, 3, (8, 8), 4)).train(), adversary(name, 3, (8, 8), 4).eval()
        z = self.latent(network)
        (network(z, LABEL) * images()[:, :1]).sum().backward()
        assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in network.parameters())
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(z, LABEL), network.eval()(z, LABEL))


@pytest.mark.parametrize("name", DISCRIMINATORS)
class TestDiscriminator:
    """Of images, f(x), or of pairs at a time, f(x_s, x_t, time); all with a class or without."""

    def seen(self, name: str, size: tuple[int, int] = (8, 8)) -> list[Tensor]:
        forward = inspect.signature(registry("network")[name].forward).parameters
        return [images(size), images(size).flip(0), TIME] if "x_s" in forward else [images(size)]

    def settled(self, name: str, size: tuple[int, int] = (8, 8), classes: int = 4) -> nn.Module:
        """Awake, and with its largest singular values found, if it divides by them."""
        network, label = awake(adversary(name, 2, size, classes)), [LABEL] if classes else []
        network.train()
        for _ in range(20):
            network(*self.seen(name, size), *label)
        return network.eval()

    def test_gives_a_logit_an_image(self, name: str) -> None:
        for size in SIZES:
            assert self.settled(name, size, 0)(*self.seen(name, size)).shape == (3,)

    def test_hears_all_that_it_is_told(self, name: str) -> None:
        network, seen = self.settled(name), self.seen(name)
        whole = network(*seen, LABEL)
        for i, each in enumerate(seen):
            other = [*seen[:i], each + (50 if i == 2 else torch.randn_like(each)), *seen[i + 1 :]]
            assert ((network(*other, LABEL) - whole).abs() > 1e-4).all()
        assert ((network(*seen, (LABEL + 1) % 4) - whole).abs() > 1e-4).all()
        with pytest.raises(ValueError, match="label"):
            network(*seen)

    def test_gradients_and_gradients_of_gradients_reach_every_weight(self, name: str) -> None:
        """R1 is a penalty on the slopes at the images. It does not move what is only added at the end."""
        network, (x, *rest) = self.settled(name).train(), self.seen(name)
        logits = network(x.requires_grad_(), *rest, LABEL).sum()
        (slopes,) = torch.autograd.grad(logits, x, create_graph=True)
        weights = [weight for weight in network.parameters() if weight.dim() > 1]
        penalised = torch.autograd.grad(slopes.square().sum(), weights, retain_graph=True)
        assert all(gradient.abs().max() > 0 for gradient in penalised)
        logits.backward()
        assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in network.parameters())

    def test_weights_go_round(self, name: str) -> None:
        network, again = self.settled(name), adversary(name, 2, (8, 8), 4).eval()
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(*self.seen(name), LABEL), network(*self.seen(name), LABEL))


@pytest.mark.parametrize("name", ENCODERS)
class TestEncoder:
    def test_gives_so_many_numbers_an_image(self, name: str) -> None:
        for size in SIZES:
            assert adversary(name, 2, size, 5)(images(size)).shape == (3, 5)

    def test_an_image_s_answer_is_its_own_and_hears_every_pixel(self, name: str) -> None:
        network, x = awake(adversary(name, 2, (8, 8), 5)), images().requires_grad_()
        whole = network(x)
        torch.testing.assert_close(network(x[1:2])[0], whole[1], rtol=1e-4, atol=1e-4)
        (slopes,) = torch.autograd.grad(whole.square().sum(), x)
        assert (slopes.abs() > 0).all()

    def test_weights_go_round(self, name: str) -> None:
        network, again = awake(adversary(name, 2, (8, 8), 5)), adversary(name, 2, (8, 8), 5)
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(images()), network(images()))


@pytest.mark.parametrize("name", AUTOENCODERS)
class TestAutoencoder:
    def autoencoder(self, name: str, size: tuple[int, int] = (8, 8)) -> Any:
        return adversary(name, 2, size)

    def test_encodes_moments_and_decodes_images_of_its_size(self, name: str) -> None:
        for size in SIZES[:2]:
            network, x = self.autoencoder(name, size), images(size)
            encoded = network.encode(x)
            assert encoded.shape[:2] == (3, 2 * network.latent_channels)
            assert network.decode(encoded[:, : network.latent_channels]).shape == x.shape == network(x).shape

    def test_takes_odd_sizes_or_refuses_them_at_once(self, name: str) -> None:
        with suppress(ValueError):
            assert self.autoencoder(name, (7, 9))(images((7, 9))).shape == (3, 2, 7, 9)

    def test_an_image_is_its_own_and_every_pixel_is_heard(self, name: str) -> None:
        network, x = awake(self.autoencoder(name)), images().requires_grad_()
        whole = network(x)
        torch.testing.assert_close(network(x[1:2])[0], whole[1], rtol=1e-4, atol=1e-4)
        (slopes,) = torch.autograd.grad(whole.square().sum(), x)
        assert (slopes.abs() > 0).all()

    def test_gradients_reach_every_weight_and_weights_go_round(self, name: str) -> None:
        network, again = awake(self.autoencoder(name)).train(), self.autoencoder(name).eval()
        (network(images()).square().sum() + network.encode(images()).square().sum()).backward()
        assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in network.parameters())
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(images()), network.eval()(images()))


def styles() -> Iterator[Any]:
    for entry in ("added", "adagn", "after", "bottom"):
        for norm, activation in (("group", "silu"), ("batch", "relu"), ("layer", "gelu")):
            style = Style(norm_of(norm, None, 1e-6), ACTIVATIONS[activation], entry, embedding=12)
            yield pytest.param(style, id=f"{entry}-{norm}")


@pytest.mark.parametrize("style", list(styles()))
@pytest.mark.parametrize("name", names("block"))
class TestBlock:
    def made(self, name: str, style: Style, inputs: int = 8, outputs: int = 12) -> nn.Module:
        torch.manual_seed(0)
        block: nn.Module = registry("block")[name](inputs, outputs, style)
        return awake(block)

    def test_gives_its_channels_at_the_size_it_is_given(self, name: str, style: Style) -> None:
        x, e = torch.randn(2, 8, 5, 7), torch.randn(2, 12)
        assert self.made(name, style)(x, e).shape == (2, 12, 5, 7)
        assert self.made(name, style, 8, 8)(x, e).shape == (2, 8, 5, 7)

    def test_an_image_s_features_are_its_own_and_hear_the_embedding(self, name: str, style: Style) -> None:
        block, x, e = self.made(name, style), torch.randn(3, 8, 6, 6), torch.randn(3, 12)
        whole, other = block(x, e), block(x, e + 1)
        torch.testing.assert_close(block(x[1:2], e[1:2])[0], whole[1], rtol=1e-4, atol=1e-4)
        inside = style.entry in ("added", "adagn")
        assert bool(((other - whole).abs().amax((1, 2, 3)) > 1e-4).all()) == inside


@pytest.mark.parametrize("entry", ["added", "adagn", "after", "bottom"])
@pytest.mark.parametrize("name", names("block"))
def test_a_u_net_of_each_block_hears_time_and_class_through_each_entry(name: str, entry: str) -> None:
    """It is no deeper asleep than elsewhere, and makes images of any size."""
    network, x = awake(denoiser("unet", (7, 9), block=name, entry=entry, base_channels=16)), images((7, 9))
    found = network(x, TIME, LABEL)
    assert found.shape == (3, 3, 7, 9)
    for other in (network(x, TIME + 300, LABEL), network(x, TIME, (LABEL + 1) % 4)):
        assert (other - found).abs().amax((1, 2, 3)).min() > 1e-3
    network.train()(x, TIME, LABEL).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in network.parameters())


@pytest.mark.parametrize("entry", ["added", "adagn"])
@pytest.mark.parametrize("name", names("block"))
def test_a_u_net_of_each_block_hears_a_latent_vector(name: str, entry: str) -> None:
    """Besides time and class; and every weight has its share in it."""
    options = {"block": name, "entry": entry, "base_channels": 16, "latent": 5, "latent_width": 8}
    network, x, z = awake(denoiser("unet", (7, 9), **options)), images((7, 9)), images((5, 1))[:, 0, :, 0]
    found = network(x, TIME, LABEL, latent=z)
    assert found.shape == (3, 3, 7, 9)
    others = (network(x, TIME, LABEL, latent=z.flip(0)), network(x, TIME + 300, LABEL, latent=z))
    for other in (*others, network(x, TIME, (LABEL + 1) % 4, latent=z)):
        assert (other - found).abs().amax((1, 2, 3))[[0, 2]].min() > 1e-3
    network.train()(x, TIME, LABEL, latent=z).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in network.parameters())
