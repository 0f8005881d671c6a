"""What an upsampler is trained on: low images that are the training images' own, told to the network every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.conftest import Pixels, to_floats
from trilemma.data import open_data
from trilemma.errors import InputError
from trilemma.jobs import train
from trilemma.objectives import OBJECTIVES
from trilemma.process import SCHEDULES, TIME_SAMPLERS, Denoiser, Draw, perturb, reduced, to_model, to_uint8
from trilemma.training import Batch, Batches, DenoisingLearner, Pairs, check_pairs


class Listening(nn.Module):
    """Notes what it is told; says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[dict[str, Tensor]] = []
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, t: Tensor, label: Any = None, low: Any = None, low_time: Any = None) -> Tensor:
        self.heard.append({"x": x, "label": label, "low": low, "low_time": low_time})
        return x * self.weight


def learner(pairs: Pairs, schedule: str = "cosine", low_high: tuple[float, float] = (-1.0, 1.0)) -> DenoisingLearner:
    made = SCHEDULES[schedule](steps=20) if schedule == "cosine" else SCHEDULES[schedule]()
    denoiser = Denoiser(Listening(), made, "v", "fixed_small", low_high)
    return DenoisingLearner(denoiser, OBJECTIVES["simple"](), TIME_SAMPLERS["uniform"](made), pairs=pairs)


@pytest.fixture
def batch() -> Batch:
    return Batches(Pixels(), to_floats, batch=12, seed=0)[3]


class TestReduced:
    @pytest.mark.parametrize("low_high", [(-1.0, 1.0), (0.0, 1.0), (-3.0, 7.0)])
    @pytest.mark.parametrize(("size", "by"), [((4, 8), (2, 1)), ((2, 4), (4, 2)), ((1, 1), (8, 8))])
    def test_is_the_mean_of_each_area(self, size: Any, by: Any, low_high: tuple[float, float]) -> None:
        images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
        mean = images.reshape(5, size[0], by[0], size[1], by[1], 3).mean((2, 4))
        found = to_uint8(reduced(to_model(images, low_high), size, low_high), low_high)
        assert np.array_equal(found, np.round(mean).astype(np.uint8))

    def test_is_what_a_base_is_trained_on(self) -> None:
        """`data.resize: area` and the low images are the same to the grey level, so that nothing but the base model's
        errors comes between the stages."""
        for size in (14, 9):
            small, _ = open_data("mnist5k", size=size, resize="area").batch(range(60))
            whole, _ = open_data("mnist5k").batch(range(60))
            assert np.array_equal(to_uint8(reduced(to_model(whole), (size, size))), small)
        assert not np.array_equal(open_data("mnist5k", size=9).batch(range(60))[0], small)

    def test_of_a_folder(self, tmp_path: Path) -> None:
        """Images of several sizes, cropped to the proportions first."""
        from PIL import Image

        rng = np.random.default_rng(0)
        for i, shape in enumerate(((8, 8, 3), (8, 12, 3))):
            Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(tmp_path / f"{i}.png")
        found, _ = open_data(str(tmp_path), size=4, resize="area").batch([0, 1])
        for i, columns in enumerate((slice(0, 8), slice(2, 10))):
            whole = np.asarray(Image.open(tmp_path / f"{i}.png"))[:, columns]
            assert np.array_equal(found[i], np.round(whole.reshape(4, 2, 4, 2, 3).mean((1, 3))))


class TestPairs:
    def test_reach_the_network_in_training_and_validation(self, batch: Batch) -> None:
        made = learner(Pairs((4, 2)))
        made.losses(batch)
        made.validate(batch)
        assert len(made.network.heard) == 2
        for heard in made.network.heard:
            assert torch.equal(heard["low"], reduced(batch.images, (4, 2)))
            assert torch.equal(heard["label"], batch.labels)
            assert heard["low_time"].tolist() == [-1.0] * 12  # s = 0, as Ho et al.'s networks are told times

    def test_are_noised_to_the_time_that_the_network_is_told(self, batch: Batch) -> None:
        """z_s = α(s) z + σ(s) ε with ε standard normal, s whole and up to the bound, every one of them."""
        made = learner(Pairs((4, 4), 6))
        schedule = made.denoiser.schedule
        seen, noises = set(), []
        for step in range(20):
            some = replace(batch, keys=[(0, "train", step, j) for j in range(12)])
            made.losses(some)
            heard = made.network.heard[-1]
            s = heard["low_time"].double() + 1
            seen |= set(s.tolist())
            z = reduced(batch.images, (4, 4))
            zero = perturb(schedule, z, s, torch.zeros_like(z))
            assert torch.equal(heard["low"][s == 0], z[s == 0])
            sigma = schedule.sigma(s)[:, None, None, None]
            noises.append(((heard["low"] - zero) / sigma)[s > 0].double())
        assert seen == set(range(7))
        each = torch.cat(noises).flatten()
        assert abs(float(each.mean())) < 4 / len(each) ** 0.5 and abs(float(each.std()) - 1) < 0.05

    def test_times_of_a_continuous_schedule_are_no_whole_numbers(self, batch: Batch) -> None:
        made = learner(Pairs((4, 4), 0.3), "vp")
        made.losses(batch)
        told = made.network.heard[0]["low_time"]
        assert 0 < float(told.min()) < float(told.max()) < 300  # of 1 000

    def test_are_the_images_own_whatever_the_batch(self, batch: Batch) -> None:
        whole, halves = learner(Pairs((4, 4), 6)), learner(Pairs((4, 4), 6))
        whole.validate(batch)
        for part in batch.split(5):
            halves.validate(part)
        joined = torch.cat([heard["low"] for heard in halves.network.heard])
        torch.testing.assert_close(joined, whole.network.heard[0]["low"])
        whole.validate(batch)
        assert torch.equal(whole.network.heard[1]["low"], whole.network.heard[0]["low"])

    def test_are_noised_to_whole_times_of_a_table_up_to_the_bound(self, batch: Batch) -> None:
        made = learner(Pairs((4, 4), 2.5))
        made.losses(batch)
        told = made.network.heard[0]["low_time"]
        assert set(told.tolist()) == {-1.0, 0.0, 1.0}

    def test_leave_times_and_noise_as_they_were(self, batch: Batch) -> None:
        plain, noised = learner(Pairs((4, 4))), learner(Pairs((4, 4), 6))
        assert torch.equal(plain.losses(batch).times, noised.losses(batch).times)
        assert torch.equal(plain.network.heard[0]["x"], noised.network.heard[0]["x"])


