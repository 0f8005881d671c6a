"""Samples begun from a surrogate's images, through Python and through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trilemma.errors import InputError
from trilemma.evaluations import evaluate
from trilemma.runs import Run
from trilemma.samplers import grid

Command = Callable[..., Any]


class TestSurrogate:
    @pytest.fixture
    def held(self, data: Path, tmp_path: Path) -> Path:
        np.savez(tmp_path / "held.npz", arr_0=np.load(data)["arr_0"])
        return tmp_path / "held.npz"

    def test_evaluate_from_a_surrogate(self, plain: Run, held: Path, command: Command, tmp_path: Path) -> None:
        out = tmp_path / "e.json"
        found = command(
            *("evaluate", plain.path, "-n", 12, "--features", "pixels", "--metrics", "frechet_distance"),
            *("--steps", 8, "--surrogate", held, "--t-mid", 15, "--samples", tmp_path / "s.npz", "--out", out),
        )
        assert found.code == 0, found.err
        saved = json.loads(out.read_text())
        below = grid(plain.denoiser().schedule, 8)
        assert saved["sampler"]["surrogate"]["name"] == str(held)
        assert saved["sampler"]["surrogate"]["t_mid"] == 15
        assert saved["sampler"]["network_evaluations"] == int((below < 15).sum())
        assert "surrogate held at 15" in saved["label"]
        assert saved["metrics"]["frechet_distance"] >= 0

    def test_at_t_mid_0_the_samples_are_its_images(
        self, plain: Run, held: Path, command: Command, tmp_path: Path
    ) -> None:
        out = tmp_path / "s.npz"
        found = command(
            *("sample", plain.path, "--seeds", "3,0,7", "--surrogate", held, "--t-mid", 0, "--out", out),
            *("--picture", tmp_path / "g.png"),
        )
        assert found.code == 0, found.err
        with np.load(out) as samples, np.load(held) as images:
            np.testing.assert_array_equal(samples["arr_0"], images["arr_0"][[3, 0, 7]])

    def test_evaluating_what_took_no_network_at_all(self, plain: Run, held: Path, tmp_path: Path) -> None:
        begin: dict[str, Any] = {"surrogate": str(held), "t_mid": 0.0}
        samples, out = tmp_path / "s.npz", tmp_path / "e.json"
        found = evaluate(plain, n=12, features="pixels", samples_out=samples, out=out, **begin)
        assert found.metrics["network_evaluations"] == 0
        json.loads(out.read_text(), parse_constant=pytest.fail)

    def test_another_surrogate_is_another_set(self, plain: Run, held: Path, tmp_path: Path) -> None:
        first = plain.sample_to(n=4, steps=4, surrogate=str(held), t_mid=10.0)
        second = plain.sample_to(n=4, steps=4, surrogate=str(held), t_mid=20.0)
        third = plain.sample_to(n=4, steps=4)
        assert len({first.path, second.path, third.path}) == 3
        with pytest.raises(InputError, match="samples made otherwise"):
            plain.sample_to(first.path, n=4, steps=4)

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--surrogate", "HELD"], "needs --t-mid"),
            (["--t-mid", "5"], "no surrogate is named"),
            (["--surrogate", "HELD", "--t-mid", "41"], "t_mid 41: expected 0 to 40"),
            (["--surrogate", "no_module_of_this_name:f", "--t-mid", "5"], "cannot be imported"),
            (["--surrogate", "HELD", "--t-mid", "5", "--seeds", "23,24"], "it has 24 images, none for seed 24"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, plain: Run, held: Path, command: Command, tmp_path: Path, arguments: list[str], says: str
    ) -> None:
        given = [str(held) if word == "HELD" else word for word in arguments]
        for name in ("sample", "evaluate"):
            place = ["--out"] if name == "sample" else ["--features", "pixels", "--samples"]
            found = command(name, plain.path, *given, "-n", 4, *place, tmp_path / "s.npz")
            assert found.code == 2 and says in found.err and found.err.count("\n") == 1
