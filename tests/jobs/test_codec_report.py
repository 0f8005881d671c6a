"""What `trilemma codec` measures of a tiny autoencoder's run; what such a run gives, and what it is trained with."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from tests.conftest import Command, recipe_values
from tests.generators import SECTIONS
from trilemma.data import open_data
from trilemma.errors import InputError
from trilemma.jobs import codec_report, train
from trilemma.metrics import Statistics, frechet_distance
from trilemma.metrics.latent_moments import LatentMoments
from trilemma.process import Codec, to_model, to_uint8
from trilemma.runs import Run


def values(data: Path, **learner: Any) -> dict[str, Any]:
    made = {**recipe_values(data), **SECTIONS["autoencoder"]}
    made["learner"] = {"name": "autoencoder", "beta": 1e-3, **learner}
    made["training"] = {**made["training"], "steps": 3}
    return made


def trained(folder: Path, recipe: dict[str, Any]) -> Run:
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return train(folder / "tiny.yaml", out=folder / "run")


@pytest.fixture(scope="module")
def codec_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("codec"), values(data))


@pytest.fixture(scope="module")
def classifier_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    network = {"name": "classifier", "widths": [[4], [8]]}
    made = {**recipe_values(data), "learner": {"name": "classifier"}, "network": network}
    made["training"] = {**made["training"], "steps": 2}
    return trained(tmp_path_factory.mktemp("classifier"), made)


class TestRun:
    def test_gives_its_codec_with_the_sigma_that_it_has_learnt(self, codec_run: Run) -> None:
        for weights in ("ema", "raw"):
            codec = codec_run.codec(weights)
            assert not codec.training and not codec.network.training and codec.scale == 1
            learner = codec_run.learner(weights)
            assert codec.log_sigma == learner.spread.log_sigma != 0
            assert codec.shape_of((1, 8, 8)) == (2, 4, 4)
            own = learner.autoencoder.state_dict()
            assert all(torch.equal(value, own[key]) for key, value in codec.network.state_dict().items())
        assert codec_run.parameters == sum(p.numel() for p in codec_run.codec().network.parameters())

    def test_another_run_gives_none(self, run: Run) -> None:
        with pytest.raises(InputError, match=r"trains a denoising model, not an autoencoder, in whose latents"):
            run.codec()

    def test_logs_its_parts_and_its_error(self, codec_run: Run) -> None:
        lines = [json.loads(line) for line in (codec_run.path / "log.jsonl").read_text().splitlines()]
        assert {"loss", "distortion", "rate"} <= lines[0].keys()
        assert {"validation_loss", "validation_distortion", "validation_rate", "validation_rmse"} <= lines[-1].keys()

    def test_what_is_no_autoencoder_is_refused(self, data: Path, tmp_path: Path) -> None:
        other = values(data) | {"network": {"name": "sngan_discriminator", "channels": 4, "downs": 1, "blocks": 0}}
        with pytest.raises(InputError, match="network SNGANDiscriminator: an autoencoder has encode, decode and"):
            trained(tmp_path / "other", other)
        with pytest.raises(InputError, match=r"network of an autoencoder learner.*autoencoder"):
            trained(tmp_path / "unet", values(data) | {"network": recipe_values(data)["network"]})


class TestPerceptual:
    def test_is_of_a_classifier_s_run_which_is_needed_for_training_alone(
        self, classifier_run: Run, data: Path, tmp_path: Path
    ) -> None:
        """And does not change by it."""
        place = tmp_path / "features"
        shutil.copytree(classifier_run.path, place, symlinks=True)
        before = {f: f.read_bytes() for f in place.rglob("*.safetensors")}
        found = trained(tmp_path / "perceptual", values(data, perceptual=str(place), perceptual_weight=2.0))
        assert before == {f: f.read_bytes() for f in place.rglob("*.safetensors")}
        plain = trained(tmp_path / "plain", values(data))
        mine, other = (each.codec("raw").network.state_dict() for each in (found, plain))
        assert mine.keys() == other.keys() and any(not torch.equal(mine[key], other[key]) for key in mine)
        assert "perceptual" in json.loads((found.path / "log.jsonl").read_text().splitlines()[0])
        shutil.rmtree(place)
        assert Run(found.path).codec().shape_of((1, 8, 8)) == (2, 4, 4)
        with pytest.raises(InputError, match="features is not a run directory"):
            train(tmp_path / "perceptual" / "tiny.yaml", out=found.path, resume=True)

    @pytest.mark.parametrize("flaw", ["none", "range"])
    def test_another_run_is_refused_before_anything_is_written(
        self, flaw: str, run: Run, classifier_run: Run, data: Path, tmp_path: Path
    ) -> None:
        recipe = values(data, perceptual=str(run.path if flaw == "none" else classifier_run.path))
        if flaw == "range":
            recipe["data"] = {**recipe["data"], "range": [0.0, 1.0]}
        told = {
            "none": "trains a denoising model, not a classifier of clean images",
            "range": r"classifier .*: its pixels lie in \[-1.0, 1.0\], the run's in \[0.0, 1.0\]",
        }
        with pytest.raises(InputError, match=told[flaw]):
            trained(tmp_path / "refused", recipe)
        assert not (tmp_path / "refused" / "run").exists()


class Halves(nn.Module):
    """Means of the left half's and the right half's brightness, of known deviations."""

    latent_channels = 2

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        means = torch.stack([half.mean((1, 2, 3)) for half in x.chunk(2, dim=3)], 1)[:, :, None, None]
        return torch.cat([means, torch.tensor([0.5, -1.0]).view(1, 2, 1, 1).expand_as(means)], 1)


def test_the_latents_deviation_is_that_of_draws(data: Path) -> None:
    x = to_model(open_data(str(data)).batch(range(24))[0])

    def deviation_of(codec: Codec) -> float:
        seen = LatentMoments()
        for part in x.split(7):
            seen.update(*codec.moments(part))
        return seen.deviation

    found = deviation_of(Codec(Halves()))
    mean, deviation = Codec(Halves()).moments(x)
    draws = mean + deviation * torch.randn(4000, *mean.shape, generator=torch.Generator().manual_seed(0))
    assert found == pytest.approx(float(draws.std()), rel=5e-3)
    assert deviation_of(Codec(Halves(), scale=1 / found)) == pytest.approx(1, rel=1e-5)
    assert deviation_of(Codec(None, scale=2.0)) == pytest.approx(2 * float(x.std(correction=0)), rel=1e-5)


class TestReport:
    def test_its_figures_are_those_of_the_images(self, codec_run: Run, data: Path, tmp_path: Path) -> None:
        result = codec_report(codec_run, str(data), batch=7, features="pixels", out=tmp_path / "codec.json")
        images, _ = open_data(str(data)).batch(range(24))
        codec = codec_run.codec()
        with torch.inference_mode():
            mean, deviation = codec.moments(to_model(images))
            made = to_uint8(codec.decode(mean))
        squares = ((images.astype(float) - made) ** 2).reshape(24, -1).mean(1)
        variance = deviation.double().square()
        kl = 0.5 * (mean.double().square() + variance - 1 - variance.log()).flatten(1).sum(1).numpy()
        expected = {
            "rmse": np.sqrt(squares),
            "psnr_db": 10 * np.log10(255**2 / squares),
            "nats": kl,
            "bits_per_dim": kl / math.log(2) / 64,
        }
        found = {**result["reconstruction"], **result["kl"]}
        for key, each in expected.items():
            assert found[key]["mean"] == pytest.approx(each.mean(), rel=1e-5), key
            assert found[key]["standard_error"] == pytest.approx(each.std(ddof=1) / 24**0.5, rel=1e-4), key
        real, fake = (Statistics.of(part.reshape(24, -1) / 255.0) for part in (images, made))
        assert found["frechet_distance"]["value"] == pytest.approx(frechet_distance(real=real, fake=fake), rel=1e-3)
        latents, means = result["latents"], mean.double().mean((0, 2, 3))
        assert latents["shape"] == [2, 4, 4] and latents["compression"] == 2
        assert latents["channel_means"] == pytest.approx(means.tolist(), rel=1e-5)
        spread = ((mean.double() - means.view(1, 2, 1, 1)).square() + variance).mean((0, 2, 3)).sqrt()
        assert latents["channel_standard_deviations"] == pytest.approx(spread.tolist(), rel=1e-5)
        total = mean.double().square().mean() + variance.mean() - mean.double().mean() ** 2
        assert latents["standard_deviation"] == pytest.approx(float(total.sqrt()), rel=1e-5)
        assert latents["scale"] == pytest.approx(1 / latents["standard_deviation"])
        assert result["reference"]["used"] == 24 and result["features"]["name"] == "pixels"
        assert result["subject"]["weights"] == "ema" and len(result["subject"]["weights_sha256"]) == 64
        saved = json.loads((tmp_path / "codec.json").read_text())
        assert saved | {"path": result["path"]} == result and saved["format"] == "trilemma-codec/1"

    def test_the_command_prints_and_draws_them(
        self, codec_run: Run, data: Path, tmp_path: Path, command: Command
    ) -> None:
        place = tmp_path / "run"
        shutil.copytree(codec_run.path, place, symlinks=True)
        done = command("codec", place, "--reference", data, "-n", 5, "--picture", tmp_path / "pairs.png")
        assert done.code == 0, done.err
        for words in ("root mean square error", "PSNR, dB", "bits/dim", "2 × 4 × 4", "channel 1", "scale, 1 over"):
            assert words in done.out
        (file,) = (place / "evaluations" / "codec").iterdir()
        assert file.name == "codec-ramps.npz-all-5-ema-step3.json"
        written = json.loads(file.read_text())
        assert written["reference"]["used"] == 5 and f"{written['latents']['scale']:.4f}" in done.out
        assert f"codec: {file}" in done.out
        with Image.open(tmp_path / "pairs.png") as picture:
            assert picture.size == (5 * 10 + 2, 2 * 10 + 2)

    def test_one_image_has_no_errors(self, codec_run: Run, data: Path, tmp_path: Path) -> None:
        result = codec_report(codec_run, str(data), n=1, features="pixels", out=tmp_path / "codec.json")
        assert result["reconstruction"]["rmse"]["standard_error"] is None
        assert result["reconstruction"]["frechet_distance"] == {"value": None, "standard_error": None}

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"weights": "best"}, "weights 'best': expected 'ema' or 'raw'"),
            ({"out": "codec.txt"}, "codec.txt"),
            ({"picture": "pairs.jpg"}, "pairs.jpg"),
            ({"reference": "shapes"}, r"reference 'shapes': its images are .*, the run's \(1, 8, 8\)"),
            ({"features": "inceptio"}, "inception"),
        ],
    )
    def test_what_cannot_be_done_is_refused(
        self, changes: dict[str, Any], told: str, codec_run: Run, data: Path, monkeypatch: Callable[..., Any]
    ) -> None:
        with pytest.raises(InputError, match=told):
            codec_report(codec_run, **{"reference": str(data), **changes})
        assert not (codec_run.path / "evaluations").exists()
