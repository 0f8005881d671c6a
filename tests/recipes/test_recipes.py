"""Recipes: the packaged ones, writing down and reading back, overrides, and everything that is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml

from trilemma.errors import InputError
from trilemma.recipes import component, construct, dump, headline, load, packaged, parse

NAMES = ("ddpm-cifar10", "demo", "mnist-classifier", "mnist-conditional", "mnist-unconditional")


@pytest.mark.parametrize("name", sorted(packaged()))
def test_every_packaged_recipe_is_one_and_is_guided_only_where_it_was_trained_for_it(name: str) -> None:
    recipe = load(name)
    assert not recipe.sampling.guidance or recipe.learner.get("label_dropout")


def test_the_named_recipes_are_packaged() -> None:
    assert set(NAMES) <= packaged().keys()


class TestPackaged:
    @pytest.fixture(params=sorted(packaged()))
    def name(self, request: pytest.FixtureRequest) -> str:
        return request.param

    def test_is_read_back_as_it_was_written_down(self, name: str, tmp_path: Path) -> None:
        recipe = load(name)
        (tmp_path / "saved.yaml").write_text(dump(recipe))
        assert load(tmp_path / "saved.yaml") == recipe
        assert recipe.name == name

    def test_says_source_expectation_and_command_at_its_head(self, name: str) -> None:
        text = packaged()[name]
        head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
        assert text.startswith(head) and head, "the comments are not all at the head"
        assert "# Source:" in head
        assert "# Expected:" in head
        assert f"trilemma train {name}\n" in head
        assert 10 < len(headline(text)) < 140 and not headline(text).startswith("#")


def test_e_s_recipes_are_its_200_linear_steps() -> None:
    for name, conditional in (("mnist-conditional", True), ("mnist-unconditional", False)):
        recipe = load(name)
        assert {"name": "linear", "steps": 200, "beta_start": 1e-4, "beta_end": 0.02}.items() <= recipe.schedule.items()
        assert recipe.learner["conditional"] is conditional
        assert recipe.network["block"] == "double" and recipe.network["entry"] == "bottom"


def test_the_noise_that_e_s_rescaled_schedule_reaches() -> None:
    said = re.search(r"SNR ([\d.e-]+) instead", packaged()["mnist-unconditional-noise"])
    alpha_bar = math.prod(1 - (5e-4 + (0.1 - 5e-4) * i / 199) for i in range(200))
    assert said is not None and float(said[1]) == pytest.approx(alpha_bar / (1 - alpha_bar), rel=1e-3)


def test_a_written_recipe_is_complete(tmp_path: Path) -> None:
    values = yaml.safe_load(dump(load("demo")))
    assert values["network"]["skips"] == "block", "a default is missing: another version's default would change the run"
    assert values["training"]["clip_norm"] == 1.0
    assert values["sampling"]["eta"] == 0.0 and "kernel" not in values["sampling"]


def test_a_file_is_named_by_its_stem_unless_it_says_otherwise(tmp_path: Path) -> None:
    text = packaged()["demo"]
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text(text + "name: said\n")
    assert load(tmp_path / "mine.yaml").name == "mine"
    assert load(tmp_path / "other.yaml").name == "said"


class TestOverride:
    @pytest.mark.parametrize(
        ("override", "where", "value"),
        [
            ("training.steps=700", ("training", "steps"), 700),
            ("training.learning_rate=1e-4", ("training", "learning_rate"), 1e-4),
            ("training.flip=true", ("training", "flip"), True),
            ("network.multipliers=[1, 3]", ("network", "multipliers"), [1, 3]),
            ("data.size=[14, 16]", ("data", "size"), (14, 16)),
            ("data.validation_split=null", ("data", "validation_split"), None),
            ("learner.variance=fixed_large", ("learner", "variance"), "fixed_large"),
            ("sampling.steps=null", ("sampling", "steps"), None),
            ("schedule.max_beta=0.9", ("schedule", "max_beta"), 0.9),
        ],
    )
    def test_changes_what_it_names_and_nothing_else(self, override: str, where: tuple[str, str], value: object) -> None:
        before, after = load("demo").model_dump(), load("demo", [override]).model_dump()
        section, key = where
        assert after[section][key] == value != before[section][key]
        after[section][key] = before[section][key]
        assert after == before

    def test_of_a_section_written_as_a_name(self, tmp_path: Path) -> None:
        values = yaml.safe_load(packaged()["demo"]) | {"schedule": "cosine"}
        (tmp_path / "short.yaml").write_text(yaml.safe_dump(values))
        filled = {"name": "cosine", "steps": 9, "s": 0.008, "max_beta": 0.999}
        assert filled.items() <= load(tmp_path / "short.yaml", ["schedule.steps=9"]).schedule.items()

    def test_the_last_one_wins(self) -> None:
        assert load("demo", ["training.steps=500", "training.steps=600"]).training.steps == 600


REFUSED = [
    # override of `demo`, the place that the message names, what it says besides
    ("training.stpes=3", "key in training 'stpes'", "did you mean 'steps'"),
    ("trianing.steps=3", "key 'trianing'", "did you mean 'training'"),
    ("data.nmae=x", "key in data 'nmae'", "did you mean 'name'"),
    ("network.base_chanels=8", "key in network 'base_chanels'", "did you mean 'base_channels'"),
    ("schedule.stpes=8", "key in schedule 'stpes'", "did you mean 'steps'"),
    ("schedule.beta_start=0.1", "key in schedule 'beta_start'", "max_beta"),  # linear's, and the demo's is cosine
    ("learner.condtional=true", "key in learner 'condtional'", "did you mean 'conditional'"),
    ("learner.rotate=3", "key in learner 'rotate'", "known:"),  # the classifier's
    ("sampling.etta=1", "key in sampling 'etta'", "did you mean 'eta'"),
    ("schedule=cosin", "schedule.name 'cosin'", "did you mean 'cosine'"),
    ("network=unett", "network.name 'unett'", "did you mean 'unet'"),
    ("learner.name=denoise", "learner.name 'denoise'", "did you mean 'denoising'"),
    ("learner.objective=simpel", "learner.objective.name 'simpel'", "did you mean 'simple'"),
    ("learner.times=unifrom", "learner.times.name 'unifrom'", "did you mean 'uniform'"),
    ("sampling.sampler=dimm", "sampling.sampler 'dimm'", "did you mean 'ddim'"),
    ("learner.parameterization=eps", "learner.parameterization", "'epsilon'"),
    ("learner.variance=big", "learner.variance", "'fixed_small'"),
    ("sampling.spacing=evn", "sampling.spacing", "'even'"),
    ("training.precision=fp16", "training.precision", "'bf16'"),
    ("training.decay=cos", "training.decay", "'cosine'"),
    ("training.steps=0", "training.steps", "greater than or equal to 1 (got 0)"),
    ("training.steps=abc", "training.steps", "(got 'abc')"),
    ("training.steps=1.5", "training.steps", "(got 1.5)"),
    ("training.steps=null", "training.steps", "(got None)"),
    ("training.batch=0", "training.batch", "(got 0)"),
    ("training.seed=-1", "training.seed", "(got -1)"),
    ("training.ema=1", "training.ema", "less than 1"),
    ("training.keep=0", "training.keep", "(got 0)"),
    ("training.learning_rate=0", "training.learning_rate", "greater than 0"),
    ("training.learning_rate=.nan", "training.learning_rate", "(got nan)"),
    ("training.learning_rate=.inf", "training.learning_rate", "(got inf)"),
    ("training.betas=[0.9]", "training.betas", "missing"),
    ("training.betas=[0.9, 1.5]", "training.betas", "1.5"),
    ("training=5", "training", "(got 5)"),
    ("training.steps.x=3", "'training.steps.x=3'", "'steps' holds 900"),
    ("data=mnist5k", "data", "(got 'mnist5k')"),
    ("data.name=5", "data.name", "(got 5)"),
    ("data.range=[1, -1]", "data.range", "rising"),
    ("data.channels=2", "data.channels", "1 or 3"),
    ("data.size=0", "data.size", "0"),
    ("data.size=[8, -3]", "data.size", "-3"),
    ("network.dropout=1", "network.dropout", "less than 1"),
    ("network.multipliers=[]", "network.multipliers", "at least 1"),
    ("network.multipliers=[1, 0]", "network.multipliers.1", "(got 0)"),
    ("network.attention=16", "network.attention", "(got 16)"),
    ("network.patch=0", "network.patch", "(got 0)"),
    ("network=5", "network", "5 names no network"),
    ("schedule.steps=0", "schedule.steps", "(got 0)"),
    ("schedule.max_beta=1", "schedule.max_beta", "0.9999"),
    ("schedule=null", "schedule", "missing"),
    ("sampling.eta=-1", "sampling.eta", "greater than or equal to 0"),
    ("sampling.steps=0", "sampling.steps", "(got 0)"),
    ("sampling.kernel=5", "key in sampling 'kernel'", "known"),
    ("sampling=5", "sampling", "5"),
    ("sampling=[1]", "sampling", "[1]"),
    ("learner=5", "learner", "5"),
    ("learner=[1]", "learner", "[1]"),
    ("learner.conditional=maybe", "learner.conditional", "'maybe'"),
    ("images.channels=0", "images.channels", "(got 0)"),
    ("name=a b", "name", "'a b'"),
    ("=5", "--set '=5'", "KEY=VALUE"),
    ("training.steps", "--set 'training.steps'", "KEY=VALUE"),
    ("training.steps={a: 1", "--set 'training.steps={a: 1'", "not YAML"),
]


@pytest.mark.parametrize(("override", "place", "says"), REFUSED, ids=[override for override, _, _ in REFUSED])
def test_refuses_in_one_line_with_the_place_and_what_is_valid(override: str, place: str, says: str) -> None:
    if override.startswith("data.size"):  # the recipe may leave it to the data
        from trilemma.runs.build import open_images

        with pytest.raises(InputError) as caught:
            open_images(load("demo", [override]))
        place = "size"
    else:
        with pytest.raises(InputError) as caught:
            load("demo", [override])
    message = str(caught.value)
    assert "\n" not in message
    assert place in message[:100] and says in message
    assert not message.startswith(":"), "the place in the recipe is missing"
    assert len(message) < 600, "a message that nobody reads"


class TestFile:
    def test_unknown_names_are_refused_with_the_nearest(self) -> None:
        with pytest.raises(InputError, match=r"unknown recipe 'demoo': did you mean 'demo'\?"):
            load("demoo")

    @pytest.mark.parametrize("content", [b"", b"[1, 2]", b"just words", b"a: [", b"\xff\xfe\x00a"])
    @pytest.mark.parametrize("overrides", [[], ["training.steps=5"]])
    def test_what_is_no_recipe_is_refused(self, content: bytes, overrides: list[str], tmp_path: Path) -> None:
        (tmp_path / "odd.yaml").write_bytes(content)
        with pytest.raises(InputError) as caught:
            load(tmp_path / "odd.yaml", overrides)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("section", ["learner", "network", "data", "training", "schedule"])
    def test_a_missing_section_is_named(self, section: str) -> None:
        values = yaml.safe_load(packaged()["demo"]) | {"name": "x"}
        del values[section]
        if section == "learner":
            values["learner"] = None  # a denoising one by default
            assert parse(values).learner["name"] == "denoising"
            return
        with pytest.raises(InputError, match=f"^{section}.*missing"):
            parse(values)

    def test_loading_runs_no_code(self, tmp_path: Path) -> None:
        (tmp_path / "evil.yaml").write_text(f"name: !!python/object/apply:pathlib.Path.touch [{tmp_path}/ran]")
        with pytest.raises(InputError, match="not YAML"):
            load(tmp_path / "evil.yaml")
        assert not (tmp_path / "ran").exists()


class TestComponent:
    def test_fills_in_the_constructor_s_defaults(self) -> None:
        filled = {"name": "linear", "steps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
        assert filled.items() <= component("schedule", "linear", "schedule").items()

    def test_is_constructed_with_its_arguments(self) -> None:
        schedule = construct("schedule", component("schedule", {"name": "cosine", "steps": 6}, "schedule"))
        assert schedule.steps == 6

    def test_what_a_constructor_refuses_is_bad_input(self) -> None:
        network = component("network", {"name": "unet", "patch": 3}, "network")
        with pytest.raises(InputError, match=r"network\.patch 3 does not divide the image size 8×8"):
            construct("network", network, 1, 1, (8, 8), 0)
