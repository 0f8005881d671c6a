"""A run: a directory with a recipe and checkpoints. Everything after training needs only it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import nn

from trilemma.errors import InputError, an
from trilemma.machine.devices import process_state
from trilemma.machine.files import sha256, write_text
from trilemma.machine.progress import say
from trilemma.process import ClassPosterior, Codec, Denoiser, Draw, perturb
from trilemma.recipes import CompletedRecipe, SamplingSettings, dump, load
from trilemma.runs.build import build_learner, build_network, denoiser_of, open_images, parameter_count, with_parts
from trilemma.runs.companions import Companions, OpenedGuide, open_guide, split
from trilemma.runs.latents import FOLDER, codec_of, keep_codec
from trilemma.runs.sample_sets import FORMAT, labels_for, sample_set
from trilemma.runs.surrogates import begin, open_source
from trilemma.samplers import (
    Finished,
    Sampler,
    Samples,
    Strip,
    Surrogate,
    check_seeds,
    grid,
    paired,
    resized,
    seed_words,
)
from trilemma.training import Learner, Pairs, checkpoint, sampled


@dataclass(frozen=True)
class Way:
    """A way to sample a run: its settings, the sampler that they make, the classes that it can be asked for, what
    records say of its guide, and the way to sample the run below, if it is a cascade of runs."""

    settings: SamplingSettings
    sampler: Sampler
    classes: list[str]
    guide: dict[str, Any] | None = None
    below: Way | None = None

    @property
    def base(self) -> Way:
        """The way to sample the lowest run: itself where there is none below."""
        return self if self.below is None else self.below.base


class Run:
    """A trained run, opened at its newest checkpoint (or at `step`), whose files are held against their hashes
    unless `verify` is False. Parts that `fit` was given as objects of no
    registered class are given again by name: `network`, `schedule`, and the learner's, such as `objective`.

    Raises InputError if `path` is no run directory, has no finished checkpoint, the checkpoint is damaged, or a part
    has to be given again."""

    def __init__(self, path: str | Path, step: int | None = None, *, verify: bool = True, **own: Any):
        self.path = Path(path)
        if not (self.path / "recipe.yaml").is_file():
            raise InputError(f"{self.path} is not a run directory: it has no recipe.yaml")
        recipe = load(self.path / "recipe.yaml")
        if not isinstance(recipe, CompletedRecipe):
            raise InputError(f"{self.path}/recipe.yaml does not say what the images are: it is no run's recipe")
        self.recipe = recipe
        self._built_from = with_parts(recipe, own)
        folder = self.path / "checkpoints"
        if step is not None and step not in checkpoint.steps(folder):
            raise InputError(f"{self.path} has no checkpoint of step {step} (has: {checkpoint.steps(folder)})")
        self.checkpoint = checkpoint.latest(folder) if step is None else checkpoint.path_of(folder, step)
        self.step = int(checkpoint.read_state(self.checkpoint, verify)["step"])
        self._denoisers: dict[str, Denoiser] = {}
        self._guides: dict[str, OpenedGuide] = {}
        self._sources: dict[str, Run | Finished] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, recipe {self.recipe.name!r}, step {self.step})"

    @property
    def classes(self) -> list[str]:
        """The classes the model is conditioned on; empty if it is unconditional."""
        return self.recipe.classes

    @property
    def spec(self) -> str:
        """What commands call it."""
        return str(self.path)

    @property
    def pairs(self) -> Pairs | None:
        """The low images that an upsampler is trained on; None where the run is none."""
        return Pairs.of(self.recipe.learner.get("low"), self.recipe.learner.get("low_noise", 0.0))

    def weights_file(self, weights: str) -> Path:
        """The file of the `ema` or `raw` weights."""
        if weights not in ("ema", "raw"):
            raise InputError(f"weights {weights!r}: expected 'ema' or 'raw'")
        path = self.checkpoint / {"ema": "ema.safetensors", "raw": "model.safetensors"}[weights]
        if weights == "ema" and not path.exists() and not self.recipe.training.ema:
            raise InputError(
                f"{self.path} was trained without an average of weights (training.ema 0): use weights 'raw'"
            )
        return path

    def load_into(self, learner: Learner, weights: str) -> None:
        """Put these weights into a learner; beside the averaged ones, the raw ones of what is not averaged. Raises
        InputError where they do not fit."""
        if weights == "raw" or learner.averaged is not learner.network:
            checkpoint.load_weights(learner.network, self.weights_file("raw"))
        if weights != "raw":
            checkpoint.load_weights(learner.averaged, self.weights_file(weights))

    def learner(self, weights: str = "ema") -> Learner:
        """What was trained, with these weights, in evaluation mode, on this process's device."""
        # A network that was given is the caller's: it is left as it is.
        kept = self.path / FOLDER
        learner = build_learner(deepcopy(self._built_from), codec_of(self.recipe, kept))
        self.load_into(learner, weights)
        learner.network.eval().requires_grad_(False).to(process_state().device)
        return learner

    def denoiser(self, weights: str = "ema") -> Denoiser:
        """The trained denoiser with these weights, in evaluation mode, on this process's device."""
        if weights not in self._denoisers:
            denoiser = denoiser_of(self.learner(weights), self.recipe)
            # In channels_last convolutions gain more than normalisation loses.
            denoiser.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if isinstance(denoiser.schedule, nn.Module):  # times are there, and would wait for the device at every step
                denoiser.schedule.cpu()
            self._denoisers[weights] = denoiser
        return self._denoisers[weights]

    def classifier(self, weights: str = "ema") -> nn.Module:
        """The trained classifier of clean images with these weights. Raises InputError where the recipe trains none."""
        learner = self.learner(weights)
        if learner.classifier is None:
            raise self._not("a classifier of clean images, which measures others")
        return learner.classifier

    def posterior(self, weights: str = "ema") -> ClassPosterior:
        """The trained classifier of noised images with these weights, p(y | x_t), in evaluation mode, on this process's
        device. Raises InputError where the recipe trains none."""
        learner = self.learner(weights)
        if learner.posterior is None:
            raise self._not("a classifier of noised images, which guides samplers")
        learner.posterior.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return learner.posterior

    def codec(self, weights: str = "ema") -> Codec:
        """The trained codec with these weights, in evaluation mode, on this process's device; its scale is 1. Raises
        InputError where the recipe trains none."""
        codec = self.learner(weights).codec
        if codec is None:
            raise self._not("an autoencoder, in whose latents others diffuse")
        codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return codec.eval()

    def _not(self, expected: str) -> InputError:
        return InputError(f"{self.path} trains {an(self.recipe.learner['name'])} model, not {expected}")

    @cached_property
    def parameters(self) -> int:
        """The parameters of the network that is sampled, or of the one that there is."""
        return parameter_count(sampled(build_network(self._built_from)))

    def way(self, **settings: Any) -> Way:
        """A way to sample this run, by the recipe's settings but for those given: those of its sampling section, and
        what it is sampled with (see `Companions`). Raises InputError for what cannot be done."""
        if self.pairs is not None:
            by = "×".join(map(str, self.pairs.size))
            raise InputError(
                f"{self.path} is an upsampler: it needs what makes its {by} images, a run or samples, before it: "
                f"BASE+{self.path}"
            )
        own, companions = split(settings)
        chosen = self.recipe.sampling.changed(**own)
        named, within = companions.guided_by, chosen.guidance_interval
        if not named and within is not None and own.get("guidance_interval") is not None:
            named = f"guidance_interval {within[0]:g},{within[1]:g}"
        if named and not chosen.guidance and own.get("guidance") is None:
            raise InputError(f"{named}: by how much? It needs --guidance, such as 1")
        if (key := companions.guided_by) not in self._guides:
            self._guides[key] = open_guide(self, companions)
        guide = self._guides[key]
        # The guide has its say only where it has any: at scale 0 all is as if it had not been named.
        classes = self.classes or (list(guide.classes) if chosen.guidance else [])
        surrogate = self._begun(companions, chosen, classes)
        sampler = chosen.build(self.denoiser(chosen.weights), self.recipe.images.shape, surrogate, guide=guide.make)
        return Way(chosen, sampler, classes, guide.record if chosen.guidance else None)

    def _begun(self, companions: Companions, chosen: SamplingSettings, classes: list[str]) -> Surrogate | None:
        """The surrogate that is named, opened once for every way to go on from it."""
        if companions.surrogate is None:
            return None
        name = str(companions.surrogate)
        if name not in self._sources:
            self._sources[name] = open_source(name, self)
        shape, denoiser = self.recipe.images.shape, self.denoiser(chosen.weights)
        return begin(self._sources[name], companions, denoiser, shape, classes, chosen.batch)

    def sampler(self, **settings: Any) -> Sampler:
        """A sampler of this run, see `way`."""
        return self.way(**settings).sampler

    def sample(
        self,
        n: int = 64,
        *,
        seeds: Sequence[int] | None = None,
        cls: str | int | None = None,
        out: str | Path | None = None,
        **settings: Any,
    ) -> Samples:
        """Generate `n` images (seeds 0…n−1, or the `seeds` given), of class `cls` if given, or of several such as
        "0,3,7", which the seeds take in turn.

        `settings` are those of the recipe's sampling section: sampler, steps, eta, spacing, clip, guidance, weights,
        batch, precision, and so on; and `surrogate`, `t_mid` and `handover`, `classifier` or `guide`, see
        `Companions`.
        With `out` they are written there too, as by `sample_to`. Raises InputError for what cannot be done."""
        if out is not None:
            return self.sample_to(out, n=n, seeds=seeds, cls=cls, **settings)
        way, numbers = self.way(**settings), check_seeds(n, seeds)
        return way.sampler(seeds=numbers, labels=labels_for(numbers, way.classes, cls))

    def sample_to(
        self,
        out: str | Path | None = None,
        *,
        n: int = 64,
        seeds: Sequence[int] | None = None,
        cls: str | int | None = None,
        **settings: Any,
    ) -> Samples:
        """Generate a set of images as `sample` does, into `out`: an .npz or a folder of PNG; RUN/samples/… named by
        how it was made, unless given. An interrupted call made again goes on where it was; a finished one is read."""
        way, numbers = self.way(**settings), check_seeds(n, seeds)
        labels, sampler = labels_for(numbers, way.classes, cls), way.sampler
        place = Path(out) if out is not None else self.default_out(way, numbers, cls)
        say(f"{len(numbers)} images, {sampler.label}: {sampler.evaluations} network evaluations each, into {place}")
        return sample_set(sampler, numbers, labels, place, self.record(way, numbers, cls))

    def default_out(self, way: Way, seeds: Sequence[int], cls: Any) -> Path:
        """Where a sample set goes that is given no place: a name that says how it was made."""
        numbers = seed_words(seeds) if len(seed_words(seeds)) < 20 else f"{len(seeds)}seeds"
        chosen = [] if cls is None else [f"class{cls}"]
        name = "-".join([*self.words(way), *chosen, f"seeds{numbers}"]).replace(" ", "")
        return self.path / "samples" / f"{name}.npz"

    def words(self, way: Way) -> list[str]:
        """How it is sampled and of which step, for the names of files."""
        sampler, settings = way.sampler, way.settings
        parts = [sampler.kernel.label.lower(), str(sampler.intervals), *sampler.particulars()]
        parts += [] if settings.precision == "fp32" else [settings.precision]
        parts += [] if settings.weights == "ema" else [settings.weights]
        begun = sampler.surrogate.record.get("checkpoint_step") if sampler.surrogate else None
        return [*parts, *([] if begun is None else [f"from{begun}"]), f"step{self.step}"]

    def record(self, way: Way, seeds: Sequence[int], cls: Any) -> dict[str, Any]:
        """How a sample set is made: everything its images depend on."""
        classes = None if not way.classes else "balanced" if cls is None else str(cls)
        return {"format": FORMAT, **self.made(way), "seeds": seed_words(seeds), "classes": classes}

    def made(self, way: Way) -> dict[str, Any]:
        """How images are made, whatever their seeds and classes."""
        sampler, settings = way.sampler, way.settings
        settled = settings.recorded()
        if self.pairs is None or not self.pairs.noise:
            del settled["low_noise"]
        every = len(grid(sampler.denoiser.schedule, settings.steps, settings.spacing)) - 1
        return {
            "recipe": self.recipe.name,
            "checkpoint_step": self.step,
            "weights_sha256": sha256(self.weights_file(settings.weights)),
            **({"codec": codec.model_dump(mode="json")} if (codec := self.recipe.codec) else {}),
            "sampler": {
                **settled,
                "steps": None if settings.times else every,
                "times_sha256": hashlib.sha256(sampler.grid.numpy().tobytes()).hexdigest(),
                "network_evaluations": sampler.evaluations,
                "surrogate": sampler.surrogate.record if sampler.surrogate else None,
                "guide": way.guide,
            },
        }

    def surrogate_pairs(self, samples: Samples, count: int = 20, **settings: Any) -> UInt8[np.ndarray, "h w c"]:
        """A picture of the first of these samples, made by these settings, each beside what it began from: x̃_0 on the
        left, x_0 on the right (A figure 4.4). Raises InputError where they begin from no surrogate."""
        begun = self.way(**settings).base.sampler.surrogate
        if begun is None:
            raise InputError("pairs: images beside those that they began from, and no surrogate is named")
        ended, labels = samples.images[:count], samples.labels
        images = begun.images(samples.seeds[:count], None if labels is None else labels[:count])
        return paired(resized(images, ended.shape[1:3]), ended)

    def reverse_strip(
        self,
        seeds: Sequence[int],
        labels: Int64[np.ndarray, "n"] | None = None,
        columns: int = 9,
        **settings: Any,
    ) -> Strip:
        """x_t along the walk from noise to image, a row a seed, at `columns` evenly chosen steps."""
        way = self.way(**settings)
        labels = labels_for(seeds, way.classes, None) if labels is None else labels[: len(seeds)]
        return way.sampler.strip(seeds, labels, columns)

    def forward_strip(self, rows: int = 3, columns: int = 9) -> Strip:
        """Training images noised to `columns` times from 0 to T, a row an image."""
        data, denoiser = open_images(self.recipe), self.denoiser(self.recipe.sampling.weights)
        schedule = denoiser.schedule
        chosen = np.linspace(0, len(data) - 1, rows).astype(int)
        x0 = denoiser.encoded(data.batch(chosen)[0])
        eps = Draw((int(i), "forward strip") for i in chosen).normal(x0)
        times = torch.linspace(0, schedule.T, columns, dtype=torch.float64)
        times = times.round() if schedule.steps is not None else times
        images = [denoiser.decoded(perturb(schedule, x0, t, eps)) for t in times]
        return Strip(np.stack(images, axis=1), tuple(times.tolist()))


def prepare(path: Path, recipe: CompletedRecipe) -> None:
    """Begin a run directory: its recipe, its codec if it has one, and room for samples. Raises InputError where it
    cannot be written."""
    keep_codec(path, recipe)
    write_text(path / "recipe.yaml", dump(recipe))
    (path / "samples").mkdir(exist_ok=True)
