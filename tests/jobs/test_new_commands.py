"""Schedules side by side, likelihood, gradient noise, encodings, interpolations, surrogates: on tiny runs, through
Python and through the command line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from trilemma.cli import main
from trilemma.data import open_data
from trilemma.errors import InputError
from trilemma.evaluations import evaluate
from trilemma.jobs import gradient_noise, interpolate, invert, nll, train
from trilemma.jobs import gradient_noise as _function
from trilemma.metrics.likelihood import ode_bits_per_dim, variational_bound
from trilemma.process import Condition, Cosine, Draw, to_model
from trilemma.runs import Run
from trilemma.samplers import grid, noise_start, slerp

STEPS = 40


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run `trilemma ARGUMENTS`; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["trilemma", *map(str, arguments)])
        capfd.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return Result(code or 0, *capfd.readouterr())

    return run


def recipe(data: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "learner": {"name": "denoising", "parameterization": "v", "variance": "learned_range", "objective": "hybrid"},
        "schedule": {"name": "linear", "steps": STEPS, "beta_end": 0.3},
        "network": {
            **{"name": "unet", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": []},
            **{"middle_attention": False, "dropout": 0.0},
        },
        "data": {"name": str(data)},
        "training": {
            **{"steps": 30, "batch": 12, "learning_rate": 2.0e-3, "ema": 0.9, "warmup": 2},
            **{"log_every": 10, "validate_every": 0, "grid_every": 0, "checkpoint_every": 30},
        },
        "sampling": {"sampler": "ddim", "batch": 4},
    }
    return values | {key: values[key] | change for key, change in changes.items()}


def trained(folder: Path, values: dict[str, Any]) -> Path:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    return train(folder / "tiny.yaml", out=folder / "run").path


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Unconditional, learned variance, T = 40 linear steps."""
    return Run(trained(tmp_path_factory.mktemp("plain"), recipe(data)))


@pytest.fixture(scope="module")
def labelled(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Class-conditional on the four classes."""
    return Run(trained(tmp_path_factory.mktemp("labelled"), recipe(data, learner={"conditional": True})))


@pytest.fixture(scope="module")
def continuous(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The continuous VP schedule, L_simple; two steps of training."""
    values = recipe(data, learner={"objective": "simple", "variance": "fixed_small"}, training={"steps": 2})
    return Run(trained(tmp_path_factory.mktemp("vp"), values | {"schedule": "vp"}))


class TestSchedule:
    def test_prints_each_schedule_and_draws_them(self, command: Command, tmp_path: Path) -> None:
        names = ["linear", "cosine", "linear-200", "linear,steps=50,beta_end=0.4", "vp", "edm"]
        found = command("schedule", *names, "--picture", tmp_path / "s.png")
        assert found.code == 0, found.err
        assert all(name in found.out for name in names)
        for name in ("ᾱ", "SNR", "β̃/β", "terminal SNR", "L_T"):
            assert name in found.out
        # ᾱ_1000 of the linear schedule is 4.04e-5, its SNR the same; ᾱ_200 = 0.132 gives 0.152.
        assert "4.04e-05" in found.out
        assert "0.152" in found.out
        with Image.open(tmp_path / "s.png") as picture:
            assert min(picture.size) > 100

    def test_the_prior_is_of_the_data(self, command: Command, data: Path, tmp_path: Path) -> None:
        images = np.load(data)["arr_0"] / 127.5 - 1
        found = command("schedule", "linear-200", "--data", data, "--picture", tmp_path / "s.png")
        assert f"E[x²] = {np.mean(images**2):.3f}" in found.out

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("linaer", "did you mean 'linear'?"),
            ("linear-300", "did you mean 'linear-200'?"),
            ("linear,stepz=5", "did you mean 'steps'?"),
            ("linear,steps=0", "(got '0')"),
            ("linear,steps", "(got '')"),
            ("cosine,terminal_snr=-1", "(got '-1')"),
        ],
    )
    def test_what_is_no_schedule_is_refused(self, command: Command, tmp_path: Path, name: str, says: str) -> None:
        found = command("schedule", name, "--picture", tmp_path / "s.png")
        assert found.code == 2
        assert found.err.startswith("error: ") and says in found.err and found.err.count("\n") == 1

    def test_terminal_snr_can_be_asked_for(self, command: Command, tmp_path: Path) -> None:
        found = command("schedule", "cosine,terminal_snr=0", "--picture", tmp_path / "s.png")
        assert found.code == 0, found.err


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

    def test_what_cannot_be_measured_is_refused(self, plain: Run, continuous: Run, data: Path) -> None:
        with pytest.raises(InputError, match=r"reference 'mnist5k:test': its images are \(1, 28, 28\), the run's"):
            nll(plain, "mnist5k:test", n=2)
        with pytest.raises(InputError, match=r"steps 1: the bound needs 2 or more"):
            nll(plain, str(data), n=2, steps=1)
        with pytest.raises(InputError, match=r"steps 41: .*nearest: 40"):
            nll(plain, str(data), n=2, steps=41)
        with pytest.raises(InputError, match=r"steps None: this schedule is continuous"):
            nll(continuous, str(data), n=2)

    def test_a_continuous_schedule_has_a_bound_on_any_grid(self, continuous: Run, data: Path, tmp_path: Path) -> None:
        result = nll(continuous, str(data), n=4, steps=20, spacing="log_snr", ode=3, out=tmp_path / "nll.json")
        assert all(math.isfinite(figure["mean"]) for figure in result["bits_per_dim"].values())


