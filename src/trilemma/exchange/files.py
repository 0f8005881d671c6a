"""Files of other libraries, read so that nothing in them can run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from trilemma.errors import InputError
from trilemma.machine.untrusted import parse_json, read_text
from trilemma.recipes.components import checked
from trilemma.training import checkpoint

Positive = Annotated[int, Ge(1)]
One = Annotated[float, Ge(1), Le(1)]
M = TypeVar("M", bound="Config")

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Config(BaseModel):
    """A JSON file of theirs: what it may say here, and what it means where it says nothing. Like theirs, it is silent
    about keys it does not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's keys and values. Raises InputError for what is none."""
    try:
        values = parse_json(read_text(path))
    except ValueError as error:
        raise InputError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys and values, got {type(values).__name__}")
    return values


def read_config(kind: type[M], path: Path) -> M:
    """A JSON file as `kind`. Raises InputError that names the file and the setting."""
    try:
        return checked(kind, read_json(path), "")
    except InputError as error:
        raise error if str(error).startswith(str(path)) else InputError(f"{path}: {error}") from None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a PyTorch file read with `weights_only=True`.

    Raises InputError for a file that is damaged, or holds anything but named tensors of finite numbers, naming the
    first other."""
    values = checkpoint.read_tensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    if not isinstance(values, Mapping):
        raise InputError(f"{path}: expected a state dict, weights by name, got {type(values).__name__}")
    for name, value in values.items():
        if not isinstance(name, str):
            raise InputError(f"{path}: expected a state dict, weights by name; a name is {name!r}")
        if flaw := _flaw(value):
            raise InputError(f"{path}: expected a state dict, weights by name; {name!r} {flaw}")
    return dict(values)


def _read_pickled(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds more than weights, or is damaged: refused, for it could run code") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a whole PyTorch file ({' '.join(str(error).split())[:100]})") from error


def _flaw(value: Any) -> str | None:
    """What keeps this from being a weight, if anything does."""
    if not isinstance(value, Tensor):
        return f"is {type(value).__name__}"
    if value.is_meta:
        return "has no numbers (device meta)"
    if value.layout != torch.strided or value.is_nested:
        return "is sparse or nested: expected a dense tensor"
    if value.dtype not in FLOATS:
        return f"is of {value.dtype}: expected one of {', '.join(map(str, FLOATS))}"
    if value.numel() == 0:
        return f"is empty (shape {list(value.shape)})"
    if not bool(value.float().isfinite().all()):
        return "has numbers that are not finite in float32"
    return None


def read_sharded(index: Path) -> dict[str, Tensor]:
    """The tensors of all the files that an index (`weight_map`: file by name) lists, which lie beside it."""
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
        raise InputError(f"{index} has no weight_map of names and files")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(named.values())):
        if Path(file).name != file:
            raise InputError(f"{index} names the file {file!r}: expected one beside it")
        tensors |= read_state_dict(index.parent / file)
    return tensors
