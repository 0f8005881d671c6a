"""improved-diffusion and guided-diffusion: state dicts of their UNetModel, and of guided-diffusion's EncoderUNetModel,
which classifies noised images. They carry no settings. What the names and shapes tell is read off them; the rest are
the settings of the published models, to be overridden where they differ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trilemma.errors import InputError
from trilemma.exchange.drafts import Draft, attention_sides, multipliers
from trilemma.exchange.files import read_state_dict
from trilemma.exchange.weights import Layout, Weights

ORDERS = ("legacy", "new")

ASSUMED: dict[str, dict[str, dict[str, Any]]] = {
    "improved-diffusion": {
        "network": {"heads": 4},
        "schedule": {"name": "cosine", "steps": 4000, "network_steps": 1000},
    },
    "guided-diffusion": {
        "network": {"head_channels": 64},
        "schedule": {"name": "linear", "steps": 1000},
    },
}
"""What no state dict says. improved-diffusion: four heads, the cosine schedule of 4 000 steps and rescaled timesteps,
as its unconditional CIFAR-10 and ImageNet 64 have them. guided-diffusion: 64 channels a head and the linear schedule of
1 000 steps, as ImageNet 256, 512, LSUN and the upsampler to 512 have them (ImageNet 64: the cosine one, and the new
attention order; 128, and the upsampler to 256: four heads)."""

SCALE = 4
"""How many times a published upsampler's images are as high and wide as its low ones: 64 to 256, 128 to 512."""

TRUNK = {
    "time_embed.0.weight": 2,
    "input_blocks.0.0.weight": 4,
    "input_blocks.1.0.emb_layers.1.weight": 2,
    "middle_block.0.in_layers.0.weight": 1,
}
AXES = {
    "UNetModel": {**TRUNK, "output_blocks.0.0.in_layers.0.weight": 1, "out.2.weight": 4},
    "EncoderUNetModel": {**TRUNK, "out.2.positional_embedding": 2, "out.2.c_proj.weight": 3},
}
"""Weights that every such network has, among them those it is read off, and their axes: a denoiser's and a
classifier's."""

POOLING = "out.2.positional_embedding"
"""What tells a classifier."""

POOL_HEAD = 64
"""Channels of each head in a classifier's pooling, as in its other attention: the published ones have it so."""


def layout(order: str, model: str = "UNetModel") -> Layout:
    """The model's names; `order` is that of q, k and v in an attention's rows (`use_new_attention_order`), but for the
    pooling, where it is always new."""
    places = {
        "stem": "input_blocks.0.0",
        "time in": "time_embed.0",
        "time out": "time_embed.2",
        "label": "label_emb",
        "down": "input_blocks.{n}.0",
        "down attention": "input_blocks.{n}.1",
        "downsample": "input_blocks.{n}.0",
        "middle": "middle_block.{n}",
        "middle attention": "middle_block.1",
        "up": "output_blocks.{n}.0",
        "up attention": "output_blocks.{n}.1",
        "upsample": "output_blocks.{n}.{last}",
        "norm out": "out.0",
        **({"out": "out.2"} if model == "UNetModel" else {"pool": "out.2", "out": "out.2.c_proj"}),
    }
    leaves = {
        **{name: (name,) for name in ("", "norm", "qkv", "conv")},
        "norm1": ("in_layers.0",),
        "conv1": ("in_layers.2",),
        "norm2.norm": ("out_layers.0",),
        "norm2.embed": ("emb_layers.1",),
        "conv2": ("out_layers.3",),
        "shortcut": ("skip_connection",),
        "project": ("proj_out",),
        "downsample.conv": ("op",),
        "pool.position": ("positional_embedding",),
        "pool.qkv": ("qkv_proj",),
    }
    return Layout(places, leaves, axes=3, per_head=order == "legacy")


