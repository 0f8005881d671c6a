"""Sampling a run: an image depends on its seed alone; sets survive interruptions; what cannot be done is refused."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from trilemma.data import read_samples
from trilemma.errors import InputError
from trilemma.jobs import train
from trilemma.runs import Run
from trilemma.runs import sample_sets as room
from trilemma.samplers import SAMPLERS, Sampler

README = Path(__file__).resolve().parents[2] / "README.md"


def close(left: np.ndarray, right: np.ndarray) -> None:
    """Equal but for a grey value here and there, where float tolerance decides the rounding."""
    difference = np.abs(left.astype(int) - right.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


class BrokenOffError(Exception):
    """Stands for whatever ends a process at this moment."""


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sampling breaks off at its k-th batch; `interrupt(0)` ends that."""
    generate = Sampler.generate

    def at(k: int) -> None:
        count = 0

        def broken(self: Sampler, seeds: Sequence[int], labels: Any) -> np.ndarray:
            nonlocal count
            count += 1
            if count == k:
                raise BrokenOffError
            return generate(self, seeds, labels)

        monkeypatch.setattr(Sampler, "generate", broken if k else generate)

    return at


class TestImage:
    @pytest.mark.parametrize("settings", [{}, {"sampler": "ddim", "steps": 3}, {"sampler": "ddim", "eta": 1.0}])
    def test_of_seed_7_is_the_same_at_batch_1_and_4(self, run: Run, settings: dict[str, Any]) -> None:
        alone = run.sample(seeds=[7], batch=1, **settings)
        among = run.sample(seeds=[2, 5, 7, 11, 12], batch=4, **settings)
        close(among.images[2:3], alone.images)
        assert among.labels[2] == alone.labels[0] == 7 % 4
        assert not np.array_equal(among.images[0], among.images[1])

    def test_is_within_the_readme_s_tolerance_of_itself_in_any_batch_size(self, run: Run) -> None:
        """By every sampler that the run can be sampled by."""
        said = re.search(r"at\s+most one pixel in ([\d ]+), by one grey level", README.read_text(encoding="utf-8"))
        moved = pixels = 0
        for name in SAMPLERS:
            sets = [
                run.sample(48, sampler=name, steps=4, precision="fp32", batch=batch).images.astype(int)
                for batch in (48, 5, 17)
            ]
            for images in sets[1:]:
                difference = np.abs(images - sets[0])
                assert difference.max() <= 1, name
                moved, pixels = moved + np.count_nonzero(difference), pixels + difference.size
        assert pixels > 30_000 and moved * int(said[1].replace(" ", "")) <= pixels

    def test_classes_are_balanced_unless_asked_for(self, run: Run) -> None:
        assert run.sample(6).labels.tolist() == [0, 1, 2, 3, 0, 1]
        assert run.sample(3, cls="2").labels.tolist() == [2, 2, 2]
        assert run.sample(3, cls=1).labels.tolist() == [1, 1, 1]

    def test_of_raw_and_averaged_weights_differs(self, run: Run) -> None:
        assert not np.array_equal(run.sample(4, weights="raw").images, run.sample(4, weights="ema").images)

    def test_another_sampler_begins_from_its_own_defaults(self, run: Run, tmp_path: Path) -> None:
        recipe = run.recipe.model_copy(update={"sampling": run.recipe.sampling.changed(steps=3, spacing="quadratic")})
        run.recipe = recipe
        own, other = (run.sample_to(tmp_path / f"{name}.npz", n=2, sampler=name) for name in ("ancestral", "ddim"))
        assert (own.record["sampler"]["steps"], own.record["sampler"]["spacing"]) == (3, "quadratic")
        assert (other.record["sampler"]["steps"], other.record["sampler"]["spacing"]) == (8, "even")


