"""`classifier:RUN`: the features of a classifier that a run has trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from trilemma.errors import InputError
from trilemma.evaluations.evaluating import evaluate
from trilemma.evaluations.reference import extractor_of
from trilemma.jobs import train
from trilemma.process import to_model
from trilemma.runs import Run

Write = Callable[..., Path]


@pytest.fixture
def trained(write_recipe: Write, tmp_path: Path) -> Callable[..., Path]:
    """A tiny classifier's run."""

    def make(name: str = "looker", bounds: tuple[float, float] = (-1.0, 1.0), ema: float = 0.9) -> Path:
        recipe = write_recipe(name, data={"range": list(bounds)}, training={"ema": ema, "steps": 4})
        text = recipe.read_text()
        values: dict[str, Any] = yaml.safe_load(text)
        values |= {"learner": {"name": "classifier"}, "network": {"name": "classifier", "widths": [[4], [8]]}}
        del values["schedule"], values["sampling"]
        recipe.write_text(yaml.safe_dump(values))
        return train(recipe, out=tmp_path / f"{name}-run").path

    return make


def images(n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize(("bounds", "ema", "file"), [((-1, 1), 0.9, "ema"), ((0, 1), 0.0, "model")])
def test_features_are_the_trained_networks(trained: Callable[..., Path], bounds: Any, ema: float, file: str) -> None:
    place = trained(bounds=bounds, ema=ema)
    extractor = extractor_of(f"classifier:{place}")
    run = Run(place)
    network = run.classifier("ema" if ema else "raw").cpu()
    x = to_model(images(), bounds)
    found = extractor(images())
    with torch.no_grad():
        np.testing.assert_allclose(found.pooled, network.features(x), atol=1e-5)
        np.testing.assert_allclose(found.logits, network(x), atol=1e-5)
    sha256 = hashlib.sha256((run.checkpoint / f"{file}.safetensors").read_bytes()).hexdigest()
    assert extractor.record() == {"name": "classifier:looker", "sha256": sha256, "dim": 8, "resize": "none"}
    assert extractor.classes == tuple(run.recipe.images.classes)


def test_other_images_are_refused(trained: Callable[..., Path]) -> None:
    extractor = extractor_of(f"classifier:{trained()}")
    with pytest.raises(InputError, match=r"features 'classifier:looker': images are 3x8x8 .*expected 1x8x8"):
        extractor(images().repeat(3, axis=3))


def test_a_run_is_evaluated_by_another_runs_classifier(trained: Callable[..., Path], run: Run, tmp_path: Path) -> None:
    name = f"classifier:{trained()}"
    found = evaluate(run, n=8, features=name, out=tmp_path / "evaluation.json", steps=2)
    assert found.content()["features"] == json.loads(json.dumps(extractor_of(name).record()))
    assert found.metrics["frechet_distance"] >= 0
    assert 0 <= found.metrics["recognised"] <= 1


def test_runs_without_a_classifier_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trains a denoising model, not a classifier"):
        extractor_of(f"classifier:{run.path}")
    with pytest.raises(InputError, match="is not a run directory"):
        extractor_of(f"classifier:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="classifier:RUN"):
        extractor_of("classifier:")
