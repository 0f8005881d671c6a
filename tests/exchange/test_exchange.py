"""The life of an imported run, and what import and export refuse. No other library is needed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.conftest import recipe_values
from tests.exchange.openai_unet import Model
from trilemma.errors import InputError
from trilemma.evaluations import evaluate
from trilemma.exchange import export_run, import_run
from trilemma.exchange.schedulers import not_carried, scheduler_config
from trilemma.jobs import train
from trilemma.recipes.sampling import parse_sampling
from trilemma.report.html import build_report
from trilemma.runs import Run

OPENAI = Model(channels=1, outputs=2, classes=4, heads=1)
EXPRESSIBLE: dict[str, Any] = {"groups": 4, "attention": [4], "middle_attention": True, "zero_init": False}


@pytest.fixture
def state_dict(tmp_path: Path) -> Path:
    torch.save(OPENAI.state_dict(), tmp_path / "model000010.pt")
    return tmp_path / "model000010.pt"


@pytest.fixture
def from_openai(state_dict: Path, data: Path, tmp_path: Path) -> Run:
    changes = ["schedule=cosine", "schedule.steps=8", "network.heads=1", "training.batch=6", "training.grid_every=0"]
    size, out = (8, 8), tmp_path / "imported"
    return import_run(state_dict, "improved-diffusion", size=size, data=str(data), out=out, overrides=changes)


@pytest.fixture(scope="session")
def _expressible(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, values = tmp_path_factory.mktemp("expressible"), recipe_values(data)
    values["network"] |= EXPRESSIBLE
    values["training"] |= {"steps": 2, "validate_every": 0, "warmup": 0}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    return train(folder / "tiny.yaml", out=folder / "run").path


@pytest.fixture
def expressible(_expressible: Path, tmp_path: Path) -> Run:
    """A run that diffusers has a counterpart of (four classes, v, the cosine schedule), the test's own copy."""
    shutil.copytree(_expressible, tmp_path / "expressible", symlinks=True)
    return Run(tmp_path / "expressible")


class TestAnImportedRun:
    def test_samples(self, from_openai: Run) -> None:
        assert from_openai.step == 0 and from_openai.classes == ["0", "1", "2", "3"]
        samples = from_openai.sample(5)
        assert samples.images.shape == (5, 8, 8, 1) and samples.images.std() > 10
        assert samples.labels is not None and samples.labels.tolist() == [0, 1, 2, 3, 0]
        again = from_openai.sample(5, steps=3, weights="raw", sampler="ddim")
        assert not np.array_equal(again.images, samples.images)

    def test_goes_on_training_from_its_weights(self, from_openai: Run) -> None:
        recipe, out = from_openai.path / "recipe.yaml", from_openai.path
        went_on = train(recipe, out=out, resume=True, overrides=["training.steps=1"])
        assert went_on.step == 1
        before, raw, ema = (
            load_file(out / "checkpoints" / f"step-0000000{step}" / f"{name}.safetensors")
            for step, name in ((0, "model"), (1, "model"), (1, "ema"))
        )
        assert before.keys() == load_file(out / "checkpoints" / "step-00000000" / "ema.safetensors").keys()
        rate = from_openai.recipe.training.learning_rate
        for name, value in before.items():
            # Adam's first step is the learning rate long, and the average of 0.9999 takes a ten-thousandth of it.
            assert 0 < float((raw[name] - value).abs().max()) < 1.01 * rate, name
            assert float((ema[name] - value).abs().max()) < 2e-4 * rate + 1e-6, name

    def test_is_evaluated_and_reported(self, from_openai: Run) -> None:
        found = evaluate(from_openai, n=12, features="pixels", metrics=["frechet_distance"])
        assert found.metrics["frechet_distance"] > 0
        assert found.subject.checkpoint_step == 0
        assert build_report([from_openai.path]).is_file()

    def test_without_data_it_samples_and_says_what_it_lacks(self, state_dict: Path, tmp_path: Path) -> None:
        changes = ["schedule.steps=8", "network.heads=1"]
        run = import_run(state_dict, "improved-diffusion", size=(8, 8), out=tmp_path / "run", overrides=changes)
        assert len(run.sample(2)) == 2
        with pytest.raises(InputError, match="import again with --data"):
            train(run.path / "recipe.yaml", out=run.path, resume=True)
        with pytest.raises(InputError, match="import again with --data"):
            evaluate(run, n=4, features="pixels")

    def test_goes_out_and_comes_back_the_same(self, expressible: Run, data: Path, tmp_path: Path) -> None:
        for weights in ("ema", "raw"):
            place = export_run(expressible.path, out=tmp_path / weights, weights=weights)
            back = import_run(place, "diffusers", data=str(data), out=tmp_path / f"back-{weights}")
            before, after = load_file(expressible.weights_file(weights)), load_file(back.weights_file("ema"))
            assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
            assert back.recipe.network == {**expressible.recipe.network, "heads": 1, "zero_init": True}
            images = [run.sample(4, weights=weights).images for run in (expressible, back)]
            assert np.array_equal(*images)


