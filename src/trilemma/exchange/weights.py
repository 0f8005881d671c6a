"""The weights of our U-Net, of the classifier that is its trunk, or of the autoencoder, and those of another library's:
the same tensors under other names.

A `Layout` says how the other library calls its modules by their place in a network. `correspondence` walks a network
and gives the table, a row a tensor, that `to_ours` and `to_theirs` read in either direction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from trilemma.errors import InputError
from trilemma.networks import Autoencoder, NoisyClassifier, UNet

Weights = Mapping[str, Tensor]
Known = UNet | NoisyClassifier | Autoencoder


_TRUNK = {
    "trunk.stem": "stem",
    "trunk.embedding.time.1": "time in",
    "trunk.embedding.time.3": "time out",
    "trunk.embedding.label": "label",
}
MODULES: dict[type[Known], tuple[dict[str, str], dict[str, str], dict[str, str]]] = {
    UNet: (
        {"down": "trunk.levels", "up": "decoder"},
        {"middle": "trunk.middle"},
        {**_TRUNK, "head.0": "norm out", "head.2": "out"},
    ),
    NoisyClassifier: (
        {"down": "trunk.levels"},
        {"middle": "trunk.middle"},
        {**_TRUNK, "out.0": "norm out", "pool": "pool", "head": "out"},
    ),
    Autoencoder: (
        {"down": "encoder.levels", "up": "decoder"},
        {"middle": "encoder.middle", "decoder middle": "decoder_middle"},
        {
            **{"encoder.stem": "stem", "encoder_head.0": "norm out", "encoder_head.2": "out"},
            **{"to_latents": "to latents", "of_latents": "of latents"},
            **{"decoder_stem": "decoder stem", "decoder_head.0": "decoder norm out", "decoder_head.2": "decoder out"},
        },
    ),
}
"""Of each network, the lists of levels by half and the middles by place, by our names; and the places of its ends by
ours."""


@dataclass(frozen=True)
class Layout:
    """How a library lays out the weights of a network.

    places: a module's name by its place; of level `i`, layer `j`, the count `n` of modules before it in its half, and
        `last`, its position where it follows the block and, if there is one, the attention.
    leaves: the names inside, by ours; three where q, k and v are apart. A leaf of one place alone is `place.leaf`, and
        so is a tensor of its own.
    axes: of the matrices in an attention, where ours are 1×1 convolutions: 2 of linear layers, 3 of 1-D convolutions.
    per_head: in self-attention, q, k, v of the first head, then those of the next; ours and other layouts have q of all
        heads first.
    sine_first: the time embedding's sines come before its cosines; ours come after."""

    places: Mapping[str, str]
    leaves: Mapping[str, Sequence[str]]
    axes: int
    per_head: bool = False
    sine_first: bool = False


@dataclass(frozen=True)
class Row:
    """One tensor of ours and theirs, which are joined along the first axis. Where there are `rows`, ours[i] is
    theirs[rows[i]]; `columns` likewise, of the second axis. `axes`: theirs has so many, ours more of length 1."""

    ours: str
    theirs: tuple[str, ...]
    rows: Int64[Tensor, "r"] | None = None
    columns: Int64[Tensor, "c"] | None = None
    axes: int | None = None


def correspondence(network: Known, layout: Layout) -> list[Row]:
    """The table for this network, which needs no memory for its weights (device meta)."""
    places = dict(_places(network))
    table = []
    for ours in network.state_dict():
        prefix = next(place for place in places if ours.startswith(f"{place}."))
        kind, numbers = places[prefix]
        leaf, _, parameter = ours.removeprefix(f"{prefix}.").rpartition(".")
        if f"{kind}.{parameter}" in layout.leaves:
            leaf, parameter = parameter, ""
        names = layout.leaves.get(f"{kind}.{leaf}") or layout.leaves[leaf]
        inside = layout.places[kind].format_map(numbers)
        matrix = leaf in ("qkv", "project") and parameter == "weight"
        attention: Any = network.get_submodule(prefix) if kind.endswith("attention") and leaf == "qkv" else None
        swapped = layout.sine_first and kind == "time in" and parameter == "weight"
        table.append(
            Row(
                ours,
                tuple(".".join(part for part in (inside, name, parameter) if part) for name in names),
                rows=_by_head(attention.heads, attention.norm.num_channels) if attention and layout.per_head else None,
                columns=_halves_swapped(network.get_parameter(ours).shape[1]) if swapped else None,
                axes=layout.axes if matrix else None,
            )
        )
    return table


