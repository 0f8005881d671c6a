"""Training a network that grows: over all its stages, across their borders, half-grown."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.training.conftest import Pixels
from trilemma.jobs import train
from trilemma.networks import Growing
from trilemma.objectives import OBJECTIVES
from trilemma.process import SCHEDULES, TIME_SAMPLERS, Denoiser
from trilemma.runs import Run
from trilemma.training import Batches, DenoisingLearner, Trainer
from trilemma.training.checkpoint import latest, read_tensors

NETWORK: dict[str, Any] = {
    **{"base_channels": 8, "multipliers": [1, 1, 1], "blocks": 1, "attention": [], "middle_attention": False},
    "dropout": 0.1,
}
MakeTrainer = Callable[..., tuple[Trainer, Batches]]


def build_learner(stage_steps: int = 4, parameterization: str = "epsilon") -> DenoisingLearner:
    """Resolutions 2, 4 and 8."""
    torch.manual_seed(0)
    network = Growing(1, 1, (8, 8), start=2, stage_steps=stage_steps, **NETWORK)
    denoiser = Denoiser(network, SCHEDULES["cosine"](steps=20), parameterization, "fixed_small")
    return DenoisingLearner(denoiser, OBJECTIVES["simple"](), TIME_SAMPLERS["uniform"](denoiser.schedule))


def test_the_loss_falls_over_all_stages(make_trainer: MakeTrainer) -> None:
    learner = build_learner(stage_steps=30)
    trainer, batches = make_trainer(learner=learner, steps=100, learning_rate=5e-3, batch=12, ema=0.9, flip=False)
    held_out = batches[1000]
    losses = [trainer.validate(held_out)["validation_loss"]]
    fades = []
    for report in trainer.run(batches):
        if report.step in (30, 60, 100):
            losses.append(trainer.validate(held_out)["validation_loss"])
            fades.append(learner.network.fade.tolist())
    assert fades == [[0, 0], [0, 1], [1, 1]]
    # A network that says nothing has a loss of 1, the noise's; each stage ends well below the one before it.
    assert losses[0] > 0.9
    assert losses[1] < 0.7 * losses[0] and losses[2] < losses[1] and losses[3] < 0.85 * losses[1]


def test_a_run_resumed_across_a_border_is_an_unbroken_one(make_trainer: MakeTrainer) -> None:
    """Stages begin at steps 4 and 8; broken off after step 7, with a checkpoint after step 3, and again after 9."""
    settings = {"steps": 12, "checkpoint_every": 3}
    whole, batches = make_trainer("whole", build_learner(), **settings)
    list(whole.run(batches))
    first, batches = make_trainer("broken", build_learner(), **settings)
    list(islice(first.run(batches), 5))
    second, batches = make_trainer("broken", build_learner(), **settings)
    second.resume()
    assert second.step == 3
    list(islice(second.run(batches), 7))
    third, batches = make_trainer("broken", build_learner(), **settings)
    third.resume()
    assert third.step == 9
    list(third.run(batches))
    for kind in ("model", "ema", "optimizer"):
        one, other = (read_tensors(latest(t.checkpoints) / f"{kind}.safetensors") for t in (whole, third))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_levels_that_have_not_begun_are_as_they_were(make_trainer: MakeTrainer) -> None:
    """Nor has the optimiser anything on them: its moments begin when they do."""
    trainer, batches = make_trainer(learner=build_learner(), steps=4, weight_decay=0.1, optimizer="adamw")
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    list(trainer.run(batches))
    saved = latest(trainer.checkpoints)
    moments = {name.rpartition(".")[0] for name in read_tensors(saved / "optimizer.safetensors")}
    same = {name for name, value in trainer.network.named_parameters() if torch.equal(value, before[name])}
    fine = {name for name in before if name.startswith(("unet.trunk.levels.0.", "unet.trunk.stem.", "unet.head."))}
    assert fine and fine <= same and not fine & moments
    assert same == before.keys() - moments
    for kind in ("model", "ema"):
        assert read_tensors(saved / f"{kind}.safetensors")["fade"].tolist() == [0, 0]


def test_the_average_begins_anew_with_a_level(make_trainer: MakeTrainer) -> None:
    """With the decay of a long run it would hold the new level as it was initialised, and let it speak."""
    learner = build_learner(stage_steps=20)
    trainer, batches = make_trainer(learner=learner, steps=60, learning_rate=5e-3, batch=12, ema=0.9999)
    assert trainer.ema is not None
    trainer.ema.updates = 100_000
    updates = [trainer.ema.updates for _ in trainer.run(batches)]
    assert updates == [*range(100_001, 100_021), *range(1, 21), *range(1, 21)]
    averaged = trainer.validate(batches[1000])["validation_loss"]
    trainer.ema = None
    assert averaged < 1.2 * trainer.validate(batches[1000])["validation_loss"]


def test_only_training_grows(make_trainer: MakeTrainer) -> None:
    """Losses that are asked for otherwise, and validation, are those of the network as it stands."""
    learner = build_learner()
    trainer, batches = make_trainer(learner=learner, steps=6)
    list(trainer.run(batches))
    grown = learner.network.fade.tolist()
    assert grown == [0, 0.5]  # of step 5, the sixth
    learner.losses(batches[0])
    trainer.validate(batches[0])
    assert learner.network.fade.tolist() == grown


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    np.savez(tmp_path / "ramps.npz", arr_0=Pixels(24).batch(range(24))[0])
    values = {
        "learner": {"name": "denoising", "objective": "simple", "variance": "fixed_small"},
        "schedule": {"name": "cosine", "steps": 8},
        "network": {"name": "growing", "start": 2, "stage_steps": 2, **NETWORK, "dropout": 0.0},
        "data": {"name": str(tmp_path / "ramps.npz")},
        "training": {"steps": 6, "batch": 6, "log_every": 1, "warmup": 0, "ema": 0.9, "micro_batch": 2}
        | {"grid_every": 0, "learning_rate": 3e-4},
        "sampling": {"sampler": "ancestral", "batch": 4},
    }
    path = tmp_path / "growing.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_half_grown_run_samples_at_full_size(recipe: Path, tmp_path: Path) -> None:
    run = train(recipe, out=tmp_path / "half", overrides=["training.steps=3"])
    assert Run(run.path).denoiser("ema").network.fade.tolist() == [0, 0]
    first, again = (Run(run.path).sample(3).images for _ in range(2))
    assert first.shape == (3, 8, 8, 1)
    assert np.array_equal(first, again) and not np.array_equal(first[0], first[1])
