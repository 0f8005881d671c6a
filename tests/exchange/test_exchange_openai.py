"""State dicts of improved- and guided-diffusion as runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.exchange.openai_unet import Model
from trilemma.errors import InputError
from trilemma.exchange import import_run, openai
from trilemma.exchange.weights import correspondence
from trilemma.networks import UNet
from trilemma.runs import Run

MODELS = {
    "as improved-diffusion": Model(blocks=2),
    "as guided-diffusion": Model(updown=True, multipliers=(1, 2, 2), attends=(False, True, True), outputs=2),
    "added": Model(scale_shift=False, heads=1),
    "classes, learned variance": Model(classes=3, outputs=2, heads=4),
    "new order": Model(order="new", heads=4, updown=True),
    "half as wide at first": Model(base=64, multipliers=(0.5, 1)),
    "one level": Model(multipliers=(1,), attends=(True,), blocks=2),
    "colour, no attention but in the middle": Model(channels=3, outputs=6, attends=(False, False)),
}


def put(model: Model, place: Path) -> Path:
    torch.save(model.state_dict(), place / "ema_0.9999_000010.pt")
    return place / "ema_0.9999_000010.pt"


def imported(model: Model, place: Path, *overrides: str, **changes: Any) -> Run:
    arguments: dict[str, Any] = {"size": (8, 8), "out": place / "run", "attention_order": model.order, **changes}
    chosen = [f"network.heads={model.heads}", "schedule.steps=20", "schedule.network_steps=null", *overrides]
    return import_run(put(model, place), "guided-diffusion", overrides=chosen, **arguments)


def inputs(model: Model) -> tuple[Tensor, Tensor, Tensor | None]:
    x = torch.randn(3, model.channels, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0.0, 7.25, 999.0]), torch.tensor([0, 2, 1]) if model.classes else None


@pytest.mark.parametrize("name", MODELS)
def test_an_imported_model_gives_its_output(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    run = imported(model, tmp_path)
    with torch.inference_mode():
        expected = model(model.state_dict(), *inputs(model))
        for weights in ("ema", "raw"):
            found = run.denoiser(weights).network(*inputs(model))
            assert expected.std() > 0.1
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "low"),
    [
        (Model(updown=True, channels=6, outputs=6, classes=3), None),
        (Model(channels=6, outputs=3), (3, 5)),
        (Model(channels=2, outputs=2), (4, 4)),
    ],
)
def test_an_imported_upsampler_gives_its_output(model: Model, low: tuple[int, int] | None, tmp_path: Path) -> None:
    """The low image, interpolated to the image's size, is joined to it behind its channels: twice as many go in."""
    run = imported(model, tmp_path, low=low)
    size = low or (2, 2)
    assert run.recipe.learner["low"] == list(size) or run.recipe.learner["low"] == size
    assert run.recipe.images.channels == model.channels // 2
    assert run.recipe.learner["variance"] == ("learned_range" if model.outputs == model.channels else "fixed_large")
    x, time, label = inputs(model)
    x = x[:, : model.channels // 2]
    small = torch.randn(len(x), model.channels // 2, *size, generator=torch.Generator().manual_seed(3))
    rows, columns = (bilinear(side, 8) for side in size)
    joined = torch.cat([x, torch.einsum("yi,xj,ncij->ncyx", rows, columns, small)], 1)
    with torch.inference_mode():
        expected = model(model.state_dict(), joined, time, label)
        found = run.denoiser().network(x, time, label, low=small)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def bilinear(side: int, wanted: int) -> Tensor:
    """What each of `wanted` points, at the middles of as many equal parts, takes of `side` points at the middles of
    theirs; beyond the outermost, these."""
    weights = torch.zeros(wanted, side)
    for i in range(wanted):
        at = min(max((i + 0.5) * side / wanted - 0.5, 0), side - 1)
        left = min(int(at), side - 1)
        weights[i, left] += 1 - (at - left)
        weights[i, min(left + 1, side - 1)] += at - left
    return weights


def test_the_order_of_heads_matters(tmp_path: Path) -> None:
    """Weights in the one order read as in the other give another output: the test above can tell them apart."""
    model = MODELS["new order"]
    run = imported(model, tmp_path, attention_order="legacy")
    with torch.inference_mode():
        found, expected = run.denoiser().network(*inputs(model)), model(model.state_dict(), *inputs(model))
    assert float((found - expected).abs().max()) > 0.01


def test_what_is_read_off_a_published_model(tmp_path: Path) -> None:
    """Names and shapes of improved-diffusion's CIFAR-10 model (three blocks, a quarter of its width)."""
    model = Model(32, (1, 2, 2, 2), 3, (False, True, True, False), channels=3, outputs=6, heads=4)
    run = import_run(put(model, tmp_path), "improved-diffusion", size=(32, 32), out=tmp_path / "run")
    read = {"base_channels": 32, "multipliers": [1, 2, 2, 2], "blocks": 3, "attention": [16, 8], "entry": "adagn"}
    read |= {"heads": 4, "head_channels": None, "down": "strided", "up": "nearest", "norm_eps": 1e-5, "groups": 32}
    assert read.items() <= run.recipe.network.items()
    assert run.recipe.learner["variance"] == "learned_range"
    assert run.recipe.name == "ema_0.9999_000010"
    schedule = run.denoiser().schedule
    assert schedule.steps == 4000
    # Rescaled timesteps: index i of 4 000 is told as i/4.
    times = torch.tensor([1.0, 2.0, 4000.0], dtype=torch.float64)
    assert schedule.network_time(times).tolist() == [0.0, 0.25, 999.75]


@pytest.mark.parametrize(
    ("size", "arguments", "millions"),
    [
        (64, {"base_channels": 192, "multipliers": (1, 2, 3, 4), "blocks": 3}, 296),
        (512, {"base_channels": 256, "multipliers": (0.5, 1, 1, 2, 2, 4, 4)}, 559),
    ],
)
def test_names_of_the_largest_models(size: int, arguments: dict[str, Any], millions: int) -> None:
    """guided-diffusion's ImageNet models (Dhariwal & Nichol 2021, table 11): each weight has a name of its own."""
    adm: dict[str, Any] = {"entry": "adagn", "down": "biggan", "up": "biggan", "attention": (32, 16, 8)}
    with torch.device("meta"):
        network = UNet(3, 6, (size, size), 1000, head_channels=64, **adm, **arguments)
    names = [name for row in correspondence(network, openai.layout("legacy")) for name in row.theirs]
    assert len(set(names)) == len(names) == len(network.state_dict())
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions
    model = Model(64, arguments["multipliers"], arguments.get("blocks", 2), (False,) * len(arguments["multipliers"]))
    levels = [side in (32, 16, 8) for side in (size // 2**i for i in range(len(model.multipliers)))]
    described = Model(64, model.multipliers, model.blocks, tuple(levels), classes=2, updown=True).state_dict()
    assert set(names) == set(described)


def test_channels_are_whole_numbers() -> None:
    assert UNet(1, 1, (8, 8), base_channels=96, multipliers=(2 / 3, 1), attention=()).widths == (64, 96)
    with pytest.raises(ValueError, match=r"network\.multipliers \[0\.3\] of 32 channels are no whole numbers"):
        UNet(1, 1, (8, 8), base_channels=32, multipliers=(0.3,), attention=())


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"out.2.bias": None}, r"lacks the weight 'out.2.bias'$"),
            ({"out.2.extra": torch.zeros(1)}, "has, and this network has not, the weight 'out.2.extra'"),
            ({"time_embed.0.weight": None}, "lacks 'time_embed.0.weight': not the state dict of"),
            ({"out.2.weight": torch.zeros(5, 32, 3, 3)}, "5 output channels for images of 1 channels"),
            (
                {"middle_block.1.qkv.weight": torch.zeros(192, 32, 1)},
                r"has shape \[192, 32, 1\], this network's \[192, 64",
            ),
            ({"output_blocks.0.1.conv.weight": torch.zeros(1)}, "not a UNetModel"),
            ({"input_blocks.1.0.in_layers.2.weight": None}, "lacks 'input_blocks.1.0.in_layers.2.weight'"),
            ({"out.2.weight": 3}, "'out.2.weight' is int"),
            ({7: torch.zeros(1)}, "a name is 7"),
            ({"out.2.weight": torch.tensor(1.0)}, r"'out.2.weight' has shape \[\]: expected 4 axes"),
            ({"input_blocks.0.0.weight": torch.zeros(32)}, r"'input_blocks.0.0.weight' has shape \[32\]: expected 4"),
            ({"time_embed.0.weight": torch.zeros(128)}, r"'time_embed.0.weight' has shape \[128\]: expected 2 axes"),
            ({"label_emb.weight": torch.tensor(1.0)}, r"'label_emb.weight' has shape \[\]: expected 2 axes"),
            (
                {"input_blocks.3.0.in_layers.2.weight": torch.tensor(1.0)},
                r"'input_blocks.3.0.in_layers.2.weight' has shape \[\]: expected 4 axes",
            ),
            ({"output_blocks.9000.0.in_layers.0.weight": torch.zeros(1)}, "not a UNetModel"),
            ({"out.2.bias": torch.zeros(1).to_sparse()}, "'out.2.bias' is sparse"),
            ({"out.2.bias": torch.zeros(1, device="meta")}, "'out.2.bias' has no numbers"),
            (
                {"out.2.bias": torch.zeros(1, dtype=torch.int64)},
                "'out.2.bias' is of torch.int64: expected one of torch.f",
            ),
            ({"out.2.bias": torch.zeros(1, dtype=torch.complex64)}, "'out.2.bias' is of torch.complex64"),
            ({"out.2.bias": torch.zeros(1, dtype=torch.bool)}, "'out.2.bias' is of torch.bool"),
            ({"out.2.bias": torch.tensor([float("nan")])}, "'out.2.bias' has numbers that are not finite"),
            ({"out.2.bias": torch.tensor([float("-inf")])}, "'out.2.bias' has numbers that are not finite"),
            (
                {"out.2.bias": torch.tensor([1e300], dtype=torch.float64)},
                "'out.2.bias' has numbers that are not finite",
            ),
            ({"time_embed.0.weight": torch.zeros(128, 0)}, r"'time_embed.0.weight' is empty \(shape \[128, 0\]\)"),
        ],
    )
    def test_weights_that_do_not_fit_are_named(self, change: dict[Any, Any], message: str, tmp_path: Path) -> None:
        weights: dict[Any, Any] = {**Model().state_dict(), **change}
        path = tmp_path / "model.pt"
        torch.save({name: value for name, value in weights.items() if value is not None}, path)
        with pytest.raises(InputError, match=message) as caught:
            import_run(path, "guided-diffusion", size=(8, 8), out=tmp_path / "run", overrides=["network.heads=2"])
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("kept", ["", "time_embed.", "input_blocks.", "output_blocks.", "out.2", "middle_block."])
    def test_only_a_few_names(self, kept: str, tmp_path: Path) -> None:
        weights = {name: value for name, value in Model().state_dict().items() if kept and name.startswith(kept)}
        torch.save(weights, tmp_path / "model.pt")
        with pytest.raises(InputError, match=r"lacks '.*': not the state dict of a guided-diffusion UNetModel"):
            import_run(tmp_path / "model.pt", "guided-diffusion", size=(8, 8), out=tmp_path / "run")

    def test_only_the_names_that_are_looked_at_first(self, tmp_path: Path) -> None:
        names = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "out.2.weight")
        torch.save({name: Model().state_dict()[name] for name in names}, tmp_path / "model.pt")
        with pytest.raises(InputError, match=r"lacks 'input_blocks\.1\.0\.emb_layers\.1\.weight'"):
            import_run(tmp_path / "model.pt", "guided-diffusion", size=(8, 8), out=tmp_path / "run")

    def test_a_low_size_of_what_is_no_upsampler(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"--low: .* is no upsampler's, it has 1 input channels"):
            imported(Model(), tmp_path, low=(2, 2))
        with pytest.raises(InputError, match=r"--low: an upsampler's; only --format guided-diffusion"):
            import_run(tmp_path, "diffusers", low=(2, 2))

    def test_a_low_size_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"learner\.low \[8, 8\]: expected less than the images' \[8, 8\]"):
            imported(Model(channels=6, outputs=6), tmp_path, low=(8, 8))

    def test_a_size_that_is_not_given(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="--size"):
            imported(Model(), tmp_path, size=None)

    def test_code_in_a_pickle_is_not_run(self, tmp_path: Path) -> None:
        marker = tmp_path / "ran"

        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (marker,))

        torch.save({"a": Trap()}, tmp_path / "model.pt")
        with pytest.raises(InputError, match="holds more than weights"):
            import_run(tmp_path / "model.pt", "guided-diffusion", size=(8, 8), out=tmp_path / "run")
        assert not marker.exists()

    @pytest.mark.parametrize("kept", [0, 100, 5000])
    def test_a_broken_file(self, kept: int, tmp_path: Path) -> None:
        path = put(Model(), tmp_path)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(InputError, match=r"ema_0\.9999_000010\.pt (is not a whole|holds more than weights)"):
            import_run(path, "improved-diffusion", size=(8, 8), out=tmp_path / "run")
