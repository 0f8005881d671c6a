"""Starts: pure noise, and a surrogate's images noised to t_mid (A algorithm 4), with every sampler."""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exact import ExactNetwork, Fixed, Mixture, linear_alpha_bar, schedule_levels, tabulated_levels
from trilemma.errors import InputError
from trilemma.process import EDM, Condition, Denoiser, Draw, Linear, Schedule, to_uint8
from trilemma.recipes import dump, load, packaged, parse_sampling
from trilemma.runs import Run
from trilemma.runs.surrogates import open_source
from trilemma.samplers import DDIM, SAMPLERS, Finished, Sampler, Surrogate, noise_start, surrogate_start, walk

SHAPE, STEPS = (1, 4, 4), 60
SCHEDULE = Linear(steps=STEPS, beta_end=0.3)
TABLE = linear_alpha_bar(STEPS, end=0.3)
DATA = Mixture.gaussian(torch.full(SHAPE, 0.1), torch.linspace(0.02, 0.15, 16).reshape(SHAPE))
WAYS = [
    *sorted(SAMPLERS),
    *({"sampler": "ddim", "eta": 1.0}, {"sampler": "dpmpp", "stochastic": True}, {"sampler": "unipc", "order": 3}),
]


def settings(way: Any, **more: Any) -> Any:
    return parse_sampling({"clip": "none", **({"sampler": way} if isinstance(way, str) else way), **more})


def exact(schedule: Schedule = SCHEDULE, parameterization: str = "epsilon") -> Denoiser:
    network = ExactNetwork(DATA, schedule_levels(schedule), parameterization)
    return Denoiser(network, schedule, parameterization, "fixed_small")


def sampler(way: Any, denoiser: Denoiser | None = None, **more: Any) -> Sampler:
    return settings(way, **more).build(denoiser or exact(), SHAPE)


def after(plain: Sampler, spec: str, t_mid: float) -> Sampler:
    """The sampler begun at a surrogate's images."""
    source = opened(spec)
    return replace(plain, surrogate=Surrogate(source, t_mid, {**source.record, "t_mid": t_mid}))


def opened(spec: str) -> Finished:
    """A surrogate that is no run, for one of these images."""
    run: Any = SimpleNamespace(recipe=SimpleNamespace(images=SimpleNamespace(shape=SHAPE)))
    source = open_source(spec, run)
    assert not isinstance(source, Run)
    return source


def own_noise(plain: Sampler, seeds: list[int]) -> list[Tensor]:
    """The plain walk, from and by the noise of the streams that a walk from a surrogate draws from."""
    schedule = plain.denoiser.schedule
    start = noise_start(schedule, seeds, SHAPE, t=float(plain.grid[0]), role="start 2")
    draw = Draw.for_seeds(seeds, "step 2")
    return [step.x for step in walk(plain.kernel, plain.denoiser.bind(Condition()), plain.grid, start, draw)]


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return to_uint8(DATA.sample(count, seed).float())


@pytest.fixture
def surrogate(monkeypatch: pytest.MonkeyPatch) -> str:
    """`made_up:images`, a function of seeds in a module of the moment, which keeps what it was asked."""
    module = types.ModuleType("made_up")
    asked: list[Any] = []

    def images(seeds: Sequence[int], labels: Any) -> np.ndarray:
        asked.append((list(seeds), labels))
        return np.concatenate([pictures(1, seed) for seed in seeds])

    module.images, module.asked = images, asked  # type: ignore[attr-defined]
    module.floats = lambda seeds, labels: images(seeds, labels) / 255.0  # type: ignore[attr-defined]
    module.few = lambda seeds, labels: images(seeds, labels)[1:]  # type: ignore[attr-defined]
    module.large = lambda seeds, labels: np.zeros((len(seeds), 5, 4, 1), np.uint8)  # type: ignore[attr-defined]
    module.coloured = lambda seeds, labels: np.zeros((len(seeds), 4, 4, 3), np.uint8)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up", module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return "made_up:images"


