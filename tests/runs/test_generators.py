"""Runs of GANs, VAEs and DDGAN: trained, sampled, measured, compared and reported like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import Command, recipe_values
from tests.generators import SECTIONS
from trilemma.data import open_data
from trilemma.errors import InputError
from trilemma.evaluations import evaluate
from trilemma.jobs import train
from trilemma.runs import Run

Trained = Callable[..., Run]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The tiny run of a learner, with further keys of its section; each trained once."""
    made: dict[str, Run] = {}

    def make(learner: str, **more: Any) -> Run:
        if (key := json.dumps([learner, more])) not in made:
            folder = tmp_path_factory.mktemp(learner)
            values = {**recipe_values(data), **SECTIONS[learner]}
            values["learner"] = {**values["learner"], **more}
            values["training"] = {**values["training"], "grid_every": 6}
            (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
            made[key] = train(folder / "tiny.yaml", out=folder / "run")
        return made[key]

    return make


def log_of(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]


LEARNERS = {"gan": 1, "vae": 1, "ddgan": 2}
"""And the network evaluations that an image takes."""


@pytest.mark.parametrize("learner", LEARNERS)
class TestEveryGenerator:
    @pytest.mark.parametrize("conditional", [False, True])
    def test_an_image_is_its_seed_s_whatever_the_batch(self, trained: Trained, learner: str, conditional: bool) -> None:
        run = trained(learner, conditional=conditional)
        assert (run.path / "samples" / "grid-00000006.png").exists()
        whole, one_by_one = run.sample(6), run.sample(6, batch=1)
        assert np.array_equal(whole.images, one_by_one.images)
        assert len({image.tobytes() for image in whole.images}) == 6
        assert (whole.labels is None) == (not conditional)
        assert run.sampler().evaluations == LEARNERS[learner]
        if conditional:
            others = run.sample(6, cls=1)
            assert not np.array_equal(others.images[0], whole.images[0]), "the class reaches the generator"

    def test_the_averaged_weights_are_sampled_unless_others_are_asked_for(self, trained: Trained, learner: str) -> None:
        run = trained(learner)
        assert not np.array_equal(run.sample(2).images, run.sample(2, weights="raw").images)

    def test_is_evaluated_and_counted_like_any_other(self, trained: Trained, learner: str, tmp_path: Path) -> None:
        run = trained(learner)
        metrics = ["precision", "network_evaluations", "multiply_adds", "images_per_second"]
        found = evaluate(run, n=12, features="pixels", metrics=metrics, out=tmp_path / "found.json")
        assert found.figure("network_evaluations") == LEARNERS[learner] and found.figure("multiply_adds") > 0
        assert found.figure("images_per_second") > 0
        assert found.subject.parameters == sum(p.numel() for p in run.denoiser().network.parameters())

    def test_compiles_from_names_to_a_report(
        self, trained: Trained, learner: str, tmp_path: Path, command: Command, data: Path
    ) -> None:
        run = trained(learner)
        assert command("sample", run.path, "-n", 4, "--picture", tmp_path / "few.png").code == 0
        measured = command("evaluate", run.path, "-n", 12, "--features", "pixels", "--metrics", "precision,recall")
        assert measured.code == 0, measured.err
        made = command("report", run.path, "--out", tmp_path / "report.html")
        assert made.code == 0 and (tmp_path / "report.html").stat().st_size > 10_000, made.err
        shown = command("network", run.path, "--no-timing")
        assert shown.code == 0 and "tiny" in shown.out, shown.err


class TestWhatIsLogged:
    def test_of_adversaries(self, trained: Trained) -> None:
        """Logits, gradient norms of each, R1, and the discriminator's judgement of held-out images and fakes."""
        for learner in ("gan", "ddgan"):
            lines = log_of(trained(learner))
            named = {key for line in lines for key in line}
            assert {"logit_real", "logit_fake", "r1", "generator_loss", "grad_norm_discriminator"} <= named
            assert {"grad_norm_generator", "discriminator_real", "discriminator_fake"} <= named
            steps = [line["step"] for line in lines if "generator_loss" in line]
            assert steps == ([2, 4, 6] if learner == "gan" else [1, 2, 3, 4, 5, 6])

    def test_of_a_vae(self, trained: Trained) -> None:
        lines = log_of(trained("vae"))
        first = lines[0]
        assert first["loss"] == pytest.approx(first["distortion"] + first["rate"], rel=1e-5)
        last = next(line for line in reversed(lines) if "validation_loss" in line)
        assert last["validation_loss"] == pytest.approx(
            last["validation_distortion"] + last["validation_rate"], rel=1e-5
        )

    def test_balance_of_fixed_seeds_if_asked_for(self, data: Path, tmp_path: Path) -> None:
        """Collapse shows as classes that are missing."""
        values = {**recipe_values(data), **SECTIONS["gan"], "data": {"name": "mnist5k:test", "size": 8}}
        values["data"] = {"name": "mnist5k", "split": "test", "size": 28}
        values["network"] = {**values["network"], "ups": 2}
        values["evaluate"] = {"every": 3, "n": 20, "metrics": ["balance_kl"]}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
        found = [line for line in log_of(train(tmp_path / "tiny.yaml", out=tmp_path / "run")) if "balance_kl" in line]
        assert [line["step"] for line in found] == [3, 6]


class TestRefusals:
    def test_of_ddgan(self, trained: Trained, command: Command, tmp_path: Path) -> None:
        run = trained("ddgan")
        for how in ({"sampler": "ddim"}, {"sampler": "dpmpp", "steps": 2}, {"sampler": "heun", "steps": 2}):
            with pytest.raises(InputError, match=r"the model draws its x̂_0 \(UNet\), and this sampler rests on x̂_0"):
                run.sampler(**how)
        with pytest.raises(InputError, match="leave steps, spacing, skip and times out"):
            run.sampler(steps=1)
        for arguments in (
            ("nll", run.path, "--reference", run.recipe.data.name, "-n", 2),
            ("invert", run.path, run.recipe.data.name, "--out", tmp_path / "codes.npz"),
        ):
            told = command(*arguments)
            assert told.code == 2 and "draws its x̂_0" in told.err and "Traceback" not in told.err, told.err

    def test_say_what_was_asked(self, trained: Trained, command: Command) -> None:
        """The reason is the denoiser's, whatever else would not do."""
        gan, ddgan = trained("gan"), trained("ddgan")
        told = command("nll", gan.path, "--reference", gan.recipe.data.name, "-n", 2)
        assert told.code == 2 and "draws its x̂_0" in told.err, told.err
        with pytest.raises(InputError, match=r"guidance: the model draws its x̂_0 \(SNGANGenerator\)"):
            gan.sampler(guidance=2.0)
        with pytest.raises(InputError, match=r"t_mid 1\.5: the model draws .* expected a whole number"):
            ddgan.sampler(surrogate=str(gan.path), t_mid=1.5)

    @pytest.mark.parametrize(
        ("learner", "changes", "message"),
        [
            ("gan", {"network": {"name": "unet"}}, r"unknown network of a gan learner 'unet' \(known: .*sngan"),
            ("ddgan", {"network": {"latent": 0}}, r"network UNet: it takes no latent"),
            ("ddgan", {"schedule": {"name": "vp"}}, r"DDGAN walks a table of 1 to 8 steps, and this one is continuous"),
            ("ddgan", {"schedule": {"steps": 9}}, r"schedule.steps: .*less than or equal to 8"),
            ("gan", {"learner": {"discriminator": "unet"}}, r"unknown network of a discriminator 'unet'"),
            ("vae", {"learner": {"encoder": "unet"}}, r"unknown network of a VAE's encoder 'unet'"),
            ("gan", {"data": {"range": [0, 1]}}, r"data.range \[0.0, 1.0\]: a generator's images lie in \[-1, 1\]"),
            (
                "gan",
                {"learner": {"discriminator": "ddgan_discriminator"}},
                r"discriminator DDGANDiscriminator: expected forward\(images\), and it has missing .* 'x_t'",
            ),
            (
                "ddgan",
                {"learner": {"discriminator": "sngan_discriminator"}},
                r"discriminator SNGANDiscriminator: expected forward\(x_s, x_t, time\)",
            ),
            ("ddgan", {"network": {"upsampler": True}}, r"network.upsampler true: a ddgan learner has no low images"),
            ("ddgan", {"learner": {"name": "denoising"}}, r"network.latent 3: a denoising learner trains the mean"),
            ("gan", {"learner": {"loss": "wasserstein"}}, r"learner.loss: .*'hinge' or 'non_saturating'"),
        ],
    )
    def test_of_recipes(self, data: Path, tmp_path: Path, learner: str, changes: dict[str, Any], message: str) -> None:
        values = {**recipe_values(data), **SECTIONS[learner]}
        for section, change in changes.items():
            replaced = section != "data" and "name" in change
            values[section] = change if replaced else {**values[section], **change}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
        with pytest.raises(InputError, match=message):
            train(tmp_path / "tiny.yaml", out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_gan_is_a_surrogate(trained: Trained, tmp_path: Path) -> None:
    """Of a denoiser, at every t_mid; at 0 it is its own image."""
    gan = trained("gan")
    values = recipe_values(Path(gan.recipe.data.name))
    values["learner"]["conditional"] = False
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
    run = train(tmp_path / "tiny.yaml", out=tmp_path / "run")
    at_zero = run.sample(5, surrogate=str(gan.path), t_mid=0.0)
    assert np.array_equal(at_zero.images, gan.sample(5).images)
    assert run.sampler(surrogate=str(gan.path), t_mid=4.0).evaluations == 4 + 1
    assert len(open_data(run.recipe.data.name)) == 24