class TestGradientNoise:
    def test_the_estimate_is_unbiased(self, plain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Images whose gradients are μ + s ε with ε standard normal: tr Σ = d s², ‖g‖² = ‖μ‖², the scale d s²/‖μ‖².
        Estimated again and again, they come out right on average, within 4 standard errors."""
        module = sys.modules[_function.__module__]
        dims, spread, repeats = 30, 1.5, 40
        mu = torch.linspace(-0.4, 0.6, dims)
        trace, signal = dims * spread**2, float(mu.square().sum())

        class Linear(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.theta = nn.Parameter(torch.zeros(dims))

        class Learner:
            times = None

            def __init__(self, seed: int) -> None:
                self.network, self.seed = Linear(), seed

            def losses(self, batch: Any) -> Any:
                keys = [(*key, "made up", self.seed) for key in batch.keys]
                noise = Draw(keys).normal(torch.empty(len(batch), dims))
                return SimpleNamespace(loss=((mu + spread * noise) @ self.network.theta).mean())

        seeds = iter(range(repeats))
        monkeypatch.setattr(module, "_learner", lambda *_: Learner(next(seeds)))
        found = [gradient_noise(plain, ["simple"], ["uniform"], batch=4, batches=8)[0] for _ in range(repeats)]
        assert {(one.small, one.big) for one in found} == {(4, 32)}
        for expected, values in ((trace, [one.trace for one in found]), (signal, [one.signal for one in found])):
            error = np.std(values, ddof=1) / repeats**0.5
            assert abs(np.mean(values) - expected) < 4 * error
            assert error < 0.1 * expected
        assert np.mean([o.trace for o in found]) / np.mean([o.signal for o in found]) == pytest.approx(
            trace / signal, rel=0.2
        )

    def test_of_a_run_by_hand(self, plain: Run) -> None:
        """Two batches of six: the two squared norms from gradients taken here, in McCandlish et al.'s formulas."""
        module = sys.modules[_function.__module__]
        (found,) = gradient_noise(plain, ["hybrid"], ["uniform"], batch=6, batches=2)
        learner = module._learner(plain, "hybrid", "uniform", None)
        source = module.Batches(open_data(plain.recipe.data.name), to_model, batch=6, seed=0)
        parameters = [p for p in learner.network.parameters() if p.requires_grad]
        rows = []
        for index in range(2):
            loss = learner.losses(source[1000 + index]).loss
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]).double())
        small = float(np.mean([float(row.square().sum()) for row in rows]))
        big = float(torch.stack(rows).mean(0).square().sum())
        assert found.signal == pytest.approx((12 * big - 6 * small) / 6, rel=1e-4)
        assert found.trace == pytest.approx((small - big) / (1 / 6 - 1 / 12), rel=1e-4)
        assert found.scale is None or found.scale == pytest.approx(found.trace / found.signal)

    def test_the_command(self, plain: Run, command: Command, tmp_path: Path) -> None:
        out = tmp_path / "noise.json"
        found = command("gradient-noise", plain.path, "--batch", 8, "--batches", 3, "--out", out)
        assert found.code == 0, found.err
        saved = json.loads(out.read_text())
        pairs = [(one["objective"], one["times"]) for one in saved["noise"]]
        assert pairs == [(o, t) for o in ("simple", "hybrid", "vlb") for t in ("uniform", "importance")]
        for one in saved["noise"]:
            assert (one["small"], one["big"]) == (8, 24)
            expected = one["trace"] / one["signal"] if one["signal"] > 0 else None
            assert one["scale"] == (None if expected is None else pytest.approx(expected))
            assert f"{one['trace']:.4g}" in found.out

    def test_what_cannot_be_measured_is_refused(self, plain: Run, continuous: Run) -> None:
        with pytest.raises(InputError, match=r"unknown objective\.name 'simpel'.*did you mean 'simple'"):
            gradient_noise(plain, ["simpel"], ["uniform"])
        with pytest.raises(InputError, match=r"batches 1: two batch sizes need 2 or more"):
            gradient_noise(plain, ["simple"], ["uniform"], batches=1)
        with pytest.raises(InputError, match=r"needs a tabulated schedule"):
            gradient_noise(continuous, ["vlb"], ["uniform"], batches=2)


