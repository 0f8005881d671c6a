"""Python's front door: one's own network trained, its run resumed and opened again; what is refused."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import trilemma as tl
from trilemma.process import to_model
from trilemma.training import checkpoint

SMALL = {"batch": 6, "learning_rate": 3e-3, "ema": 0.9, "checkpoint_every": 4}


class MyNet(nn.Module):
    """8×8 grey images, ten times; with dropout, so that resuming has something to get wrong."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, width, 3, padding=1), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(width, 1, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.body(torch.cat([x, (t / 10)[:, None, None, None].expand_as(x)], 1))


class Labelled(MyNet):
    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        return super().forward(x, t + label)


def denoiser(network: type[nn.Module] = MyNet, **schedule: Any) -> tl.Denoiser:
    torch.manual_seed(0)
    return tl.Denoiser(network(), tl.Cosine(steps=10, **schedule), "v", "fixed_small")


def weights(path: Path) -> dict[str, Tensor]:
    return {f"{f.stem}/{k}": v for f in sorted(path.glob("*.safetensors")) for k, v in load_file(f).items()}


def test_from_data_to_an_evaluation(data: Path, tmp_path: Path) -> None:
    images = tl.open_data(str(data))
    mine, out = denoiser(), tmp_path / "mine"
    reports = list(tl.fit(mine, images, tl.Simple(), steps=8, out=out, **SMALL))
    assert [report.step for report in reports] == list(range(1, 9))
    assert repr(reports[7]) == f"Report(step 8, loss {reports[7].loss:.4g}, learning rate 0.003)"
    run = tl.Run(out, network=MyNet())
    assert run.step == 8 and run.recipe.images.shape == images.shape and run.classes == []
    # What was trained is in the caller's hands as in the run's: the averaged weights, in evaluation mode.
    assert not mine.network.training
    opened = run.denoiser("ema").network.state_dict()
    assert all(torch.equal(value, opened[name]) for name, value in mine.network.state_dict().items())
    assert any(not torch.equal(value, opened[name]) for name, value in run.denoiser("raw").network.state_dict().items())
    samples = run.sample(5, sampler="ddim", steps=4)
    assert samples.images.shape == (5, 8, 8, 1)
    found = tl.evaluate(run, str(data), n=12, features="pixels", metrics=["frechet_distance"], steps=4)
    assert found.metrics["frechet_distance"] > 0 and found.subject.parameters == run.parameters


