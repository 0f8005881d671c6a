"""guided-diffusion's classifiers of noised images as runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.exchange.openai_classifier import Classifier
from trilemma.errors import InputError
from trilemma.exchange import export_run, import_run, openai
from trilemma.exchange.weights import correspondence
from trilemma.jobs.training import train
from trilemma.networks import NoisyClassifier
from trilemma.recipes import load
from trilemma.runs import Run

MODELS = {
    "as published": Classifier(updown=True, multipliers=(1, 2, 2), attends=(False, True, True), outputs=7, channels=3),
    "strided, added": Classifier(scale_shift=False, outputs=4, blocks=2),
    "all alike": Classifier(updown=True, multipliers=(1, 1), attends=(False, False), outputs=3, heads=4, pool_heads=1),
    "new order": Classifier(order="new", heads=4, updown=True, outputs=5, pool_heads=4),
    "one level": Classifier(multipliers=(1,), attends=(True,), outputs=2, side=4),
}


def put(model: Classifier, place: Path, **changes: Tensor | None) -> Path:
    weights: dict[str, Any] = {**model.state_dict(), **changes}
    torch.save({k: v for k, v in weights.items() if v is not None}, place / "64x64_classifier.pt")
    return place / "64x64_classifier.pt"


def imported(model: Classifier, place: Path, *overrides: str, path: Path | None = None, **changes: Any) -> Run:
    widest = int(model.base * model.multipliers[-1])
    size = (model.side, model.side)
    arguments: dict[str, Any] = {"size": size, "out": place / "run", "attention_order": model.order, **changes}
    chosen = [f"network.heads={model.heads}", f"network.pool_head_channels={widest // model.pool_heads}"]
    return import_run(path or put(model, place), "guided-diffusion", overrides=[*chosen, *overrides], **arguments)


def inputs(model: Classifier) -> tuple[Tensor, Tensor]:
    x = torch.randn(3, model.channels, model.side, model.side, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0.0, 7.25, 999.0])


@pytest.mark.parametrize("name", MODELS)
def test_an_imported_classifier_gives_its_logits(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    run = imported(model, tmp_path)
    expected = model(model.state_dict(), *inputs(model))
    assert expected.shape == (3, model.outputs) and expected.std(0).min() > 0.1
    for weights in ("ema", "raw"):
        with torch.inference_mode():
            found = run.posterior(weights).network(*inputs(model))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    assert run.recipe.learner["name"] == "noisy_classifier"
    assert run.recipe.images.classes == [str(k) for k in range(model.outputs)]


@pytest.mark.parametrize("other", [{"pool_heads": 1}, {"heads": 4}, {"order": "new"}], ids=lambda o: next(iter(o)))
def test_the_heads_and_their_order_matter(other: dict[str, Any]) -> None:
    """Weights that are read otherwise give other logits: the test above can tell them apart."""
    model = MODELS["as published"]
    found, expected = (each(model.state_dict(), *inputs(model)) for each in (replace(model, **other), model))
    assert float((found - expected).abs().max()) > 0.01


@pytest.mark.parametrize(
    ("size", "multipliers", "blocks", "millions"),
    [(64, (1, 2, 3, 4), 4, 65), (128, (1, 1, 2, 3, 4), 2, 43), (256, (1, 1, 2, 2, 4, 4), 2, 54)],
)
def test_the_published_classifiers(size: int, multipliers: tuple[int, ...], blocks: int, millions: int) -> None:
    """Dhariwal & Nichol 2021, table 12: their recipes are these networks, each weight with a name of its own."""
    network = load(f"imagenet{size}-classifier").network
    arguments = {key: value for key, value in network.items() if key != "name"}
    with torch.device("meta"):
        made = NoisyClassifier(3, 1000, (size, size), **arguments)
    assert round(sum(p.numel() for p in made.parameters()) / 1e6) == millions
    levels = tuple(size // 2**i in (32, 16, 8) for i in range(len(multipliers)))
    theirs = Classifier(64, multipliers, blocks, levels, 3, 1000, updown=True, side=size).state_dict()
    names = [name for row in correspondence(made, openai.layout("legacy", "EncoderUNetModel")) for name in row.theirs]
    assert len(set(names)) == len(names) and set(names) == set(theirs)


def test_what_is_read_off_and_what_is_assumed(tmp_path: Path) -> None:
    model = Classifier(64, (1, 2), 1, (False, True), 3, 9, updown=True, side=16)
    run = import_run(put(model, tmp_path), "guided-diffusion", size=(16, 16), out=tmp_path / "run")
    read = {"base_channels": 64, "multipliers": [1, 2], "blocks": 1, "attention": [8], "entry": "adagn"}
    assumed = {"head_channels": 64, "pool_head_channels": 64, "dropout": 0.0, "norm_eps": 1e-5, "groups": 32}
    assert {**read, **assumed, "down": "biggan"}.items() <= run.recipe.network.items()
    assert run.posterior().schedule.steps == 1000 and run.recipe.schedule["name"] == "linear"
    other = import_run(
        put(model, tmp_path), "guided-diffusion", size=(16, 16), out=tmp_path / "other", overrides=["schedule=cosine"]
    )
    assert other.recipe.schedule["name"] == "cosine"


def test_it_is_trained_on(tmp_path: Path, data: Path) -> None:
    model = Classifier(outputs=4)
    run = imported(model, tmp_path, "training.batch=6", data=str(data))
    trained = train(run.path / "recipe.yaml", out=run.path, resume=True, overrides=["training.steps=1"])
    assert trained.step == 1 and trained.recipe.learner["name"] == "noisy_classifier"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"out.2.c_proj.weight": None},
            r"lacks 'out\.2\.c_proj\.weight': not the state dict of a guided-diffusion Encoder",
        ),
        ({"out.2.qkv_proj.bias": None}, r"lacks the weight 'out\.2\.qkv_proj\.bias'"),
        ({"out.2.extra": torch.zeros(1)}, r"has, and this network has not, the weight 'out\.2\.extra'"),
        ({"out.2.positional_embedding": torch.zeros(64)}, "expected 2 axes"),
        ({"out.2.positional_embedding": torch.zeros(64, 11)}, r"pools over 10 positions .* is --size right\?"),
        ({"out.2.positional_embedding": torch.zeros(64, 1)}, r"pools over 0 positions .* is --size right\?"),
        ({"out.2.positional_embedding": torch.zeros(60, 17)}, r"has shape \[60, 17\], this network's \[64, 17\]"),
        ({"input_blocks.9.0.op.weight": torch.zeros(1)}, r"after 5 input_blocks"),
        ({"input_blocks.3.0.in_layers.2.weight": None}, r"lacks 'input_blocks\.3\.0\.in_layers\.2\.weight'"),
        # Of another pooling: the mean over positions, and a linear layer.
        ({"out.2.positional_embedding": None}, r"not the state dict of .*EncoderUNetModel with attention pooling"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = Classifier(updown=True, outputs=5)
    with pytest.raises(InputError, match=message) as caught:
        imported(model, tmp_path, path=put(model, tmp_path, **change))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_other_sizes_formats_and_settings_are_refused(tmp_path: Path) -> None:
    model = Classifier(updown=True, outputs=5)
    with pytest.raises(InputError, match=r"pools over 16 positions after 4 input_blocks, which images of 20×20"):
        imported(model, tmp_path, size=(20, 20))
    with pytest.raises(InputError, match="lacks 'output_blocks"):
        import_run(put(model, tmp_path), "improved-diffusion", size=(8, 8), out=tmp_path / "run")
    with pytest.raises(InputError, match="this run has network noisy_classifier, learner noisy_classifier"):
        imported(model, tmp_path, "learner.name=classifier")
    run = imported(model, tmp_path)
    with pytest.raises(InputError, match="only a denoising run is exported"):
        export_run(run.path, out=tmp_path / "folder")
