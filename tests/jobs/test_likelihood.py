"""The likelihood of a tiny run, through Python and through the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma.data import open_data
from trilemma.errors import InputError
from trilemma.jobs import nll
from trilemma.metrics.likelihood import ode_bits_per_dim, variational_bound
from trilemma.process import Condition, Cosine, Draw, to_model
from trilemma.runs import Run
from trilemma.samplers import grid

Command = Callable[..., Any]
STEPS = 40
"""Of the schedule of `plain` and `labelled`."""


class TestLikelihood:
    def test_parts_add_up_to_the_total(self, plain: Run, data: Path, tmp_path: Path) -> None:
        result = nll(plain, str(data), n=10, batch=4, out=tmp_path / "nll.json")
        bits = {key: figure["mean"] for key, figure in result["bits_per_dim"].items()}
        assert bits["prior"] + bits["sum"] + bits["decoder"] == pytest.approx(bits["total"], rel=1e-6)
        terms = result["terms"]
        assert terms["t"] == list(range(STEPS, 0, -1))
        assert sum(terms["mean"][:-1]) == pytest.approx(bits["sum"], rel=1e-5)
        assert terms["mean"][-1] == pytest.approx(bits["decoder"], rel=1e-6)
        assert result["reference"]["used"] == 10 and result["grid"]["steps"] == STEPS
        saved = json.loads((tmp_path / "nll.json").read_text())
        assert saved["bits_per_dim"] == result["bits_per_dim"] and saved["terms"] == terms
        assert saved["format"] == "trilemma-likelihood/1"

    def test_figures_are_the_means_over_images_with_their_errors(self, plain: Run, data: Path, tmp_path: Path) -> None:
        """All 24 images, from the bound of each by itself with its own stream."""
        result = nll(plain, str(data), n=24, steps=7, batch=5, clip="none", out=tmp_path / "nll.json")
        images, _ = open_data(str(data)).batch(range(24))
        denoiser = plain.denoiser()
        times = grid(denoiser.schedule, 7)
        bounds = [
            variational_bound(denoiser, to_model(images[i : i + 1]), Condition(), times, Draw([(0, "nll", i)]))
            for i in range(24)
        ]
        each = {
            "prior": np.array([bound.prior.item() for bound in bounds]),
            "sum": np.array([bound.terms[0, :-1].sum().item() for bound in bounds]),
            "decoder": np.array([bound.terms[0, -1].item() for bound in bounds]),
            "total": np.array([bound.total.item() for bound in bounds]),
        }
        for key, values in each.items():
            figure = result["bits_per_dim"][key]
            assert figure["mean"] == pytest.approx(values.mean(), rel=1e-4, abs=1e-7), key
            assert figure["standard_error"] == pytest.approx(values.std(ddof=1) / 24**0.5, rel=1e-3, abs=1e-7), key

    def test_clipping_holds_what_the_network_says(self, plain: Run, data: Path, tmp_path: Path) -> None:
        """By default, as in improved-diffusion's image_nll; the record says which."""
        found = {
            clip: nll(plain, str(data), n=8, clip=clip, out=tmp_path / f"{clip}.json") for clip in ("static", "none")
        }
        assert [one["grid"]["clip"] for one in found.values()] == ["static", "none"]
        assert found["static"]["bits_per_dim"]["total"]["mean"] < found["none"]["bits_per_dim"]["total"]["mean"]
        assert nll(plain, str(data), n=8, out=tmp_path / "e.json")["bits_per_dim"] == found["static"]["bits_per_dim"]
        with pytest.raises(InputError, match="unknown clip 'dynamic'"):
            nll(plain, str(data), n=8, clip="dynamic", out=tmp_path / "e.json")

    def test_the_ode_at_snr_0_is_refused_before_anything_is_measured(
        self, plain: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        schedule = Cosine(steps=8, terminal_snr=0.0)
        denoiser = plain.denoiser("ema")
        monkeypatch.setattr(denoiser, "schedule", schedule)
        with pytest.raises(InputError, match=r"ode: the schedule ends at SNR 0"):
            nll(plain, str(data), n=8, ode=4, out=tmp_path / "e.json")
        with pytest.raises(InputError, match=r"ode: the schedule ends at SNR 0"):
            ode_bits_per_dim(denoiser, torch.zeros(1, 1, 8, 8), Condition(), 4, None)

    def test_fewer_steps_take_any_grid(self, plain: Run, data: Path, tmp_path: Path) -> None:
        for spacing in ("even", "uniform", "quadratic", "log_snr", "4,3,2"):
            result = nll(plain, str(data), n=4, steps=9, spacing=spacing, out=tmp_path / f"{spacing}.json")
            expected = grid(plain.denoiser().schedule, 9, spacing)[:-1].tolist()
            assert result["terms"]["t"] == expected
            assert math.isfinite(result["bits_per_dim"]["total"]["mean"])

    def test_the_command_prints_saves_and_draws(self, plain: Run, data: Path, command: Command, tmp_path: Path) -> None:
        out = tmp_path / "nll.json"
        found = command("nll", plain.path, "--reference", data, "-n", 6, "--steps", 8, "--ode", 3, "--out", out)
        assert found.code == 0, found.err
        saved = json.loads(out.read_text())
        for key, word in (("prior", "L_T"), ("sum", "ΣL_t"), ("decoder", "L_0"), ("total", "total"), ("ode", "ODE")):
            figure = saved["bits_per_dim"][key]
            line = next(line for line in found.out.splitlines() if word in line)
            assert f"{figure['mean']:.4f}" in line and f"{figure['standard_error']:.4f}" in line
        with Image.open(out.with_suffix(".png")) as picture:
            assert picture.format == "PNG"

    def test_by_default_it_lies_in_the_run(self, plain: Run, data: Path, command: Command) -> None:
        found = command("nll", plain.path, "--reference", data, "-n", 2, "--steps", 3)
        place = next((plain.path / "evaluations").rglob("nll-*.json"))
        assert str(place) in found.out.replace("\n", "")

    def test_a_conditional_model_takes_the_images_classes(self, labelled: Run, data: Path, tmp_path: Path) -> None:
        assert math.isfinite(
            nll(labelled, str(data), n=4, steps=3, out=tmp_path / "nll.json")["bits_per_dim"]["total"]["mean"]
        )
        images = np.load(data)["arr_0"]
        np.savez(tmp_path / "bare.npz", arr_0=images)
        with pytest.raises(InputError, match=r"a class-conditional model needs its 4 classes"):
            nll(labelled, str(tmp_path / "bare.npz"), n=4, steps=3)

    def test_what_cannot_be_measured_is_refused(self, plain: Run, data: Path) -> None:
        with pytest.raises(InputError, match=r"reference 'mnist5k:test': its images are \(1, 28, 28\), the run's"):
            nll(plain, "mnist5k:test", n=2)
        with pytest.raises(InputError, match=r"steps 1: the bound needs 2 or more"):
            nll(plain, str(data), n=2, steps=1)
        with pytest.raises(InputError, match=r"steps 41: .*nearest: 40"):
            nll(plain, str(data), n=2, steps=41)

    def test_a_continuous_schedule_has_a_bound_on_any_grid(self, continuous: Run, data: Path, tmp_path: Path) -> None:
        result = nll(continuous, str(data), n=4, steps=20, spacing="log_snr", ode=3, out=tmp_path / "nll.json")
        assert all(math.isfinite(figure["mean"]) for figure in result["bits_per_dim"].values())

    def test_and_one_in_continuous_time(self, continuous: Run, data: Path, tmp_path: Path) -> None:
        """Below that of few steps: it is the limit of many."""
        whole = nll(continuous, str(data), n=24, draws=200, out=tmp_path / "whole.json")
        few = nll(continuous, str(data), n=24, steps=6, spacing="log_snr", out=tmp_path / "few.json")
        assert whole["grid"]["steps"] is None and whole["grid"]["draws"] == 200
        assert 0 < whole["bits_per_dim"]["sum"]["mean"] < few["bits_per_dim"]["sum"]["mean"]