@pytest.mark.parametrize("heads", [{"heads": 4}, {"head_channels": 16}])
@pytest.mark.parametrize("format", ["improved-diffusion", "guided-diffusion"])
def test_heads_are_overridden_by_count_or_by_channels(
    format: str, heads: dict[str, int], state_dict: Path, tmp_path: Path
) -> None:
    """Whichever of the two the format has."""
    changes = [f"network.{key}={value}" for key, value in heads.items()]
    run = import_run(state_dict, format, size=(8, 8), out=tmp_path / "run", overrides=changes)
    widths = {
        part.qkv.weight.shape[1] // part.heads for part in run.denoiser().network.modules() if hasattr(part, "qkv")
    }
    assert widths == {16}


class TestDataOfAnImportedRun:
    def test_other_images(self, state_dict: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"--data mnist5k: its images are \(1, 28, 28\).*with --set data.size=8$"):
            import_run(state_dict, "guided-diffusion", size=(8, 8), data="mnist5k", out=tmp_path / "run")

    @pytest.mark.parametrize(
        ("channels", "size", "remedy"),
        [
            (3, (8, 8), "with --set data.channels=3"),
            (3, (8, 16), r"with --set data.channels=3 --set data.size=\[8,16\]"),
            (1, (8, 16), r"with --set data.size=\[8,16\]"),
            (2, (8, 8), r"no data has 2 channels \(1 or 3\)"),
        ],
    )
    def test_the_remedy_works(
        self, channels: int, size: tuple[int, int], remedy: str, data: Path, tmp_path: Path
    ) -> None:
        torch.save(Model(channels=channels, outputs=channels, heads=1).state_dict(), tmp_path / "model.pt")
        out, changes = tmp_path / "run", ["network.heads=1", "schedule.steps=8"]

        def attempt(overrides: list[str]) -> Run:
            path = tmp_path / "model.pt"
            return import_run(path, "guided-diffusion", size=size, data=str(data), out=out, overrides=overrides)

        with pytest.raises(InputError, match=f"{remedy}$") as caught:
            attempt(changes)
        told = str(caught.value).split("--set ")[1:]
        assert not out.exists()
        if told:
            run = attempt([*changes, *(setting.strip() for setting in told)])
            assert run.recipe.images is not None and run.recipe.images.shape == (channels, *size)

    def test_other_classes(self, state_dict: Path, tmp_path: Path) -> None:
        arguments: dict[str, Any] = {"size": (8, 8), "data": "mnist5k", "out": tmp_path / "run"}
        with pytest.raises(InputError, match="it has 10 classes, the model 4"):
            import_run(state_dict, "guided-diffusion", overrides=["data.size=8"], **arguments)
        assert not (tmp_path / "run").exists()