class TestRecord:
    def test_says_how_the_images_were_made(self, run: Run, tmp_path: Path) -> None:
        samples = run.sample_to(tmp_path / "set.npz", seeds=[3, 4, 5], sampler="ddim", steps=4, eta=0.5)
        record = json.loads((tmp_path / "set.npz.record.json").read_text())
        sampler = {
            "sampler": "ddim",
            "steps": 4,
            "eta": 0.5,
            "spacing": "even",
            "clip": "static",
            "network_evaluations": 4,
        }
        assert {**sampler, "precision": "fp32"}.items() <= record["sampler"].items()
        assert (record["recipe"], record["checkpoint_step"], record["sampler"]["weights"]) == ("tiny", 6, "ema")
        assert (record["seeds"], record["classes"], len(record["weights_sha256"])) == ("3-5", "balanced", 64)
        assert sum(count for count, _ in record["batches"]) == 3
        images, labels = read_samples(tmp_path / "set.npz")
        assert np.array_equal(images, samples.images) and np.array_equal(labels, samples.labels)

    def test_default_place_tells_sets_apart(self, run: Run) -> None:
        ways = [
            {},
            {"steps": 3},
            {"sampler": "ddim"},
            {"sampler": "ddim", "eta": 1.0},
            {"cls": 1},
            {"weights": "raw"},
            {"n": 5},
        ]
        paths = {run.sample_to(**{"n": 4, **way}).path for way in ways}
        assert len(paths) == len(ways)
        assert all(path.parent == run.path / "samples" for path in paths)

    def test_a_folder_holds_png_and_labels(self, run: Run, tmp_path: Path) -> None:
        made = run.sample_to(tmp_path / "folder", n=5)
        assert len(list((tmp_path / "folder").glob("*.png"))) == 5
        again = run.sample_to(tmp_path / "folder", n=5)
        assert np.array_equal(again.images, made.images) and np.array_equal(again.labels, made.labels)


