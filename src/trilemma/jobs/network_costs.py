"""What a recipe's network costs, of several the one that is sampled: parameters, multiply-adds, activation memory, and
time on this machine."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from trilemma.data import outline
from trilemma.errors import InputError
from trilemma.machine.devices import process_state
from trilemma.machine.environment import environment
from trilemma.machine.files import write_json
from trilemma.machine.progress import progress
from trilemma.metrics import Speed, kept_for_backward, measure, multiply_adds
from trilemma.networks.recompute import recompute
from trilemma.process.calling import OTHERS
from trilemma.recipes import CompletedRecipe, Source, load
from trilemma.runs.build import build_network, completed, parameter_count
from trilemma.training import sampled

FORMAT = "trilemma-networks/1"

TIMED = {"cpu": 2e11, "cuda": 1e14}
"""Multiply-adds of one batch's forward pass up to which a network is timed: some seconds a pass."""

WARMUP, REPEATS = 1, 5

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One module's call in a forward pass: the shapes of its first input and of its output, without the batch."""

    inputs: Shape
    outputs: Shape


@dataclass(frozen=True)
class Anatomy:
    """A network without weights, and what one image's pass through it is: `multiply_adds` of convolutions, linear
    layers and attention; `activations`, the bytes in fp32 that a training step keeps for its backward pass; `calls`, by
    module name in the order they are made. `trained`: the parameters of all networks that are trained with it."""

    recipe: CompletedRecipe
    network: nn.Module
    parameters: int
    multiply_adds: int
    activations: int
    calls: Mapping[str, Call]
    trained: int


@dataclass(frozen=True)
class NetworkCosts:
    """A network's figures beside its source's. `forward` and `step` (forward and backward, in training mode) are None
    where they were not timed, and `untimed` says why."""

    name: str
    shape: tuple[int, int, int]
    parameters: int
    multiply_adds: int
    activations: int
    forward: Speed | None
    step: Speed | None
    untimed: str | None
    source: Source | None

    @property
    def parameters_mi(self) -> float:
        """In 2²⁰, as A counts."""
        return self.parameters / 2**20

    @property
    def deviation(self) -> float | None:
        """Parameters: ours / the source's − 1."""
        theirs = self.source.parameters_mi if self.source else None
        return None if theirs is None else self.parameters_mi / theirs - 1


@dataclass(frozen=True)
class Ratios:
    """Against the first recipe, ours and as the source printed them: images a second, and time of a training step."""

    speed: float | None
    source_speed: float | None
    training: float | None
    source_training: float | None


def resolve(recipe: str | Path) -> CompletedRecipe:
    """The recipe of this name, file or run directory, its images' shape filled in; its data need not be there.

    Raises InputError for an unknown recipe, or data of which neither files nor shape are known."""
    saved = Path(recipe) / "recipe.yaml"
    chosen = load(saved if saved.is_file() else recipe)
    if isinstance(chosen, CompletedRecipe):
        return chosen
    return completed(chosen, outline(chosen.data.name, size=chosen.data.size, channels=chosen.data.channels))


def anatomy(recipe: CompletedRecipe) -> Anatomy:
    """A completed recipe's network taken apart: built and run on tensors that have a shape and no content; with
    content, a network that reads its own numbers on the way, as a growing one its weights of each resolution."""
    try:
        with FakeTensorMode():
            return _taken_apart(recipe)
    except DataDependentOutputException:
        return _taken_apart(recipe)


