"""Runs as folders of other libraries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from trilemma.errors import InputError, unknown
from trilemma.exchange.diffusers import WEIGHTS, UNetConfig, layout
from trilemma.exchange.schedulers import SchedulerConfig, lacking_scheduler, not_carried, scheduler_config, without
from trilemma.exchange.weights import correspondence, to_theirs
from trilemma.machine.files import replacing
from trilemma.machine.progress import say
from trilemma.networks import UNet
from trilemma.recipes import CompletedRecipe, component
from trilemma.runs.build import build_network
from trilemma.runs.run import Run
from trilemma.training import checkpoint

EXPORT_FORMATS = ("diffusers",)

VERSION = "0.32.0"
"""The oldest diffusers that the folder is written for."""

PIPELINE = Path(__file__).with_name("pipeline.py")
"""The code that lies in the folder of a class-conditional run, and is not run unless it is asked for."""

EXPRESSED = {
    *("name", "base_channels", "multipliers", "blocks", "attention", "middle_attention", "heads", "head_channels"),
    *("dropout", "groups", "norm_eps", "down", "up", "entry", "time_endpoint", "zero_init"),
}
"""The settings of our U-Net that UNet2DModel has as well, or that trained weights have no more use for; all others have
to be the default."""


def export_run(
    run: str | Path, format: str = "diffusers", *, out: str | Path | None = None, weights: str = "ema"
) -> Path:
    """Write a run as the folder `out` (RUN/diffusers unless given) that `DDPMPipeline.from_pretrained` of diffusers
    loads; one that is conditional on classes with `ClassConditionalPipeline` in it, see there. diffusers itself is not
    needed. What of the run's sampling the folder does not carry is said, a line each.

    `weights`: the `ema` (averaged) or the `raw` ones. Raises InputError for a run whose network, schedule or
    parameterisation diffusers has no counterpart of, naming the setting; nothing is written then."""
    if format not in EXPORT_FORMATS:
        raise unknown("--format", format, EXPORT_FORMATS)
    opened = Run(run)
    place = Path(out) if out is not None else opened.path / format
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise InputError(f"{place} exists already: choose another --out")
    if reasons := not_exported(opened.recipe):
        raise reasons[0]
    scheduler, network = scheduler_config(opened.recipe), _network(opened.recipe)
    unet = unet_config(opened.recipe, network)
    tensors = to_theirs(
        correspondence(network, layout(sine_first=False)), checkpoint.read_tensors(opened.weights_file(weights))
    )
    documents = {
        "model_index.json": {
            **{"_class_name": "DDPMPipeline", "_diffusers_version": VERSION},
            **{"scheduler": ["diffusers", scheduler.class_name], "unet": ["diffusers", "UNet2DModel"]},
        },
        "scheduler/scheduler_config.json": _document(scheduler),
        "unet/config.json": _document(unet),
    }
    with replacing(place) as partial:
        for name, document in documents.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        if opened.recipe.classes:
            (partial / PIPELINE.name).write_bytes(PIPELINE.read_bytes())
        checkpoint.write_tensors(partial / "unet" / f"{WEIGHTS}.safetensors", tensors, {"format": "pt"})
    for note in not_carried(opened.recipe, scheduler):
        say(f"note: {note}")
    return place


def _document(config: SchedulerConfig | UNetConfig) -> dict[str, Any]:
    return {"_diffusers_version": VERSION, **config.model_dump(mode="json", by_alias=True)}


def not_exported(recipe: CompletedRecipe) -> list[InputError]:
    """What keeps a recipe's run from being exported, if anything does: each setting that diffusers has no counterpart
    of. The recipe alone says so: a run need not have been trained."""
    if recipe.learner["name"] != "denoising":
        return [InputError(f"learner {recipe.learner['name']!r}: only a denoising run is exported")]
    found = [*lacking_scheduler(recipe)]
    if recipe.codec is not None:
        found.append(without("codec", recipe.codec.name, "none"))
    if recipe.network["name"] != "unet":
        return [*found, without("network.name", recipe.network["name"], "unet")]
    settings = [*_lacking_settings(recipe.network)]
    return [*found, *settings] if settings else [*found, *_lacking_layers(recipe, _network(recipe))]


def why_not_exported(recipe: CompletedRecipe) -> str | None:
    """The same in a line: the first of them, and how many more there are; None where nothing is in the way."""
    first, *others = [*map(str, not_exported(recipe)), None]
    return f"{first}; and {len(others) - 1} more" if len(others) > 1 else first


def _lacking_settings(given: dict[str, Any]) -> Iterator[InputError]:
    """The settings of a U-Net that a UNet2DModel has none for."""
    usual = component("network", "unet", "network")
    for key in given:
        if key not in EXPRESSED and given[key] != usual[key]:
            yield without(f"network.{key}", given[key], usual[key])
    for key, supported in (
        ("down", ("strided", "strided_same", "biggan")),
        ("up", ("nearest", "biggan")),
        ("entry", ("added", "adagn")),
    ):
        if given[key] not in supported:
            yield without(f"network.{key}", given[key], *supported)


def _network(recipe: CompletedRecipe) -> UNet:
    """The recipe's U-Net, without weights."""
    with torch.device("meta"):
        return cast(UNet, build_network(recipe))