class TestInterruption:
    @pytest.mark.parametrize("name", ["set.npz", "folder"])
    def test_is_taken_up_in_another_batch_size(
        self, run: Run, tmp_path: Path, interrupt: Callable[[int], None], name: str
    ) -> None:
        expected = run.sample(10)
        interrupt(3)
        with pytest.raises(BrokenOffError):
            run.sample_to(tmp_path / name, n=10, batch=2)
        parts = tmp_path / f"{name}.parts"
        assert len(list(parts.glob("part-*.npz"))) == 2 and not (tmp_path / name).exists()
        (parts / ".part-0000000004.npz.1.partial").write_bytes(b"half a part")
        interrupt(3)  # six are missing: two batches of 3, so it is never reached
        samples = run.sample_to(tmp_path / name, n=10, batch=3)
        close(samples.images, expected.images)
        assert samples.labels.tolist() == expected.labels.tolist()
        assert sum(count for count, _ in samples.record["batches"]) == 10
        assert not parts.exists()

    @pytest.mark.parametrize("name", ["set.npz", "folder"])
    @pytest.mark.parametrize("moment", ["write_samples", "_discard", "record"])
    def test_while_the_set_is_put_together_loses_nothing(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, moment: str
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise BrokenOffError

        write = Path.write_text
        with monkeypatch.context() as patch:
            if moment == "record":
                patch.setattr(
                    Path,
                    "write_text",
                    lambda path, *a, **k: broken() if path.name.startswith(f".{name}.record") else write(path, *a, **k),
                )
            else:
                patch.setattr(room, moment, broken)
            with pytest.raises(BrokenOffError):
                run.sample_to(tmp_path / name, n=6)
        close(run.sample_to(tmp_path / name, n=6).images, run.sample(6).images)
        assert not (tmp_path / f"{name}.parts").exists()

    def test_is_not_taken_up_by_another_way_of_sampling(
        self, run: Run, tmp_path: Path, interrupt: Callable[[int], None]
    ) -> None:
        interrupt(2)
        with pytest.raises(BrokenOffError):
            run.sample_to(tmp_path / "set.npz", n=6, batch=2)
        interrupt(0)
        for changes in ({"steps": 3}, {"sampler": "ddim"}, {"weights": "raw"}, {"cls": 1}, {"n": 7}):
            with pytest.raises(InputError, match="holds samples made otherwise"):
                run.sample_to(tmp_path / "set.npz", **{"n": 6, **changes})
        assert len(list((tmp_path / "set.npz.parts").glob("part-*.npz"))) == 1
        close(run.sample_to(tmp_path / "set.npz", n=6).images, run.sample(6).images)


class TestWhatIsNotThisCommandS:
    """It is refused, and is as it was."""

    @pytest.mark.parametrize("name", ["set.npz", "folder"])
    def test_in_the_set_s_place_beside_parts_of_its_own(
        self, run: Run, tmp_path: Path, interrupt: Callable[[int], None], name: str
    ) -> None:
        interrupt(2)
        with pytest.raises(BrokenOffError):
            run.sample_to(tmp_path / name, n=4, batch=2)
        interrupt(0)
        precious = tmp_path / name if name == "set.npz" else tmp_path / name / "precious.txt"
        precious.parent.mkdir(exist_ok=True)
        precious.write_text("kept")
        with pytest.raises(InputError, match="exists and was not made by this command"):
            run.sample_to(tmp_path / name, n=4)
        assert precious.read_text() == "kept"

    def test_in_the_place_of_the_parts_or_among_them(
        self, run: Run, tmp_path: Path, interrupt: Callable[[int], None]
    ) -> None:
        precious = tmp_path / "set.parts" / "precious.txt"
        precious.parent.mkdir()
        precious.write_text("kept")
        with pytest.raises(InputError, match=r"set\.parts is a folder that is not empty"):
            run.sample_to(tmp_path / "set", n=4)
        precious.rename(tmp_path / "precious.txt")
        interrupt(2)
        with pytest.raises(BrokenOffError):
            run.sample_to(tmp_path / "set", n=4, batch=2)
        interrupt(0)
        (tmp_path / "precious.txt").rename(precious)
        run.sample_to(tmp_path / "set", n=4)
        assert [path.name for path in precious.parent.iterdir()] == ["precious.txt"]

    def test_in_the_place_of_the_record(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "set.npz.record.json").write_text('{"mine": 1}')
        with pytest.raises(InputError, match="is no record of samples"):
            run.sample_to(tmp_path / "set.npz", n=4)
        assert (tmp_path / "set.npz.record.json").read_text() == '{"mine": 1}'

    def test_images_beside_an_old_record_are_not_taken_for_the_set(self, run: Run, tmp_path: Path) -> None:
        run.sample_to(tmp_path / "set.npz", n=4)
        np.savez(tmp_path / "set.npz", arr_0=np.zeros((3, 8, 8, 1), np.uint8))
        with pytest.raises(InputError, match="holds 3 images, expected 4"):
            run.sample_to(tmp_path / "set.npz", n=4)


def damaged(part: dict[str, Any], **changes: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **{**part, **changes})


def packed_otherwise(path: Path) -> None:
    """A part as it should be, in a packing that is not unpacked bit by bit."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, value in PART.items():
            held = io.BytesIO()
            np.save(held, value)
            archive.writestr(f"{name}.npy", held.getvalue())


PART = {"images": np.zeros((2, 8, 8, 1), np.uint8), "seeds": np.arange(2), "seconds": np.float64(1)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"junk"),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        damaged(PART, images=np.zeros((2, 4, 4, 1), np.uint8)),
        damaged(PART, images=np.zeros((1, 8, 8, 1), np.uint8)),
        damaged(PART, images=np.zeros((2, 8, 8, 1), np.float32)),
        damaged(PART, seeds=np.array([0, 99])),
        damaged(PART, seeds=np.zeros(2)),
        damaged(PART, seconds=np.array(["x", "y"])),
        packed_otherwise,
        lambda path: np.savez(path, seeds=np.arange(2)),
        lambda path: np.savez(path, **{**PART, "seeds": np.array([{}, {}], dtype=object)}),
    ],
)
def test_a_damaged_part_is_made_again(
    run: Run,
    tmp_path: Path,
    interrupt: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
) -> None:
    interrupt(2)
    with pytest.raises(BrokenOffError):
        run.sample_to(tmp_path / "set.npz", n=4, batch=2)
    interrupt(0)
    damage(tmp_path / "set.npz.parts" / "part-0000000000.npz")
    made = run.sample_to(tmp_path / "set.npz", n=4, batch=4)
    assert "part-0000000000.npz is damaged" in capsys.readouterr().out
    close(made.images, run.sample(4).images)


def test_a_set_that_another_process_makes_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = Sampler.generate

    def meddled(self: Sampler, seeds: Sequence[int], labels: Any) -> np.ndarray:
        with pytest.raises(InputError, match=rf"set\.npz is being written by another process \({os.getpid()} on "):
            run.sample_to(tmp_path / "set.npz", n=4)
        return generate(self, seeds, labels)

    monkeypatch.setattr(Sampler, "generate", meddled)
    run.sample_to(tmp_path / "set.npz", n=4)
    assert sorted(path.name for path in tmp_path.glob("set*")) == ["set.npz", "set.npz.record.json"]


def test_a_full_disk_leaves_the_finished_parts(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, write = 0, np.savez

    def full(*arguments: Any, **arrays: Any) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(28, "No space left on device")
        write(*arguments, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(InputError, match=r"part-0000000002.npz \(No space.*parts that are finished are safe in"):
            run.sample_to(tmp_path / "set.npz", n=4, batch=2)
    assert sorted(path.name for path in (tmp_path / "set.npz.parts").iterdir()) == [
        "part-0000000000.npz",
        "record.json",
    ]
    close(run.sample_to(tmp_path / "set.npz", n=4).images, run.sample(4).images)


class TestFinishedSet:
    def test_is_read_not_made_again(self, run: Run, tmp_path: Path, interrupt: Callable[[int], None]) -> None:
        made = run.sample_to(tmp_path / "set.npz", n=4)
        interrupt(1)
        again = run.sample_to(tmp_path / "set.npz", n=4)
        assert np.array_equal(made.images, again.images) and again.record == made.record

    def test_of_an_earlier_version_is_read(self, run: Run, tmp_path: Path, interrupt: Callable[[int], None]) -> None:
        """Its record and its run's recipe call the sampler `name` and the spacing `grid`, and lack what came since."""
        made = run.sample_to(tmp_path / "set.npz", n=4, sampler="ddim", steps=3, eta=0.5, spacing="uniform")
        place = tmp_path / "set.npz.record.json"
        record = json.loads(place.read_text())
        sampler = record.pop("sampler")
        sampler = {
            key: sampler[key] for key in ("steps", "eta", "times_sha256", "clip", "network_evaluations", "precision")
        }
        old = {**record, "weights": "ema", "sampler": {"name": "ddim", "grid": "uniform", **sampler}, "surrogate": None}
        place.write_text(json.dumps(old))
        recipe = run.path / "recipe.yaml"
        values = yaml.safe_load(recipe.read_text())
        recipe.write_text(yaml.safe_dump({**values, "sampling": {"name": "ddim", "grid": "uniform", "eta": 0.5}}))
        interrupt(1)
        opened = Run(run.path)
        again = opened.sample_to(tmp_path / "set.npz", n=4, steps=3)
        assert np.array_equal(again.images, made.images) and again.record["sampler"]["sampler"] == "ddim"
        for change in ({"weights": "raw"}, {"eta": 0.0}, {"steps": 4}, {"precision": "bf16"}):
            with pytest.raises(InputError, match="made otherwise"):
                opened.sample_to(tmp_path / "set.npz", n=4, **{"steps": 3, **change})

    def test_of_another_way_is_left_alone(self, run: Run, tmp_path: Path) -> None:
        run.sample_to(tmp_path / "set.npz", n=4)
        before = (tmp_path / "set.npz").read_bytes()
        with pytest.raises(InputError, match=r"made otherwise \(sampler"):
            run.sample_to(tmp_path / "set.npz", n=4, steps=3)
        assert (tmp_path / "set.npz").read_bytes() == before

    def test_of_somebody_else_is_left_alone(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "theirs.npz").write_bytes(b"precious")
        with pytest.raises(InputError, match="was not made by this command"):
            run.sample_to(tmp_path / "theirs.npz", n=4)
        assert (tmp_path / "theirs.npz").read_bytes() == b"precious"


class TestRefusal:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"steps": 0}, r"steps.*0"),
            ({"steps": 9}, r"steps 9: .* T = 8, so expected 1 to 8 \(nearest: 8\)"),
            ({"cls": 4}, r"class '4': expected 0 to 3"),
            ({"cls": -1}, r"class '-1': expected 0 to 3"),
            ({"cls": "four"}, r"class 'four'"),
            ({"sampler": "dimm"}, r"'dimm': did you mean 'ddim'"),
            ({"eta": 0.5}, r"takes no eta"),  # the ancestral sampler has none
            ({"sampler": "ddim", "eta": -0.5}, r"sampling\.eta"),
            ({"spacing": "evn"}, r"sampling\.spacing"),
            ({"weights": "avg"}, r"weights"),
            ({"batch": 0}, r"batch"),
            ({"seeds": [1, 2, 1]}, r"twice"),
            ({"seeds": [-1]}, r"-1 is negative"),
            ({"seeds": []}, r"none given"),
        ],
    )
    def test_names_what_cannot_be_done(self, run: Run, tmp_path: Path, arguments: dict[str, Any], says: str) -> None:
        with pytest.raises(InputError, match=says) as caught:
            run.sample_to(tmp_path / "set.npz", **arguments)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("set*"))

    def test_of_a_class_asked_of_an_unconditional_model(
        self, write_recipe: Callable[..., Path], tmp_path: Path
    ) -> None:
        recipe = write_recipe(learner={"conditional": False}, training={"steps": 2})
        run = train(recipe, out=tmp_path / "run")
        with pytest.raises(InputError, match="class '1': this model is unconditional"):
            run.sample(2, cls="1")
        assert run.sample(2).labels is None

    def test_of_the_average_where_none_was_kept(self, write_recipe: Callable[..., Path], tmp_path: Path) -> None:
        run = train(write_recipe(training={"steps": 2, "ema": 0}), out=tmp_path / "run")
        with pytest.raises(InputError, match="use weights 'raw'"):
            run.sample(2)
        assert len(run.sample(2, weights="raw")) == 2

    @pytest.mark.parametrize("name", ["file/set.npz", "file/folder", "picture.png"])
    def test_of_an_unwritable_out_comes_before_any_sampling(
        self, run: Run, tmp_path: Path, name: str, interrupt: Callable[[int], None]
    ) -> None:
        (tmp_path / "file").write_text("x")
        interrupt(1)
        with pytest.raises(InputError, match="out:"):
            run.sample_to(tmp_path / name, n=2)


