"""Training a recipe into a run directory: what watches the loop, and what stands around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from trilemma.data import ImageSet
from trilemma.errors import InputError
from trilemma.evaluations.during_training import EvaluateEvery
from trilemma.jobs.dry_run import check_memory
from trilemma.jobs.wanted import is_data, wanted
from trilemma.jobs.watching import batches_of, check_grids, take_up, validation_of, watched
from trilemma.machine.devices import accelerator, process_state
from trilemma.machine.locks import locked
from trilemma.machine.progress import console, say
from trilemma.process import Schedule, stream_seed
from trilemma.recipes import CompletedRecipe, Recipe, load
from trilemma.runs.build import build_learner, completed, open_images, parameter_count, second_moment
from trilemma.runs.companions import check_codecs
from trilemma.runs.latents import FOLDER, Latents, codec_of, latents_of
from trilemma.runs.names import run_name
from trilemma.runs.run import Run, prepare
from trilemma.runs.trackers import check_trackers
from trilemma.training import Learner, Trainer, checkpoint

CHANGEABLE = {"steps", "micro_batch", "recompute", "shard", "compile", "workers", "keep", "skip_limit"} | {
    f"{what}_every" for what in ("log", "validate", "grid", "checkpoint")
}
"""The training settings that may change when a run is resumed: none that its result so far depends on."""

PRIOR_LIMIT = 0.01
"""Bits/dim of L_T above which a start from pure noise is worth a word."""


def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    init: str | Path | None = None,
    verify: bool = True,
    track: Sequence[str] = (),
    base: str | None = None,
    size: int | tuple[int, int] | None = None,
    time: float | None = None,
    steps: int | None = None,
) -> Run:
    """Train a recipe (by name or file, or its values, with `a.b=VALUE` overrides), or the images of a folder, zip, .npz
    or tar or of the hub by one that is chosen for them, into the run directory `out` (default runs/NAME).

    `base`, `size`, `time`, `steps`: see `choose`; of a recipe too, the first apart. `resume` goes on from the newest
    checkpoint there, or begins if there is none. `init` begins from the averaged weights of another run. `verify`: hold
    the files of checkpoints against their hashes. `track`: trackers that are given what is logged, `wandb` or `mlflow`,
    which a resumed run keeps. Works alike in one process and under `torchrun` or `accelerate launch`. SIGTERM and
    Ctrl-C finish the step, write a checkpoint, and raise SystemExit(128 + signal). Raises InputError for bad input, for
    a directory that another process trains in, and for a full disk; DivergedError when steps stay non-finite."""
    check_trackers(track)
    run = Path(out) if out is not None else Path("runs") / run_name(str(recipe)) if is_data(recipe) else None
    recipe, overrides = wanted(recipe, overrides, run=run, base=base, size=size, time=time, steps=steps)
    asked = load(recipe)
    path = Path(out) if out is not None else Path("runs") / load(recipe, overrides).name
    with locked(path) if process_state().is_main_process else nullcontext():
        return _train(asked, path, recipe, overrides, resume, init, verify, track)


def _train(
    asked: Recipe,
    path: Path,
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    resume: bool,
    init: str | Path | None,
    verify: bool,
    track: Sequence[str],
) -> Run:
    begun = (path / "recipe.yaml").exists()
    if not begun and checkpoint.steps(path / "checkpoints"):
        raise InputError(f"{path} has checkpoints but no recipe.yaml: choose another --out")
    if begun and not resume:
        raise InputError(f"{path} holds a run already: add --resume to go on with it, or choose another --out")
    if begun and init is not None:
        raise InputError(f"--init: {path} has begun already, and goes on from its own weights")
    note = None
    if begun:
        chosen = _resumed(path, asked, overrides)
    else:
        chosen, note = load(recipe, overrides).fitted()
    data = open_images(chosen)
    chosen = completed(chosen, data)
    process = accelerator(chosen.training.precision)
    batches = batches_of(chosen, data, process)
    check_memory(chosen, process.device, process.num_processes)
    codec = codec_of(chosen, path / FOLDER if begun else None)
    learnt_from: ImageSet | Latents = data
    if codec is not None:
        learnt_from, chosen = latents_of(data, chosen, codec)
        batches = batches_of(chosen, learnt_from, process)
    torch.manual_seed(stream_seed(chosen.training.seed, "weights"))
    learner = build_learner(chosen, codec)
    validation = validation_of(chosen, codec)
    if init is not None:
        source = Run(init, verify=verify)
        check_codecs(f"--init {init}", source.recipe, chosen)
        source.load_into(learner, "ema" if source.recipe.training.ema else "raw")
    learner.ready()
    check_grids(learner, chosen, data)
    evaluation = EvaluateEvery(chosen, learner, process) if chosen.evaluate.every else None
    trainer = Trainer(learner, chosen.training, process, path, chosen.model_dump(mode="json"))
    # Nothing is written before all of this stands: what is refused leaves no run in the way.
    if process.is_main_process:
        prepare(path, chosen)
        console.print(f"run directory: {path}")
    take_up(trainer, verify)
    if process.is_main_process:
        _introduce(chosen, data, learnt_from, learner, trainer.step)
        if note is not None:
            console.print(f"note: {note}")
    for _ in watched(trainer, batches, chosen, path, validation, evaluation, track=track):
        pass
    if trainer.stopped is not None:
        if process.is_main_process:
            console.print(
                f"stopped by {trainer.stopped.name} at step {trainer.step}, checkpoint written; go on with --resume"
            )
        raise SystemExit(128 + trainer.stopped)
    return Run(path, verify=False)  # just written


def _resumed(path: Path, asked: Recipe, overrides: Sequence[str]) -> Recipe:
    """The run's own recipe with the overrides, refused where they would change what the run is."""
    own = load(path / "recipe.yaml")
    if asked.name != own.name:
        raise InputError(f"{path} holds a run of recipe {own.name!r}, not {asked.name!r}: choose another --out")
    changed = load(path / "recipe.yaml", overrides)
    differing = [
        f"{part}.{key}"
        for part, mine in own.model_dump().items()
        if isinstance(mine, dict) and isinstance(theirs := asked.model_dump()[part], dict)
        for key, value in mine.items()
        if theirs.get(key) != value and not (part == "codec" and theirs.get(key) is None)  # training measured it
    ]
    if differing:
        say(f"going on with the run's own recipe, which differs from {asked.name} in {', '.join(differing)}")

    check_unchanged(own, changed, "--set on ")
    return changed