def test_training_learns(data: Path) -> None:
    reports = list(tl.fit(denoiser(), str(data), steps=80, batch=12, learning_rate=1e-2))
    losses = [report.loss for report in reports]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_a_run_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    whole = [report.loss for report in tl.fit(denoiser(), str(data), steps=8, out=tmp_path / "whole", **SMALL)]
    halves = tl.fit(denoiser(), str(data), steps=8, out=tmp_path / "halves", **SMALL)
    first = [report.loss for report in islice(halves, 6)]
    halves.close()
    second = [report.loss for report in tl.fit(denoiser(), str(data), steps=8, out=tmp_path / "halves", **SMALL)]
    assert first[:4] + second == whole
    one, other = (weights(tl.Run(tmp_path / name, network=MyNet()).checkpoint) for name in ("whole", "halves"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert not list(tl.fit(denoiser(), str(data), steps=8, out=tmp_path / "whole", **SMALL))


def test_nothing_is_written_without_a_place(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(list(tl.fit(denoiser(), str(data), steps=2, **SMALL))) == 2
    assert not list(tmp_path.iterdir())


class TestData:
    def test_in_any_form_is_the_same_data(self, data: Path) -> None:
        opened = tl.open_data(str(data))
        images, labels = opened.batch(range(len(opened)))
        forms = [data, str(data), opened, images, to_model(images), to_model(images).numpy(), (images, labels)]
        losses = [[report.loss for report in tl.fit(denoiser(), form, steps=2, **SMALL)] for form in forms]
        assert all(each == pytest.approx(losses[0], rel=1e-6) for each in losses)

    def test_labels_reach_a_network_that_takes_them(self, data: Path, tmp_path: Path) -> None:
        list(tl.fit(denoiser(Labelled), str(data), steps=2, out=tmp_path / "run", **SMALL))
        run = tl.Run(tmp_path / "run", network=Labelled())
        assert run.classes == ["0", "1", "2", "3"] and run.sample(2, cls=3).labels.tolist() == [3, 3]

    def test_a_network_may_be_kept_from_its_labels(self, data: Path) -> None:
        with pytest.raises(AssertionError):
            list(tl.fit(denoiser(Labelled), str(data), steps=1, conditional=False, **SMALL))

    def test_that_was_at_hand_has_to_be_named_again(self, tmp_path: Path) -> None:
        images = np.zeros((8, 8, 8, 1), np.uint8)
        list(tl.fit(denoiser(), images, steps=1, out=tmp_path / "run", **SMALL))
        with pytest.raises(tl.InputError, match=r"data 'own': the images were given in Python; name others"):
            tl.Run(tmp_path / "run", network=MyNet()).forward_strip()


class TestOpening:
    def test_says_what_has_to_be_given_again(self, data: Path, tmp_path: Path) -> None:
        class Loss:
            def __call__(self, denoiser: Any, x0: Any, condition: Any, times: Any, draw: Any) -> Any:
                return tl.Simple()(denoiser, x0, condition, times, draw)

        out = tmp_path / "run"
        list(tl.fit(denoiser(), str(data), Loss(), steps=1, out=out, **SMALL))
        with pytest.raises(tl.InputError, match=r"network 'own': .*MyNet was given in Python; .*Run\(…, network=…\)"):
            tl.Run(out)
        with pytest.raises(tl.InputError, match=r"objective 'own': .*Loss was given in Python; .*objective=…"):
            tl.Run(out, network=MyNet())
        with pytest.raises(tl.InputError, match="unknown part to be given again: 'netwrok': did you mean 'network'"):
            tl.Run(out, network=MyNet(), objective=Loss(), netwrok=MyNet())
        assert tl.Run(out, network=MyNet(), objective=Loss()).sample(1, steps=2, sampler="ddim").images.shape[0] == 1

    def test_of_another_network_is_refused(self, data: Path, tmp_path: Path) -> None:
        list(tl.fit(denoiser(), str(data), steps=1, out=tmp_path / "run", **SMALL))
        with pytest.raises(tl.InputError, match=r"weight 'body.*' has shape \[8.*\], expected \[4"):
            tl.Run(tmp_path / "run", network=MyNet(4)).denoiser()

    def test_leaves_the_network_that_is_given_alone(self, data: Path, tmp_path: Path) -> None:
        list(tl.fit(denoiser(), str(data), steps=1, out=tmp_path / "run", **SMALL))
        network = MyNet()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        tl.Run(tmp_path / "run", network=network).denoiser()
        assert network.training and all(
            torch.equal(value, before[name]) for name, value in network.state_dict().items()
        )

    def test_nothing_that_a_recipe_says_is_imported(self, data: Path, tmp_path: Path) -> None:
        list(tl.fit(denoiser(), str(data), steps=1, out=tmp_path / "run", **SMALL))
        recipe = tmp_path / "run" / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace(f"of: {__name__}.MyNet", "of: antigravity.MyNet"))
        with pytest.raises(tl.InputError, match=r"antigravity\.MyNet"):
            tl.Run(tmp_path / "run")


class TestRefusal:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"stpes": 3}, "unknown key in training 'stpes'"),
            ({"batch": 100}, "training.batch 100 is more than the 24 images"),
            ({"objective": "simpel"}, "learner.objective.name 'simpel': did you mean 'simple'"),
            ({"objective": tl.Hybrid()}, "learner.variance 'fixed_small': objective 'hybrid' goes with learned_range"),
            ({"times": {"name": "importance", "bins": 3}}, "times.bins 3 does not divide"),
            ({"data": [1, 2]}, "a list, expected an array"),
            ({"data": np.zeros((4, 1, 8, 8), np.uint8)}, "it looks like NCHW"),
        ],
    )
    def test_leaves_nothing_behind(self, data: Path, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
        given = {"data": str(data), "steps": 2, "out": tmp_path / "run", **SMALL, **changes}
        with pytest.raises(tl.InputError) as caught:
            tl.fit(denoiser(), **given)
        assert says in str(caught.value) and "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()

    def test_of_going_on_as_another(self, data: Path, tmp_path: Path) -> None:
        list(tl.fit(denoiser(), str(data), steps=1, out=tmp_path / "run", **SMALL))
        for other in (denoiser(s=0.1), denoiser(Labelled)):
            with pytest.raises(tl.InputError, match=r"a resumed run keeps its (schedule|learner)"):
                tl.fit(other, str(data), steps=2, out=tmp_path / "run", **SMALL)
        assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [1]


def test_a_diffusers_network_goes_in_as_any_other(data: Path, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")

    def built() -> nn.Module:
        blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16)}
        return diffusers.UNet2DModel(**sizes, **blocks, norm_num_groups=4, layers_per_block=1)

    list(tl.fit(tl.Denoiser(built(), tl.Linear(steps=10)), str(data), steps=2, out=tmp_path / "run", **SMALL))
    assert tl.Run(tmp_path / "run", network=built()).sample(2).images.shape == (2, 8, 8, 1)
