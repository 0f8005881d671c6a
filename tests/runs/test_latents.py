"""Runs that diffuse latents: the codec at the edges of every command, its scale, its copy in the run, its cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.jobs.conftest import recipe
from trilemma.data import open_data
from trilemma.errors import InputError
from trilemma.jobs import interpolate, invert, train
from trilemma.process import Codec, Draw, to_model
from trilemma.runs import Run
from trilemma.runs.build import open_images
from trilemma.runs.latents import codec_of, latents_of
from trilemma.training import Batch

SMALL = {"learner": {"variance": "fixed_small", "objective": "simple"}}


def trained(folder: Path, values: dict[str, Any], name: str, **settings: Any) -> Run:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return train(path, out=folder / name, **settings)


def codec_values(data: Path, **changes: Any) -> dict[str, Any]:
    values = recipe(data, training={"steps": 20, "checkpoint_every": 20})
    values |= {"learner": {"name": "autoencoder", "beta": 1e-2}}
    values["network"] = {
        **{"name": "autoencoder", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "latent_channels": 2},
        "middle_attention": False,
    }
    del values["schedule"], values["sampling"]
    return values | changes


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec of 8×8 images, 4×4×2 latents, and a run that diffuses these: `codec` and `latent`."""
    place = tmp_path_factory.mktemp("latents")
    trained(place, codec_values(data), "codec")
    network = {"multipliers": [1], "base_channels": 8}
    values = recipe(data, **SMALL, network=network) | {"codec": str(place / "codec")}
    trained(place, values, "latent")
    return place


@pytest.fixture
def latent(folder: Path) -> Run:
    return Run(folder / "latent")


def test_the_identity_at_scale_1_is_pixel_diffusion_to_the_bit(data: Path, tmp_path: Path) -> None:
    training = {"flip": True, "steps": 12, "checkpoint_every": 12}
    values = recipe(data, **SMALL, training=training)
    plain = trained(tmp_path, values, "plain")
    latent = trained(tmp_path, values | {"codec": {"name": "identity", "scale": 1.0}}, "latent")
    for file in ("model", "ema", "optimizer"):
        ours, theirs = (Path(run.checkpoint / f"{file}.safetensors").read_bytes() for run in (latent, plain))
        assert ours == theirs
    settings = {"sampler": "ancestral", "steps": 5}
    assert np.array_equal(latent.sample(6, **settings).images, plain.sample(6, **settings).images)
    assert list((tmp_path / "cache" / "latents").iterdir())


def test_the_scale_is_one_over_the_spread_of_drawn_latents(latent: Run) -> None:
    settings = latent.recipe.codec
    assert settings is not None and settings.scale is not None
    codec, data = codec_of(latent.recipe), open_images(latent.recipe)
    assert codec is not None and codec.scale == settings.scale and settings.shape == (2, 4, 4)
    joined = codec.joined(to_model(data.batch(range(len(data)))[0]))
    noise = torch.Generator().manual_seed(0)
    mean, deviation = joined.chunk(2, dim=1)
    drawn = mean + deviation * torch.randn(400, *mean.shape, generator=noise)
    assert drawn.std() == pytest.approx(1.0, abs=5e-3)


def test_training_draws_latents_anew_and_by_the_image_s_key(latent: Run) -> None:
    learner: Any = latent.learner()
    moments = torch.cat([torch.zeros(3, 2, 4, 4), torch.ones(3, 2, 4, 4)], dim=1)

    def drawn(step: int) -> torch.Tensor:
        return learner.x0(Batch(moments, None, [(0, "train", step, j) for j in range(3)]))

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(drawn(1)[0], drawn(1)[1])
    objective_noise = learner.x0(Batch(moments, None, [(0, "train", 1, 0)] * 3))
    assert not torch.equal(objective_noise[0], Draw([(0, "train", 1, 0)]).normal(objective_noise[:1])[0])


def test_samples_are_what_the_walk_in_latents_decodes_to(latent: Run) -> None:
    way = latent.way(sampler="ddim", steps=4)
    *_, last = way.sampler.walk([0, 1, 2])
    assert last.x.shape == (3, 2, 4, 4)
    denoiser = latent.denoiser()
    network: Any = denoiser.codec.network
    decoded = network.decode(last.x / denoiser.codec.scale)
    expected = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(latent.sample(3, sampler="ddim", steps=4).images, expected)
    assert way.sampler.shape == (1, 8, 8)


