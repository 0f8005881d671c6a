"""The sampler: a denoiser, a kernel and a grid; images from seeds. It needs no run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from trilemma.errors import InputError
from trilemma.guidance import Guide, bind
from trilemma.process import Condition, Denoiser, Draw, low_condition
from trilemma.samplers.compiled import Compiled
from trilemma.samplers.estimate import check_batch
from trilemma.samplers.grids import cut, explicit, grid
from trilemma.samplers.kernels import Kernel
from trilemma.samplers.loop import Step, evaluating, walk
from trilemma.samplers.samples import Samples, Strip, check_seeds
from trilemma.samplers.stages import Stage
from trilemma.samplers.starts import Surrogate, noise_start, surrogate_start

Labels = Int64[np.ndarray, "n"] | Sequence[int] | int | None
"""The class of each image, or one class for all; None where they have none."""


@dataclass(frozen=True, eq=False, repr=False)
class Sampler:
    """Images of `shape` (c, h, w) from seeds: `Sampler(denoiser, DDIM(), steps=20, shape=(1, 28, 28))(seeds=range(9))`.
    Image i depends on its own seed alone, not on `batch`, which is how many are made at once.

    The grid: `steps` intervals (None: every step of a table) by `spacing`, less `skip` of the noisiest; or `times`
    written out, noisiest first, instead. `surrogate`: begin from its images, noised to its t_mid, instead of at noise.
    `guides`: what steers the denoiser on the way; they are added up.
    `low`: of an upsampler, what makes the low images that it starts from; `low_noise`: the time they are noised to.
    `precision`: fp32, or bf16 under autocast. `compile`: have the network compiled for this batch (see `Compiled`).
    Sampling is done where the network is, in evaluation mode, in which it is not left if it was training.

    Raises InputError for a grid that cannot be had, for a kernel that is undefined where it starts, and for a guide
    that cannot guide the denoiser or acts at none of the grid's times."""

    denoiser: Denoiser
    kernel: Kernel
    _: KW_ONLY
    shape: tuple[int, int, int]
    steps: int | None = None
    spacing: str = "even"
    skip: int = 0
    times: Sequence[float] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    batch: int = 64
    compile: bool = False
    surrogate: Surrogate | None = None
    guides: Sequence[Guide] = ()
    low: Stage | None = None
    low_noise: float = 0.0
    grid: Float64[Tensor, "k1"] = field(init=False)

    def __post_init__(self) -> None:
        schedule = self.denoiser.schedule
        if self.times is not None:
            times = explicit(schedule, self.times)
        else:
            times = grid(schedule, self.steps, self.spacing, self.skip)
        if self.kernel.needs_signal and float(schedule.alpha(times[0])) == 0:
            raise InputError(
                f"sampler {self.kernel.label!r} is undefined where the schedule's SNR is 0, which its grid starts at: "
                "use ancestral or ddim, or leave the first time out (skip 1)"
            )
        if self.surrogate is not None:
            times = cut(schedule, times, self.surrogate.t_mid)
            self._check_begun(self.surrogate.stage.shape)
        if self.denoiser.latent:
            self._check_drawn(times)
        if self.kernel.clip == "dynamic" and not self.denoiser.codec.identity:
            raise InputError("clip 'dynamic': the model diffuses latents, which have no range; expected none")
        for guide in self.guides:
            guide.check(self.denoiser)
        if self.low is None and getattr(self.denoiser.network, "upsampler", False):
            raise InputError("sampler: the network is an upsampler, and `low`, what makes its low images, is missing")
        if not 0 <= self.low_noise <= (schedule.T if self.low is not None else 0):
            what = f"0 to {schedule.T:g}" if self.low is not None else "0, there is no low image to be noised"
            raise InputError(f"low_noise {self.low_noise:g}: expected {what}")
        object.__setattr__(self, "grid", times)
        self._check_intervals()

    def _check_drawn(self, times: Float64[Tensor, "k1"]) -> None:
        """Raises InputError where a denoiser that draws its x̂_0 would be asked for what it has not learnt."""
        what = f"the model draws its x̂_0 ({type(self.denoiser.network).__name__}), "
        if not self.kernel.draws:
            raise InputError(
                f"sampler {self.kernel.label!r}: {what}and this sampler rests on x̂_0 being the mean: use ancestral"
            )
        alone = f"{what}for steps from each time of its table to the next alone: "
        if self.surrogate is not None and self.surrogate.t_mid % 1:
            raise InputError(f"t_mid {self.surrogate.t_mid:g}: {alone}expected a whole number")
        if not bool((times.diff() == -1).all()):
            raise InputError(f"steps {len(times) - 1}: {alone}leave steps, spacing, skip and times out")
        if any(guide.scale for guide in self.guides):
            raise InputError(f"guidance: {what}and there is no one prediction that could be guided")

    def _check_intervals(self) -> None:
        """Raises InputError for a guide that would be stated and never act."""
        asked = self.asked
        for guide in self.guides:
            if guide.scale and guide.interval and asked and not any(map(guide.acts, asked)):
                raise InputError(
                    f"guidance_interval {guide.interval[0]:g},{guide.interval[1]:g}: none of the walk's {len(asked)} "
                    f"times lies in it, from {asked[0]:g} to {min(asked):g}"
                )

    def _check_begun(self, shape: tuple[int, ...]) -> None:
        """Raises InputError where images of this shape are not those that the walk could go on from."""
        if tuple(shape) != self.shape:
            raise InputError(f"surrogate: its images are {tuple(shape)}, the run's {self.shape} (c, h, w)")

    def __repr__(self) -> str:
        return f"Sampler({self.label}: {self.evaluations} network evaluations)"

    @property
    def space(self) -> tuple[int, int, int]:
        """The shape (c, h, w) of what is walked in: the images', or their latents'."""
        return self.denoiser.codec.shape_of(self.shape)

    @property
    def intervals(self) -> int:
        """Steps of the walk."""
        return len(self.grid) - 1

    @property
    def asked(self) -> list[float]:
        """The times at which the denoiser is asked."""
        return self.kernel.asks(self.denoiser.schedule, self.grid).tolist() if self.intervals else []

    @property
    def evaluations(self) -> int:
        """Network evaluations an image takes: the denoiser's, those of the guides where they act, and of the stages
        below."""
        below = sum(stage.evaluations for stage in self.below)
        return below + sum(1 + sum(guide.evaluations for guide in self.acting(t)) for t in self.asked)

    @property
    def below(self) -> tuple[Stage, ...]:
        """The stages whose images it goes on from: its low images', its surrogate's."""
        begun = (self.surrogate.stage,) if self.surrogate is not None else ()
        return begun if self.low is None else (self.low, *begun)

    @property
    def stages(self) -> int:
        """Itself and those below it."""
        return 1 + sum(stage.stages for stage in self.below)

    def acting(self, t: float) -> tuple[Guide, ...]:
        """The guides that act at time t."""
        return tuple(guide for guide in self.guides if guide.acts(t))

    @property
    def label(self) -> str:
        """This way of sampling in words, as tables label it."""
        every = "all " if 1 < self.intervals == self.denoiser.schedule.steps else ""
        count = f"{every}{self.intervals} step{'' if self.intervals == 1 else 's'}"
        own = ", ".join([self.kernel.label, count, *self.particulars()])
        return own if self.low is None else f"{self.low.label} + {own}"

    def particulars(self) -> list[str]:
        """What sets it apart from its kernel's defaults on an even grid, in words; flags are the kernel's label's."""
        own = [
            f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
            for name, value in self.kernel.particulars().items()
            if not isinstance(value, bool)
        ]
        spacing = ["own times"] if self.times else [] if self.spacing == "even" else [self.spacing.replace(",", "+")]
        skip = [f"skip {self.skip}"] if self.skip else []
        start = self.surrogate.words if self.surrogate is not None else []
        guided = [words for guide in self.guides if (words := guide.words)]
        noised = [f"low noise {self.low_noise:g}"] if self.low_noise else []
        return [*own, *spacing, *skip, *start, *noised, *guided]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        first = next(self.denoiser.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def __call__(self, n: int = 64, *, seeds: Sequence[int] | None = None, labels: Labels = None) -> Samples:
        """`n` images (seeds 0…n−1, or the `seeds` given) of these classes. Raises InputError for seeds or labels that
        do not fit, and for an image that is not finite."""
        numbers = check_seeds(n, seeds)
        classes = None if labels is None else np.asarray(labels, dtype=np.int64)
        if classes is not None and classes.ndim == 0:
            classes = np.full(len(numbers), classes)
        if classes is not None and len(classes) != len(numbers):
            raise InputError(f"labels: {len(classes)} for {len(numbers)} images, expected one each or one for all")
        parts = [slice(i, i + self.batch) for i in range(0, len(numbers), self.batch)]
        images = [self.generate(numbers[part], None if classes is None else classes[part]) for part in parts]
        return Samples(np.concatenate(images), classes, numbers)

    def generate(
        self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None = None
    ) -> UInt8[np.ndarray, "n h w c"]:
        """The finished images of one batch. Raises InputError for one that is not finite."""
        *_, step = self.walk(seeds, labels)
        return self._finished(step, seeds)

    def strip(self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None = None, columns: int = 9) -> Strip:
        """x_t along the walk from noise to image, a row a seed, at `columns` evenly chosen steps."""
        return self.generate_with_strip(seeds, labels, rows=len(seeds), columns=columns)[1]

    def generate_with_strip(
        self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None = None, *, rows: int, columns: int = 9
    ) -> tuple[UInt8[np.ndarray, "n h w c"], Strip]:
        """What `generate` gives, and the strip of the first `rows` of these seeds, of one walk."""
        wanted = set(np.linspace(0, self.intervals, columns).round().astype(int).tolist())
        kept = []
        for step in self.walk(seeds, labels):
            if step.index in wanted:
                kept.append((step.t, self.denoiser.decoded(step.x[:rows])))
        strip = Strip(np.stack([images for _, images in kept], axis=1), tuple(t for t, _ in kept))
        return self._finished(step, seeds), strip

    def _finished(self, step: Step, seeds: Sequence[int]) -> UInt8[np.ndarray, "n h w c"]:
        """The images of the walk's last step. Raises InputError for one that is not finite."""
        broken = ~torch.isfinite(step.x).flatten(1).all(1)
        if bool(broken.any()):
            seed = seeds[int(broken.nonzero()[0])]
            raise InputError(
                f"seed {seed}: the image is not finite; has the run diverged, or is precision bf16 too coarse?"
            )
        return self.denoiser.decoded(step.x)

    def walk(self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None = None) -> Iterator[Step]:
        """Every step of the walk for these seeds. Raises InputError for more than memory holds."""
        self._check_batch(self.batch if self.compile else len(seeds), conditional=labels is not None)
        condition = self._condition(seeds, labels)
        start, draw = self._start(seeds, labels), Draw.for_seeds(seeds, self._role("step"))
        latents = Draw.for_seeds(seeds, self._role("latent")) if self.denoiser.latent else None
        steps = walk(self.kernel, bind(self._denoiser, condition, self.guides, latents), self.grid, start, draw)
        networks = [self.denoiser.network, *(network for guide in self.guides for network in guide.networks)]
        mixed = self.precision == "bf16"
        while True:
            # Entered for each step: held across a yield these would leak into whoever watches.
            with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed), evaluating(networks):
                step = next(steps, None)
            if step is None:
                return
            yield step

    def _check_batch(self, count: int, conditional: bool) -> None:
        if count in self._fitting:
            return
        check_batch(
            self.denoiser.network, self.space, count,
            rows=self._rows, conditional=conditional, precision=self.precision, device=self.device,
        )  # fmt: skip
        self._fitting.add(count)

    @cached_property
    def _fitting(self) -> set[int]:
        """Images at once that memory holds."""
        return set()

    @property
    def _rows(self) -> int:
        """What the network is shown at once for each image: the image with its class, and perhaps without."""
        return 2 if any(guide.wants_without_class and guide.scale for guide in self.guides) else 1

    @cached_property
    def _denoiser(self) -> Denoiser:
        """The denoiser that is asked."""
        if not self.compile:
            return self.denoiser
        return self.denoiser.over(Compiled(self.denoiser.network, self._rows * self.batch))

    def _condition(self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None) -> Condition:
        label = None if labels is None else torch.tensor(labels, device=self.device)
        if self.low is None:
            return Condition(label)
        low = self.denoiser.encoded(self.low.generate(seeds, labels))
        s = torch.full((len(seeds),), self.low_noise, dtype=torch.float64)
        return low_condition(self.denoiser.schedule, low, s, Draw.for_seeds(seeds, self._role("low")), label)

    def _role(self, name: str) -> str:
        """Each stage draws from streams of its own: sharing them, it would know the noise that what it goes on from is
        of."""
        return name if self.stages == 1 else f"{name} {self.stages}"

    def _start(self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None) -> Tensor:
        schedule = self.denoiser.schedule
        if self.surrogate is None:
            return noise_start(schedule, seeds, self.space, self.device, float(self.grid[0]), self._role("start"))
        images = self.surrogate.images(seeds, labels)
        self._check_begun((images.shape[3], *images.shape[1:3]))
        return surrogate_start(schedule, self.denoiser.encoded(images), float(self.grid[0]), seeds, self._role("start"))