UPSAMPLER: dict[str, Any] = {"network": {"upsampler": True}}


class TestRecipe:
    @pytest.mark.parametrize("conditional", [False, True])
    def test_trains(self, conditional: bool, write_recipe: Callable[..., Path], tmp_path: Path) -> None:
        learner = {"low": [4, 3], "low_noise": 3.0, "conditional": conditional}
        path = write_recipe(learner=learner, network={"upsampler": True, "low_time": True}, training={"grid_every": 3})
        run = train(path, out=tmp_path / "run")
        assert run.pairs == Pairs((4, 3), 3.0)
        assert (run.path / "samples" / "grid-00000003.png").exists()

    def test_a_side_is_a_square(self) -> None:
        assert Pairs.of(4) == Pairs.of([4, 4]) == Pairs((4, 4)) and Pairs.of(None) is None

    @pytest.mark.parametrize(
        ("sections", "message"),
        [
            (UPSAMPLER, "network.upsampler true: learner.low is missing"),
            (
                {"learner": {"low": 4}},
                r"learner.low \[4, 4\]: the network takes no low image, expected network",
            ),
            ({"learner": {"low": 8}, **UPSAMPLER}, r"learner.low \[8, 8\]: expected less than the images' \[8, 8\]"),
            ({"learner": {"low": [9, 4]}, **UPSAMPLER}, r"learner.low \[9, 4\]: expected less than"),
            ({"learner": {"low_noise": 2}, **UPSAMPLER}, "learner.low_noise 2: of an upsampler's low image; expected"),
            (
                {"learner": {"low": 4, "low_noise": 2}, **UPSAMPLER},
                "learner.low_noise 2: .* expected network.low_time",
            ),
            (
                {"learner": {"low": 4, "low_noise": 9}, "network": {"upsampler": True, "low_time": True}},
                "learner.low_noise 9: expected a time of the schedule, 0 to 8",
            ),
            ({"learner": {"low": 0}, **UPSAMPLER}, r"learner\.low"),
            ({"network": {"low_time": True}}, "network.low_time: only an upsampler's low image has one"),
            ({"learner": {"low": 4}, "evaluate": {"every": 2}, **UPSAMPLER}, "evaluate.every: an upsampler's images"),
        ],
    )
    def test_what_does_not_go_together_is_refused(
        self, sections: dict[str, Any], message: str, write_recipe: Callable[..., Path], tmp_path: Path
    ) -> None:
        evaluate = sections.get("evaluate", {})
        path = write_recipe(**{key: value for key, value in sections.items() if key != "evaluate"})
        overrides = [f"evaluate.{key}={value}" for key, value in evaluate.items()]
        with pytest.raises((InputError, ValueError), match=message) as caught:
            train(path, out=tmp_path / "run", overrides=overrides)
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_pairs_are_checked_for_any_network() -> None:
    denoiser = Denoiser(Listening(), SCHEDULES["cosine"](steps=20), "v")
    check_pairs(denoiser, Pairs((4, 4), 20), (8, 8))
    check_pairs(denoiser, None, (8, 8))


def test_the_draw_of_the_low_image_is_its_own() -> None:
    """Keyed apart from the images': with the same noise on both, the network could read the one off the other."""
    made = learner(Pairs((8, 4), 20))
    images = torch.zeros(64, 1, 8, 8)
    batch = Batch(images, torch.zeros(64, dtype=torch.int64), [(0, "train", 0, j) for j in range(64)])
    made.losses(batch)
    heard = made.network.heard[0]
    one, other = heard["x"][:, :, :, :4].flatten(1), heard["low"].flatten(1)
    moving = heard["low_time"] >= 0
    together = torch.nn.functional.cosine_similarity(one[moving], other[moving])
    assert float(together.abs().mean()) < 0.3
    assert Draw([(0, "a")]).uniform() != Draw([(0, "a", "low")]).uniform()
