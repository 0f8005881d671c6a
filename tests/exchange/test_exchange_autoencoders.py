"""Folders of diffusers' AutoencoderKL as runs: the same moments, the same images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trilemma.errors import InputError
from trilemma.exchange import import_run
from trilemma.runs import Run

diffusers = pytest.importorskip("diffusers")

SMALL: dict[str, Any] = {
    **{"in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16), "layers_per_block": 1, "sample_size": 8},
    **{"latent_channels": 3, "norm_num_groups": 4},
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
MODELS = {
    "two levels": {},
    "as Rombach et al.": {
        **{"block_out_channels": (8, 16, 32), "layers_per_block": 2, "in_channels": 3, "out_channels": 3},
        **{"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3},
    },
    "uneven channels": {"block_out_channels": (8, 12)},
    "no attention": {"mid_block_add_attention": False},
    "attention": {
        "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    },
    "no square": {"sample_size": (8, 12)},
    "one level": {
        **{"block_out_channels": (8,), "down_block_types": ("DownEncoderBlock2D",)},
        "up_block_types": ("UpDecoderBlock2D",),
    },
}


def model(**changes: Any) -> Any:
    """An AutoencoderKL with random weights throughout."""
    torch.manual_seed(0)
    made = diffusers.AutoencoderKL(**{**SMALL, **changes}).eval()
    for name, parameter in made.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=(1 / parameter[0].numel()) ** 0.5)
        else:
            nn.init.normal_(parameter, float("norm" in name and name.endswith("weight")), 0.3)
    return made


def folder(place: Path, **changes: Any) -> Path:
    model(**changes).save_pretrained(place)
    return place


@pytest.mark.parametrize("name", MODELS)
def test_an_imported_codec_gives_its_moments_and_its_images(name: str, tmp_path: Path) -> None:
    theirs = model(**MODELS[name])
    theirs.save_pretrained(tmp_path / "theirs")
    run = import_run(tmp_path / "theirs", "diffusers", out=tmp_path / "run")
    assert run.step == 0 and run.parameters == sum(p.numel() for p in theirs.parameters())
    x = torch.randn(2, *run.recipe.images.shape, generator=torch.Generator().manual_seed(1))
    for weights in ("ema", "raw"):
        codec = run.codec(weights)
        with torch.inference_mode():
            mean, deviation = codec.moments(x)
            expected = theirs.encode(x).latent_dist
            assert deviation is not None and expected.mean.std() > 0.1 and deviation.std() > 0.1
            torch.testing.assert_close(mean, expected.mean, rtol=0, atol=1e-5)
            torch.testing.assert_close(deviation, expected.std, rtol=1e-4, atol=1e-5)
            made = codec.decode(expected.mean)
            torch.testing.assert_close(made, theirs.decode(expected.mean).sample, rtol=0, atol=1e-5)
    assert codec.scale == 1.0 and codec.log_sigma is None


def test_a_folder_is_opened_and_its_scale_is_said(tmp_path: Path, command: Callable[..., Any]) -> None:
    place = folder(tmp_path / "theirs", scaling_factor=0.5)
    done = command("import", place, "--format", "diffusers", "--out", tmp_path / "run", "--size", "16")
    assert done.code == 0, done.err
    assert "note: scaling_factor 0.5, which its latents were diffused at, is not kept" in done.out
    assert f"(next: trilemma codec {tmp_path / 'run'} --reference DATA:SPLIT)" in done.out
    run = Run(tmp_path / "run")
    assert run.recipe.learner["name"] == "autoencoder" and run.recipe.images.shape == (1, 16, 16)


def test_of_a_whole_pipeline_the_folder_is_named(tmp_path: Path) -> None:
    folder(tmp_path / "pipeline" / "vae")
    (tmp_path / "pipeline" / "unet").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match=r"a pipeline of latent diffusion; its autoencoder comes in as .*pipeline/vae"):
        import_run(tmp_path / "pipeline", "diffusers", out=tmp_path / "run")
    assert import_run(tmp_path / "pipeline" / "vae", "diffusers", out=tmp_path / "run").step == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shift_factor": 0.1}, "shift_factor"),
        ({"latents_mean": [0.0, 0.0, 0.0]}, "latents_mean"),
        ({"use_quant_conv": False}, "use_quant_conv"),
        ({"act_fn": "gelu"}, "act_fn"),
        ({"down_block_types": ["DownBlock2D"] * 2}, "down_block_types"),
        ({"up_block_types": ["UpDecoderBlock2D"]}, "2 down_block_types, 1 up_block_types"),
        ({"up_block_types": ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]}, "have attention elsewhere"),
        ({"out_channels": 3}, "out_channels 3: expected in_channels, 1"),
        ({"sample_size": None}, "sample_size is null: give the images' size with --size"),
        ({"sample_size": 9}, "2 does not divide the image size 9×9"),
        ({"layers_per_block": 2}, "lacks the weight"),
    ],
)
def test_what_has_no_counterpart_is_refused_and_named(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    place = folder(tmp_path / "theirs")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=told) as refused:
        import_run(place, "diffusers", out=tmp_path / "run")
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()