class TestInvert:
    def test_the_error_falls_as_the_steps_grow(self, plain: Run, data: Path, tmp_path: Path) -> None:
        errors = [invert(plain, str(data), tmp_path / "e.npz", n=6, steps=steps).error for steps in (5, 10, 20, STEPS)]
        assert errors[0] > errors[1] > errors[2] > errors[3]
        assert errors[3] < 0.5 * errors[0]

    def test_encodings_are_written_and_decode_to_the_images(self, labelled: Run, data: Path, tmp_path: Path) -> None:
        encoded = invert(labelled, str(data), tmp_path / "e.npz", n=5, picture=tmp_path / "p.png")
        held = np.load(tmp_path / "e.npz")
        images, labels = open_data(str(data)).batch(range(5))
        np.testing.assert_array_equal(held["encodings"], encoded.encodings)
        np.testing.assert_array_equal(held["labels"], labels)
        np.testing.assert_array_equal(held["times"], np.arange(STEPS, -1, -1.0))
        assert encoded.encodings.shape == (5, 1, 8, 8) and encoded.encodings.dtype == np.float32
        difference = encoded.decoded.astype(float) - images
        assert encoded.error == pytest.approx(float(np.sqrt(np.mean(difference**2))))
        with Image.open(tmp_path / "p.png") as picture:
            assert picture.size == (5 * 10 + 2, 2 * 10 + 2)

    def test_the_command_reports_the_error(self, plain: Run, data: Path, command: Command, tmp_path: Path) -> None:
        found = command("invert", plain.path, data, "--out", tmp_path / "e.npz", "-n", 3, "--steps", 10)
        assert found.code == 0, found.err
        expected = invert(plain, str(data), tmp_path / "again.npz", n=3, steps=10).error
        assert "3 images in 10 steps" in found.out and f"{expected:.2f}" in found.out

    def test_what_cannot_be_encoded_is_refused(self, plain: Run, labelled: Run, data: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"out: .*should end in \.npz"):
            invert(plain, str(data), tmp_path / "e.txt")
        with pytest.raises(InputError, match=r"images 'mnist5k:test': they are \(28, 28, 1\)"):
            invert(plain, "mnist5k:test", tmp_path / "e.npz")
        np.savez(tmp_path / "bare.npz", arr_0=np.load(data)["arr_0"])
        with pytest.raises(InputError, match=r"are unlabelled, and the model is class-conditional"):
            invert(labelled, str(tmp_path / "bare.npz"), tmp_path / "e.npz")


