"""The recipe that is chosen for images: of a folder as it comes, on this machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from trilemma.errors import InputError
from trilemma.jobs import choosing
from trilemma.jobs.choosing import Pace, choose
from trilemma.recipes import Recipe, load, packaged
from trilemma.runs.build import build_learner, completed, open_images

Command = Callable[..., Any]


def folder(path: Path, count: int, size: tuple[int, int] = (48, 48), classes: int = 3, grey: bool = False) -> Path:
    """Noise in `classes` folders, or beside each other where there are none."""
    draw = np.random.default_rng(0)
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        place = path / "abcdefgh"[i % classes] if classes else path
        place.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (*size,) if grey else (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return path


def at(seconds: float, besides: float = 0.0) -> Callable[[Recipe], Pace]:
    return lambda recipe: Pace(seconds, besides)


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(folder(tmp_path_factory.mktemp("made") / "products", 30))


class TestOfAFolder:
    def test_is_a_recipe_that_says_why(self, products: str) -> None:
        choice = choose(products, pace=at(0.1))
        recipe, said = choice.recipe, dict(choice.reasons)
        assert recipe.name == "products"
        assert said["images"] == "30 RGB, 48×48, 3 classes (a, b, c)"
        assert said["size"] == "48×48: all images have it" and recipe.data.size is None
        assert recipe.data.holdout == 0.2 and recipe.data.validation_split == "test"
        trained = len(open_images(recipe))
        assert said["held out"].startswith(f"{30 - trained} of 30 by their hash") and 20 <= trained < 30
        assert recipe.learner["conditional"] and recipe.learner["label_dropout"] == 0.1
        assert said["network"].startswith("small-48, the nearest of the recipes for")
        assert recipe.training.batch == 16 and said["batch"] == f"16, as there are {trained} training images"
        assert recipe.training.steps == 1000 * trained // 16
        assert said["steps"].startswith(f"{recipe.training.steps:,}: 1,000 passes over {trained} images")
        assert load(yaml.safe_load(choice.text())) == recipe
        assert all(f"# {what}: {why}\n" in choice.text() for what, why in choice.reasons)

    def test_can_be_built_and_its_data_opened(self, products: str) -> None:
        recipe = choose(products, steps=5).recipe
        data = open_images(recipe)
        learner = build_learner(completed(recipe, data))
        assert len(data) + len(open_images(recipe, "test")) == 30 and len(data) >= 20
        assert learner.network.classes == 4  # label dropout has one for none

    @pytest.mark.parametrize(
        ("made", "chosen"),
        [
            ({"count": 20, "grey": True, "classes": 0, "size": (28, 28)}, {"network": "small-28", "channels": 1}),
            ({"count": 6, "size": (30, 42)}, {"network": "small-32", "patch": 2}),
            ({"count": 6, "size": (25, 25)}, {"network": "small-28", "patch": 1}),
            ({"count": 6, "size": (100, 150)}, {"network": "small-64", "size": (64, 96)}),
            ({"count": 3, "classes": 0, "size": (9, 9)}, {"network": "small-28", "patch": 1, "holdout": 0}),
        ],
    )
    def test_of_any_kind(self, made: dict[str, Any], chosen: dict[str, Any], tmp_path: Path) -> None:
        choice = choose(str(folder(tmp_path / "my images", **made)), steps=5)
        recipe, said = choice.recipe, dict(choice.reasons)
        assert recipe.name == "my-images"
        assert said["network"].startswith(chosen["network"])
        assert recipe.data.channels == chosen.get("channels", 3)
        assert recipe.network["patch"] == chosen.get("patch", recipe.network["patch"])
        assert recipe.data.size == chosen.get("size")
        assert recipe.data.holdout == chosen.get("holdout", 0.2)
        assert recipe.learner["conditional"] is bool(made.get("classes", 3))
        assert bool(recipe.sampling.guidance) is bool(made.get("classes", 3))
        data = open_images(recipe)
        learner = build_learner(completed(recipe, data))
        x = torch.zeros(2, *data.shape)
        assert (
            learner.network(
                x, torch.zeros(2), torch.zeros(2, dtype=torch.int64) if data.labels is not None else None
            ).shape
            == x.shape
        )

    def test_a_test_split_is_kept(self, tmp_path: Path) -> None:
        folder(tmp_path / "own" / "train", 8)
        folder(tmp_path / "own" / "test", 4)
        recipe = choose(str(tmp_path / "own"), steps=5).recipe
        assert (recipe.data.split, recipe.data.validation_split, recipe.data.holdout) == ("train", "test", 0)
        assert len(open_images(recipe)) == 8

    @pytest.mark.parametrize("count", [20, 40])
    def test_the_batch_is_no_more_than_the_images(self, tmp_path: Path, count: int) -> None:
        for seed in range(3):
            recipe = choose(str(folder(tmp_path / f"few{seed}", count, size=(9 + seed, 9), classes=0)), steps=5).recipe
            assert recipe.training.batch <= len(open_images(recipe))

    def test_copies_of_one_image_are_not_held_out(self, tmp_path: Path) -> None:
        for i in range(8):
            Image.new("RGB", (16, 16), "red").save(folder(tmp_path / "same", 0) / f"{i}.png")
        choice = choose(str(tmp_path / "same"), steps=5)
        assert choice.recipe.data.holdout == 0 and "none of 1 different images" in dict(choice.reasons)["held out"]

    def test_a_class_without_a_training_image_is_said(self, tmp_path: Path) -> None:
        choice = choose(str(folder(tmp_path / "single", 8, classes=8)), steps=5)
        there = set(open_images(choice.recipe).labels.tolist())
        lost = [name for k, name in enumerate("abcdefgh") if k not in there]
        assert lost and f"no image of {', '.join(lost)} is left" in dict(choice.reasons)["held out"]

    def test_files_beside_split_folders_are_said(self, tmp_path: Path) -> None:
        folder(tmp_path / "own" / "train", 8)
        folder(tmp_path / "own" / "test", 4)
        folder(tmp_path / "own", 1, classes=0)
        said = dict(choose(str(tmp_path / "own"), steps=5).reasons)
        assert "test, train are not taken as splits, as 0.png lies beside" in said["note"]

    def test_damaged_files_are_named(self, tmp_path: Path) -> None:
        place = folder(tmp_path / "own", 4, classes=0)
        (place / "torn.png").write_bytes(b"no image")
        with pytest.raises(InputError, match=r"1 of 5 files cannot be read, such as .*torn.png.*trilemma data check"):
            choose(str(place))


class TestAsked:
    def test_size_recipe_and_steps(self, products: str) -> None:
        recipe = choose(products, base="cifar10-adm", size=(32, 24), steps=7).recipe
        assert recipe.data.size == (32, 24) and recipe.training.steps == 7
        # Of 32, 16, 8, 4 the recipe's attention is at 16 and 8: the second and third level of four.
        assert recipe.network["attention"] == [-3, -2]
        assert recipe.source is None and recipe.schedule == load("cifar10-adm").schedule
        build_learner(completed(recipe, open_images(recipe)))

    def test_time_is_steps_at_the_measured_pace_and_all_else(self, products: str) -> None:
        seen: list[Recipe] = []

        def pace(recipe: Recipe) -> Pace:
            seen.append(recipe)
            return Pace(0.5, 10.0)

        choice = choose(products, time=60, overrides=["training.batch=4"], pace=pace)
        assert choice.recipe.training.steps == 100
        assert seen[0].training.batch == 4, "the pace is that of another recipe"
        said = "100: what 60 seconds allow at 0.5 s a step and 10 seconds for all else, measured"
        assert dict(choice.reasons)["steps"] == f"{said}; too few to learn much: 4 minutes would make 500"

    @pytest.mark.parametrize("steps", [1, 10, 900, 50_000])
    def test_what_goes_by_steps_fits_them(self, products: str, steps: int) -> None:
        settings = choose(products, steps=steps).recipe.training
        assert settings.warmup <= steps / 9 and settings.checkpoint_every <= max(1, steps / 4)
        assert settings.ema <= max(0.9, 1 - 5 / steps) and settings.log_every <= max(1, steps / 40)

    def test_what_is_asked_is_not_chosen_nor_given_another_reason(self, products: str) -> None:
        asked = ["training.steps=40", "training.ema=0.5", "network.base_channels=8", "training.precision=fp32"]
        choice = choose(products, overrides=[*asked, "data.holdout=0.5", "data.size=32", "training.batch=4"])
        recipe, said = choice.recipe, dict(choice.reasons)
        assert (recipe.training.steps, recipe.training.ema, recipe.network["base_channels"]) == (40, 0.5, 8)
        assert recipe.training.warmup <= 4 and recipe.sampling.precision == recipe.training.precision == "fp32"
        assert said["network"].startswith("small-32") and said["size"] == "32×32: as asked"
        assert (said["batch"], said["precision"], said["steps"]) == ("4, as asked", "fp32: as asked", "40: as asked")
        assert said["held out"].startswith(f"{30 - len(open_images(recipe))} of 30")

    def test_without_classes_although_there_are_some(self, products: str) -> None:
        recipe = choose(products, steps=5, overrides=["learner.conditional=false"]).recipe
        assert not recipe.learner["conditional"] and not recipe.learner["label_dropout"]
        assert not recipe.sampling.guidance

    def test_nothing_held_out(self, products: str) -> None:
        recipe = choose(products, steps=5, overrides=["data.holdout=0"]).recipe
        assert recipe.data.validation_split is None and len(open_images(recipe)) == 30

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"overrides": ["training.steps=abc"]}, "training.steps"),
            ({"overrides": ["training.batch=0"]}, "training.batch"),
            ({"overrides": ["training=3"]}, "expected keys of sections"),
            ({"steps": 3, "time": 10.0}, "--steps 3 and --time"),
            ({"steps": 3, "overrides": ["training.steps=5"]}, "--steps 3 and --set training.steps"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, products: str, options: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=re.escape(said)):
            choose(products, **options)

    def test_another_tier(self, products: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choosing, "CPU", choosing.GPU)
        choice = choose(products)
        assert dict(choice.reasons)["network"].startswith("images-48") and choice.recipe.network["attention"] == [
            -1,
            -2,
        ]


@pytest.mark.parametrize("name", [n for n in packaged() if n.startswith(("small-", "images-"))])
def test_recipes_by_size_fit_sizes_about_theirs(name: str) -> None:
    side = int(name.rpartition("-")[2])
    for size in ((side, side), (side, side + side // 4 // 8 * 8)):
        recipe = load(name, [f"data.size={list(size)}"])
        assert recipe.data.size == size and all(level < 0 for level in recipe.network["attention"])


def test_from_a_folder_to_a_run_by_one_command(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "products", 12, size=(16, 16))
    small = ["--set", "network.base_channels=8", "--set", "training.batch=4"]
    code, out, err = command("recipe", "products", "--steps", "3", *small)
    assert code == 0
    (tmp_path / "mine.yaml").write_text(out)
    code, out, err = command("train", "products", "--steps", "2", *small)
    assert code == 0 and "network: small-28" in out + err
    recipe = load(tmp_path / "runs" / "products" / "recipe.yaml")
    assert recipe.training.steps == 2 and recipe.images is not None and recipe.images.classes == ["a", "b", "c"]
    assert command("train", "products", "--steps", "3", *small).code == 2  # it holds a run
    assert command("train", "products", "--resume", "--time", "2m").code == 2
    other = folder(tmp_path / "else" / "products", 6, size=(16, 16))
    code, _, err = command("train", other, "--steps", "3", "--resume")
    assert code == 2 and "holds a run of products, not of" in err
    assert command("train", "products", "--steps", "3", "--resume").code == 0
    assert command("train", "mine.yaml", "--out", "runs/again").code == 0
    both = [load(tmp_path / "runs" / run / "recipe.yaml").model_dump() for run in ("products", "again")]
    assert both[0].pop("training")["steps"] == both[1].pop("training")["steps"] == 3
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo", "--recipe", "small-28"], "--recipe small-28: demo is a recipe itself"),
        (["demo", "--size", "0"], "--size '0': expected a side or HEIGHTxWIDTH"),
        (["demo", "--time", "soon"], "--time 'soon': expected hours, minutes, seconds"),
        (["nowhere"], "unknown recipe 'nowhere'"),
        (["nowhere"], "nor is there a file or folder of that name here"),
    ],
)
def test_what_is_refused(words: list[str], said: str, command: Command) -> None:
    code, _, err = command("train", *words)
    assert code == 2 and said in err
