"""A schedule learned with its network: trained, resumed, opened, measured, drawn; refused where nobody trains it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

import trilemma as tl
from tests.conftest import recipe_values
from tests.contracts.test_learners import NETWORKS
from trilemma.errors import InputError
from trilemma.jobs import dry_run, nll, train
from trilemma.jobs.gradient_noise import gradient_noise
from trilemma.machine.untrusted import parse_json
from trilemma.metrics.likelihood import continuous_bound
from trilemma.objectives import VariationalDiffusion
from trilemma.process import VDM, Condition, Draw, to_model
from trilemma.report.likelihood import likelihood_figure
from trilemma.runs import Run, schedule_of
from trilemma.samplers import SAMPLERS
from trilemma.training import DenoisingLearner, TrainingSettings, checkpoint

Command = Callable[..., Any]
LEARNER = {
    **{"name": "denoising", "objective": "vdm", "times": "low_discrepancy", "variance": "fixed_small"},
    "parameterization": {"name": "epsilon", "skip": True},
}
SCHEDULE = {"name": "vdm", "hidden": 8, "rate": 20.0}


def values(data: Path, **training: Any) -> dict[str, Any]:
    whole = recipe_values(data) | {"learner": LEARNER, "schedule": SCHEDULE}
    whole["training"] = whole["training"] | {"micro_batch": 4, "optimizer": "adamw", "weight_decay": 0.1} | training
    return whole | {"sampling": {"sampler": "ancestral", "steps": 6, "batch": 4}}


def written(folder: Path, recipe: dict[str, Any]) -> Path:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def learned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("learned")
    return train(written(folder, values(data)), out=folder / "run")


def gammas(run: Run, weights: str) -> Tensor:
    return run.denoiser(weights).schedule.gamma(torch.linspace(0.1, 1, 5, dtype=torch.float64))


class TestTraining:
    def test_moves_the_schedule_and_its_average_and_says_where_it_ends(self, learned: Run) -> None:
        fresh = VDM(**{key: value for key, value in SCHEDULE.items() if key != "name"})
        raw, averaged = gammas(learned, "raw"), gammas(learned, "ema")
        start = fresh.gamma(torch.linspace(0.1, 1, 5, dtype=torch.float64))
        assert not torch.isclose(raw, averaged).any() and not torch.isclose(raw, start).any()
        for file in ("model", "ema"):
            found = checkpoint.read_tensors(learned.checkpoint / f"{file}.safetensors")
            kept = {key: value for key, value in found.items() if key.startswith("schedule.")}
            assert len(kept) == 5 and all(value.dtype == torch.float64 for value in kept.values())
            module = learned.denoiser({"model": "raw", "ema": "ema"}[file]).schedule
            assert all(torch.equal(module.state_dict()[key[9:]], value) for key, value in kept.items())
        lines = [json.loads(line) for line in (learned.path / "log.jsonl").read_text().splitlines()]
        last = [line for line in lines if "loss" in line][-1]
        parts = [last[f"loss_{name}"] for name in ("prior", "diffusion", "reconstruction")]
        assert sum(parts) == pytest.approx(last["loss"], rel=1e-5)
        assert last["gamma_0"] == pytest.approx(-13.3, abs=0.5) and last["gamma_1"] == pytest.approx(5.0, abs=0.5)
        assert last["gamma_0"] != -13.3 and "gamma_0_t1" not in last and "loss_prior_t1" in last
        assert learned.parameters == sum(p.numel() for p in learned.denoiser().network.parameters())

    def test_is_resumed_bit_for_bit(
        self, learned: Run, data: Path, tmp_path: Path, outcome: Callable[[Path], dict[str, Any]]
    ) -> None:
        recipe = written(tmp_path, values(data, steps=4))
        train(recipe, out=tmp_path / "halves")
        again = train(recipe, out=tmp_path / "halves", resume=True, overrides=["training.steps=6"])
        one, other = outcome(learned.path), outcome(again.path)
        assert one.keys() == other.keys()
        assert all(one[key] == other[key] for key in one if key != "log")
        assert [line for line in other["log"] if line["step"] == 6] == [
            line for line in one["log"] if line["step"] == 6
        ]

    def test_begins_from_another_run_s_averages(self, learned: Run, data: Path, tmp_path: Path) -> None:
        recipe = written(tmp_path, values(data, steps=1, learning_rate=1e-12, ema=0.0, warmup=0))
        begun = train(recipe, out=tmp_path / "run", init=learned.path)
        torch.testing.assert_close(gammas(begun, "raw"), gammas(learned, "ema"), rtol=0, atol=1e-6)

    def test_has_three_groups_at_their_own_rates(self) -> None:
        network = nn.Conv2d(1, 1, 1)
        network.forward = lambda x, t: x  # type: ignore[method-assign,assignment]
        settings = TrainingSettings(steps=1, learning_rate=0.01, optimizer="adamw", weight_decay=0.1)
        for inside, ends in (("learned", "learned"), ("linear", "learned"), ("learned", "fixed"), ("linear", "fixed")):
            schedule = VDM(inside=inside, ends=ends, hidden=2, rate=3.0)  # type: ignore[arg-type]
            denoiser = tl.Denoiser(network, schedule, "epsilon", "fixed_small")
            learner = DenoisingLearner(denoiser, VariationalDiffusion(), tl.Uniform(schedule))
            groups = learner.optimizers(settings)["optimizer"].param_groups
            found = [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
            own = [(2, 0.03, 0.0)] * (ends == "learned") + [(3, 0.03, 0.0)] * (inside == "learned")
            assert found == [(2, 0.01, 0.1), *(tuple(map(pytest.approx, each)) for each in own)]

    def test_what_it_takes_is_said_beforehand(self, data: Path, tmp_path: Path) -> None:
        said = dry_run(written(tmp_path, values(data)))
        count = parameters_in(said)
        assert (
            count
            == parameters_in(dry_run(written(tmp_path, values(data) | {"schedule": {**SCHEDULE, "hidden": 9}}))) - 3
        )


def parameters_in(said: str) -> int:
    line = next(line for line in said.splitlines() if line.startswith("# parameters: "))
    return int(line.split()[2].replace(",", ""))


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"learner": {**LEARNER, "objective": "simple"}}, r"objective 'simple' trains none: expected objective"),
            ({"schedule": {"name": "cosine", "steps": 5}}, r"is a table, expected a continuous one, such as vdm"),
            ({"learner": {**LEARNER, "objective": "vlb"}}, r"needs a tabulated.*continuous one it is objective vdm"),
            ({"learner": {**LEARNER, "variance": "fixed_large"}}, r"objective 'vdm' goes with fixed_small"),
            (
                {
                    "learner": {"name": "noisy_classifier"},
                    "network": NETWORKS["noisy_classifier"],
                },
                r"is learned, and a noisy_classifier learner trains none: expected a fixed one",
            ),
        ],
    )  # fmt: skip
    def test_leave_no_run_behind(self, data: Path, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
        with pytest.raises(InputError, match=says):
            train(written(tmp_path, values(data) | changes), out=tmp_path / "run")
        assert not (tmp_path / "run" / "recipe.yaml").exists()

    def test_in_python_too(self, data: Path, tmp_path: Path) -> None:
        denoiser = tl.Denoiser(Net(), VDM(hidden=2), "v", "fixed_small")
        with pytest.raises(InputError, match=r"objective 'simple' trains none"):
            tl.fit(denoiser, str(data), "simple", steps=1, out=tmp_path / "run")
        assert not (tmp_path / "run" / "recipe.yaml").exists()

    def test_what_others_cannot_hold(self, learned: Run, command: Command) -> None:
        found = command("export", learned.path)
        assert found.code == 2 and "has no counterpart in diffusers" in found.err
        with pytest.raises(InputError, match=r"objective 'simple' trains none: expected objective 'vdm'"):
            gradient_noise(learned, ["simple"], ["uniform"], batches=2)
        (noise,) = gradient_noise(learned, ["vdm"], ["uniform"], batches=2)
        assert np.isfinite(noise.trace)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.conv(x) * (1 + t / 1000)[:, None, None, None]


def test_is_trained_in_python_and_opened_again(data: Path, tmp_path: Path) -> None:
    denoiser = tl.Denoiser(Net(), VDM(hidden=4, rate=50.0), tl.Epsilon(skip=True), "fixed_small")
    list(tl.fit(denoiser, str(data), "vdm", steps=4, out=tmp_path / "run", batch=6, ema=0.5, learning_rate=1e-3))
    run = Run(tmp_path / "run", network=Net())
    assert torch.equal(gammas(run, "ema"), denoiser.schedule.gamma(torch.linspace(0.1, 1, 5, dtype=torch.float64)))
    assert run.denoiser().parameterization == tl.Epsilon(skip=True)
    alone = schedule_of(str(tmp_path / "run"))  # which needs no network
    assert torch.equal(alone.gamma(torch.tensor([0.3]).double()), denoiser.schedule.gamma(torch.tensor([0.3]).double()))


def test_is_sampled_by_every_sampler_on_every_grid(learned: Run) -> None:
    for name in SAMPLERS:
        for spacing in ("even", "log_snr", "karras"):
            assert learned.sample(2, sampler=name, steps=5, spacing=spacing).images.shape == (2, 8, 8, 1)


class TestSchedule:
    def test_of_a_run_is_printed_and_drawn(self, learned: Run, command: Command, tmp_path: Path) -> None:
        found = command("schedule", learned.path, "vdm", "--picture", tmp_path / "s.png")
        assert found.code == 0, found.err
        snr = learned.denoiser().schedule.terminal_snr()
        assert f"{snr:.3g}" in found.out and f"{VDM().terminal_snr():.3g}" in found.out
        assert f"{snr:.3g}" != f"{VDM().terminal_snr():.3g}"
        with Image.open(tmp_path / "s.png") as picture:
            assert min(picture.size) > 100

    def test_of_any_run_that_has_one(self, run: Run) -> None:
        assert repr(schedule_of(str(run.path))) == repr(run.denoiser().schedule)


class TestLikelihood:
    def test_in_continuous_time_it_is_the_bound_of_each_image(self, learned: Run, data: Path, tmp_path: Path) -> None:
        result = nll(learned, str(data), n=24, draws=5, batch=7, clip="none", out=tmp_path / "nll.json")
        denoiser, images = learned.denoiser(), tl.open_data(str(data)).batch(range(24))[0]
        bounds = [
            continuous_bound(denoiser, to_model(images[i : i + 1]), Condition(), 5, Draw([(0, "nll", i)]))
            for i in range(24)
        ]
        totals = np.array([float(bound.total) for bound in bounds])
        figure = result["bits_per_dim"]["total"]
        assert figure["mean"] == pytest.approx(totals.mean(), rel=1e-4)
        assert figure["standard_error"] == pytest.approx(totals.std(ddof=1) / 24**0.5, rel=1e-3)
        assert result["grid"] | {"clip": None} == {
            "steps": None, "draws": 5, "spacing": "even", "clip": None, "ode_steps": None
        }  # fmt: skip
        assert len(result["terms"]["t"]) == 6 and result["terms"]["t"][-1] == denoiser.schedule.t_min

    def test_the_command_says_which_bound_it_is(self, learned: Run, data: Path, command: Command) -> None:
        found = command("nll", learned.path, "--reference", data, "-n", 4)
        assert found.code == 0, found.err
        assert "in continuous time" in found.out
        place = learned.path / "evaluations" / "likelihood"
        (file,) = place.glob("nll-*-continuous64-ema-step6.json")
        assert json.loads(file.read_text())["grid"]["draws"] == 64
        with Image.open(file.with_suffix(".png")) as picture:
            assert picture.format == "PNG"

    def test_in_steps_the_last_is_decoded_to_levels(self, learned: Run, data: Path, tmp_path: Path) -> None:
        result = nll(learned, str(data), n=6, steps=4, out=tmp_path / "nll.json")
        assert result["grid"]["steps"] == 4 and result["grid"]["draws"] is None
        assert result["bits_per_dim"]["decoder"]["mean"] < 0.1  # a network of six steps would not know it
        old = {**result, "grid": {key: value for key, value in result["grid"].items() if key != "draws"}}
        assert likelihood_figure(parse_json(json.dumps(old)), tmp_path / "old.png").exists()

    def test_draws_go_with_continuous_time_alone(self, learned: Run, run: Run, data: Path) -> None:
        with pytest.raises(InputError, match=r"draws 3: the bound of 4 steps has a term for every step"):
            nll(learned, str(data), draws=3, steps=4)
        with pytest.raises(InputError, match=r"draws 3: this model's schedule is a table"):
            nll(run, str(data), draws=3)
        with pytest.raises(InputError, match=r"spacing 'karras': of a grid of steps"):
            nll(learned, str(data), spacing="karras")