def tiles(path: Path, rows: int, columns: int) -> np.ndarray:
    """The 8×8 images of a picture, [rows, columns, 8, 8]."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    assert pixels.shape == (rows * 10 + 2, columns * 10 + 2)
    cut = [[pixels[2 + 10 * r : 10 + 10 * r, 2 + 10 * c : 10 + 10 * c] for c in range(columns)] for r in range(rows)]
    return np.array(cut)


class TestInterpolate:
    def test_the_ends_are_the_seeds_own_ddim_samples(self, plain: Run, tmp_path: Path) -> None:
        found = tiles(interpolate(plain, tmp_path / "i.png", seeds=[4, 9, 2, 7], frames=5, steps=8), 2, 5)
        own = plain.sample(seeds=[4, 9, 2, 7], sampler="ddim", steps=8, clip="none").images[..., 0].astype(int)
        ends = found[:, [0, -1]].reshape(4, 8, 8)
        assert np.abs(ends - own).max() <= 1
        assert np.abs(found[0, 2] - found[0, 0]).max() > 2

    def test_the_middle_is_decoded_from_the_arc(self, plain: Run, tmp_path: Path) -> None:
        found = tiles(interpolate(plain, tmp_path / "i.png", seeds=[4, 9], frames=3, steps=8), 1, 3)
        a, b = noise_start(plain.denoiser().schedule, [4, 9], (1, 8, 8)).split(1)
        middle = slerp(a, b, 0.5)
        straight = (a + b) / 2
        assert middle.norm() > 1.2 * straight.norm()
        np.savez(tmp_path / "e.npz", encodings=torch.cat([middle, middle]).numpy())
        again = tiles(interpolate(plain, tmp_path / "j.png", encodings=tmp_path / "e.npz", frames=2, steps=8), 1, 2)
        assert np.abs(again[0] - found[0, 1]).max() <= 1

    def test_a_conditional_models_row_has_the_class_of_its_first(self, labelled: Run, tmp_path: Path) -> None:
        found = tiles(interpolate(labelled, tmp_path / "i.png", seeds=[5, 2], frames=2, steps=8), 1, 2)
        own = labelled.sample(seeds=[5, 2], cls=1, sampler="ddim", steps=8, clip="none").images[..., 0].astype(int)
        assert np.abs(found[0] - own).max() <= 1
        other = tiles(interpolate(labelled, tmp_path / "j.png", seeds=[5, 2], frames=2, steps=8, cls="3"), 1, 2)
        asked = labelled.sample(seeds=[5, 2], cls=3, sampler="ddim", steps=8, clip="none").images[..., 0].astype(int)
        assert np.abs(other[0] - asked).max() <= 1

    def test_encodings_of_images_are_walked_between(self, labelled: Run, data: Path, tmp_path: Path) -> None:
        encoded = invert(labelled, str(data), tmp_path / "e.npz", n=2, steps=20)
        labels = np.load(tmp_path / "e.npz")["labels"]
        found = tiles(interpolate(labelled, tmp_path / "i.png", encodings=tmp_path / "e.npz", frames=3, steps=20), 1, 3)
        assert np.abs(found[0, 0] - encoded.decoded[0, ..., 0]).max() <= 1
        if labels[0] == labels[1]:
            assert np.abs(found[0, 2] - encoded.decoded[1, ..., 0]).max() <= 1

    def test_the_command(self, plain: Run, command: Command, tmp_path: Path) -> None:
        out = tmp_path / "i.png"
        found = command("interpolate", plain.path, "--picture", out, "--seeds", "0-3", "--frames", 4, "--steps", 5)
        assert found.code == 0, found.err
        assert str(out) in found.out.replace("\n", "")
        tiles(out, 2, 4)

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--seeds", "1,2,3"], "3 encodings, expected pairs"),
            (["--seeds", "1"], "1 encodings, expected pairs"),
            ([], "give either seeds or encodings"),
            (["--encodings", "nowhere.npz"], "not a file that `trilemma invert` wrote"),
            (["--seeds", "0,1", "--class", "2"], "this model is unconditional"),
            (["--seeds", "0,x"], "expected numbers and ranges"),
        ],
    )
    def test_what_cannot_be_walked_is_refused(
        self, plain: Run, command: Command, tmp_path: Path, arguments: list[str], says: str
    ) -> None:
        found = command("interpolate", plain.path, "--picture", tmp_path / "i.png", *arguments)
        assert found.code == 2 and says in found.err and found.err.count("\n") == 1

    @pytest.mark.parametrize("shape", [(1, 9, 9), (3, 8, 8), (64,)])
    def test_encodings_of_another_shape_are_refused(self, plain: Run, tmp_path: Path, shape: tuple[int, ...]) -> None:
        """Of another run's images, which a convolutional network might take all the same."""
        np.savez(tmp_path / "e.npz", encodings=np.zeros((2, *shape), np.float32))
        with pytest.raises(InputError, match=r"encodings: they are \(.*\), the run's images \(1, 8, 8\)"):
            interpolate(plain, tmp_path / "i.png", encodings=tmp_path / "e.npz", steps=3)


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


def test_a_forward_strip_of_a_continuous_schedule_shows_the_way(continuous: Run) -> None:
    """Nine different times from 0 to T, also where T is 1."""
    strip = continuous.forward_strip(rows=2)
    assert strip.times[0] == 0 and strip.times[-1] == 1
    assert len(set(strip.times)) == 9
    assert strip.images.shape == (2, 9, 8, 8, 1)


def test_a_continuous_run_is_sampled_by_every_sampler(continuous: Run) -> None:
    for name in ("ancestral", "ddim", "probability_flow", "heun", "dpmpp", "unipc"):
        for spacing in ("even", "log_snr", "karras"):
            assert continuous.sample(2, sampler=name, steps=5, spacing=spacing).images.shape == (2, 8, 8, 1)
