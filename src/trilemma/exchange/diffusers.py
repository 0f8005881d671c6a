"""diffusers: the folder of a UNet2DModel and a scheduler, the network's settings and its names of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Len, Lt
from pydantic import Field
from torch import Tensor

from trilemma.errors import InputError
from trilemma.exchange.drafts import Draft, attention_sides, multipliers
from trilemma.exchange.files import Config, One, Positive, read_config, read_sharded, read_state_dict
from trilemma.exchange.schedulers import SchedulerConfig, left_out, sections
from trilemma.exchange.weights import Layout

Down = Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
Up = Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]


class UNetConfig(Config):
    """Those of UNet2DModel's settings that the networks here have as well."""

    class_name: Literal["UNet2DModel"] = Field(default="UNet2DModel", alias="_class_name")
    sample_size: Positive | tuple[Positive, Positive] | None = None
    in_channels: Positive = 3
    out_channels: Positive = 3
    center_input_sample: Literal[False] = False
    time_embedding_type: Literal["positional"] = "positional"
    time_embedding_dim: Positive | None = None
    freq_shift: Literal[0, 1] = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[Down, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: Literal["UNetMidBlock2D"] = "UNetMidBlock2D"
    up_block_types: tuple[Up, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: Annotated[tuple[Positive, ...], Len(1)] = (224, 448, 672, 896)
    layers_per_block: Positive = 2
    mid_block_scale_factor: One = 1
    downsample_padding: Literal[0, 1] = 1
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    # Between its two time layers and before its last convolution UNet2DModel has a SiLU whatever this says.
    act_fn: Literal["silu", "swish"] = "silu"
    attention_head_dim: Positive | None = 8
    norm_num_groups: Positive = 32
    attn_norm_num_groups: Positive | None = None
    norm_eps: Annotated[float, Gt(0)] = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: bool = True
    class_embed_type: None = None
    num_class_embeds: Positive | None = None


RESAMPLES = {
    "AttnDownBlock2D": "downsample_type",
    "AttnUpBlock2D": "upsample_type",
    "ResnetDownsampleBlock2D": "resnet",
    "ResnetUpsampleBlock2D": "resnet",
}
"""How a type of block changes the resolution, or the setting that says so; the others do it by a convolution."""

WEIGHTS = "diffusion_pytorch_model"


def layout(sine_first: bool) -> Layout:
    """UNet2DModel's names. `sine_first`: those of a model with `flip_sin_to_cos` false."""
    places = {
        "stem": "conv_in",
        "time in": "time_embedding.linear_1",
        "time out": "time_embedding.linear_2",
        "label": "class_embedding",
        "down": "down_blocks.{i}.resnets.{j}",
        "down attention": "down_blocks.{i}.attentions.{j}",
        "downsample": "down_blocks.{i}.downsamplers.0",
        "middle": "mid_block.resnets.{j}",
        "middle attention": "mid_block.attentions.0",
        "up": "up_blocks.{i}.resnets.{j}",
        "up attention": "up_blocks.{i}.attentions.{j}",
        "upsample": "up_blocks.{i}.upsamplers.0",
        "norm out": "conv_norm_out",
        "out": "conv_out",
    }
    leaves = {
        **{name: (name,) for name in ("", "norm1", "conv1", "conv2", "conv")},
        "norm2.norm": ("norm2",),
        "norm2.embed": ("time_emb_proj",),
        "shortcut": ("conv_shortcut",),
        "norm": ("group_norm",),
        "qkv": ("to_q", "to_k", "to_v"),
        "project": ("to_out.0",),
    }
    return Layout(places, leaves, axes=2, sine_first=sine_first)


def read(path: Path, size: tuple[int, int] | None) -> Draft:
    """A pipeline's folder, or one with a network's config.json and weights and its scheduler_config.json. `size`: of
    the images, where config.json has none.

    Raises InputError for what cannot be read, and for a setting without a counterpart here."""
    folder = path / "unet" if (path / "unet").is_dir() else path
    if not (folder / "config.json").is_file():
        raise InputError(f"{path}: expected a diffusers folder, with a config.json in it or in its unet/")
    where = str(folder / "config.json")
    config = read_config(UNetConfig, folder / "config.json")
    beside = (path / "scheduler" / "scheduler_config.json", path / "scheduler_config.json")
    found = next((place for place in beside if place.is_file()), None)
    if found is None:
        raise InputError(f"{path} has no scheduler/scheduler_config.json, which says what the network is trained on")
    scheduler = read_config(SchedulerConfig, found)
    sample_size = config.sample_size
    size = size or ((sample_size, sample_size) if isinstance(sample_size, int) else sample_size)
    if size is None:
        raise InputError(f"{where}: sample_size is null: give the images' size with --size")
    learned = scheduler.variance_type == "learned_range"
    if config.out_channels != config.in_channels * (1 + learned):
        raise InputError(
            f"{where}: out_channels {config.out_channels}: expected {config.in_channels * (1 + learned)}, for "
            f"in_channels {config.in_channels} and a scheduler of variance_type {scheduler.variance_type!r}"
        )
    return Draft(
        values={**sections(scheduler, str(found)), "network": _network(config, size, where)},
        weights=weights_in(folder),
        layout=layout(sine_first=not config.flip_sin_to_cos),
        shape=(config.in_channels, *size),
        classes=config.num_class_embeds or 0,
        where=str(folder),
        notes=left_out(scheduler),
    )


def levels_with_attention(widths: Sequence[int], down: Sequence[str], up: Sequence[str], where: str) -> list[bool]:
    """Which of the levels have attention, by the types of their blocks. Raises InputError where there are not as many
    of each, or the way up has it elsewhere."""
    if not len(down) == len(up) == len(widths):
        raise InputError(
            f"{where}: {len(down)} down_block_types, {len(up)} up_block_types, {len(widths)} block_out_channels: "
            "expected as many of each"
        )
    attends = [kind.startswith("Attn") for kind in down]
    if attends != [kind.startswith("Attn") for kind in reversed(up)]:
        raise InputError(
            f"{where}: up_block_types {list(up)} have attention elsewhere than down_block_types {list(down)}, which "
            "is not supported"
        )
    return attends


def _network(config: UNetConfig, size: tuple[int, int], where: str) -> dict[str, Any]:
    """The network's section. Raises InputError where the skeleton has no place for what the config asks."""
    widths, down, up = config.block_out_channels, config.down_block_types, config.up_block_types
    base = widths[0]
    attends = levels_with_attention(widths, down, up, where)
    if config.time_embedding_dim not in (None, 4 * base):
        raise InputError(
            f"{where}: time_embedding_dim {config.time_embedding_dim}: supported is {4 * base}, four times the first "
            "of block_out_channels"
        )
    scaled = config.resnet_time_scale_shift == "scale_shift"
    groups = config.attn_norm_num_groups or (None if scaled else config.norm_num_groups)
    if config.add_attention and groups != config.norm_num_groups:
        raise InputError(
            f"{where}: attn_norm_num_groups {config.attn_norm_num_groups}: supported is norm_num_groups "
            f"{config.norm_num_groups}" + (", as without it scale_shift's middle attention has no norm" * scaled)
        )
    downs = {_resample(config, kind) for kind in down[:-1]} or {"conv"}
    ups = {_resample(config, kind) for kind in up[:-1]} or {"conv"}
    for key, kinds, found in (("down", down, downs), ("up", up, ups)):
        if len(found) > 1:
            raise InputError(
                f"{where}: {key}_block_types {list(kinds)} change the resolution now by a convolution, now by a "
                f"residual block ({key}sample_type), which is not supported"
            )
    strided = "strided" if config.downsample_padding else "strided_same"
    head_channels = config.attention_head_dim
    return {
        "name": "unet",
        "base_channels": base,
        "multipliers": multipliers(widths, base),
        "blocks": config.layers_per_block,
        "attention": attention_sides(size, attends, where),
        "middle_attention": config.add_attention,
        **({"heads": 1} if head_channels is None else {"head_channels": head_channels}),
        "dropout": config.dropout,
        "groups": config.norm_num_groups,
        "norm_eps": config.norm_eps,
        "down": strided if downs == {"conv"} else "biggan",
        "up": "nearest" if ups == {"conv"} else "biggan",
        "entry": "adagn" if scaled else "added",
        "time_endpoint": bool(config.freq_shift),
    }


def _resample(config: UNetConfig, kind: str) -> str:
    found = RESAMPLES.get(kind, "conv")
    return str(getattr(config, found, found))


def weights_in(folder: Path) -> dict[str, Tensor]:
    """The weights of a model's folder under today's names: until 2023 those in its attention were others. Raises
    InputError where there are none, or they cannot be read."""
    for suffix in (".safetensors", ".bin"):
        path = folder / f"{WEIGHTS}{suffix}"
        index = folder / f"{path.name}.index.json"
        if path.is_file() or index.is_file():
            weights = read_state_dict(path) if path.is_file() else read_sharded(index)
            break
    else:
        raise InputError(
            f"{folder} has no weights: expected {WEIGHTS}.safetensors, {WEIGHTS}.bin, or one's .index.json"
        )
    present = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    renamed = {}
    for name, value in weights.items():
        module, _, parameter = name.rpartition(".")
        parent, _, leaf = module.rpartition(".")
        renamed[f"{parent}.{present[leaf]}.{parameter}" if leaf in present else name] = value
    return renamed
