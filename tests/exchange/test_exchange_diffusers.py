"""Folders of diffusers as runs, and runs as folders of diffusers: the same output, the same images."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.exact import Given
from trilemma.exchange import export_run, import_run
from trilemma.exchange.schedulers import SAMPLERS, not_carried, scheduler_config
from trilemma.process import Condition
from trilemma.runs import Run
from trilemma.samplers import DYNAMIC_QUANTILE, clipped, grid

diffusers = pytest.importorskip("diffusers")

SMALL: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}
THREE: dict[str, Any] = {
    "block_out_channels": (16, 32, 48),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
RESIDUAL: dict[str, Any] = {
    **{"downsample_type": "resnet", "upsample_type": "resnet", "block_out_channels": (16, 32, 48)},
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
# As the published CIFAR-10 and CelebA-HQ weights of Ho et al. are set, less wide.
HO: dict[str, Any] = {
    **{"flip_sin_to_cos": False, "freq_shift": 1, "downsample_padding": 0, "norm_eps": 1e-6},
    **{"attention_head_dim": None, "in_channels": 3, "out_channels": 3},
}
MODELS = {
    "defaults": {},
    "as Ho et al.": HO,
    "heads": {"attention_head_dim": 4},
    "three levels": {**THREE, "layers_per_block": 2, "downsample_padding": 0},
    "classes": {"num_class_embeds": 4},
    "scale and shift": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
    "sine first": {"flip_sin_to_cos": False, "block_out_channels": (20, 40)},
    "endpoint": {"freq_shift": 1},
    "no middle attention": {"add_attention": False},
    "no attention": {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2},
    "residual down and up": RESIDUAL,
    "residual down": {**RESIDUAL, "up_block_types": THREE["up_block_types"], "upsample_type": "conv"},
    "uneven channels": {"block_out_channels": (16, 24)},
    "no square": {"sample_size": (12, 20), **THREE},
    "one level": {
        **{"block_out_channels": (16,), "down_block_types": ("AttnDownBlock2D",)},
        "up_block_types": ("AttnUpBlock2D",),
    },
}

OTHERS = {"DDPMScheduler": {"set_alpha_to_one"}, "DDIMScheduler": {"variance_type"}}
"""The settings that only the other scheduler has."""


def model(**changes: Any) -> Any:
    """A UNet2DModel with random weights throughout, none asleep behind zeros."""
    torch.manual_seed(0)
    made = diffusers.UNet2DModel(**{**SMALL, **changes}).eval()
    for name, parameter in made.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=(1 / parameter[0].numel()) ** 0.5)
        else:
            nn.init.normal_(parameter, float("norm" in name and name.endswith("weight")), 0.3)
    return made


def folder(place: Path, unet: Any, **scheduler: Any) -> Path:
    kind = scheduler.pop("kind", "DDPMScheduler")
    made = getattr(diffusers, kind)(**{"num_train_timesteps": 20, "beta_end": 0.3, **scheduler})
    diffusers.DDPMPipeline(unet, made).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def twenty_steps(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("imported")
    return import_run(folder(place / "theirs", model()), "diffusers", out=place / "run")


def inputs(unet: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    size = unet.config.sample_size
    sides = (size, size) if isinstance(size, int) else size
    time, classes = torch.tensor([0.0, 7.0, 999.0]), unet.config.num_class_embeds
    label = torch.tensor([0, 3, 1]) if classes else None
    return torch.randn(3, unet.config.in_channels, *sides, generator=torch.Generator().manual_seed(1)), time, label


def outputs(run: Run, unet: Any, weights: str = "ema") -> tuple[Tensor, Tensor]:
    x, time, label = inputs(unet)
    with torch.inference_mode():
        return run.denoiser(weights).network(x, time, label), unet(x, time, class_labels=label).sample


@pytest.mark.parametrize("name", MODELS)
class TestBothWays:
    def test_an_imported_model_gives_its_output(self, name: str, tmp_path: Path) -> None:
        unet = model(**MODELS[name])
        run = import_run(folder(tmp_path / "theirs", unet), "diffusers", out=tmp_path / "run")
        assert run.parameters == sum(p.numel() for p in unet.parameters())
        for weights in ("ema", "raw"):
            found, expected = outputs(run, unet, weights)
            assert expected.std() > 0.1
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    def test_an_exported_run_gives_its_output_and_comes_back_the_same(self, name: str, tmp_path: Path) -> None:
        run = import_run(folder(tmp_path / "theirs", model(**MODELS[name])), "diffusers", out=tmp_path / "run")
        place = export_run(run.path)
        theirs = diffusers.DDPMPipeline.from_pretrained(place)
        assert theirs.scheduler.config.num_train_timesteps == 20
        found, expected = outputs(run, theirs.unet.eval())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        again = import_run(place, "diffusers", out=tmp_path / "again")
        assert again.recipe.network == run.recipe.network
        before, after = (load_file(each.weights_file("ema")) for each in (run, again))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


class TestFolders:
    @pytest.fixture
    def theirs(self, tmp_path: Path) -> Path:
        return folder(tmp_path / "theirs", model(**HO))

    def expected(self, place: Path) -> dict[str, Tensor]:
        return load_file(import_run(place, "diffusers", out=place / "expected").weights_file("raw"))

    def test_one_without_subfolders(self, theirs: Path, tmp_path: Path) -> None:
        """As the oldest published ones are."""
        expected = self.expected(theirs)
        flat = tmp_path / "flat"
        flat.mkdir()
        for file in (*(theirs / "unet").iterdir(), *(theirs / "scheduler").iterdir()):
            file.rename(flat / file.name)
        found = load_file(import_run(flat, "diffusers", out=tmp_path / "run").weights_file("raw"))
        assert all(torch.equal(expected[key], found[key]) for key in expected)

    @pytest.mark.parametrize("sharded", [False, True])
    def test_weights_pickled_in_half_precision_or_in_parts(self, sharded: bool, theirs: Path, tmp_path: Path) -> None:
        path = theirs / "unet" / "diffusion_pytorch_model.safetensors"
        weights = load_file(path)
        save_file({name: value.half().float() for name, value in weights.items()}, path)
        expected = self.expected(theirs)
        path.unlink()
        names = sorted(weights)
        parts = {"a.bin": names[::2], "b.bin": names[1::2]} if sharded else {"diffusion_pytorch_model.bin": names}
        for file, held in parts.items():
            torch.save({name: weights[name].half() for name in held}, theirs / "unet" / file)
        if sharded:
            index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
            (theirs / "unet" / "diffusion_pytorch_model.bin.index.json").write_text(json.dumps(index))
        found = load_file(import_run(theirs, "diffusers", out=tmp_path / "run").weights_file("raw"))
        assert all(found[key].dtype == torch.float32 and torch.equal(expected[key], found[key]) for key in expected)

    def test_attention_under_its_old_names(self, theirs: Path, tmp_path: Path) -> None:
        expected, path = self.expected(theirs), theirs / "unet" / "diffusion_pytorch_model.safetensors"
        old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        weights = {}
        for name, value in load_file(path).items():
            for present, former in old.items():
                name = name.replace(f".{present}.", f".{former}.")
            weights[name] = value
        assert any(".proj_attn." in name for name in weights)
        save_file(weights, path)
        found = load_file(import_run(theirs, "diffusers", out=tmp_path / "run").weights_file("raw"))
        assert all(torch.equal(expected[key], found[key]) for key in expected)


class TestSchedulers:
    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ({}, {"variance": "fixed_small", "parameterization": "epsilon", "clip": "static", "spacing": "uniform"}),
            ({"variance_type": "fixed_large", "clip_sample": False}, {"variance": "fixed_large", "clip": "none"}),
            (
                {"variance_type": "fixed_small_log", "thresholding": True},
                {"variance": "fixed_small", "clip": "static"},
            ),
            ({"thresholding": True, "sample_max_value": 1e6}, {"clip": "dynamic"}),
            ({"kind": "DDIMScheduler", "thresholding": True, "sample_max_value": 2e9}, {"clip": "dynamic"}),
            ({"sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9}, {"clip": "static"}),
            (
                {"prediction_type": "sample", "timestep_spacing": "linspace"},
                {"parameterization": "x0", "spacing": "even"},
            ),
            ({"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, {"parameterization": "v"}),
            ({"beta_schedule": "squaredcos_cap_v2"}, {}),
            ({"kind": "DDIMScheduler"}, {"sampler": "ddim"}),
        ],
    )
    def test_what_a_scheduler_says(self, theirs: dict[str, Any], ours: dict[str, Any], tmp_path: Path) -> None:
        place = folder(tmp_path / "theirs", model(), **theirs)
        run = import_run(place, "diffusers", out=tmp_path / "run")
        learner, sampling = run.recipe.learner, run.recipe.sampling.model_dump()
        said = {**sampling, "variance": learner["variance"], "parameterization": learner["parameterization"]["name"]}
        assert ours.items() <= said.items()
        kind = diffusers.DDIMScheduler if "kind" in theirs else diffusers.DDPMScheduler
        table = kind.from_pretrained(place / "scheduler").alphas_cumprod
        alpha_bar = run.denoiser().schedule.alpha(torch.arange(1, 21, dtype=torch.float64)) ** 2
        torch.testing.assert_close(alpha_bar, table.double(), rtol=0, atol=1e-6)

    def test_an_exported_scheduler_is_what_was_imported(self, tmp_path: Path) -> None:
        said = {"variance_type": "fixed_large", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
        said |= {"clip_sample": False, "timestep_spacing": "linspace", "beta_start": 0.001}
        run = import_run(folder(tmp_path / "theirs", model(), **said), "diffusers", out=tmp_path / "run")
        exported = json.loads((export_run(run.path) / "scheduler" / "scheduler_config.json").read_text())
        assert said.items() <= exported.items()

    @pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler"])
    @pytest.mark.parametrize("said", [{}, {"sample_max_value": 1e6}])
    def test_thresholding_is_theirs(self, said: dict[str, float], kind: str, tmp_path: Path) -> None:
        """x̂_0 is held as their scheduler holds it, the one that was imported and the one that is exported again."""
        place = folder(tmp_path / "theirs", model(), kind=kind, thresholding=True, **said)
        run = import_run(place, "diffusers", out=tmp_path / "run")
        assert run.recipe.sampling.kernel.clip == ("dynamic" if said else "static")
        x0 = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        x0 *= torch.tensor([0.1, 1.0, 3.0, 100.0, 1e5]).view(5, 1, 1, 1)
        found = clipped(x0, quantile=DYNAMIC_QUANTILE if said else 1.0)
        torch.testing.assert_close(
            found, getattr(diffusers, kind).from_pretrained(place / "scheduler")._threshold_sample(x0)
        )
        exported = getattr(diffusers, kind).from_pretrained(export_run(run.path) / "scheduler")
        assert exported.config.thresholding == bool(said) and exported.config.clip_sample == (not said)
        if said:
            torch.testing.assert_close(found, exported._threshold_sample(x0))
            assert float((found - x0.clamp(-1, 1)).abs().max()) > 0.5

    def test_ddim_stays_ddim(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        place = folder(tmp_path / "theirs", model(), kind="DDIMScheduler")
        config = place / "scheduler" / "scheduler_config.json"
        # DDIMScheduler has no variance, but keeps what a DDPMScheduler that it was made from says.
        config.write_text(json.dumps({**json.loads(config.read_text()), "variance_type": "fixed_large"}))
        run = import_run(place, "diffusers", out=tmp_path / "run")
        exported = export_run(run.path)
        assert "use_clipped_model_output=True" in capsys.readouterr().out
        pipeline = diffusers.DDPMPipeline.from_pretrained(exported)
        assert isinstance(pipeline.scheduler, diffusers.DDIMScheduler)
        pipeline.set_progress_bar_config(disable=True)
        assert pipeline(batch_size=1, num_inference_steps=4, output_type="np").images.shape == (1, 8, 8, 1)
        again = import_run(exported, "diffusers", out=tmp_path / "again")
        assert again.recipe.learner["variance"] == "fixed_large"
        assert again.recipe.sampling == run.recipe.sampling and again.recipe.learner == run.recipe.learner

    def test_trailing_is_said_and_the_full_chain_is_theirs(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        place = folder(tmp_path / "theirs", model(), timestep_spacing="trailing")
        run = import_run(place, "diffusers", out=tmp_path / "run")
        out = capsys.readouterr().out
        assert out.startswith("note: timestep_spacing 'trailing' has no counterpart") and out.count("\n") == 1
        scheduler = diffusers.DDPMScheduler.from_pretrained(place / "scheduler")
        scheduler.set_timesteps(20)
        assert scheduler.timesteps.tolist() == [int(t) - 1 for t in run.sampler().grid[:-1]]

    @pytest.mark.parametrize("count", [1, 3, 5, 7, 10, 20])
    @pytest.mark.parametrize("spacing", ["leading", "linspace"])
    @pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler"])
    def test_a_note_wherever_their_times_are_others(
        self, kind: str, spacing: str, count: int, twenty_steps: Run
    ) -> None:
        """Of the network's times, and of DDIM's the one that a step ends at."""
        grid_name = {"leading": "uniform", "linspace": "even"}[spacing]
        sampling = twenty_steps.recipe.sampling.changed(sampler=SAMPLERS[kind], spacing=grid_name, steps=count)
        recipe = twenty_steps.recipe.model_copy(update={"sampling": sampling})
        config = scheduler_config(recipe)
        scheduler = getattr(diffusers, kind)(**config.model_dump(exclude={"class_name", *OTHERS[kind]}))
        scheduler.set_timesteps(count)
        times = [int(t) - 1 for t in grid(twenty_steps.denoiser().schedule, count, grid_name)]
        visited = scheduler.timesteps.tolist()
        same = visited == times[:-1]
        if kind == "DDIMScheduler":
            same = same and [max(t - 20 // count, -1) for t in visited] == times[1:]
        noted = any("has other times" in note for note in not_carried(recipe, config))
        assert noted == (not same)


class TestSameImages:
    """From the same noise, by our sampler and by their schedulers on an exported run."""

    @pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
    @pytest.mark.parametrize("eta", [None, 0.0])
    def test_of_an_exported_run(self, eta: float | None, variance: str, tmp_path: Path) -> None:
        channels = 2 if variance == "learned_range" else 1
        place = folder(tmp_path / "theirs", model(out_channels=channels), variance_type=variance)
        run = import_run(place, "diffusers", out=tmp_path / "run")
        pipeline = diffusers.DDPMPipeline.from_pretrained(export_run(run.path))
        scheduler = pipeline.scheduler
        if eta is not None:
            scheduler = diffusers.DDIMScheduler.from_config(scheduler.config)
        scheduler.set_timesteps(10)
        sampler = run.sampler(steps=10)
        kernel: Any = sampler.kernel
        if eta is not None:
            kernel = run.sampler(sampler="ddim").kernel
        times = grid(run.denoiser().schedule, 10, run.recipe.sampling.spacing)
        assert scheduler.timesteps.tolist() == [int(t) - 1 for t in times[:-1]]
        found = expected = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            for i, (t, s) in enumerate(pairwise(times)):
                noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(i))
                bound = run.denoiser().bind(Condition())
                found, _ = kernel.step(bound, found, t, s, None, cast(Any, Given(noise)))
                output = pipeline.unet(expected, int(t) - 1).sample
                options: dict[str, Any] = {"generator": torch.Generator().manual_seed(i)}
                if eta is not None:
                    output = output[:, :1]
                    options = {"eta": eta, "use_clipped_model_output": True}
                expected = scheduler.step(output, int(t) - 1, expected, **options).prev_sample
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        levels = [((x.clamp(-1, 1) + 1) * 127.5).round() for x in (found, expected)]
        assert float((levels[0] - levels[1]).abs().max()) <= 1

    @pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler"])
    def test_of_the_classes_asked_for(self, kind: str, tmp_path: Path) -> None:
        """By the pipeline in the folder, which is run where it is asked for, every draw from one generator."""
        run = import_run(folder(tmp_path / "theirs", model(**MODELS["classes"]), kind=kind), "diffusers",
                         out=tmp_path / "run")  # fmt: skip
        place = export_run(run.path)
        assert type(diffusers.DiffusionPipeline.from_pretrained(place)) is diffusers.DDPMPipeline
        asked = {"custom_pipeline": "pipeline", "trust_remote_code": True}
        pipeline = diffusers.DiffusionPipeline.from_pretrained(place, **asked)
        pipeline.set_progress_bar_config(disable=True)
        labels, generator = torch.tensor([2, 0, 3]), torch.Generator().manual_seed(0)
        theirs = pipeline(labels.tolist(), generator, num_inference_steps=10, output_type="pt").images
        with pytest.raises(ValueError, match="expected numbers from 0 to 3"):
            pipeline([4])
        again = torch.Generator().manual_seed(0)
        x = torch.randn(3, 1, 8, 8, generator=again)
        kernel: Any = run.sampler(steps=10).kernel
        times = grid(run.denoiser().schedule, 10, run.recipe.sampling.spacing)
        bound = run.denoiser().bind(Condition(labels))
        with torch.inference_mode():
            for t, s in pairwise(times):
                noise = torch.zeros_like(x)
                if kind == "DDPMScheduler" and s > 0:
                    noise = torch.randn(x.shape, generator=again)
                x, _ = kernel.step(bound, x, t, s, None, cast(Any, Given(noise)))
        assert theirs.std() > 0.05
        torch.testing.assert_close((x / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-4)

    def test_their_pipeline_runs(self, tmp_path: Path) -> None:
        run = import_run(folder(tmp_path / "theirs", model(sample_size=(8, 12))), "diffusers", out=tmp_path / "run")
        pipeline = diffusers.DDPMPipeline.from_pretrained(export_run(run.path, out=tmp_path / "out"))
        pipeline.set_progress_bar_config(disable=True)
        assert pipeline(batch_size=2, num_inference_steps=3, output_type="np").images.shape == (2, 8, 12, 1)