def check_unchanged(own: Recipe, changed: Recipe, what: str = "") -> None:
    """Raise InputError where a run begun by its own recipe would go on as another one."""

    def fixed(recipe: Recipe) -> dict[str, object]:
        values = recipe.model_dump(exclude={"evaluate"})  # it changes nothing of the training
        training = {f"training.{key}": value for key, value in values.pop("training").items() if key not in CHANGEABLE}
        return values | training

    for key, value in fixed(changed).items():
        if fixed(own)[key] != value:
            raise InputError(
                f"{what}{key}: a resumed run keeps its {key} {fixed(own)[key]!r}; only evaluate.* and training.* of "
                f"{', '.join(sorted(CHANGEABLE))} may change"
            )


def _introduce(
    recipe: CompletedRecipe, data: ImageSet, learnt_from: ImageSet | Latents, learner: Learner, step: int
) -> None:
    settings = recipe.training
    console.print(
        f"{recipe.name}: {parameter_count(learner.network) / 1e6:.2f} M parameters, {len(data)} images of {data.name} "
        f"({'×'.join(map(str, data.shape))}), batch {settings.batch}, steps {step} to {settings.steps}"
    )
    if settings.shard and process_state().num_processes == 1:
        console.print("training.shard: one process alone holds all weights")
    if recipe.codec is not None:
        console.print(
            f"latents {'×'.join(map(str, recipe.space))} of {recipe.codec.name}, scale {recipe.codec.scale:.4g}"
        )
    if learner.denoiser is not None:
        if isinstance(learnt_from, Latents):
            moment = learnt_from.seen.second_moment * learnt_from.scale**2
        else:
            moment = second_moment(data, recipe.data.range)
        warning = prior_warning(learner.denoiser.schedule, moment)
        if warning:
            console.print(f"[yellow]warning:[/yellow] {warning}")


def prior_warning(schedule: Schedule, moment: float) -> str | None:
    """What to say of a schedule that does not reach noise, for data of this second moment; None if it does."""
    bits = schedule.prior_bits_per_dim(moment)
    if bits <= PRIOR_LIMIT:
        return None
    return (
        f"the schedule ends at SNR {schedule.terminal_snr():.3g}: L_T = {bits:.3g} bits/dim (over {PRIOR_LIMIT}), so "
        "samples that start from pure noise start off the distribution. Remedy: more schedule.steps, a larger "
        "schedule.beta_end, or schedule.terminal_snr"
    )
