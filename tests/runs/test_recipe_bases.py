"""Every packaged recipe loads, is what its base says but for what it changes, and takes a training step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from trilemma.errors import InputError
from trilemma.inventory import variants
from trilemma.jobs import train
from trilemma.recipes import Recipe, dump, load, packaged
from trilemma.runs import Cascade, Run
from trilemma.samplers import DDIM, Finished, Heun

NAMES = sorted(packaged())
BASED = sorted(name for name, text in packaged().items() if "base" in yaml.safe_load(text))


def chain(name: str) -> list[dict[str, Any]]:
    """A packaged recipe's own values, or a variant's, and its bases', nearest first."""
    values = yaml.safe_load(variants()[name.removeprefix("variants/")] if "/" in name else packaged()[name])
    bases = values.get("base", [])
    return [values, *(part for base in reversed(bases if isinstance(bases, list) else [bases]) for part in chain(base))]


def side_of(name: str) -> int:
    """The side of the recipe's images."""
    data = load(name).data
    assert data.size is None or isinstance(data.size, int)
    return data.size or (28 if "mnist" in data.name else 32)


def narrowed(name: str) -> list[str]:
    """The recipe's networks at a small width, and of many blocks a few."""
    recipe = load(name)
    parts = {"network": recipe.network}
    parts |= {f"learner.{key}": recipe.learner[key] for key in ("discriminator", "encoder") if recipe.learner.get(key)}
    if recipe.learner["name"] == "classifier":
        return ["network.widths=[[4], [8]]"]
    heads = ("head_channels", "pool_head_channels")
    widths = [(place, key) for place, part in parts.items() for key in part if key in ("base_channels", "channels")]
    widths += [("network", "base_channels")] if not widths else []
    few = [f"network.{key}=2" for key, most in (("groups", 0), ("blocks", 8)) if _over(recipe.network.get(key), most)]
    heads = tuple(head for head in heads if recipe.network.get(head))
    return [f"{p}.{key}=8" for p, key in [*widths, *(("network", head) for head in heads)]] + few


def _over(value: Any, most: int) -> bool:
    return isinstance(value, int) and value > most


@pytest.mark.parametrize("name", NAMES)
class TestEveryPackagedRecipe:
    def test_loads_and_is_read_back_as_written(self, name: str, tmp_path: Path) -> None:
        recipe = load(name)
        assert isinstance(recipe, Recipe)
        assert recipe.name == name
        assert "base" not in yaml.safe_load(dump(recipe))
        (tmp_path / "saved.yaml").write_text(dump(recipe))
        assert load(tmp_path / "saved.yaml") == recipe

    def test_takes_a_training_step(self, name: str, tmp_path: Path) -> None:
        """At reduced width on few images: everything of it that can be wrong is put together once."""
        recipe = load(name)
        colour, kind = "mnist" not in recipe.data.name, recipe.learner["name"]
        side, low = side_of(name), recipe.learner.get("low")
        if side > 64:  # its attention is at sides that images of 64 have as well
            side, low = 64, low and 64 * low // side
        few = np.random.default_rng(0).integers(0, 256, (8, side, side, 3 if colour else 1), dtype=np.uint8)
        np.savez(tmp_path / "few.npz", arr_0=few, arr_1=np.arange(8))
        overrides = [
            *(f"data.name={tmp_path / 'few.npz'}", f"data.size={side}", "data.validation_split=train"),
            *([f"learner.low={low}"] if low else []),
            *("training.steps=1", "training.warmup=0", "training.batch=2", "training.precision=fp32"),
            *("training.validation_images=2", "training.grid_every=0", "training.log_every=1", "evaluate.every=0"),
            *narrowed(name),
        ]
        if recipe.codec is not None:
            codec, shared = Path(recipe.codec.name).name, overrides[: -len(narrowed(name))]
            train(codec, out=tmp_path / "codec", overrides=[*shared, *narrowed(codec)])
            overrides.append(f"codec.name={tmp_path / 'codec'}")
        run = train(name, out=tmp_path / "run", overrides=overrides)
        lines = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
        losses = [line["loss"] for line in lines if "loss" in line]
        assert losses and all(math.isfinite(loss) for loss in losses)
        assert Run(run.path).step == 1
        assert run.recipe.images is not None
        assert run.recipe.images.channels == (3 if colour else 1)
        if run.pairs is not None:
            small = np.zeros((1, *run.pairs.size, run.recipe.images.channels), dtype=np.uint8)
            shape = (run.recipe.images.channels, *run.pairs.size)
            run = Cascade(run.path, Finished(lambda *_: small, shape, "made"))
        if "classifier" not in kind and kind != "autoencoder":
            how = {"steps": 2, "precision": "fp32"} if kind == "denoising" else {}
            assert run.sample(1, **how).images.shape[-1] == run.recipe.images.channels


