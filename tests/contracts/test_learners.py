"""What every registered learner keeps to, on four classes of tiny images."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import recipe_values
from tests.generators import SECTIONS
from trilemma.data import open_data
from trilemma.errors import InputError
from trilemma.machine.devices import accelerator
from trilemma.process import to_model
from trilemma.recipes import CompletedRecipe, parse
from trilemma.registry import registry
from trilemma.runs.build import build_learner, build_network, completed
from trilemma.training import Batches, Learner, LearnerSettings, Trainer, checkpoint

LEARNERS = sorted(registry("learner"))
NETWORKS = {
    "classifier": {"name": "classifier", "widths": [[4], [8]]},
    "noisy_classifier": {
        **{"name": "noisy_classifier", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": []},
        **{"middle_attention": False, "dropout": 0.1, "pool_head_channels": 8},
    },
    "autoencoder": SECTIONS["autoencoder"]["network"],
}
"""Where a learner takes another network than the tiny U-Net."""


def recipe_of(learner: str, data: Path, **training: Any) -> CompletedRecipe:
    values = {**recipe_values(data), "name": "tiny", "learner": {"name": learner}}
    values["network"] = NETWORKS.get(learner, values["network"])
    values |= SECTIONS.get(learner, {})
    values["training"] = {"steps": 6, "batch": 6, "learning_rate": 1e-3, "ema": 0.9, "checkpoint_every": 3, **training}
    return completed(parse(values), open_data(str(data)))


def learner_of(recipe: CompletedRecipe) -> Learner:
    torch.manual_seed(0)
    return build_learner(recipe)


def trainer_of(recipe: CompletedRecipe, folder: Path) -> tuple[Trainer, Batches]:
    batches = Batches(open_data(recipe.data.name), to_model, batch=recipe.training.batch, seed=0)
    return Trainer(learner_of(recipe), recipe.training, accelerator("fp32"), folder), batches


def saved(folder: Path) -> dict[str, Tensor]:
    place = checkpoint.latest(folder / "checkpoints")
    return {f"{f.stem}/{k}": v for f in place.glob("*.safetensors") for k, v in checkpoint.read_tensors(f).items()}


@pytest.mark.parametrize("name", LEARNERS)
class TestLearner:
    def test_trains_and_resumes_bit_for_bit(self, name: str, data: Path, tmp_path: Path) -> None:
        recipe = recipe_of(name, data, micro_batch=4)
        whole, batches = trainer_of(recipe, tmp_path / "whole")
        before = {key: value.clone() for key, value in whole.network.state_dict().items()}
        assert all(report.outcome is not None for report in whole.run(batches))
        assert any(not torch.equal(value, before[key]) for key, value in whole.network.state_dict().items())
        first, batches = trainer_of(recipe, tmp_path / "halves")
        list(islice(first.run(batches), 4))
        second, batches = trainer_of(recipe, tmp_path / "halves")
        second.resume()
        assert second.step == 3
        list(second.run(batches))
        one, other = saved(tmp_path / "whole"), saved(tmp_path / "halves")
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)

    def test_validates_alike_whatever_the_batch(self, name: str, data: Path, tmp_path: Path) -> None:
        figures = []
        for size in (None, 1, 4):
            trainer, batches = trainer_of(recipe_of(name, data, micro_batch=size), tmp_path)
            figures += [trainer.validate(batches[7]), trainer.validate(batches[7])]
        assert figures[0] and figures[0] == figures[1]
        assert all(other == pytest.approx(figures[0], rel=1e-5) for other in figures[2:])

    def test_holds_every_parameter_in_one_optimiser_at_most(self, name: str, data: Path) -> None:
        recipe = recipe_of(name, data)
        learner = learner_of(recipe)
        optimizers = learner.optimizers(recipe.training).values()
        held = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        assert held and len(set(held)) == len(held) and set(held) <= set(learner.network.parameters())
        assert set(learner.averaged.parameters()) <= set(learner.network.parameters())

    def test_builds_the_network_that_it_trains(self, name: str, data: Path) -> None:
        recipe = recipe_of(name, data)
        alone, trained = build_network(recipe).state_dict(), learner_of(recipe).network.state_dict()
        assert {key: value.shape for key, value in alone.items()} == {k: v.shape for k, v in trained.items()}

    def test_is_a_section_that_says_what_it_needs(self, name: str, data: Path) -> None:
        settings = registry("learner")[name]
        assert issubclass(settings, LearnerSettings) and settings.__doc__
        values = {**recipe_values(data), "name": "tiny", "learner": name, "schedule": None}
        values["network"] = NETWORKS.get(name, values["network"])
        if settings.timed:
            with pytest.raises(InputError, match="schedule is missing"):
                parse(values)
        else:
            assert parse(values).learner["name"] == name
        with pytest.raises(InputError, match=r"key in learner 'no_such_key'"):
            parse({**values, "learner": {"name": name, "no_such_key": 1}})