def _lacking_layers(recipe: CompletedRecipe, network: UNet) -> Iterator[InputError]:
    """What of the layers that they come to a UNet2DModel has otherwise."""
    given, widths = recipe.network, network.widths
    if widths[0] != given["base_channels"]:
        yield without("network.multipliers", list(given["multipliers"]), [1, "…"])
    if len(_blocks(network)) > 1:
        yield without("network.blocks", given["blocks"], "one number")
    height, width = recipe.images.height, recipe.images.width
    if height % 2 ** (len(widths) - 1) or width % 2 ** (len(widths) - 1):
        yield InputError(
            f"images of {height}×{width}: a UNet2DModel halves them {len(widths) - 1} times, which has to come out even"
        )
    if len(groups := _groups(network)) > 1:
        yield InputError(
            f"network.groups {given['groups']!r}: the layers have {sorted(groups)} groups, and a UNet2DModel has one "
            "number of them throughout (the network is trained with such as network.groups 32)"
        )
    attending = _attending(given, network)
    if given["head_channels"] is None and given["heads"] not in (None, 1) and len(attending) > 1:
        yield InputError(
            f"network.heads {given['heads']} at {sorted(attending)} channels has no counterpart in diffusers "
            "(supported: heads 1, or head_channels)"
        )


def _blocks(network: UNet) -> set[int]:
    """Blocks of a level."""
    return {len(level.layers) for level in network.trunk.levels}


def _groups(network: UNet) -> set[int]:
    """Groups of a normalisation."""
    return {module.num_groups for module in network.modules() if isinstance(module, nn.GroupNorm)}


def _attending(given: dict[str, Any], network: UNet) -> set[int]:
    """Channels where there is attention."""
    levels = zip(network.widths, network.trunk.levels, strict=True)
    widths = {width for width, level in levels if level.layers[0].attention is not None}
    return widths | ({network.widths[-1]} if given["middle_attention"] else set())


def unet_config(recipe: CompletedRecipe, network: UNet) -> UNetConfig:
    """A run's network as a UNet2DModel's settings, where it is exported."""
    given, widths = recipe.network, network.widths
    height, width = recipe.images.height, recipe.images.width
    attends = [level.layers[0].attention is not None for level in network.trunk.levels]
    down, up = ("resnet" if given[key] == "biggan" else "conv" for key in ("down", "up"))
    plain_down = "ResnetDownsampleBlock2D" if down == "resnet" else "DownBlock2D"
    plain_up = "ResnetUpsampleBlock2D" if up == "resnet" else "UpBlock2D"
    images, scaled = recipe.images, given["entry"] == "adagn"
    (count,), (number,) = _blocks(network), _groups(network)
    return UNetConfig.model_validate(
        {
            "sample_size": height if height == width else (height, width),
            "in_channels": images.channels,
            "out_channels": images.channels * (2 if recipe.learner["variance"] == "learned_range" else 1),
            "freq_shift": int(given["time_endpoint"]),
            "down_block_types": ["AttnDownBlock2D" if attending else plain_down for attending in attends],
            "up_block_types": ["AttnUpBlock2D" if attending else plain_up for attending in reversed(attends)],
            "block_out_channels": widths,
            "layers_per_block": count,
            "downsample_padding": 0 if given["down"] == "strided_same" else 1,
            "downsample_type": down,
            "upsample_type": up,
            "dropout": given["dropout"],
            "attention_head_dim": _head_channels(given, network),
            "norm_num_groups": number,
            "attn_norm_num_groups": number if scaled else None,
            "norm_eps": given["norm_eps"],
            "resnet_time_scale_shift": "scale_shift" if scaled else "default",
            "add_attention": given["middle_attention"],
            "num_class_embeds": network.classes or None,
        }
    )


def _head_channels(given: dict[str, Any], network: UNet) -> int | None:
    """Channels of a head, the same wherever there is attention; None: one head."""
    if given["head_channels"] is not None or given["heads"] in (None, 1):
        return given["head_channels"]
    widths = _attending(given, network)
    return widths.pop() // given["heads"] if widths else None