def read(
    path: Path, size: tuple[int, int] | None, family: str, order: str, low: tuple[int, int] | None = None
) -> Draft:
    """A state dict as their training writes it (model….pt, ema_….pt). One with six input channels, or with
    `low`, is an upsampler's: its low images are of the size `low`, a quarter of the images' unless given. Raises
    InputError for what is none, and for a classifier of another pooling than attention."""
    if size is None:
        raise InputError(f"--size: a state dict of {family} does not say how large its images are: expected such as 64")
    weights = read_state_dict(path)
    where = str(path)
    if family == "guided-diffusion" and POOLING in weights:
        return _classifier(weights, size, order, where)
    _check(weights, family, "UNetModel", where)
    outputs, channels = len(weights["out.2.weight"]), weights["input_blocks.0.0.weight"].shape[1]
    # Six channels are an RGB image and its low one; any other even number may be one image's.
    upsampler = channels == 6 or (low is not None and channels % 2 == 0)
    channels //= 1 + upsampler
    if low is not None and not upsampler:
        raise InputError(
            f"--low: {where} is no upsampler's, it has {channels} input channels: expected twice an image's"
        )
    if outputs not in (channels, 2 * channels):
        raise InputError(
            f"{where}: {outputs} output channels for images of {channels} channels: expected as many, or twice as many "
            "where the variance is learned"
        )
    values = {part: dict(assumed) for part, assumed in ASSUMED[family].items()}
    values["network"] = {"name": "unet", **_network(weights, size, where), **values["network"]}
    values["learner"] = {
        "parameterization": "epsilon",
        "variance": "fixed_large" if outputs == channels else "learned_range",
    }
    if upsampler:
        values["network"]["upsampler"] = True
        values["learner"]["low"] = list(low or (max(1, size[0] // SCALE), max(1, size[1] // SCALE)))
    values["sampling"] = {"sampler": "ancestral", "clip": "static", "spacing": "even"}
    classes = len(weights["label_emb.weight"]) if "label_emb.weight" in weights else 0
    return Draft(values, weights, layout(order), (channels, *size), classes, where)


def _classifier(weights: Weights, size: tuple[int, int], order: str, where: str) -> Draft:
    """A classifier of noised images."""
    _check(weights, "guided-diffusion", "EncoderUNetModel", where)
    assumed = {part: dict(values) for part, values in ASSUMED["guided-diffusion"].items()}
    each, levels = _by_pooling(weights, size, where)
    network = {
        "name": "noisy_classifier",
        **_trunk(weights, size, each, levels, where),
        "pool_head_channels": POOL_HEAD,
    }
    values = {**assumed, "network": {**network, **assumed["network"]}, "learner": {"name": "noisy_classifier"}}
    shape = (weights["input_blocks.0.0.weight"].shape[1], *size)
    classes = len(weights["out.2.c_proj.weight"])
    return Draft(values, weights, layout(order, "EncoderUNetModel"), shape, classes, where)


def _by_pooling(weights: Weights, size: tuple[int, int], where: str) -> tuple[int, int]:
    """How many input blocks a level of a classifier has, and how many levels: a block that halves the resolution may
    look like any other, but the pooling knows how many positions are left."""
    positions = weights[POOLING].shape[1] - 1
    count = len({name.split(".")[1] for name in weights if name.startswith("input_blocks.")})
    levels, (height, width) = 1, size
    while height * width > max(positions, 1):
        levels, height, width = levels + 1, (height + 1) // 2, (width + 1) // 2
    if height * width != positions or count % levels or count < 2 * levels:
        raise InputError(
            f"{where}: pools over {positions} positions after {count} input_blocks, which images of "
            f"{size[0]}×{size[1]} do not come to: is --size right?"
        )
    return count // levels, levels


def _check(weights: Weights, family: str, model: str, where: str) -> None:
    """Raises InputError where a weight that all such networks have is missing, or one whose shape is read has another
    number of axes."""
    first_convs = (name for name in weights if re.fullmatch(r"input_blocks\.[0-9]+\.0\.in_layers\.2\.weight", name))
    labels = {"label_emb.weight": 2} if "label_emb.weight" in weights else {}
    for name, axes in {**AXES[model], **dict.fromkeys(first_convs, 4), **labels}.items():
        if name not in weights:
            raise InputError(
                f"{where} lacks {name!r}: not the state dict of a {family} {model} (a classifier's is one of "
                "guided-diffusion's EncoderUNetModel with attention pooling)"
            )
        if weights[name].dim() != axes:
            raise InputError(f"{where}: weight {name!r} has shape {list(weights[name].shape)}: expected {axes} axes")


def _network(weights: Weights, size: tuple[int, int], where: str) -> dict[str, Any]:
    """A U-Net's section as far as names and shapes tell."""
    # Each level of the decoder ends in a change of resolution, the only thing that can follow block and attention: a
    # convolution, or a residual block that is not the first of its module.
    changes = {
        int(found[1]): found[2]
        for name in weights
        if (found := re.fullmatch(r"output_blocks\.([0-9]{1,4})\.[12]\.(conv|in_layers\.0)\.weight", name))
    }
    blocks = {int(found[1]) for name in weights if (found := re.match(r"output_blocks\.([0-9]{1,4})\.", name))}
    count = len(blocks)
    levels = len(changes) + 1
    each = count // levels
    regular = sorted(changes) == [each * (k + 1) - 1 for k in range(levels - 1)] and blocks == set(range(count))
    if not regular or count % levels or each < 2:
        raise InputError(
            f"{where}: {count} output_blocks with changes of resolution at {sorted(changes)}: not a UNetModel"
        )
    up = "biggan" if "in_layers.0" in changes.values() else "nearest"
    return {**_trunk(weights, size, each, levels, where), "up": up}


def _trunk(weights: Weights, size: tuple[int, int], each: int, levels: int, where: str) -> dict[str, Any]:
    """What there is to say of the half that goes down, of so many levels with so many input blocks each, the change to
    the next level among them."""
    base = weights["time_embed.0.weight"].shape[1]
    first = [1 + i * each for i in range(levels)]
    try:
        widths = [len(weights[f"input_blocks.{n}.0.in_layers.2.weight"]) for n in first]
        entering = len(weights["input_blocks.1.0.emb_layers.1.weight"])
    except KeyError as error:
        raise InputError(f"{where} lacks {error}: not the state dict of such a network") from None
    attends = [f"input_blocks.{n}.1.qkv.weight" in weights for n in first]
    return {
        "base_channels": base,
        "multipliers": multipliers(widths, base),
        "blocks": each - 1,
        "attention": attention_sides(size, attends, where),
        "dropout": 0.0,
        "groups": 32,
        "norm_eps": 1e-5,
        "down": "strided" if f"input_blocks.{each}.0.op.weight" in weights or levels == 1 else "biggan",
        "entry": "adagn" if entering == 2 * widths[0] else "added",
    }