class TestNoise:
    def test_it_is_each_seeds_own(self) -> None:
        together = noise_start(SCHEDULE, [5, 2, 9], (2, 3, 3))
        assert together.shape == (3, 2, 3, 3)
        for row, seed in enumerate([5, 2, 9]):
            assert torch.equal(noise_start(SCHEDULE, [seed], (2, 3, 3))[0], together[row])

    def test_its_spread_is_that_of_where_the_walk_begins(self) -> None:
        """EDM's x_t has the spread of its noise level, so a grid cut short or written out starts from less; where
        variance is preserved the start is N(0, I) whatever is left out (B figure 4)."""
        full = noise_start(EDM(sigma_max=80.0), range(4), (1, 4, 4))
        torch.testing.assert_close(noise_start(EDM(sigma_max=80.0), range(4), (1, 4, 4), t=5.0), full / 16)
        assert torch.equal(noise_start(SCHEDULE, [3], (1, 4, 4), t=5.0), noise_start(SCHEDULE, [3], (1, 4, 4)))

    def test_a_sampler_takes_it_from_its_grid(self) -> None:
        images = torch.zeros(1, 2, 2, dtype=torch.float64)
        denoiser = Denoiser(Fixed(images), EDM(sigma_max=80.0), "edm")
        starts = []
        ways: list[dict[str, Any]] = [{"steps": 10}, {"steps": 10, "skip": 4}, {"times": [2.0, 1.0]}]
        for way in ways:
            sampler = Sampler(denoiser, DDIM(), shape=(1, 2, 2), **way)
            starts.append(next(sampler.walk([7])).x / float(sampler.grid[0]))
        torch.testing.assert_close(starts[1:], [starts[0]] * 2)

    def test_it_is_standard_normal(self) -> None:
        drawn = noise_start(SCHEDULE, range(400), (3, 8, 8))
        count = drawn.numel()
        assert abs(float(drawn.mean())) < 4 / count**0.5
        assert abs(float(drawn.var()) - 1) < 4 * (2 / count) ** 0.5


class TestNoisedImages:
    @pytest.mark.parametrize("t_mid", [1, 17, 60])
    def test_they_are_the_forward_process_with_the_seeds_noise(self, t_mid: int) -> None:
        x0, seeds = DATA.sample(3).float(), [4, 0, 7]
        noise = Draw.for_seeds(seeds, "start").normal(x0)
        expected = TABLE[t_mid] ** 0.5 * x0 + (1 - TABLE[t_mid]) ** 0.5 * noise
        torch.testing.assert_close(surrogate_start(SCHEDULE, x0, t_mid, seeds), expected)

    def test_at_0_they_are_the_images(self) -> None:
        x0 = DATA.sample(3).float()
        for schedule in (SCHEDULE, EDM()):
            assert torch.equal(surrogate_start(schedule, x0, 0.0, [1, 2, 3]), x0)

    def test_outside_the_schedule_is_refused(self) -> None:
        for t_mid in (-1.0, 60.5):
            with pytest.raises(InputError, match=r"time \[.*\] lies outside \[0, 60\]"):
                surrogate_start(SCHEDULE, DATA.sample(1).float(), t_mid, [0])


class Untouchable(nn.Module):
    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        raise AssertionError("the network was asked")


