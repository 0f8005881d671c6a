"""Checkpoints: tensors as safetensors, everything else as JSON, so that nothing in one can run code.

    checkpoints/step-00010000/{model,ema,optimizer,learner}.safetensors, state.json, recipe.json
    checkpoints/latest -> step-00010000

A checkpoint is written beside its place and renamed into it, so at any moment a run has only whole ones.
"""

from __future__ import annotations

import json
import os
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
from trilemma.machine.untrusted import parse_json, read_text

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
        raise InputError(f"{directory.parent} has no finished checkpoint in {directory.name}/")
    return path_of(directory, found[-1])


def write(
    directory: Path, step: int, tensors: dict[str, dict[str, Tensor]], documents: dict[str, dict[str, Any]], keep: int
) -> Path:
    """Write one checkpoint atomically, point `latest` at it, and remove all but the newest `keep`."""
    directory.mkdir(parents=True, exist_ok=True)
    target = path_of(directory, step)
    if target.exists():  # the same step of the same run is the same checkpoint
        return target
    partial = directory / f".{target.name}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    for name, group in tensors.items():
        save_file(
            {key: value.detach().contiguous().cpu() for key, value in group.items()}, partial / f"{name}.safetensors"
        )
    for name, document in documents.items():
        (partial / f"{name}.json").write_text(json.dumps({"step": step, **document}, indent=1), encoding="utf-8")
    for file in partial.iterdir():
        _sync(file)
    partial.rename(target)
    clean(directory, keep)
    return target


def clean(directory: Path, keep: int) -> None:
    """Point `latest` at the newest checkpoint, remove all but the newest `keep`, and what an interruption left of one
    being written or removed."""
    found = steps(directory)
    if found:
        _point(directory, path_of(directory, found[-1]))
    for old in found[:-keep]:
        # Renamed first: a checkpoint half removed must not look like a whole one.
        path_of(directory, old).rename(directory / f".{path_of(directory, old).name}.removed")
    for leftover in directory.glob(".step-*"):
        shutil.rmtree(leftover)


def _point(directory: Path, target: Path) -> None:
    pointer = directory / ".latest"
    pointer.unlink(missing_ok=True)
    pointer.symlink_to(target.name)
    pointer.replace(directory / "latest")
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint."""
    try:
        state = parse_json(read_text(checkpoint / "state.json"))
    except ValueError as error:
        raise InputError(f"{checkpoint}/state.json cannot be read ({error}): the checkpoint is damaged") from error
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise InputError(f"{checkpoint}/state.json names no step: the checkpoint is damaged")
    return state


def load_weights(module: nn.Module, path: Path) -> None:
    """Put the weights of a safetensors file into a module. Raises InputError where names or shapes do not fit."""
    weights = read_tensors(path)
    own = module.state_dict()
    for name in own.keys() ^ weights.keys():
        where = "this network, not in the file" if name in own else "the file, not in this network"
        raise InputError(f"{path}: weight {name!r} is in {where}")
    for name, value in weights.items():
        if value.shape != own[name].shape:
            raise InputError(f"{path}: weight {name!r} has shape {list(value.shape)}, expected {list(own[name].shape)}")
    module.load_state_dict(weights)


def optimizer_tensors(optimizers: Iterable[torch.optim.Optimizer], module: nn.Module) -> dict[str, Tensor]:
    """The state of optimisers by the names of the parameters, `weight.exp_avg` and so on: a parameter has one."""
    named: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return {
        f"{named[parameter]}.{key}": torch.as_tensor(value)
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def load_optimizers(optimizers: Iterable[torch.optim.Optimizer], module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Take up what `optimizer_tensors` gave."""
    holders = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(module.named_parameters())
    for full, value in tensors.items():
        name, key = full.rsplit(".", 1)
        if name not in parameters:
            raise InputError(f"optimizer: it has state of {name!r}, which is no weight of this network")
        parameter = parameters[name]
        place = value if key == "step" else value.to(parameter.device, parameter.dtype)
        holders[parameter].state[parameter][key] = place


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
