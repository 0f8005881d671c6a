"""Checkpoints: tensors as safetensors, everything else as JSON, so that nothing in one can run code.

    checkpoints/step-00010000/{model,ema,optimizer,learner}.safetensors, state.json, recipe.json
    checkpoints/latest -> step-00010000

A checkpoint is written beside its place and renamed into it, so at any moment a run has only whole ones. Its state.json
holds the SHA-256 of every other file.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.machine.files import replacing, sha256
from trilemma.machine.untrusted import parse_json, read_text
from trilemma.training.shards import held_as

_NAME = re.compile(r"step-(\d{8,})")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. A pickle is refused unread; a damaged file is an InputError."""
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x80\x02" or magic[:2] in (b"\x80\x03", b"\x80\x04", b"\x80\x05") or magic == b"PK\x03\x04":
        raise InputError(f"{path} is a pickle, which could run code: refused. Expected a safetensors file")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): the checkpoint is damaged") from error


def steps(directory: Path) -> list[int]:
    """The steps of the whole checkpoints in a `checkpoints` directory, ascending."""
    if not directory.is_dir():
        return []
    matches = (_NAME.fullmatch(entry.name) for entry in directory.iterdir() if not entry.is_symlink())
    return sorted(int(match.group(1)) for match in matches if match)


def path_of(directory: Path, step: int) -> Path:
    return directory / f"step-{step:08d}"


def latest(directory: Path) -> Path:
    """The newest whole checkpoint. Raises InputError if there is none."""
    found = steps(directory)
    if not found:
        raise InputError(f"{directory.parent} has no finished checkpoint")
    return path_of(directory, found[-1])


def write(
    directory: Path, step: int, tensors: dict[str, dict[str, Tensor]], documents: dict[str, dict[str, Any]], keep: int
) -> Path:
    """Write one checkpoint atomically, point `latest` at it, and remove all but the newest `keep`."""
    directory.mkdir(parents=True, exist_ok=True)
    target = path_of(directory, step)
    if target.exists():  # the same step of the same run is the same checkpoint
        return target
    with replacing(target) as partial:
        partial.mkdir()
        for name, group in tensors.items():
            plain = {key: value.detach().contiguous().cpu() for key, value in group.items()}
            write_tensors(partial / f"{name}.safetensors", plain)
        for name, document in documents.items():
            # The state, which names all others, comes last.
            if name != "state":
                _write_json(partial / f"{name}.json", {"step": step, **document})
        hashes = {file.name: sha256(file) for file in sorted(partial.iterdir())}
        _write_json(partial / "state.json", {"step": step, **documents["state"], "sha256": hashes})
    clean(directory, keep)
    return target


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises OSError where it cannot be written."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # what the system said is in its text
        raise OSError(errno.EIO, str(error), str(path)) from error


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")


def clean(directory: Path, keep: int) -> None:
    """Point `latest` at the newest checkpoint, remove all but the newest `keep`, and what an interruption left of one
    being written or removed. What is linked there is somebody else's, and stays."""
    found = steps(directory)
    if found:
        _point(directory, path_of(directory, found[-1]))
    for old in found[:-keep]:
        # Renamed first: a checkpoint half removed must not look like a whole one.
        path_of(directory, old).rename(directory / f".{path_of(directory, old).name}.removed")
    for leftover in directory.glob(".step-*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)


def _point(directory: Path, target: Path) -> None:
    pointer = directory / ".latest"
    pointer.unlink(missing_ok=True)
    pointer.symlink_to(target.name)
    pointer.replace(directory / "latest")


FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("step", "seed", "images", "skipped", "ema_updates", "optimizer_tensors"), (int,)),
    **dict.fromkeys(("learner", "watching", "sha256"), (dict,)),
    "seconds": (int, float),
}
"""What a state says, and in what types."""

OPTIONAL = {"watching", "optimizer_tensors", "sha256"}
"""What the states of earlier versions lack."""


def read_state(checkpoint: Path, verify: bool = True) -> dict[str, Any]:
    """The JSON part of a checkpoint, after a look at all of its files: each has to be as it was written, unless
    `verify` is False. Checkpoints of earlier versions do not say how that was. Raises InputError."""
    try:
        state = parse_json(read_text(checkpoint / "state.json"))
    except ValueError as error:
        raise InputError(f"{checkpoint}/state.json cannot be read ({error}): the checkpoint is damaged") from error
    if not isinstance(state, dict) or type(state.get("step")) is not int:
        raise InputError(f"{checkpoint}/state.json names no step: the checkpoint is damaged")
    if (named := _NAME.fullmatch(checkpoint.name)) and int(named[1]) != state["step"]:
        raise InputError(f"{checkpoint}/state.json is of step {state['step']}: the checkpoint is damaged")
    for key, kinds in FIELDS.items():
        if key in state and (type(state[key]) not in kinds or (int in kinds and not state[key] >= 0)):
            raise InputError(f"{checkpoint}/state.json: {key} is {state[key]!r}: the checkpoint is damaged")
    for name, expected in state.get("sha256", {}).items() if verify else ():
        if not (checkpoint / name).is_file():
            raise InputError(f"{checkpoint / name} does not exist: the checkpoint is damaged")
        if sha256(checkpoint / name) != expected:
            raise InputError(
                f"{checkpoint / name} is not as it was written (its SHA-256 is not the one in state.json): the "
                "checkpoint is damaged"
            )
    return state