@pytest.mark.parametrize("name", BASED)
class TestBase:
    def test_what_is_given_is_put_over_it_key_by_key(self, name: str) -> None:
        """Each key of a section from the nearest recipe that says it, but for components of another name."""
        own = load(name).model_dump()
        values, *bases = chain(name)
        for section in ("training", "data"):
            for layer in reversed([values, *bases]):
                said = layer.get(section, {})
                later = [each.get(section, {}) for each in [values, *bases][: [values, *bases].index(layer)]]
                for key, value in said.items():
                    if not any(key in each for each in later):
                        found = own[section][key]
                        assert (list(found) if isinstance(found, tuple) else found) == value, f"{section}.{key}"

    def test_what_is_not_given_is_the_bases(self, name: str) -> None:
        values = yaml.safe_load(packaged()[name])
        first, *over = values["base"] if isinstance(values["base"], list) else [values["base"]]
        own, base = load(name).model_dump(), load(first).model_dump()
        said = {section for part in [values, *(chain(each)[0] for each in over)] for section in part}
        for section in own.keys() - said - {"name", "source"}:  # printed of the base alone
            assert own[section] == base[section]

    def test_overrides_go_over_both(self, name: str) -> None:
        assert load(name, ["training.steps=12345"]).training.steps == 12345
        if "times" in load(name).learner:
            assert load(name, ["learner.times=uniform"]).model_dump()["learner"]["times"] == {"name": "uniform"}


def test_the_small_twins_are_twins() -> None:
    """mnist-X and cifar10-X differ in network, data and length, not in what they are trained for."""
    large = [name for name in BASED if name.startswith("cifar10-") and name != "cifar10-conditional"]
    pairs = [(name, name.replace("cifar10", "mnist")) for name in large]  # mnist-conditional is another system
    assert pairs and all(twin in NAMES for _, twin in pairs)
    for name, twin in pairs:
        full, small = load(name).model_dump(), load(twin).model_dump()
        assert full["schedule"] == small["schedule"]
        for section in ("objective", "parameterization"):
            assert full["learner"][section] == small["learner"][section]
        assert full["learner"]["variance"] == small["learner"]["variance"]
        times, few = dict(full["learner"]["times"]), dict(small["learner"]["times"])
        times.pop("bins", None), few.pop("bins", None)
        assert times == few


def test_a_variant_goes_over_any_recipe_and_several_over_one_another(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "base: [mnist-default, variants/mbconv64, variants/iwdiff]\ntraining: {steps: 700}\n"
    )
    mine, base = load(tmp_path / "mine.yaml"), load("mnist-default")
    assert mine.network == base.network | {"block": "mbconv"}
    assert mine.learner["objective"] == load("cifar10-iwdiff").learner["objective"]
    assert (mine.training.steps, mine.training.batch, mine.name) == (700, base.training.batch, "mine")


