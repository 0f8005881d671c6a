"""Figures of samples while a model trains: few images every so many steps, for the log."""

from __future__ import annotations

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import UInt8

from trilemma.data import parse_reference
from trilemma.errors import InputError, an
from trilemma.evaluations.choosing import choice_in_training, told
from trilemma.evaluations.measuring import figures_of, seen
from trilemma.evaluations.record import NEIGHBOURS
from trilemma.evaluations.reference import open_reference
from trilemma.evaluations.wanted import Wanted, check_measurable
from trilemma.machine.progress import say
from trilemma.metrics import TooFewError, check_enough, gathered_cautions
from trilemma.recipes import CompletedRecipe
from trilemma.runs.build import denoiser_of
from trilemma.runs.sample_sets import labels_for
from trilemma.training import Learner, Trainer


class EvaluateEvery:
    """A completed recipe's `evaluate` section at work. Each call samples the same seeds, 0 to n − 1, by the recipe's
    sampling settings and the averaged weights, and gives the figures that are single numbers, by their names in
    evaluations.

    The processes share the sampling; process 0 measures. Nothing that training draws from is touched: a run is the
    same with and without. Raises InputError, before anything is trained, for a recipe that generates no images or
    whose sampling section could not make them, and for metrics that could not be measured."""

    def __init__(self, recipe: CompletedRecipe, learner: Learner, accelerator: Accelerator) -> None:
        self.recipe, self.settings, self.accelerator = recipe, recipe.evaluate, accelerator
        self._said: set[str] = set()
        if learner.denoiser is None:
            raise InputError(
                f"evaluate.every: {an(recipe.learner['name'])} generates no images to evaluate, expected 0"
            )
        if recipe.learner.get("low") is not None:
            raise InputError(
                "evaluate.every: an upsampler's images need a base's below them, expected 0; evaluate "
                "BASE+UPSAMPLER once it is trained"
            )
        recipe.sampling.build(learner.denoiser, recipe.images.shape)
        if not accelerator.is_main_process:
            return
        data, settings = recipe.data, recipe.evaluate
        reference, images = settings.reference or f"{data.name}:{data.split}", recipe.images
        with gathered_cautions() as cautions:
            self.features = settings.features or told(*choice_in_training(recipe))
            self.wanted = Wanted.of(settings.metrics, self.features, NEIGHBOURS, None)
            self.real = open_reference(
                reference,
                self.features,
                data.opening(parse_reference(reference)[0]),
                features=self.wanted.reference_features,
                classes=self.wanted.classes,
                holdout=bool(self.wanted.holdout),
                unseen=data.unseen if parse_reference(reference) == (data.name, data.split) else "test",
            )
            check_measurable(
                images.shape, self.real, self.features, settings.metrics,
                labels=bool(recipe.classes), sampler=False,
            )  # fmt: skip
        try:
            check_enough(settings.metrics, settings.n, dim=self.real.features.statistics.dim)
        except TooFewError as few:
            raise InputError(f"evaluate.n: {few}") from None
        self._say(cautions)

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        """The figures at the trainer's step, without those that there are too few images for; none in other processes,
        and none where one cannot be had for another reason. What is missing is said, but ends no training."""
        seeds = list(range(self.settings.n))
        labels = labels_for(seeds, self.recipe.classes, None)
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        mine: list[list[np.ndarray] | str] = [self._sampled(trainer, seeds[rank::processes], labels)]
        parts = gather_object(mine) if processes > 1 else mine
        if not self.accelerator.is_main_process:
            return {}
        with gathered_cautions() as cautions:
            try:
                figures = self.measured(self._joined(parts), labels)
            except InputError as error:
                self._say([f"evaluate at step {trainer.step}: {error}"])
                return {}
        self._say(cautions)
        return figures

    def _sampled(self, trainer: Trainer, seeds: list[int], labels: np.ndarray | None) -> list[np.ndarray] | str:
        """Images of these seeds, or why there are none."""
        recipe, batch = self.recipe, self.recipe.sampling.batch
        images: list[np.ndarray] = []
        try:
            with trainer.averaged():
                sampler = recipe.sampling.build(denoiser_of(trainer.learner, recipe), recipe.images.shape)
                for start in range(0, len(seeds), batch):
                    some = seeds[start : start + batch]
                    images += list(sampler.generate(some, None if labels is None else labels[some]))
        except InputError as error:
            return str(error)
        return images

    def _joined(self, parts: list[list[np.ndarray] | str]) -> UInt8[np.ndarray, "n h w c"]:
        """The processes' images in the order of their seeds. Raises InputError where one has none."""
        images: list[np.ndarray] = [np.empty(0)] * self.settings.n
        for first, part in enumerate(parts):
            if isinstance(part, str):
                raise InputError(part)
            images[first :: len(parts)] = part
        return np.stack(images)

    def measured(self, images: UInt8[np.ndarray, "n h w c"], labels: np.ndarray | None) -> dict[str, float]:
        """The figures of these images, of these classes."""
        found = figures_of(
            seen(images, self.wanted), self.real, self.wanted, labels=labels, classes=self.recipe.classes, lenient=True
        )
        return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}

    def _say(self, lines: list[str]) -> None:
        """Each line once in a training."""
        for line in lines:
            if line not in self._said:
                self._said.add(line)
                say(f"warning: {line}")
