"""Sampling settings: flat and typed, changed, from earlier versions, and as words of the command line."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from trilemma.errors import InputError
from trilemma.process import Cosine
from trilemma.recipes import SamplingSettings, dump, load, parse_sampling, renamed, sampling_words
from trilemma.samplers import DDIM, Ancestral, DPMSolver, Heun, grid

RESULTS = sorted(Path(__file__).parents[2].glob("results/samplers/*.json"))

OLD = """
base: demo
sampling: {name: dpmpp, stochastic: true, grid: log_snr, steps: 9, clip: none}
"""


class TestFlatForm:
    @pytest.mark.parametrize(
        "values",
        [
            {},
            {"sampler": "ddim", "eta": 0.5, "steps": 7, "batch": 3},
            {"sampler": "dpmpp", "stochastic": True, "order": 1, "clip": "dynamic", "spacing": "karras", "skip": 2},
            {"sampler": "heun", "times": [3.0, 1.5], "weights": "raw", "precision": "bf16", "compile": True},
        ],
    )
    def test_is_read_back_to_the_same_settings(self, values: dict[str, Any]) -> None:
        settings = parse_sampling(values)
        assert parse_sampling(settings.model_dump()) == settings
        assert values.items() <= settings.model_dump().items()

    def test_in_a_recipe_holds_the_kernel(self, tmp_path: Path) -> None:
        recipe = load("demo", ["sampling.eta=0.25"])
        (tmp_path / "r.yaml").write_text(dump(recipe))
        assert load(tmp_path / "r.yaml") == recipe
        assert recipe.sampling.kernel == DDIM(eta=0.25) and "kernel" not in dump(recipe)

    def test_may_be_a_name(self) -> None:
        assert parse_sampling("heun") == SamplingSettings(kernel=Heun())

    def test_takes_times_as_the_command_line_has_them(self) -> None:
        assert parse_sampling({"times": "8,4,1.5"}).times == [8.0, 4.0, 1.5]
        with pytest.raises(InputError, match=r"sampling\.times: expected numbers with commas between \(got '8,x'\)"):
            parse_sampling({"times": "8,x"})

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ({"stpes": 3}, "unknown key in sampling 'stpes': did you mean 'steps'"),
            ({"eat": 0.5}, "unknown key in sampling 'eat': did you mean 'eta'"),
            ({"order": 2}, r"ancestral takes no order \(dpmpp, unipc do\)"),
            ({"grid": "even"}, r"sampling\.grid: did you mean spacing\?"),
            ({"sampler": "ddim", "name": "ddim"}, r"sampling\.name: did you mean sampler\?"),
            ({"times": [3.0], "steps": 3}, "times is a whole grid"),
        ],
    )
    def test_refuses(self, values: dict[str, Any], says: str) -> None:
        with pytest.raises(InputError, match=says):
            parse_sampling(values)


class TestEarlierVersions:
    def test_recipes_load_and_are_written_under_todays_names(self, tmp_path: Path) -> None:
        (tmp_path / "old.yaml").write_text(OLD)
        recipe = load(tmp_path / "old.yaml", ["sampling.order=1"])
        assert recipe.sampling.kernel == DPMSolver(stochastic=True, order=1, clip="none")
        assert (recipe.sampling.spacing, recipe.sampling.steps, recipe.sampling.batch) == ("log_snr", 9, 64)
        (tmp_path / "new.yaml").write_text(dump(recipe))
        assert load(tmp_path / "new.yaml") == recipe and "grid:" not in dump(recipe)

    def test_overrides_are_told_the_new_name(self) -> None:
        with pytest.raises(InputError, match=r"sampling\.grid: did you mean spacing\?"):
            load("demo", ["sampling.grid=even"])

    @pytest.mark.parametrize(
        "path", sorted(Path(__file__).parents[2].glob("results/samplers/*.json")), ids=lambda p: p.stem
    )
    def test_records_name_the_grid_that_was_walked(self, path: Path) -> None:
        """By the hash of its times."""
        recorded = renamed(json.loads(path.read_text())["sampler"])
        times = grid(Cosine(steps=1000), recorded["steps"], recorded["spacing"])
        assert hashlib.sha256(times.numpy().tobytes()).hexdigest() == recorded["times_sha256"]
        words = sampling_words(recorded, "0-9", "balanced")
        options = dict(pairwise(words))
        assert options["--sampler"] == recorded["sampler"] and options["--spacing"] == recorded["spacing"]
        assert ("--stochastic" in words) == bool(recorded.get("stochastic")) and options["--seeds"] == "0-9"


class TestChanged:
    BASE = parse_sampling({"sampler": "ddim", "eta": 0.5, "steps": 7, "spacing": "uniform", "clip": "none", "batch": 9})

    def test_another_sampler_keeps_what_all_share(self) -> None:
        found = self.BASE.changed(sampler="ancestral")
        assert found == SamplingSettings(kernel=Ancestral(clip="none"), batch=9)

    def test_the_same_one_keeps_all(self) -> None:
        assert self.BASE.changed(sampler="ddim", steps=None) == self.BASE
        assert self.BASE.changed(eta=0.0).kernel == DDIM(clip="none")

    def test_times_and_steps_take_each_others_place(self) -> None:
        timed = self.BASE.changed(times=[3.0, 1.0])
        assert (timed.steps, timed.times) == (None, [3.0, 1.0])
        assert timed.changed(steps=4).times is None

    def test_an_old_name_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"sampling\.name: did you mean sampler\?"):
            self.BASE.changed(name="ancestral")