@pytest.mark.parametrize("way", WAYS, ids=str)
class TestEverySampler:
    @pytest.mark.parametrize("low", [-1.0, 0.0])
    def test_t_mid_0_returns_the_surrogates_image(self, way: Any, low: float, surrogate: str) -> None:
        denoiser = Denoiser(Untouchable(), SCHEDULE, "epsilon", "fixed_small", (low, 1.0))
        begun = after(sampler(way, denoiser, steps=6), surrogate, 0.0)
        assert begun.evaluations == 0
        found = begun.generate([3, 1], None)
        np.testing.assert_array_equal(found, np.concatenate([pictures(1, 3), pictures(1, 1)]))

    @pytest.mark.parametrize("t_mid", [1.0, 30.0, 33.3])
    def test_the_walk_goes_on_from_t_mid(self, way: Any, t_mid: float, surrogate: str) -> None:
        """The first state is the image noised to t_mid, and the grid's times below follow."""
        seeds = [2, 5]
        begun = after(sampler(way, steps=8), surrogate, t_mid)
        full = sampler(way, steps=8).grid
        steps = list(begun.walk(seeds, None))
        assert [step.t for step in steps] == [t_mid, *full[full < t_mid].tolist()]
        images = torch.from_numpy(np.concatenate([pictures(1, s) for s in seeds])).permute(0, 3, 1, 2) / 127.5 - 1
        expected = surrogate_start(SCHEDULE, images, t_mid, seeds, "start 2")
        torch.testing.assert_close(steps[0].x, expected, rtol=1e-5, atol=1e-6)
        network: Any = begun.denoiser.network
        assert max(float(time.max()) for time in network.seen) == pytest.approx(t_mid - 1, rel=1e-6)
        assert len(network.seen) == begun.evaluations

    def test_at_the_noisiest_time_it_is_plain_sampling_up_to_the_prior(self, way: Any, surrogate: str) -> None:
        """From the same noise: x_T differs by α_T x̃_0 + (σ_T − 1) ε, what L_T measures, and by nothing else."""
        plain = sampler(way, steps=7)
        begun = after(plain, surrogate, SCHEDULE.T)
        seeds = [4, 8, 15]
        found, expected = list(begun.walk(seeds, None)), own_noise(plain, seeds)
        assert [step.t for step in found] == plain.grid.tolist()
        images = torch.from_numpy(np.concatenate([pictures(1, s) for s in seeds])).permute(0, 3, 1, 2) / 127.5 - 1
        left = TABLE[-1] ** 0.5 * images + ((1 - TABLE[-1]) ** 0.5 - 1) * expected[0]
        torch.testing.assert_close(found[0].x - expected[0], left, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpmpp", "unipc"])
def test_the_less_the_prior_leaves_the_less_a_surrogate_there_changes(name: str, surrogate: str) -> None:
    changes = []
    for end in (0.1, 0.3, 0.6):
        plain = sampler(name, exact(Linear(steps=STEPS, beta_end=end)), steps=20)
        begun = after(plain, surrogate, float(STEPS))
        *_, found = begun.walk([4, 8, 15], None)
        changes.append(float((found.x - own_noise(plain, [4, 8, 15])[-1]).abs().max()))
    assert changes[0] > 3 * changes[1] > 9 * changes[2]
    assert changes[2] < 1e-3


ON_AND_OFF_TABLE = ["uniform", "quadratic", "log_snr", "karras", "3,2,2"]


@pytest.mark.parametrize(
    ("schedule", "spacing"),
    [
        *(pytest.param(SCHEDULE, spacing, id=f"60-{spacing}") for spacing in ON_AND_OFF_TABLE),
        *(pytest.param(Linear(), spacing, id=f"1000-{spacing}") for spacing in ON_AND_OFF_TABLE),
        *(pytest.param(EDM(), spacing, id=f"edm-{spacing}") for spacing in ("log_snr", "karras")),
    ],
)
def test_it_may_be_the_noisiest_time_on_every_grid(spacing: str, schedule: Schedule, surrogate: str) -> None:
    """Also where the grid leaves T itself out, or meets it but for rounding: nothing between 0 and T is outside."""
    plain = sampler("ddim", exact(schedule), steps=7, spacing=spacing)
    begun = after(plain, surrogate, schedule.T)
    below = plain.grid[plain.grid < schedule.T * (1 - 1e-9)]
    assert begun.grid.tolist() == pytest.approx([schedule.T, *below.tolist()], rel=1e-9)


ZERO = Linear(steps=STEPS, beta_end=0.3, terminal_snr=0.0)


@pytest.mark.parametrize("way", ["ancestral", "ddim", {"sampler": "ddim", "eta": 1.0}], ids=str)
def test_at_zero_terminal_snr_a_surrogates_image_is_forgotten_wholly(way: Any, surrogate: str) -> None:
    """x_T says nothing of x_0: the walk is plain sampling, to the last bit, and finite."""
    plain = sampler(way, exact(ZERO, "v"), steps=8)
    begun = after(plain, surrogate, ZERO.T)
    found, expected = list(begun.walk([4, 8], None)), own_noise(plain, [4, 8])
    assert torch.isfinite(expected[-1]).all()
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.x, theirs)


@pytest.mark.parametrize("name", ["probability_flow", "heun", "dpmpp", "unipc"])
def test_solvers_that_step_in_log_snr_are_refused_there(name: str) -> None:
    """σ/α = ∞ has no first step; with the first time left out, every walk is finite."""
    with pytest.raises(
        InputError,
        match=r"is undefined where the schedule's SNR is 0.*skip 1",
    ):
        sampler(name, exact(ZERO, "v"), steps=8)
    *_, last = sampler(name, exact(ZERO, "v"), steps=8, skip=1).walk([4, 8], None)
    assert torch.isfinite(last.x).all()


