"""Estimates: what is measured is what training does, what it adds up to, and what is warned of."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.jobs.conftest import recipe as values_of
from trilemma.data import ImageSet, outline
from trilemma.errors import InputError
from trilemma.jobs import dry_run, rehearsal, train
from trilemma.jobs.estimating import Estimate, Occasion, estimate, seconds_per_step
from trilemma.jobs.foresight import CAPACITY, OFTEN, warnings
from trilemma.machine import devices
from trilemma.metrics.speed import RESIDENT
from trilemma.recipes import CompletedRecipe, load
from trilemma.runs.build import completed, open_images
from trilemma.training import Batches, DenoisingLearner, GANLearner, Outcome, Trainer
from trilemma.training.ema import EMA

Write = Callable[..., Path]


def opened(recipe: Path | str | dict[str, Any], *overrides: str) -> tuple[CompletedRecipe, ImageSet]:
    chosen = load(recipe, overrides)
    data = open_images(chosen)
    return completed(chosen, data), data


class Clock:
    """Seconds that pass only when `passes` says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A step takes 0.1 s an image and 0.5 s besides."""
    clock, step = Clock(), DenoisingLearner.step

    def slow(self: DenoisingLearner, batch: Any, loop: Any) -> Outcome:
        clock.now += 0.5 + 0.1 * len(batch)
        return step(self, batch, loop)

    monkeypatch.setattr(DenoisingLearner, "step", slow)
    return clock


class TestWiring:
    def test_steps_are_those_of_the_recipe(self, write_recipe: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        parts: list[tuple[int, bool]] = []
        losses, averages, update = DenoisingLearner.losses, [], EMA.update

        def seen(self: DenoisingLearner, batch: Any) -> Outcome:
            parts.append((len(batch), torch.is_autocast_enabled("cpu")))
            return losses(self, batch)

        monkeypatch.setattr(DenoisingLearner, "losses", seen)
        monkeypatch.setattr(EMA, "update", lambda self: (averages.append(1), update(self)))
        recipe = write_recipe(training={"batch": 6, "micro_batch": 4, "precision": "bf16"})
        assert seconds_per_step(*opened(recipe)) > 0
        assert parts[-2:] == [(4, True), (2, True)] and averages
        averages.clear()
        seconds_per_step(*opened(recipe, "training.ema=0", "training.precision=fp32"))
        assert parts[-2:] == [(4, False), (2, False)] and not averages

    def test_what_is_not_in_memory_is_loaded_by_the_recipe_s_workers(
        self, write_recipe: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, loader = [], Batches.loader

        def noted(self: Batches, start: int, steps: int, workers: int) -> Any:
            asked.append((self.batch, self.flip, workers))
            return loader(self, start, steps, 0)

        monkeypatch.setattr(Batches, "loader", noted)
        seconds_per_step(*opened(write_recipe(), "training.workers=3"))
        assert asked[-1] == (6, True, 3)

    def test_other_processes_share_the_batch(self, write_recipe: Write) -> None:
        recipe, data = opened(write_recipe())
        alone = devices.accelerator("fp32")
        two = SimpleNamespace(num_processes=2, process_index=1, device=torch.device("cpu"))
        training = rehearsal.Rehearsal(recipe, data, alone, Clock())
        training.process = two  # type: ignore[assignment]
        assert [training._at_once(images) for images in (2, 6)] == [1, 3]

    def test_leaves_nothing_behind(self, write_recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        recipe, data = opened(write_recipe(training={"grid_every": 3}))
        files = sorted(tmp_path.rglob("*"))
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        estimate(recipe, data)
        assert sorted(tmp_path.rglob("*")) == files
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]

    def test_a_training_that_is_told_to_stop_ends(self, write_recipe: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        import signal

        monkeypatch.setattr(Trainer, "_agree_to_stop", lambda self: False)
        step = Trainer._step

        def stopped(self: Trainer, batch: Any) -> Any:
            self.stopped = signal.SIGTERM
            return step(self, batch)

        monkeypatch.setattr(Trainer, "_step", stopped)
        with pytest.raises(SystemExit) as end:
            seconds_per_step(*opened(write_recipe()))
        assert end.value.code == 128 + signal.SIGTERM


class TestSteps:
    def test_a_step_takes_what_it_takes(self, write_recipe: Write, clock: Clock) -> None:
        found = estimate(*opened(write_recipe(training={"steps": 6, "validate_every": 0})), clock=clock)
        assert found.seconds_per_step == pytest.approx(0.5 + 0.1 * 6) and found.timed == 6
        first = 0.5 + 0.1 * 2  # of the two images that it began with
        assert found.once == {"building and first steps": pytest.approx(first)} and not found.occasions
        assert found.seconds == pytest.approx(6 * 1.1 + first)

    def test_what_takes_minutes_is_timed_on_fewer_images(
        self, write_recipe: Write, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rehearsal, "LIMIT", 1.7)
        found = estimate(*opened(write_recipe(training={"batch": 24, "validate_every": 0})), clock=clock)
        assert found.timed == 12 and found.seconds_per_step == pytest.approx(0.5 + 0.1 * 24)

    def test_what_may_not_fit_is_timed_on_fewer_images(
        self, write_recipe: Write, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        most, step = [0], DenoisingLearner.losses

        def taking(self: DenoisingLearner, batch: Any) -> Outcome:
            most[0] = max(most[0], len(batch))
            return step(self, batch)

        monkeypatch.setattr(DenoisingLearner, "losses", taking)
        monkeypatch.setattr(rehearsal, "peak_memory", lambda: lambda: (1000 + 100 * most[0], RESIDENT))
        monkeypatch.setattr(rehearsal, "free_memory", lambda device: 500)
        found = estimate(*opened(write_recipe(training={"batch": 24, "validate_every": 0})), clock=clock)
        assert found.timed == 8 and most == [8]  # four, and 0.8 × 500 / 100 more
        assert found.peak_memory == 1000 + 100 * 24
        most[0] = 0
        recipe = write_recipe(training={"batch": 24, "micro_batch": 8, "validate_every": 0})
        found = estimate(*opened(recipe), clock=clock)
        assert found.timed == 24 and found.peak_memory == 1000 + 100 * 8

    def test_kinds_of_steps_count_as_often_as_they_come(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock()
        monkeypatch.setattr(GANLearner, "discriminator_losses", _costing(clock, 0.1, GANLearner.discriminator_losses))
        monkeypatch.setattr(GANLearner, "generator_losses", _costing(clock, 1.0, GANLearner.generator_losses))
        values = values_of(data, learner={}, training={"steps": 10, "batch": 6})
        values["learner"] = {"name": "gan", "discriminator": {"name": "sngan_discriminator", "channels": 8, "downs": 1}}
        values |= {"name": "gan"}
        values["network"] = {"name": "sngan", "latent": 4, "channels": 8, "ups": 1}
        values.pop("schedule")
        found = estimate(*opened(values), clock=clock)
        assert found.seconds_per_step == pytest.approx(0.1 + 1.0 / 5)


def _costing(clock: Clock, seconds: float, losses: Any) -> Any:
    def run(self: Any, batch: Any, **options: Any) -> Outcome:
        clock.now += seconds
        return losses(self, batch, **options)

    return run


class TestTotals:
    def test_occasions_are_as_many_as_training_has(self, write_recipe: Write, tmp_path: Path) -> None:
        every = {"validate_every": 3, "grid_every": 2, "checkpoint_every": 3, "log_every": 4, "keep": 5}
        recipe = write_recipe(training={"steps": 7, **every})
        found = estimate(*opened(recipe))
        run = train(recipe, out=tmp_path / "run")
        lines = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
        assert {name: one.times for name, one in found.occasions.items()} == {
            "validation": sum("lr" not in line for line in lines),
            "grids": len(list((run.path / "samples").glob("grid-*.png"))),
            "checkpoints": 3,
        }
        kept = [folder for folder in (run.path / "checkpoints").glob("step-*") if folder.is_dir()]
        written = sum(file.stat().st_size for folder in kept for file in folder.glob("*.safetensors"))
        # One more than are kept while it is written; a file's header lists its tensors.
        assert len(kept) == 3 and found.disk["checkpoints"] / 4 == pytest.approx(written / 3, rel=0.2)
        assert found.parameters == found.sampled_parameters == run.parameters

    def test_a_codec_that_is_still_to_be_trained_is_left_out(self, data: Path) -> None:
        values = values_of(data, learner={"variance": "fixed_small", "objective": "simple"}) | {"codec": "digits-codec"}
        values |= {"name": "latent", "network": values["network"] | {"multipliers": [1]}}
        found = estimate(*opened(values))
        assert found.timed == 12 and found.seconds_per_step > 0
        assert any("digits-codec" in words for words in found.left_out) and "validation" not in found.occasions

    def test_the_total_and_the_passes(self) -> None:
        found = replace(ESTIMATE, once={"a": 1.0, "b": 2.0}, occasions={"c": Occasion(3, 10.0), "d": Occasion(1, 4.0)})
        assert found.seconds == 3 + 1000 * 0.5 + 34 and found.passes == 1000 * 64 / 10_000


ESTIMATE = Estimate(
    steps=1000,
    batch=64,
    images=10_000,
    parameters=1_000_000,
    sampled_parameters=1_000_000,
    seconds_per_step=0.5,
    timed=64,
    once={},
    occasions={},
    peak_memory=2**30,
    memory_kind=RESIDENT,
    held=2**28,
    memory=2**31,
    disk={"checkpoints": 2**20},
    free=2**30,
)


class TestWarnings:
    def test_nothing_is_said_of_what_is_in_order(self) -> None:
        assert warnings(ESTIMATE) == []

    @pytest.mark.parametrize(
        ("changes", "just_not", "says"),
        [
            ({"peak_memory": 2**31}, {"peak_memory": 2**31 - 2**28}, r"memory: 2\.2 GiB .* 2\.0 GiB.*micro_batch"),
            ({"free": 2**20 - 1}, {"free": 2**20}, r"disk: 1 MiB are needed, and 1 MiB are free"),
            ({"seconds_per_step": 86.5}, {"seconds_per_step": 86.4}, r"time: 1\.0 days"),
            (
                {"images": 999, "steps": 1562},
                {"images": 1000, "steps": 1562},
                r"few images for the network: 1,001 parameters for each of the 999, which are seen 100 times",
            ),
            ({"images": 64_001}, {"images": 64_000}, r"few steps for the data: 0% of the 64,001"),
            ({"steps": 449, "images": 900}, {"steps": 450, "images": 900}, r"few steps: 28,736 images .* 57,600"),
        ],
    )
    def test_limits(self, changes: dict[str, Any], just_not: dict[str, Any], says: str) -> None:
        (said,) = warnings(replace(ESTIMATE, **changes))
        assert re.match(says, said), said
        assert warnings(replace(ESTIMATE, **just_not)) == []

    def test_only_generators_memorise_and_learn_slowly(self) -> None:
        small = replace(ESTIMATE, sampled_parameters=0, images=100)
        assert small.passes > OFTEN and small.parameters / 100 > CAPACITY and warnings(small) == []
        assert warnings(replace(ESTIMATE, peak_memory=None)) == []


class TestDryRun:
    def test_says_what_it_would_do(self, write_recipe: Write, tmp_path: Path) -> None:
        text = dry_run(write_recipe(), ["training.steps=8", "training.grid_every=8"])
        (tmp_path / "resolved.yaml").write_text(text)
        resolved = load(tmp_path / "resolved.yaml")
        assert resolved.training.steps == 8 and resolved.images is not None
        assert "# steps: 8 of 6 images: 2.0 passes over 24\n" in text
        for line in (
            r"parameters: [\d,]+ \([\d.]+ Mi\)", r"time: \d+ seconds in all, on ", r"a step: [\d.e-]+ s, measured",
            r"validation: 3, ", r"grids: 1, ", r"checkpoints: 4, ", r"memory: .* of [\d.,]+ GiB", r"disk: .* free",
            r"warning: few steps: 48 images",
        ):  # fmt: skip
            assert re.search(f"^# {line}", text, re.MULTILINE), line
        assert "compiling" not in text

    def test_compiling_is_not_counted_and_that_is_said(self, write_recipe: Write) -> None:
        assert "# not counted: compiling, and what it gains" in dry_run(write_recipe(), ["training.compile=true"])

    def test_what_training_refuses_is_not_estimated(self, write_recipe: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(InputError, match=r"training\.batch 2000 is more than the 24 images"):
            dry_run(write_recipe(), ["training.batch=2000"])
        monkeypatch.setattr(devices, "memory", lambda: 2**16)
        text = dry_run(write_recipe())
        assert "# refused here: training.batch 6: takes" in text and "# time" not in text

    def test_a_source_s_figures_stand_only_where_they_apply(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from trilemma.jobs.dry_run import _source

        asked = load("ddpm-cifar10")

        def said(*overrides: str) -> str:
            recipe = completed(load("ddpm-cifar10", overrides), outline("cifar10"))
            return "\n".join(_source(recipe, asked))

        assert "34.21 Mi parameters, 20.66 hours" in said() and "FID 4.93 over 50,000 samples" in said()
        shorter = said("training.steps=6000")
        assert "34.21 Mi" in shorter and "FID" not in shorter and "150,000 steps of 128 images of cifar10" in shorter
        assert said("network.base_channels=64") == "" and said("learner.parameterization=v") == ""


def test_bad_data_is_an_input_error(write_recipe: Write) -> None:
    with pytest.raises(InputError, match=r"training\.batch 25"):
        seconds_per_step(*opened(write_recipe(training={"batch": 25})))