@pytest.mark.parametrize(
    "base", ["variants/mbconf64", "variants/", "[mnist-default, variants/../demo]", "[[demo]]", "3"]
)
def test_a_base_that_is_none_is_refused(tmp_path: Path, base: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: {base}\n")
    with pytest.raises(InputError, match=r"unknown recipe .*(did you mean|known)"):
        load(tmp_path / "mine.yaml")


def test_a_variants_recipe_may_be_copied_and_changed(tmp_path: Path) -> None:
    (tmp_path / "cifar10-rdn.yaml").write_text(packaged()["cifar10-rdn"])
    assert load(tmp_path / "cifar10-rdn.yaml") == load("cifar10-rdn")


class TestMerging:
    def written(self, folder: Path, text: str) -> Path:
        path = folder / "mine.yaml"
        path.write_text(text)
        return path

    def test_a_file_may_stand_on_a_packaged_recipe(self, tmp_path: Path) -> None:
        recipe = load(self.written(tmp_path, "base: demo\ntraining: {steps: 7, warmup: 0}\n"))
        base = load("demo")
        assert recipe.name == "mine"
        assert recipe.training == base.training.model_copy(update={"steps": 7, "warmup": 0})
        assert (recipe.network, recipe.schedule, recipe.learner) == (base.network, base.schedule, base.learner)

    def test_a_component_of_the_same_name_keeps_the_bases_arguments(self, tmp_path: Path) -> None:
        recipe = load(self.written(tmp_path, "base: demo\nschedule: {name: cosine, s: 0.02}\n"))
        assert recipe.schedule is not None
        assert (recipe.schedule["steps"], recipe.schedule["s"]) == (128, 0.02)

    def test_a_component_of_another_name_keeps_none(self, tmp_path: Path) -> None:
        recipe = load(self.written(tmp_path, "base: demo\nschedule: {name: linear, beta_end: 0.03}\n"))
        assert recipe.schedule == {
            **{"name": "linear", "steps": 1000, "beta_start": 1e-4, "beta_end": 0.03},
            **{"terminal_snr": None, "network_steps": None},
        }

    def test_a_bare_name_is_a_component_with_its_defaults(self, tmp_path: Path) -> None:
        recipe = load(self.written(tmp_path, "base: demo\nschedule: cosine\nsampling: heun\n"))
        assert recipe.schedule == {
            **{"name": "cosine", "steps": 1000, "s": 0.008, "max_beta": 0.999},
            **{"terminal_snr": None, "network_steps": None},
        }
        assert recipe.sampling.kernel == Heun()
        assert recipe.sampling.steps is None

    def test_arguments_alone_go_to_the_bases_component(self, tmp_path: Path) -> None:
        recipe = load(self.written(tmp_path, "base: demo\nnetwork: {base_channels: 16}\nsampling: {eta: 0.5}\n"))
        assert recipe.network == {**load("demo").network, "base_channels": 16}
        assert (recipe.sampling.kernel, recipe.sampling.steps) == (DDIM(eta=0.5), 16)

    def test_nested_components_follow_the_same_rule(self, tmp_path: Path) -> None:
        text = "base: mnist-iwdiff-importance\nlearner: {times: {history: 5}, objective: vlb}\n"
        learner = load(self.written(tmp_path, text)).model_dump()["learner"]
        assert learner["times"] == {"name": "importance", "history": 5, "bins": 10, "extra": 0, "uniform": 0.001}
        assert learner["objective"] == {"name": "vlb"}

    def test_a_list_replaces_a_list_and_null_a_value(self, tmp_path: Path) -> None:
        recipe = load(
            self.written(tmp_path, "base: demo\nnetwork: {multipliers: [1]}\ndata: {validation_split: null}\n")
        )
        assert recipe.network["multipliers"] == [1]
        assert recipe.data.validation_split is None

    @pytest.mark.parametrize("base", ["demoo", "nowhere.yaml", "3", "[demo, [demo]]"])
    def test_an_unknown_base_is_refused(self, tmp_path: Path, base: str) -> None:
        with pytest.raises(InputError, match=r"unknown recipe .*known: "):
            load(self.written(tmp_path, f"base: {base}\n"))

    def test_unknown_keys_are_refused_over_a_base_too(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"unknown key in schedule 'beta_start'"):
            load(self.written(tmp_path, "base: demo\nschedule: {beta_start: 0.1}\n"))
        with pytest.raises(InputError, match=r"unknown key 'trainig': did you mean 'training'\?"):
            load(self.written(tmp_path, "base: demo\ntrainig: {steps: 3}\n"))
