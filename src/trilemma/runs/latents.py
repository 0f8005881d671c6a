"""Latent diffusion: a run's codec, and training data as its latents (Rombach et al. 2022)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from trilemma.data import ImageSet, outline
from trilemma.data.download import cache_folder
from trilemma.errors import InputError
from trilemma.machine.devices import process_state
from trilemma.machine.files import replacing, sha256
from trilemma.machine.progress import progress, say
from trilemma.metrics.latent_moments import LatentMoments
from trilemma.process import Codec, to_model
from trilemma.process.codec import ENCODED
from trilemma.recipes import CompletedRecipe, load, packaged

if TYPE_CHECKING:
    from trilemma.runs.run import Run

FORMAT = "trilemma-latents/1"

FOLDER = "codec"
"""Where a run keeps its codec."""


def settled(recipe: CompletedRecipe) -> CompletedRecipe:
    """A recipe that says of its codec, if it has one, what shape the latents have, and whose weights make them; of a
    codec that a packaged recipe of that name is still to train, the shape alone. Raises InputError as `codec_of`."""
    settings, shape = recipe.codec, recipe.images.shape
    if settings is None or settings.sha256 is not None:  # of a run that has begun: `codec_of` holds it against both
        return recipe
    if settings.identity:
        _check_shape(recipe, shape)
        return _with(recipe, shape=shape)
    if not Path(settings.name).exists() and Path(settings.name).name in packaged():
        return _with(recipe, shape=_untrained(Path(settings.name).name, shape).shape_of(shape))
    run = _open(recipe, Path(settings.name))
    codec = codec_of(recipe)
    assert codec is not None
    return _with(recipe, shape=codec.shape_of(shape), sha256=_hash(run, recipe))


def _check_shape(recipe: CompletedRecipe, found: tuple[int, int, int]) -> None:
    assert recipe.codec is not None
    if recipe.codec.shape not in (None, found):
        raise InputError(f"codec.shape {recipe.codec.shape}: the codec {recipe.codec.name} makes latents {found}")


def _with(recipe: CompletedRecipe, **changes: object) -> CompletedRecipe:
    assert recipe.codec is not None
    return recipe.model_copy(update={"codec": recipe.codec.model_copy(update=changes)})


def _untrained(name: str, shape: tuple[int, int, int]) -> Codec:
    from trilemma.runs.build import build_learner, completed

    recipe = load(name)
    codec = build_learner(completed(recipe, outline(recipe.data.name, size=shape[1:], channels=shape[0]))).codec
    if codec is None:
        raise InputError(f"codec {name}: a recipe that trains no autoencoder")
    return codec


def codec_of(recipe: CompletedRecipe, kept: Path | None = None) -> Codec | None:
    """The codec of a recipe, with its scale if that is known, on this process's device; `kept`: the run's copy. None
    where images themselves are learnt from.

    Raises InputError where there is none, it is of other images, or its weights are not those that the recipe says."""
    settings = recipe.codec
    if settings is None:
        return None
    if settings.identity:
        return Codec(scale=settings.scale or 1.0)
    run = _open(recipe, kept or Path(settings.name))
    found = _hash(run, recipe)
    if settings.sha256 not in (None, found):
        raise InputError(
            f"codec {run.path}: its weights' SHA-256 is {found[:12]}…, and the latents were made by "
            f"{str(settings.sha256)[:12]}…: it does not belong to this run"
        )
    trained = run.codec(settings.weights)
    _check_shape(recipe, trained.shape_of(recipe.images.shape))
    return Codec(trained.network, settings.scale or 1.0, trained.log_sigma)


def _hash(run: Run, recipe: CompletedRecipe) -> str:
    assert recipe.codec is not None
    return sha256(run.weights_file(recipe.codec.weights))


def _open(recipe: CompletedRecipe, path: Path) -> Run:
    from trilemma.runs.run import Run  # which opens its codec by what is here

    if not (path / "recipe.yaml").is_file():
        remedy = f"; train it first: trilemma train {path.name}" if path.name in packaged() else ""
        raise InputError(f"codec {path} is no run directory{remedy}")
    run = Run(path)
    if run.recipe.images.shape != recipe.images.shape:
        raise InputError(
            f"codec {path}: its images are {run.recipe.images.shape} (channels, height, width), the data's "
            f"{recipe.images.shape}"
        )
    if run.recipe.data.range != recipe.data.range:
        raise InputError(
            f"codec {path}: its pixels lie in {list(run.recipe.data.range)}, the recipe's in {list(recipe.data.range)}"
        )
    return run


def keep_codec(path: Path, recipe: CompletedRecipe) -> None:
    """Copy a recipe's codec into the run directory, so that the run needs nothing else; once. Raises InputError where
    it cannot be written, has changed since its latents were made, or another stands in its place."""
    settings, place = recipe.codec, path / FOLDER
    if settings is None or settings.identity:
        return
    if place.exists():
        if (place / "recipe.yaml").is_file() and _hash(_open(recipe, place), recipe) == settings.sha256:
            return
        raise InputError(f"{place} is there already, and is not the run's codec: remove it, or choose another --out")
    run = _open(recipe, Path(settings.name))
    with replacing(place) as partial:
        folder = partial / "checkpoints" / run.checkpoint.name
        folder.mkdir(parents=True)
        shutil.copy(run.path / "recipe.yaml", partial)
        for file in ("model.safetensors", "ema.safetensors"):
            if (run.checkpoint / file).exists():
                shutil.copy(run.checkpoint / file, folder)
        state = json.loads((run.checkpoint / "state.json").read_text(encoding="utf-8"))
        kept = {file.name: sha256(file) for file in sorted(folder.iterdir())}
        if settings.sha256 not in kept.values():
            raise InputError(f"codec {run.path}: it was trained on while its latents were made; begin again")
        (folder / "state.json").write_text(json.dumps({**state, "sha256": kept}, indent=1), encoding="utf-8")


class Latents:
    """Training data as the moments of their latents of so many `channels`, unscaled, and their labels: a source of
    batches. `mirrored`: the same of the images flipped left to right, which are not the latents flipped."""

    in_memory = True

    def __init__(
        self,
        moments: Float[np.ndarray, "n d h w"],
        labels: Int64[np.ndarray, "n"] | None,
        channels: int,
        mirrored: Latents | None = None,
    ):
        self.moments, self.labels, self.channels, self.mirrored = moments, labels, channels, mirrored
        self.scale = 1.0

    def __len__(self) -> int:
        return len(self.moments)

    def batch(
        self, indices: Sequence[int] | Int64[np.ndarray, "n"]
    ) -> tuple[Float[np.ndarray, "n d h w"], Int64[np.ndarray, "n"] | None]:
        """The moments and the labels at these indices, in that order."""
        index = np.asarray(indices, dtype=np.int64).reshape(-1)
        return self.moments[index], None if self.labels is None else self.labels[index]

    def tensors(self, moments: Float[np.ndarray, "n d h w"]) -> Float[Tensor, "n d h w"]:
        """Moments as a learner is given them, scaled."""
        return torch.from_numpy(np.ascontiguousarray(moments)) * self.scale

    @cached_property
    def seen(self) -> LatentMoments:
        """What all unscaled latents come to, draws of q(z | x)."""
        seen = LatentMoments()
        for start in range(0, len(self), 1000):
            part = torch.from_numpy(np.array(self.moments[start : start + 1000]))
            mean, deviation = part[:, : self.channels], part[:, self.channels :]
            seen.update(mean, deviation if deviation.shape[1] else None)
        return seen


def to_encode(data: ImageSet, recipe: CompletedRecipe) -> int:
    """How many images are to be encoded before training on their latents: none that are kept."""
    settings = recipe.codec
    if settings is None or settings.identity:
        return 0
    places = [_place(data, recipe.data.range, _of(recipe), flipped) for flipped in _flips(recipe)]
    return sum(len(data) for place in places if not place.exists())


def _flips(recipe: CompletedRecipe) -> list[bool]:
    return [False, True] if recipe.training.flip else [False]


def _of(recipe: CompletedRecipe) -> str:
    settings = recipe.codec
    assert settings is not None
    return settings.sha256 or settings.name  # the identity has no weights


def some_latents(data: ImageSet, recipe: CompletedRecipe, codec: Codec, count: int) -> Latents:
    """The latents of so many images, kept nowhere: what is trained on them takes as long as on those of all."""
    indices = [i % min(len(data), ENCODED) for i in range(count)]
    moments = _encoded(data, Codec(codec.network), recipe.data.range, False, 0, max(indices) + 1)
    labels = None if data.labels is None else data.labels[indices]
    latents = Latents(moments[indices], labels, recipe.space[0])
    latents.scale = codec.scale
    return latents


def latents_of(data: ImageSet, recipe: CompletedRecipe, codec: Codec) -> tuple[Latents, CompletedRecipe]:
    """The data as latents, and the recipe with their scale: one over their standard deviation, unless it says another
    (Rombach et al. 2022, appendix G).

    The moments lie in `latents/` of the cache folder (`$TRILEMMA_CACHE`, or the system's) under the hash of the data
    and the codec, and may be removed at any time. Where they cannot be kept they are held in memory."""
    settings = recipe.codec
    assert settings is not None
    unscaled = Codec(codec.network)
    low_high, flips, of = recipe.data.range, _flips(recipe), _of(recipe)
    with process_state().local_main_process_first():  # the others find them kept
        sides = [_moments(data, unscaled, low_high, of, flipped) for flipped in flips]
    latents = Latents(sides[0], data.labels, recipe.space[0])
    if len(sides) > 1:
        latents.mirrored = Latents(sides[1], data.labels, recipe.space[0])
    # Batches are scaled as they are made, mirrored or not, by the one that they are asked of.
    codec.scale = latents.scale = settings.scale or 1.0 / latents.seen.deviation
    return latents, _with(recipe, scale=latents.scale)


def _moments(
    data: ImageSet, codec: Codec, low_high: tuple[float, float], of: str, flipped: bool
) -> Float[np.ndarray, "n d h w"]:
    place = _place(data, low_high, of, flipped)
    shape = (len(data), *_encoded(data, codec, low_high, flipped, 0, 1).shape[1:])
    if (found := _kept(place, shape)) is not None:
        return found
    try:
        with replacing(place, "cache") as partial:
            held = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
            _fill(held, data, codec, low_high, flipped)
            held.flush()
    except InputError as error:
        say(f"warning: latents cannot be kept: {error}")
        moments = np.empty(shape, dtype=np.float32)
        _fill(moments, data, codec, low_high, flipped)
        return moments
    found = _kept(place, shape)
    assert found is not None
    return found


def _place(data: ImageSet, low_high: tuple[float, float], of: str, flipped: bool) -> Path:
    key = {"format": FORMAT, "data": data.fingerprint(), "range": list(low_high), "codec": of, "flipped": flipped}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "latents" / f"{digest}.npy"


def _kept(place: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    if not place.exists():
        return None
    try:
        found = np.load(place, mmap_mode="r", allow_pickle=False)
        if found.shape == shape and found.dtype == np.float32:
            return np.asarray(found)
        reason = f"it holds {found.dtype} {found.shape}"
    except (ValueError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
    say(f"warning: {place} is damaged ({reason}), so the latents are made again")
    place.unlink(missing_ok=True)
    return None


def _fill(held: np.ndarray, data: ImageSet, codec: Codec, low_high: tuple[float, float], flipped: bool) -> None:
    what = f"latents of {data.name}:{data.split}" + (", mirrored" if flipped else "")
    with progress(what, len(data), "images", shown=process_state().is_main_process) as advance:
        for start in range(0, len(data), ENCODED):
            end = min(start + ENCODED, len(data))
            held[start:end] = _encoded(data, codec, low_high, flipped, start, end)
            advance(end, "")


@torch.no_grad()
def _encoded(
    data: ImageSet, codec: Codec, low_high: tuple[float, float], flipped: bool, start: int, end: int
) -> Float[np.ndarray, "n d h w"]:
    images = to_model(data.batch(range(start, end))[0], low_high)
    first = next(codec.parameters(), images)
    return codec.joined((images.flip(3) if flipped else images).to(first.device)).float().cpu().numpy()