class TestOpening:
    def test_no_run_directory(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"is not a run directory: it has no recipe\.yaml"):
            Run(tmp_path)

    def test_no_finished_checkpoint(self, run: Run) -> None:
        for entry in (run.path / "checkpoints").iterdir():
            entry.unlink() if entry.is_symlink() else shutil.rmtree(entry)
        (run.path / "checkpoints" / ".step-00000002.partial").mkdir()
        with pytest.raises(InputError, match="no finished checkpoint"):
            Run(run.path)

    def test_an_older_checkpoint(self, run: Run) -> None:
        older = Run(run.path, step=4)
        assert older.step == 4
        assert not np.array_equal(older.sample(2).images, run.sample(2).images)
        with pytest.raises(InputError, match=r"no checkpoint of step 5 \(has: \[4, 6\]\)"):
            Run(run.path, step=5)

    def test_a_truncated_file(self, run: Run) -> None:
        path = run.checkpoint / "ema.safetensors"
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(InputError, match=r"ema\.safetensors is not as it was written"):
            Run(run.path).sample(1)


class TestStrips:
    def test_forward_goes_from_an_image_to_noise(self, run: Run) -> None:
        strip = run.forward_strip(rows=2, columns=5)
        images = strip.images
        assert images.shape == (2, 5, 8, 8, 1) and images.dtype == np.uint8
        assert strip.times == (0, 2, 4, 6, 8)
        real = np.load(run.recipe.data.name)["arr_0"]
        assert any(np.array_equal(images[0, 0], image) for image in real)
        roughness = np.abs(np.diff(images.astype(int), axis=3)).mean(axis=(0, 2, 3, 4))
        assert roughness[-1] > 3 * roughness[0]

    def test_reverse_ends_in_the_sample(self, run: Run) -> None:
        strip = run.reverse_strip([3, 5], columns=4)
        assert strip.images.shape == (2, 4, 8, 8, 1)
        assert strip.times[0] == 8 and strip.times[-1] == 0 and sorted(strip.times, reverse=True) == [*strip.times]
        close(strip.images[:, -1], run.sample(seeds=[3, 5]).images)
