"""diffusers: the folder of an AutoencoderKL, a codec's settings and its names of weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import Field

from trilemma.errors import InputError
from trilemma.exchange.diffusers import levels_with_attention, weights_in
from trilemma.exchange.drafts import Draft, attention_sides
from trilemma.exchange.files import Config, Positive, read_config, read_json
from trilemma.exchange.weights import Layout

CLASS = "AutoencoderKL"

Down = Literal["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]
Up = Literal["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]


class AutoencoderConfig(Config):
    """Those of AutoencoderKL's settings that the autoencoder here has as well."""

    class_name: Literal["AutoencoderKL"] = Field(default="AutoencoderKL", alias="_class_name")
    in_channels: Positive = 3
    out_channels: Positive = 3
    down_block_types: tuple[Down, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[Up, ...] = ("UpDecoderBlock2D",)
    block_out_channels: Annotated[tuple[Positive, ...], Len(1)] = (64,)
    layers_per_block: Positive = 1
    act_fn: Literal["silu", "swish"] = "silu"
    latent_channels: Positive = 4
    norm_num_groups: Positive = 32
    sample_size: Positive | tuple[Positive, Positive] | None = 32
    scaling_factor: float | None = 0.18215
    shift_factor: None = None
    latents_mean: None = None
    latents_std: None = None
    use_quant_conv: Literal[True] = True
    use_post_quant_conv: Literal[True] = True
    mid_block_add_attention: bool = True


LAYOUT = Layout(
    places={
        "stem": "encoder.conv_in",
        "down": "encoder.down_blocks.{i}.resnets.{j}",
        "down attention": "encoder.down_blocks.{i}.attentions.{j}",
        "downsample": "encoder.down_blocks.{i}.downsamplers.0",
        "middle": "encoder.mid_block.resnets.{j}",
        "middle attention": "encoder.mid_block.attentions.0",
        "norm out": "encoder.conv_norm_out",
        "out": "encoder.conv_out",
        "to latents": "quant_conv",
        "of latents": "post_quant_conv",
        "decoder stem": "decoder.conv_in",
        "decoder middle": "decoder.mid_block.resnets.{j}",
        "decoder middle attention": "decoder.mid_block.attentions.0",
        "up": "decoder.up_blocks.{i}.resnets.{j}",
        "up attention": "decoder.up_blocks.{i}.attentions.{j}",
        "upsample": "decoder.up_blocks.{i}.upsamplers.0",
        "decoder norm out": "decoder.conv_norm_out",
        "decoder out": "decoder.conv_out",
    },
    leaves={
        **{name: (name,) for name in ("", "norm1", "conv1", "conv2", "conv")},
        "norm2.norm": ("norm2",),
        "shortcut": ("conv_shortcut",),
        "norm": ("group_norm",),
        "qkv": ("to_q", "to_k", "to_v"),
        "project": ("to_out.0",),
    },
    axes=2,
)
"""AutoencoderKL's names."""


def holds_autoencoder(path: Path) -> bool:
    """Whether a folder is an AutoencoderKL's. Raises InputError for a pipeline that has one, saying where it is."""
    config = path / "config.json"
    if config.is_file():
        return read_json(config).get("_class_name") == CLASS
    if (inside := path / "vae" / "config.json").is_file():
        raise InputError(f"{path}: it is a pipeline of latent diffusion; its autoencoder comes in as {inside.parent}")
    return False


def read(path: Path, size: tuple[int, int] | None) -> Draft:
    """The folder of an AutoencoderKL, with config.json and weights. `size`: of the images, config.json's unless given.

    Raises InputError for what cannot be read, and for a setting without a counterpart here."""
    where = str(path / "config.json")
    config = read_config(AutoencoderConfig, path / "config.json")
    stated = config.sample_size
    size = size or ((stated, stated) if isinstance(stated, int) else stated)
    if size is None:
        raise InputError(f"{where}: sample_size is null: give the images' size with --size")
    if config.in_channels != config.out_channels:
        raise InputError(f"{where}: out_channels {config.out_channels}: expected in_channels, {config.in_channels}")
    notes = []
    if config.scaling_factor is not None:
        said = f"scaling_factor {config.scaling_factor:g}, which its latents were diffused at, is not kept"
        notes.append(f"{said}: here a codec's scale is measured, on the data that is diffused")
    return Draft(
        # Rombach et al.'s codecs, which most such folders are, are trained by L1: there is no σ of a Gaussian to keep.
        values={"learner": {"name": "autoencoder", "reconstruction": "l1"}, "network": _network(config, size, where)},
        weights=weights_in(path),
        layout=LAYOUT,
        shape=(config.in_channels, *size),
        classes=0,
        where=str(path),
        notes=tuple(notes),
    )


def _network(config: AutoencoderConfig, size: tuple[int, int], where: str) -> dict[str, Any]:
    """The network's section. Raises InputError where it has no place for what the config asks."""
    widths, down, up = config.block_out_channels, config.down_block_types, config.up_block_types
    attends = levels_with_attention(widths, down, up, where)
    base = math.gcd(*widths)
    return {
        "name": "autoencoder",
        "base_channels": base,
        "multipliers": [width // base for width in widths],
        "blocks": config.layers_per_block,
        "latent_channels": config.latent_channels,
        "attention": attention_sides(size, attends, where),
        "middle_attention": config.mid_block_add_attention,
        "groups": config.norm_num_groups,
    }