def check_tensors(path: Path, what: str, found: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Raises InputError where the names, shapes or types of what a file holds are not those of one's own. Averages may
    be float32 whatever the weights' type."""
    for name in sorted(own.keys() ^ found.keys()):
        where = "this network, not in the file" if name in own else "the file, not in this network"
        raise InputError(f"{path}: {what} {name!r} is in {where}")
    for name, value in found.items():
        if value.shape != own[name].shape:
            raise InputError(f"{path}: {what} {name!r} has shape {list(value.shape)}, expected {list(own[name].shape)}")
        averaged = value.dtype == torch.float32 and own[name].is_floating_point()
        if value.dtype != own[name].dtype and not averaged:
            raise InputError(f"{path}: {what} {name!r} is {value.dtype}, expected {own[name].dtype}")


def load_weights(module: nn.Module, path: Path) -> None:
    """Put the weights of a safetensors file into a module. Raises InputError where they do not fit."""
    weights, own = read_tensors(path), module.state_dict()
    check_tensors(path, "weight", weights, own)
    module.load_state_dict({name: held_as(own[name], value) for name, value in weights.items()})


def check_like(path: Path, found: Any, own: Any, where: str = "learner") -> None:
    """Raises InputError where a JSON state has other names or types than one's own; None stands for any type."""
    if isinstance(own, dict) and isinstance(found, dict):
        for key in sorted(own.keys() ^ found.keys()):
            raise InputError(f"{path}: {where}.{key} is {'missing' if key in own else 'unknown'}")
        for key in own:
            check_like(path, found[key], own[key], f"{where}.{key}")
    elif type(found) is not type(own) and None not in (found, own):
        raise InputError(f"{path}: {where} is {found!r}, expected {type(own).__name__}")


def optimizer_tensors(optimizers: Iterable[torch.optim.Optimizer], module: nn.Module) -> dict[str, Tensor]:
    """The state of optimisers by the names of the parameters, `weight.exp_avg` and so on: a parameter has one."""
    named: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return {
        f"{named[parameter]}.{key}": torch.as_tensor(value)
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def load_optimizers(
    optimizers: Iterable[torch.optim.Optimizer], module: nn.Module, tensors: dict[str, Tensor], path: Path
) -> None:
    """Take up what `optimizer_tensors` gave, and was read from `path`. Raises InputError where it does not fit: state
    of what is no weight, a weight with less state than others of its optimiser, moments of another shape or type."""
    holders = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(module.named_parameters())
    states: dict[str, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        name, _, key = full.rpartition(".")
        if parameters.get(name) not in holders:
            raise InputError(f"{path}: it has state of {name!r}, which is no weight of this network")
        like = parameters[name]
        expected = [] if key == "step" else list(like.shape) if "avg" in key or "momentum" in key else list(value.shape)
        if list(value.shape) != expected:
            raise InputError(f"{path}: {full!r} has shape {list(value.shape)}, expected {expected}")
        if key != "step" and expected and value.dtype != like.dtype:
            raise InputError(f"{path}: {full!r} is {value.dtype}, expected {like.dtype}")
        states.setdefault(name, {})[key] = value
    usual: dict[torch.optim.Optimizer, set[str]] = {}
    for name in states:
        usual.setdefault(holders[parameters[name]], set()).update(states[name])
    for name, state in states.items():
        for key in sorted(usual[holders[parameters[name]]] - state.keys()):
            raise InputError(f"{path}: '{name}.{key}' is missing, which other weights have")
    for name, state in states.items():
        like = parameters[name]
        for key, value in state.items():
            taken = value if key == "step" else held_as(like, value.to(like.device, like.dtype))
            holders[like].state[like][key] = taken


def split_state(state: dict[str, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A nested state as its tensors, by dotted names, and the JSON rest."""
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            tensors[prefix + key] = value
        elif isinstance(value, dict):
            inner, rest[key] = split_state(value, f"{prefix}{key}.")
            tensors |= inner
        else:
            rest[key] = value
    return tensors, rest


def join_state(tensors: dict[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    """The nested state that `split_state` took apart."""
    state = json.loads(json.dumps(rest))
    for full, value in tensors.items():
        place = state
        *path, key = full.split(".")
        for part in path:
            place = place.setdefault(part, {})
        place[key] = value
    return state