def _places(network: Known) -> Iterator[tuple[str, tuple[str, dict[str, int]]]]:
    """The modules that other libraries have as well: our name, the place, and the numbers that place it."""
    halves, middles, ends = MODULES[type(network)]
    for name, kind in ends.items():
        yield name, (kind, {})
    for half, place in halves.items():
        levels: Any = network.get_submodule(place)
        count = 1 if half == "down" else 0  # the stem is the first going down
        for i, level in enumerate(levels):
            name = f"{place}.{i}"
            for j, layer in enumerate(level.layers):
                numbers = {"i": i, "j": j, "n": count, "last": 1 + (layer.attention is not None)}
                yield f"{name}.layers.{j}.block", (half, numbers)
                yield f"{name}.layers.{j}.attention", (f"{half} attention", numbers)
                count += 1
            # Going down the change of resolution is counted like a layer, going up it belongs to the layer before.
            yield f"{name}.resample", (f"{half}sample", {**numbers, "n": count - (half == "up")})
            count += half == "down"
    for kind, place in middles.items():
        for j in range(2):
            yield f"{place}.{j}.block", (kind, {"j": j, "n": 2 * j})
            yield f"{place}.{j}.attention", (f"{kind} attention", {})


def _by_head(heads: int, channels: int) -> Int64[Tensor, "r"]:
    """Where each of our rows (q of all heads, k of all heads, v) stands among theirs (q, k, v of each head in turn)."""
    return torch.arange(3 * channels).view(heads, 3, channels // heads).transpose(0, 1).flatten()


def _halves_swapped(length: int) -> Int64[Tensor, "c"]:
    """Sines and cosines exchanged; the zero that fills an odd length stays."""
    half = length // 2
    return torch.cat([torch.arange(half, 2 * half), torch.arange(half), torch.arange(2 * half, length)])


def to_ours(table: Sequence[Row], theirs: Weights, shapes: Weights, where: object) -> dict[str, Tensor]:
    """Our weights from theirs, in float32. `shapes`: ours, as the network has them.

    Raises InputError (one line, beginning with `where`) that names a weight which is missing, is not of this network,
    or has another shape than it."""
    expected = {name for row in table for name in row.theirs}
    for what, names in (
        ("lacks", expected - theirs.keys()),
        ("has, and this network has not,", theirs.keys() - expected),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"{where} {what} the weight {min(names)!r}{more}")
    ours = {}
    for row in table:
        wanted = shapes[row.ours].shape
        parts = [theirs[name] for name in row.theirs]
        for name, part in zip(row.theirs, parts, strict=True):
            fits = (wanted[0] // len(parts), *wanted[1:])
            if _squeezed(part.shape) != _squeezed(fits):
                raise InputError(f"{where}: weight {name!r} has shape {list(part.shape)}, this network's {list(fits)}")
        value = torch.cat(parts).float().reshape(wanted)
        value = value if row.rows is None else value[row.rows]
        ours[row.ours] = value if row.columns is None else value[:, row.columns]
    return ours


def to_theirs(table: Sequence[Row], ours: Weights) -> dict[str, Tensor]:
    """Their weights from ours: the inverse of `to_ours`."""
    theirs: dict[str, Tensor] = {}
    for row in table:
        value = ours[row.ours]
        value = value if row.rows is None else value[row.rows.argsort()]
        value = value if row.columns is None else value[:, row.columns.argsort()]
        if row.axes is not None:
            value = value.reshape(*value.shape[:2], *[1] * (row.axes - 2))
        theirs |= dict(zip(row.theirs, (part.contiguous() for part in value.chunk(len(row.theirs))), strict=True))
    return theirs


def _squeezed(shape: Sequence[int]) -> list[int]:
    """The shape without the axes of length 1 at its end, which tell a linear layer from a 1×1 convolution."""
    kept = list(shape)
    while len(kept) > 1 and kept[-1] == 1:
        kept.pop()
    return kept