class TestImportRefuses:
    def test_an_unknown_format(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"unknown --format 'difusers': did you mean 'diffusers'\?"):
            import_run(tmp_path, "difusers", out=tmp_path / "run")

    @pytest.mark.parametrize("order", ["legacy", "new"])
    @pytest.mark.parametrize("format", ["diffusers", "improved-diffusion"])
    def test_an_attention_order_that_a_format_has_not(
        self, format: str, order: Any, state_dict: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(
            InputError, match=f"--attention-order '{order}': only --format guided-diffusion .* {format}"
        ):
            import_run(state_dict, format, size=(8, 8), attention_order=order, out=tmp_path / "run")

    @pytest.mark.parametrize(("classes", "conditional"), [(0, "true"), (4, "false")])
    def test_classes_that_the_checkpoint_has_not_or_has(self, classes: int, conditional: str, tmp_path: Path) -> None:
        torch.save(Model(classes=classes, heads=1).state_dict(), tmp_path / "model.pt")
        changes = ["network.heads=1", f"learner.conditional={conditional}"]
        message = rf"learner\.conditional={conditional}: expected .*model\.pt has {classes or 'no'} classes"
        with pytest.raises(InputError, match=message):
            import_run(tmp_path / "model.pt", "guided-diffusion", size=(8, 8), out=tmp_path / "run", overrides=changes)
        assert not (tmp_path / "run").exists()

    def test_a_place_that_is_taken(self, from_openai: Run, state_dict: Path) -> None:
        with pytest.raises(InputError, match="holds a run already"):
            import_run(state_dict, "improved-diffusion", size=(8, 8), out=from_openai.path)

    @pytest.mark.parametrize("there", ["nothing", "a folder"])
    def test_what_is_no_folder_of_diffusers(self, there: str, tmp_path: Path) -> None:
        if there == "a folder":
            (tmp_path / "theirs").mkdir()
        with pytest.raises(InputError, match=r"theirs(:| does not exist)"):
            import_run(tmp_path / "theirs", "diffusers", out=tmp_path / "run")

    @pytest.mark.parametrize(
        ("file", "change", "message"),
        [
            ("unet", {"_class_name": "UNet2DConditionModel"}, "_class_name: input should be 'UNet2DModel'"),
            ("unet", {"act_fn": "relu"}, r"act_fn: input should be 'silu' or 'swish' \(got 'relu'\)"),
            ("unet", {"time_embedding_type": "fourier"}, "time_embedding_type: input should be 'positional'"),
            ("unet", {"center_input_sample": True}, "center_input_sample"),
            (
                "unet",
                {"mid_block_scale_factor": 1.4},
                "mid_block_scale_factor: input should be less than or equal to 1",
            ),
            ("unet", {"freq_shift": 2}, "freq_shift: input should be 0 or 1"),
            ("unet", {"downsample_padding": 2}, "downsample_padding: input should be 0 or 1"),
            ("unet", {"class_embed_type": "timestep"}, "class_embed_type"),
            ("unet", {"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "down_block_types.0: .*SkipDownBlock2D"),
            ("unet", {"down_block_types": ["DownBlock2D"] * 2}, "have attention elsewhere"),
            ("unet", {"block_out_channels": [8]}, "expected as many of each"),
            ("unet", {"block_out_channels": "8"}, "block_out_channels: input should be a valid tuple"),
            ("unet", {"time_embedding_dim": 64}, "time_embedding_dim 64: supported is 32"),
            ("unet", {"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups None: .* has no norm"),
            ("unet", {"out_channels": 3}, "out_channels 3: expected 1, for in_channels 1"),
            ("unet", {"sample_size": None}, "sample_size is null: .*--size"),
            ("unet", {"attention_head_dim": 3}, "network.head_channels 3 does not divide 16 channels"),
            ("unet", {"layers_per_block": 2}, "lacks the weight 'down_blocks.0.resnets.1"),
            ("unet", {"num_class_embeds": None}, "has, and this network has not, the weight 'class_embedding.weight'"),
            ("unet", {"block_out_channels": [8, 24]}, r"has shape \[.*\], this network's"),
            ("scheduler", {"_class_name": "PNDMScheduler"}, "_class_name: input should be 'DDPMScheduler' or 'DDIM"),
            (
                "scheduler",
                {"beta_schedule": "sigmoid"},
                "beta_schedule: input should be 'linear' or 'squaredcos_cap_v2'",
            ),
            ("scheduler", {"trained_betas": [0.1, 0.2]}, "trained_betas"),
            ("scheduler", {"variance_type": "learned"}, "variance_type: .*'learned_range' .got 'learned'"),
            ("scheduler", {"clip_sample_range": 2.0}, "clip_sample_range"),
            ("scheduler", {"prediction_type": "flow"}, "prediction_type"),
            ("scheduler", {"steps_offset": 1}, r"steps_offset: input should be 0 \(got 1\)"),
            (
                "scheduler",
                {"beta_schedule": "linear", "beta_start": 0.02, "beta_end": 1e-4},
                r"beta_start 0\.02: expected at most beta_end, 0\.0001",
            ),
            (
                "scheduler",
                {"thresholding": True, "sample_max_value": 1.5},
                r"sample_max_value 1\.5: supported with thresholding are 1, .* and 1000000 or more",
            ),
            ("scheduler", {"thresholding": True, "sample_max_value": 0.5}, r"sample_max_value 0\.5"),
            (
                "scheduler",
                {"thresholding": True, "sample_max_value": 1e6, "dynamic_thresholding_ratio": 0.99},
                r"dynamic_thresholding_ratio 0\.99: supported is 0\.995",
            ),
        ],
    )
    def test_settings_without_a_counterpart(
        self, file: str, change: dict[str, Any], message: str, expressible: Run, tmp_path: Path
    ) -> None:
        folder = export_run(expressible.path, out=tmp_path / "theirs")
        path = folder / file / ("config.json" if file == "unet" else "scheduler_config.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(InputError, match=message) as caught:
            import_run(folder, "diffusers", out=tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()

    def test_a_folder_with_parts_missing_or_broken(self, expressible: Run, tmp_path: Path) -> None:
        folder = export_run(expressible.path, out=tmp_path / "theirs")
        weights, scheduler = folder / "unet" / "diffusion_pytorch_model.safetensors", folder / "scheduler"

        def refused(message: str) -> None:
            with pytest.raises(InputError, match=message):
                import_run(folder, "diffusers", out=tmp_path / "run")

        whole = weights.read_bytes()
        weights.write_bytes(whole[: len(whole) // 2])
        refused("is not a whole safetensors file")
        weights.unlink()
        refused(r"has no weights: expected diffusion_pytorch_model\.safetensors")
        index = weights.with_name(f"{weights.name}.index.json")
        index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
        refused(r"names the file '\.\./\.\./secret\.safetensors': expected one beside it")
        (scheduler / "scheduler_config.json").write_text("{")
        refused(r"scheduler_config\.json cannot be read as JSON")
        (scheduler / "scheduler_config.json").unlink()
        refused("has no scheduler/scheduler_config.json")


def test_label_dropout_goes_out_and_comes_back(
    write_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network has a label more than the data have classes: diffusers' too, and the run that comes back."""
    recipe = write_recipe(network=EXPRESSIBLE, learner={"label_dropout": 0.2}, training={"steps": 2, "warmup": 0},
                          sampling={"guidance": 1.0})  # fmt: skip
    ours = train(recipe, out=tmp_path / "ours")
    capsys.readouterr()
    folder = export_run(ours.path, out=tmp_path / "theirs")
    said = capsys.readouterr().out
    assert "note: class_labels 4 stands for no class" in said and "note: sampling.guidance 1.0 is not in" in said
    config = json.loads((folder / "unet" / "config.json").read_text())
    held = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert config["num_class_embeds"] == len(held["class_embedding.weight"]) == 5
    back = import_run(folder, "diffusers", out=tmp_path / "back", overrides=["learner.label_dropout=0.2"])
    assert back.classes == ["0", "1", "2", "3"]
    how: dict[str, Any] = {"seeds": range(5), "steps": 3, "guidance": 1.5}
    assert np.array_equal(back.sample(**how).images, ours.sample(**how).images)


class TestExportSays:
    STEPS = "sampling.steps None .*num_inference_steps=8"

    @pytest.mark.parametrize(
        ("sampling", "kind", "lines"),
        [
            ({"sampler": "ancestral"}, "DDPM", [STEPS]),
            (
                {"sampler": "ancestral", "steps": 4, "spacing": "uniform"},
                "DDPM",
                ["sampling.steps 4 .*num_inference_steps=4"],
            ),
            ({"sampler": "ddim", "clip": "none"}, "DDIM", [STEPS]),
            (
                {"sampler": "ddim", "clip": "static"},
                "DDIM",
                ["sampling.clip 'static': .*use_clipped_model_output", STEPS],
            ),
            (
                {"sampler": "ddim", "clip": "none", "eta": 0.5, "steps": 3},
                "DDIM",
                [
                    "sampling.eta 0.5 is not",
                    "sampling.steps 3 is not",
                    "sampling.spacing 'even': DDIMScheduler has",
                ],
            ),
            ({"sampler": "ddim", "clip": "none", "eta": 0.0}, "DDIM", [STEPS]),
            (
                {"sampler": "dpmpp"},
                "DDPM",
                ["sampling.sampler 'dpmpp' is not .* which has DDPMScheduler", STEPS],
            ),
            ({"sampler": "unipc"}, "DDPM", ["sampling.sampler 'unipc'", STEPS]),
            ({"sampler": "heun"}, "DDPM", ["sampling.sampler 'heun'", STEPS]),
            ({"sampler": "probability_flow"}, "DDPM", ["sampling.sampler 'probability_flow'", STEPS]),
            (
                {"sampler": "ancestral", "skip": 1, "precision": "bf16", "spacing": "quadratic"},
                "DDPM",
                ["sampling.skip 1", "sampling.precision 'bf16'", "sampling.spacing 'quadratic'", STEPS],
            ),
            ({"sampler": "ancestral", "spacing": "2,3"}, "DDPM", ["sampling.spacing '2,3'"]),
            ({"sampler": "ancestral", "times": [8, 4]}, "DDPM", [r"sampling.times \[8.0, 4.0\]"]),
        ],
    )
    def test_what_of_sampling_is_left_out(
        self, sampling: dict[str, Any], kind: str, lines: list[str], expressible: Run
    ) -> None:
        learner = {**expressible.recipe.learner, "conditional": False}
        recipe = expressible.recipe.model_copy(update={"sampling": parse_sampling(sampling), "learner": learner})
        config = scheduler_config(recipe)
        said = not_carried(recipe, config)
        assert config.class_name == f"{kind}Scheduler" and len(said) == len(lines), said
        assert all(re.search(pattern, line) for line, pattern in zip(said, lines, strict=True)), said

    def test_how_classes_are_asked_for(self, expressible: Run, capsys: pytest.CaptureFixture[str]) -> None:
        """The pipeline in the folder takes every step, unless told otherwise, and DDIM's clipping as it is here."""
        sampling = expressible.recipe.sampling.changed(sampler="ddim", clip="static")
        recipe = expressible.recipe.model_copy(update={"sampling": sampling})
        (said,) = not_carried(recipe, scheduler_config(recipe))
        assert said.startswith(
            "DDPMPipeline gives no class: DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline="
        )
        export_run(expressible.path)
        assert f"note: {said}" in capsys.readouterr().out

    def test_ddim_of_a_learned_variance(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """DDIMScheduler would take the half that is the variance for noise."""
        torch.save(Model(outputs=2, heads=1).state_dict(), tmp_path / "model.pt")
        changes = ["network.heads=1", "sampling.sampler=ddim"]
        run = import_run(
            tmp_path / "model.pt", "guided-diffusion", size=(8, 8), out=tmp_path / "run", overrides=changes
        )
        folder = export_run(run.path)
        assert json.loads((folder / "model_index.json").read_text())["scheduler"][1] == "DDPMScheduler"
        assert "note: sampling.sampler 'ddim' is not in the folder, which has DDPMScheduler" in capsys.readouterr().out


class TestExportRefuses:
    @pytest.mark.parametrize(
        ("network", "message"),
        [
            ({"groups": None}, r"network\.groups None: the layers have \[2, 4, 6, 8\] groups"),
            ({"block": "mbconv"}, r"network\.block 'mbconv' has no counterpart in diffusers \(supported: 'residual'\)"),
            ({"norm": "batch", "groups": None}, r"network\.norm 'batch'"),
            ({"patch": 2, "attention": []}, r"network\.patch 2"),
            ({"activation": "relu"}, r"network\.activation 'relu'"),
            ({"rescale": True}, r"network\.rescale True"),
            ({"down": "max"}, r"network\.down 'max' .*supported: 'strided', 'strided_same', 'biggan'"),
            ({"up": "bilinear"}, r"network\.up 'bilinear'"),
            ({"entry": "after"}, r"network\.entry 'after'"),
            ({"skips": "level"}, r"network\.skips 'level'"),
            ({"attention_kind": "transformer"}, r"network\.attention_kind 'transformer'"),
            ({"time_sinusoids": 32}, r"network\.time_sinusoids 32"),
            ({"decoder_widths": "narrowed"}, r"network\.decoder_widths 'narrowed'"),
            ({"head": "point"}, r"network\.head 'point'"),
            ({"blocks": [1, 2]}, r"network\.blocks \[1, 2\]"),
            ({"multipliers": [2, 4]}, r"network\.multipliers \[2, 4\]"),
            ({"heads": 2, "attention": [8, 4]}, r"network\.heads 2 at \[8, 16\] channels"),
            ({"multipliers": [1, 1, 1, 1, 1], "attention": []}, "halves them 4 times"),
        ],
    )
    def test_networks(self, network: dict[str, Any], message: str, expressible: Run, tmp_path: Path) -> None:
        self.refused(expressible, tmp_path, message, network={**EXPRESSIBLE, **network})

    @pytest.mark.parametrize(
        ("section", "change", "message"),
        [
            ("schedule", {"s": 0.01}, r"schedule\.s 0\.01"),
            ("schedule", {"terminal_snr": 0.01}, r"schedule\.terminal_snr 0\.01"),
            ("schedule", {"network_steps": 1000}, r"schedule\.network_steps 1000"),
            ("schedule", {"name": "vp"}, r"schedule\.name 'vp' .*supported: 'linear', 'cosine'"),
            ("learner", {"parameterization": "edm"}, r"learner\.parameterization\.name 'edm'"),
            ("data", {"range": [0, 1]}, r"data\.range \[0\.0, 1\.0\]"),
        ],
    )
    def test_processes(
        self, section: str, change: dict[str, Any], message: str, expressible: Run, tmp_path: Path
    ) -> None:
        self.refused(expressible, tmp_path, message, **{section: change})

    def refused(self, run: Run, place: Path, message: str, **sections: dict[str, Any]) -> None:
        """Export of the run with other settings in its recipe is refused before its weights are read."""
        path = run.path / "recipe.yaml"
        values = yaml.safe_load(path.read_text())
        for section, change in sections.items():
            values[section] = change if "name" in change else {**values[section], **change}
        path.write_text(yaml.safe_dump(values))
        with pytest.raises(InputError, match=message):
            export_run(run.path, out=place / "out")
        assert not (place / "out").exists()

    def test_an_unknown_format_or_a_place_that_is_taken(self, expressible: Run, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="unknown --format 'onnx'"):
            export_run(expressible.path, "onnx")
        place = export_run(expressible.path)
        assert place == expressible.path / "diffusers"
        with pytest.raises(InputError, match="exists already"):
            export_run(expressible.path)