class TestOpening:
    def test_a_function_is_asked_with_seeds_and_labels(self, surrogate: str) -> None:
        begun = after(sampler("ddim", steps=4), surrogate, 0.0)
        labels = np.array([1, 0])
        begun.surrogate.images([6, 2], labels)  # type: ignore[union-attr]
        seeds, given = sys.modules["made_up"].asked[-1]
        assert seeds == [6, 2] and given is labels
        assert begun.surrogate is not None
        assert begun.surrogate.record == {"name": "made_up:images", "sha256": None, "t_mid": 0.0}

    def test_a_module_in_the_working_directory_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "beside_me.py").write_text(
            "import numpy as np\n\n\ndef black(seeds, labels):\n    return np.zeros((len(seeds), 4, 4, 1), np.uint8)\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path])
        begun = after(sampler("ddim", steps=4), "beside_me:black", 0.0)
        assert not begun.generate([0, 1], None).any()
        assert begun.surrogate is not None
        source = (tmp_path / "beside_me.py").read_bytes()
        assert begun.surrogate.record["sha256"] == hashlib.sha256(source).hexdigest()
        sys.modules.pop("beside_me")

    def test_samples_give_image_i_to_seed_i(self, tmp_path: Path) -> None:
        held = pictures(5)
        np.savez(tmp_path / "held.npz", arr_0=held)
        source = opened(str(tmp_path / "held.npz"))
        found = after(sampler("ddim", steps=4), str(tmp_path / "held.npz"), 0.0).generate([3, 0], None)
        np.testing.assert_array_equal(found, held[[3, 0]])
        digest = hashlib.sha256(held.tobytes()).hexdigest()
        assert source.record == {"name": str(tmp_path / "held.npz"), "sha256": digest}
        assert source.evaluations == 0
        with pytest.raises(InputError, match=r"held\.npz: it has 5 images, none for seed 5"):
            source.generate([2, 5], None)

    @pytest.mark.parametrize("t_mid", [-1.0, 60.5, float("nan")])
    def test_t_mid_outside_is_refused(self, surrogate: str, t_mid: float) -> None:
        with pytest.raises(InputError, match=rf"t_mid {t_mid:g}: expected 0 to 60"):
            after(sampler("ddim", steps=4), surrogate, t_mid)

    @pytest.mark.parametrize(
        ("spec", "says"),
        [
            ("no_such_module:images", "surrogate 'no_such_module:images' cannot be imported: No module named"),
            ("made_up:nothing", "surrogate 'made_up:nothing' cannot be imported: .*has no attribute 'nothing'"),
            (":images", "surrogate ':images': expected RUN, module:function, or samples"),
            ("made_up:", "surrogate 'made_up:': expected RUN, module:function, or samples"),
            ("no-such-file.npz", "no-such-file.npz"),
        ],
    )
    def test_what_cannot_be_opened_is_refused(self, surrogate: str, spec: str, says: str) -> None:
        with pytest.raises(InputError, match=says):
            opened(spec)

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("floats", r"gave float64 \(2, 4, 4, 1\), expected uint8 \(2, h, w, c\)"),
            ("few", r"gave uint8 \(1, 4, 4, 1\), expected uint8 \(2, h, w, c\)"),
            ("large", r"surrogate: its images are \(1, 5, 4\), the run's \(1, 4, 4\) \(c, h, w\)"),
            ("coloured", r"surrogate: its images are \(3, 4, 4\), the run's \(1, 4, 4\) \(c, h, w\)"),
        ],
    )
    def test_what_it_gives_must_be_the_runs_images(self, surrogate: str, name: str, says: str) -> None:
        begun = after(sampler("ddim", steps=4), f"made_up:{name}", 30.0)
        with pytest.raises(InputError, match=says):
            begun.generate([0, 1], None)

    def test_a_recipe_cannot_name_one(self, tmp_path: Path) -> None:
        """A recipe travels with a run; opening it must run no code that it names."""
        for key in ("surrogate", "t_mid"):
            with pytest.raises(InputError, match=f"unknown key in sampling '{key}'"):
                parse_sampling({"sampler": "ddim", key: "made_up:images"})
            (tmp_path / "mine.yaml").write_text(
                packaged()["demo"].replace("{sampler: ddim,", f"{{sampler: ddim, {key}: 1,")
            )
            with pytest.raises(InputError, match=f"unknown key in sampling '{key}'"):
                load(tmp_path / "mine.yaml")
        assert "surrogate" not in dump(load("demo"))


def test_the_exact_network_knows_these_levels() -> None:
    """What the tests above rest on: the schedule's levels are the formula's."""
    time = torch.arange(STEPS, dtype=torch.float32)
    for found, expected in zip(schedule_levels(SCHEDULE)(time), tabulated_levels(TABLE)(time), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