def test_a_run_keeps_its_codec(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "latent", tmp_path / "latent")
    before = Run(folder / "latent").sample(2, steps=3).images
    (folder / "codec").rename(folder / "moved")
    try:
        assert np.array_equal(Run(tmp_path / "latent").sample(2, steps=3).images, before)
    finally:
        (folder / "moved").rename(folder / "codec")


def test_a_codec_that_is_not_the_run_s_is_refused_by_hash(folder: Path, data: Path, tmp_path: Path) -> None:
    other = trained(tmp_path, codec_values(data, training={"steps": 5, "batch": 12, "grid_every": 0}), "other")
    shutil.copytree(folder / "latent", tmp_path / "latent")
    shutil.rmtree(tmp_path / "latent" / "codec")
    shutil.copytree(other.path, tmp_path / "latent" / "codec")
    with pytest.raises(InputError, match=r"SHA-256 is .*it does not belong to this run"):
        Run(tmp_path / "latent").sample(1, steps=2)
    recipe_of = yaml.safe_load((folder / "latent" / "recipe.yaml").read_text())
    values = recipe_of | {"codec": recipe_of["codec"] | {"name": str(other.path)}}
    with pytest.raises(InputError, match="it does not belong to this run"):
        trained(tmp_path, values, "again")
    assert not (tmp_path / "again" / "recipe.yaml").exists()


def test_what_is_said_of_a_codec_by_hand_is_held_against_it(folder: Path, data: Path, tmp_path: Path) -> None:
    for shape in ([3, 4, 4], [2, 8, 8]):
        values = recipe(data, **SMALL, network={"multipliers": [1]}) | {
            "codec": {"name": str(folder / "codec"), "shape": shape}
        }
        with pytest.raises(InputError, match=r"codec.shape .* makes latents \(2, 4, 4\)"):
            trained(tmp_path, values, "shaped")
    values["codec"] |= {"shape": [2, 4, 4]}
    run = trained(tmp_path, values | {"training": values["training"] | {"steps": 1, "warmup": 0}}, "shaped")
    assert run.recipe.codec is not None and run.recipe.codec.sha256 is not None


