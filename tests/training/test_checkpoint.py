"""Checkpoints: whole or not there, free of pickles, kept to the newest, refused with the name of what does not fit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trilemma.errors import InputError
from trilemma.machine.files import sha256
from trilemma.training import Batches, Trainer, checkpoint

GROUPS = {"model": {"weight": torch.arange(6.0).reshape(2, 3)}}


def write(folder: Path, step: int, keep: int = 2) -> Path:
    return checkpoint.write(folder, step, GROUPS, {"state": {"seed": 1}}, keep)


class TestWriting:
    def test_gives_what_reading_takes(self, tmp_path: Path) -> None:
        path = write(tmp_path / "checkpoints", 30)
        assert path.name == "step-00000030"
        assert torch.equal(checkpoint.read_tensors(path / "model.safetensors")["weight"], GROUPS["model"]["weight"])
        hashes = {"model.safetensors": sha256(path / "model.safetensors")}
        assert checkpoint.read_state(path) == {"step": 30, "seed": 1, "sha256": hashes}

    @pytest.mark.parametrize("keep", [1, 3])
    def test_keeps_the_newest(self, tmp_path: Path, keep: int) -> None:
        for step in (5, 10, 100, 1000):
            write(tmp_path, step, keep)
        assert checkpoint.steps(tmp_path) == [5, 10, 100, 1000][-keep:]
        assert (tmp_path / "latest").resolve().name == "step-00001000"
        assert checkpoint.latest(tmp_path).name == "step-00001000"

    def test_that_broke_off_is_no_checkpoint_and_in_nobody_s_way(self, tmp_path: Path) -> None:
        write(tmp_path, 5)
        for leftover in (".step-00000010.partial", ".step-00000015.partial"):
            (tmp_path / leftover).mkdir()
            (tmp_path / leftover / "model.safetensors").write_bytes(b"half")
        (tmp_path / ".latest").symlink_to("step-00000099")
        assert checkpoint.latest(tmp_path).name == "step-00000005"
        write(tmp_path, 10)
        assert {entry.name for entry in tmp_path.iterdir()} == {"step-00000005", "step-00000010", "latest"}
        assert (tmp_path / "latest" / "model.safetensors").stat().st_size > 4

    def test_survives_a_failure_at_any_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, 5)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint, "save_file", full)
        with pytest.raises(InputError, match=r"cannot write .*step-00000010 \(No space"):
            write(tmp_path, 10, keep=1)
        assert checkpoint.steps(tmp_path) == [5], "the last good checkpoint went before the next was there"
        assert {entry.name for entry in tmp_path.iterdir()} == {"step-00000005", "latest"}

    def test_leaves_alone_what_is_linked(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "precious.txt").write_text("kept")
        folder = tmp_path / "checkpoints"
        write(folder, 5)
        (folder / ".step-00000001.partial").symlink_to(tmp_path / "mine")
        (folder / "step-00000001").symlink_to(tmp_path / "mine")
        write(folder, 10, keep=1)
        assert checkpoint.steps(folder) == [10] and (folder / ".step-00000001.partial").is_symlink()
        assert (tmp_path / "mine" / "precious.txt").read_text() == "kept"

    def test_of_numbers_beyond_eight_digits(self, tmp_path: Path) -> None:
        write(tmp_path, 99_999_999)
        write(tmp_path, 100_000_000)
        assert checkpoint.latest(tmp_path).name == "step-100000000"


class TestReading:
    @pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
    def test_refuses_a_pickle_unread(self, tmp_path: Path, protocol: int) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
                return Path.touch, (tmp_path / "ran",)

        path = tmp_path / "model.safetensors"
        path.write_bytes(pickle.dumps(Trap(), protocol=protocol))
        with pytest.raises(InputError, match=r"model\.safetensors is "):
            checkpoint.read_tensors(path)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("zipped", [True, False])
    def test_says_that_torch_s_own_format_is_a_pickle(self, tmp_path: Path, zipped: bool) -> None:
        path = tmp_path / "model.safetensors"
        torch.save({"weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError, match=r"is a pickle, which could run code: refused"):
            checkpoint.read_tensors(path)

    @pytest.mark.parametrize("kept", [0, 4, 40, -1])
    def test_refuses_a_truncated_file(self, tmp_path: Path, kept: int) -> None:
        path = tmp_path / "model.safetensors"
        save_file({"weight": torch.zeros(100)}, path)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(InputError, match=r"model\.safetensors is not a whole safetensors file"):
            checkpoint.read_tensors(path)

    def test_names_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"model\.safetensors does not exist"):
            checkpoint.read_tensors(tmp_path / "model.safetensors")
        with pytest.raises(InputError, match="no finished checkpoint"):
            checkpoint.latest(tmp_path / "checkpoints")

    def test_holds_every_file_against_its_hash(self, tmp_path: Path) -> None:
        path = write(tmp_path, 5)
        content = bytearray((path / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (path / "model.safetensors").write_bytes(content)
        with pytest.raises(InputError, match=r"model\.safetensors is not as it was written"):
            checkpoint.read_state(path)
        assert checkpoint.read_state(path, verify=False)["step"] == 5
        (path / "model.safetensors").unlink()
        with pytest.raises(InputError, match=r"model\.safetensors does not exist"):
            checkpoint.read_state(path)

    @pytest.mark.parametrize(
        "change", [{"step": 7}, {"step": True}, {"skipped": "0"}, {"seconds": None}, {"images": -1}, {"sha256": []}]
    )
    def test_refuses_a_state_that_says_what_it_cannot(self, tmp_path: Path, change: dict[str, object]) -> None:
        path = write(tmp_path, 5)
        (path / "state.json").write_text(json.dumps({"step": 5, **change}))
        with pytest.raises(InputError, match=r"state\.json.*the checkpoint is damaged"):
            checkpoint.read_state(path)

    @pytest.mark.parametrize("text", [None, "", '{"step": 3'])
    def test_refuses_a_damaged_state(self, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / "state.json").write_text(text)
        with pytest.raises(InputError, match="damaged"):
            checkpoint.read_state(tmp_path)


class TestWeights:
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"bias": None}, "'bias' is in this network, not in the file"),
            ({"scale": torch.zeros(1)}, "'scale' is in the file, not in this network"),
            ({"weight": torch.zeros(2, 3, dtype=torch.float64)}, r"'weight' is torch.float64, expected torch.float32"),
            ({"weight": torch.zeros(3, 2)}, r"'weight' has shape \[3, 2\], expected \[2, 3\]"),
        ],
    )
    def test_that_do_not_fit_are_named(self, tmp_path: Path, change: dict[str, torch.Tensor | None], says: str) -> None:
        module = nn.Linear(3, 2)
        before = module.weight.detach().clone()
        tensors = {**{k: v.detach() + 1 for k, v in module.state_dict().items()}, **change}
        save_file({k: v for k, v in tensors.items() if v is not None}, tmp_path / "m.safetensors")
        with pytest.raises(InputError, match=says):
            checkpoint.load_weights(module, tmp_path / "m.safetensors")
        assert torch.equal(module.weight, before), "half of the file was loaded"

    def test_that_fit_are_taken(self, tmp_path: Path) -> None:
        source, target = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        source(torch.randn(4, 3))
        save_file(source.state_dict(), tmp_path / "m.safetensors")
        checkpoint.load_weights(target, tmp_path / "m.safetensors")
        assert all(torch.equal(value, target.state_dict()[name]) for name, value in source.state_dict().items())


def test_nested_state_is_taken_apart_and_joined_again() -> None:
    state = {"times": {"history": torch.arange(4.0), "count": 3, "inner": {"x": torch.ones(1), "y": None}}, "n": [1, 2]}
    tensors, rest = checkpoint.split_state(state)
    assert tensors.keys() == {"times.history", "times.inner.x"}
    joined = checkpoint.join_state(tensors, json.loads(json.dumps(rest)))
    assert joined["n"] == [1, 2] and joined["times"]["count"] == 3 and joined["times"]["inner"]["y"] is None
    assert torch.equal(joined["times"]["history"], state["times"]["history"])
    assert torch.equal(joined["times"]["inner"]["x"], torch.ones(1))


def test_a_trainer_s_checkpoint_is_safetensors_and_json(make_trainer: Callable[..., tuple[Trainer, Batches]]) -> None:
    trainer, batches = make_trainer(steps=2)
    list(trainer.run(batches))
    saved = checkpoint.latest(trainer.checkpoints)
    names = {path.name for path in saved.iterdir()}
    assert names == {"model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"}
    for name in names - {"state.json"}:
        assert load_file(saved / name)
    state = json.loads((saved / "state.json").read_text())
    assert {"step": 2, "images": 12, "seed": 0, "ema_updates": 2, "skipped": 0}.items() <= state.items()
    optimizer = load_file(saved / "optimizer.safetensors")
    moments = {
        f"{name}.{key}" for name, _ in trainer.network.named_parameters() for key in ("exp_avg", "exp_avg_sq", "step")
    }
    assert optimizer.keys() == moments