def _taken_apart(recipe: CompletedRecipe) -> Anatomy:
    calls: dict[str, Call] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any, *, name: str) -> None:
        first = inputs[0][0] if inputs and isinstance(inputs[0], list) else inputs[0] if inputs else None
        if name and isinstance(first, Tensor) and isinstance(output, Tensor):
            calls.setdefault(name, Call(tuple(first.shape[1:]), tuple(output.shape[1:])))

    whole = build_network(recipe)
    network = sampled(whole)
    if recipe.training.recompute:
        recompute(whole)
    hooks = [module.register_forward_hook(partial(note, name=name)) for name, module in network.named_modules()]
    images, kept = 2, 0  # one image alone has no variance for batch normalisation at 1×1
    x, others = _inputs(network, recipe, images, torch.device("cpu"))

    def run() -> None:
        nonlocal kept
        kept = kept_for_backward(network, lambda: network(x, **others))

    count = multiply_adds(run)
    for hook in hooks:
        hook.remove()
    parameters, trained = parameter_count(network), parameter_count(whole)
    return Anatomy(recipe, network, parameters, count // images, kept // images, calls, trained)


def network_costs(
    anatomies: Sequence[Anatomy], *, batch: int = 8, timing: bool = True, device: str | None = None
) -> list[NetworkCosts]:
    """The figures of these networks, timed in fp32 over `batch` images on `device` (this process's unless given): the
    median of five passes after one that is not counted. Networks that would take minutes are not timed.

    Raises InputError for a batch below 1 or a device that is not there."""
    if batch < 1:
        raise InputError(f"--batch {batch}: expected 1 or more")
    place = check_device(device)
    found = []
    with progress("networks", len(anatomies), "networks", shown=timing) as advance:
        for i, each in enumerate(anatomies):
            forward = step = None
            untimed = _why_not(each, batch, place) if timing else "not asked for"
            if untimed is None:
                forward, step = _timed(each.recipe, batch, place)
            figures = (each.parameters, each.multiply_adds, each.activations, forward, step, untimed)
            found.append(NetworkCosts(each.recipe.name, each.recipe.images.shape, *figures, each.recipe.source))
            advance(i + 1, each.recipe.name)
    return found


def ratios(found: Sequence[NetworkCosts]) -> list[Ratios]:
    """Each network's times against the first one's. A source's times are compared within its own table alone."""

    def over(a: float | None, b: float | None) -> float | None:
        return a / b if a and b else None

    def rate(speed: Speed | None) -> float | None:
        return speed.images_per_second if speed else None

    given = []
    for one in found:
        first, its, firsts = found[0], one.source, found[0].source
        source_speed = source_training = None
        if its is not None and firsts is not None and its.paper == firsts.paper:
            source_speed = over(its.images_per_second, firsts.images_per_second)
            source_training = over(its.training_hours, firsts.training_hours)
        speed, training = over(rate(one.forward), rate(first.forward)), over(rate(first.step), rate(one.step))
        given.append(Ratios(speed, source_speed, training, source_training))
    return given


def write_network_costs(
    found: Sequence[NetworkCosts], out: str | Path, *, batch: int, device: str | None = None
) -> Path:
    """Write the figures as JSON, with the machine and the versions they were measured on."""
    networks = [
        {**asdict(one), "parameters_mi": one.parameters_mi, "parameters_deviation": one.deviation}
        | {"source": one.source.model_dump() if one.source else None, "relative_to_first": asdict(ratio)}
        for one, ratio in zip(found, ratios(found), strict=True)
    ]
    settings = {"batch": batch, "precision": "fp32", "warmup": WARMUP, "repeats": REPEATS}
    measured_on = environment(check_device(device))
    return write_json(Path(out), {"format": FORMAT, **settings, "networks": networks, "environment": measured_on})


def machine(device: str | None = None) -> str:
    """The machine in words: what it computes on, and with how many threads."""
    seen = environment(check_device(device))
    return f"{seen['hardware']}" + (f", threads: {seen['threads']}" if seen["device"] == "cpu" else "")


def check_device(device: str | None) -> torch.device:
    """The device of this name, or this process's. Raises InputError where there is none."""
    if device is None:
        return process_state().device
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        raise InputError(f"--device {device!r}: expected a device of this machine ({', '.join(there)})") from error
    return place


def _inputs(
    network: nn.Module, recipe: CompletedRecipe, count: int, device: torch.device
) -> tuple[Float[Tensor, "n c h w"], dict[str, Tensor]]:
    """Noise as images, and what else the network's `forward` takes, by the names it has there; of a generator, whose
    first input it is, latent vectors instead of images."""
    x = torch.randn(count, *recipe.space, device=device)
    latent = torch.randn(count, getattr(network, "latent", 0), device=device)
    given = {
        "time": torch.full((count,), 500.0, device=device),
        "label": torch.zeros(count, dtype=torch.int64, device=device),
        "low": x,
        "low_time": torch.zeros(count, device=device),
        "latent": latent,
    }
    untaken = {name for name, built in OTHERS.items() if not getattr(network, built, True)}
    first, *rest = inspect.signature(network.forward).parameters
    others = {name: given[name] for name in rest if name in given and name not in untaken}
    return (latent if first == "latent" else x), others


def _why_not(each: Anatomy, batch: int, device: torch.device) -> str | None:
    limit = TIMED["cpu" if device.type == "cpu" else "cuda"]
    if each.multiply_adds * batch <= limit:
        return None
    fits = int(limit // each.multiply_adds)
    hint = f" (--batch {fits} is timed)" if fits else ""
    return f"{each.multiply_adds * batch:.2g} multiply-adds a batch, more than {limit:.0e}{hint}"


def _timed(recipe: CompletedRecipe, batch: int, device: torch.device) -> tuple[Speed, Speed]:
    """The speed of the forward pass, in the memory format that sampling uses, and of forward and backward, in the one
    that the recipe trains in."""
    network = sampled(build_network(recipe)).to(device)
    x, others = _inputs(network, recipe, batch, device)

    def forward(batch: int) -> None:
        with torch.inference_mode():
            network(x, **others)

    def step(batch: int) -> None:
        network.zero_grad()
        network(x, **others).square().mean().backward()

    if recipe.training.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = measure(step, batch=batch, repeats=REPEATS, warmup=WARMUP)
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return measure(forward, batch=batch, repeats=REPEATS, warmup=WARMUP, network_evaluations=1), training