def test_another_codec_in_the_run_s_place_is_no_codec_of_it(folder: Path, data: Path, tmp_path: Path) -> None:
    other = trained(tmp_path, codec_values(data, training={"steps": 3, "batch": 12, "grid_every": 0}), "other")
    values = recipe(data, **SMALL, network={"multipliers": [1]}) | {"codec": str(folder / "codec")}
    shutil.copytree(other.path, tmp_path / "run" / "codec")
    with pytest.raises(InputError, match="is there already, and is not the run's codec"):
        trained(tmp_path, values, "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_weights_are_taken_up_of_the_same_latents_alone(folder: Path, latent: Run, data: Path, tmp_path: Path) -> None:
    values = recipe(data, **SMALL, network={"multipliers": [1]}, training={"steps": 1, "warmup": 0})
    moved = shutil.copytree(folder / "codec", tmp_path / "moved")
    with pytest.raises(InputError, match=r"--init .*: its codec is .*, the run's none"):
        trained(tmp_path, values, "pixels", init=latent.path)
    begun = trained(tmp_path, values | {"codec": str(moved)}, "again", init=latent.path)
    assert len(begun.sample(1, guide=latent.path, guidance=1.0, steps=2)) == 1


def test_guides_have_to_diffuse_the_same_latents(folder: Path, latent: Run, data: Path, tmp_path: Path) -> None:
    pixels = trained(tmp_path, recipe(data, **SMALL, training={"steps": 2, "warmup": 0}), "pixels")
    with pytest.raises(InputError, match="its codec is none, the run's"):
        latent.sample(1, guide=pixels.path, guidance=1.0, steps=2)
    assert len(latent.sample(1, guide=latent.path, guidance=1.0, steps=2)) == 1


def test_pixels_as_a_surrogate_are_encoded(latent: Run, data: Path, tmp_path: Path) -> None:
    images = open_data(str(data)).batch(range(4))[0]
    np.savez(tmp_path / "set.npz", arr_0=images)
    made = latent.sample(4, surrogate=tmp_path / "set.npz", t_mid=0).images
    assert np.array_equal(made, latent.denoiser().decoded(latent.denoiser().encoded(images)))
    again = latent.sample(2, surrogate=latent.path, t_mid=10, steps=4)
    assert again.images.shape == (2, 8, 8, 1)


def test_inverting_and_interpolating_walk_in_latents(latent: Run, data: Path, tmp_path: Path) -> None:
    found = invert(latent, str(data), tmp_path / "e.npz", n=2, steps=40)
    assert found.encodings.shape == (2, 2, 4, 4) and found.decoded.shape == (2, 8, 8, 1)
    assert interpolate(latent, tmp_path / "w.png", encodings=tmp_path / "e.npz", frames=3).exists()
    assert interpolate(latent, tmp_path / "s.png", seeds=[0, 1], frames=3).exists()


def test_resuming_goes_on_to_the_bit_with_its_own_codec(folder: Path, data: Path, tmp_path: Path) -> None:
    values = recipe(data, **SMALL, network={"multipliers": [1]}, training={"steps": 8, "checkpoint_every": 4})
    values |= {"codec": str(folder / "codec")}
    whole = trained(tmp_path, values, "whole")
    stopped = trained(tmp_path, values | {"training": values["training"] | {"steps": 4}}, "cut")
    shutil.rmtree(tmp_path / "cache")
    resumed = train(tmp_path / "cut.yaml", out=stopped.path, resume=True, overrides=["training.steps=8"])
    assert (resumed.checkpoint / "model.safetensors").read_bytes() == (
        whole.checkpoint / "model.safetensors"
    ).read_bytes()


def test_mirrored_latents_are_those_of_mirrored_images(latent: Run) -> None:
    values = latent.recipe.model_copy(update={"training": latent.recipe.training.model_copy(update={"flip": True})})
    data, codec = open_images(values), codec_of(values)
    assert codec is not None
    latents, _ = latents_of(data, values, codec)
    assert latents.mirrored is not None
    flipped = np.ascontiguousarray(data.batch([3])[0][:, :, ::-1])
    assert torch.allclose(latents.tensors(latents.mirrored.batch([3])[0]), codec.joined(to_model(flipped)), atol=1e-5)


def test_kept_latents_are_read_again_and_damaged_ones_made_again(
    latent: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, codec = open_images(latent.recipe), codec_of(latent.recipe)
    assert codec is not None
    first, _ = latents_of(data, latent.recipe, codec)
    (kept,) = (tmp_path / "cache" / "latents").iterdir()
    content = kept.read_bytes()
    asked: list[int] = []
    joined = Codec.joined
    monkeypatch.setattr(Codec, "joined", lambda self, x: asked.append(len(x)) or joined(self, x))
    again, _ = latents_of(data, latent.recipe, codec)
    assert asked == [1] and np.array_equal(again.moments, first.moments)
    kept.unlink()  # a new file: the old one is mapped
    kept.write_bytes(content[:100])
    third, _ = latents_of(data, latent.recipe, codec)
    assert np.array_equal(third.moments, first.moments) and kept.read_bytes() == content
    assert "damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codec": "runs/nothing"}, "is no run directory"),
        ({"codec": "runs/digits-codec"}, "codec .*trilemma train digits-codec|size"),
        ({"codec": "identity", "learner": {"name": "classifier"}}, "learns from images"),
        ({"codec": {"name": "identity", "scale": -1}}, "codec.scale"),
        ({"codec": {"name": "identity", "scales": 1}}, "did you mean 'scale'"),
    ],
)
def test_refusals(change: dict[str, Any], message: str, data: Path, tmp_path: Path) -> None:
    values = recipe(data, **SMALL)
    learner = change.pop("learner", None)
    values |= change | ({"learner": learner} if learner else {})
    with pytest.raises(InputError, match=message):
        trained(tmp_path, values, "refused")
    assert not (tmp_path / "refused" / "recipe.yaml").exists()


def test_dynamic_clipping_has_no_range_to_act_in(latent: Run) -> None:
    with pytest.raises(InputError, match="latents, which have no range"):
        latent.sample(1, clip="dynamic", steps=2)


def test_the_bound_is_of_the_images_by_codec_and_model_together(latent: Run, data: Path, command: Any) -> None:
    done = command("nll", latent.path, "--reference", f"{data}:train", "-n", 8, "--batch", 3)
    assert done.code == 0 and "by codec and model" in done.out
    (path,) = (latent.path / "evaluations" / "likelihood").glob("*.json")
    found = json.loads(path.read_text())
    figures = {key: figure["mean"] for key, figure in found["bits_per_dim"].items()}
    assert list(figures) == ["distortion", "prior", "sum", "decoder", "entropy", "total"]
    assert figures["total"] == pytest.approx(sum(value for key, value in figures.items() if key != "total"))
    assert found["codec"]["sha256"] == getattr(latent.recipe.codec, "sha256", None)
    assert command("nll", latent.path, "--reference", f"{data}:train", "--ode", 5).code == 2
