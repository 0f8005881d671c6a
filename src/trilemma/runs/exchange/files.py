"""Files of other libraries, read so that nothing in them can run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import InputError
from trilemma.training import checkpoint


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's keys and values. Raises InputError for what is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys and values, got {type(values).__name__}")
    return values


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a PyTorch file read with `weights_only=True`.

    Raises InputError for a file that is damaged, or holds anything but named tensors."""
    if path.suffix == ".safetensors":
        return checkpoint.read_tensors(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds more than weights, or is damaged: refused, for it could run code") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a whole PyTorch file ({' '.join(str(error).split())[:100]})") from error
    if not isinstance(values, Mapping):
        raise InputError(f"{path}: expected a state dict, weights by name, got {type(values).__name__}")
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{path}: expected a state dict, weights by name; {name!r} is {type(value).__name__}")
    return dict(values)


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
