"""What a network and its training would take is known before they are built."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from trilemma.data import outline
from trilemma.errors import InputError
from trilemma.jobs.dry_run import check_memory, dry_run
from trilemma.jobs.network_costs import anatomy, resolve
from trilemma.machine import devices
from trilemma.recipes import Recipe, load, packaged
from trilemma.runs import estimate
from trilemma.runs.build import build_network, completed, parameter_count

pytestmark = pytest.mark.usefixtures("at_once")


def demo(*overrides: str) -> Recipe:
    return completed(load("demo", [f"network.{override}" for override in overrides]), outline("mnist5k"))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["base_channels=100000"], "7,150,028,800,004 parameters take 26,635.9 GiB of memory, and there are "),
        (["blocks=1000000"], "more than 5,000 weight tensors"),
        (["block=double", "repeats=1000000"], "more than 5,000 weight tensors"),
        (["base_channels=10000000000"], "more than 2⁶³ bytes"),
        (["base_channels=9223372036854775807"], "more than 2⁶³ bytes"),
        (["base_channels=100000000000000000000000000"], "more than 2⁶³ bytes"),
        (["multipliers=[1, 1e300]"], "more than 2⁶³ bytes"),
    ],
)
def test_a_network_that_cannot_be_is_refused_unbuilt(overrides: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        build_network(demo(*overrides))
    assert says in str(caught.value)


def test_so_it_is_where_networks_are_built_of_nothing() -> None:
    with pytest.raises(InputError, match="parameters take"):
        anatomy(demo("base_channels=100000"))


@pytest.mark.parametrize("name", [name for name in sorted(packaged()) if name.startswith("mnist") or name == "demo"])
def test_the_estimate_is_what_is_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = resolve(name)
    count = parameter_count(build_network(recipe))
    monkeypatch.setattr(estimate, "memory", lambda: 4 * count)
    build_network(recipe)
    monkeypatch.setattr(estimate, "memory", lambda: 4 * count - 1)
    with pytest.raises(InputError, match=f"network: {count:,} parameters take "):
        build_network(recipe)


def test_the_estimate_leaves_no_trace() -> None:
    """The weights are those that the seed gives without it."""
    recipe = demo()
    torch.manual_seed(0)
    found = build_network(recipe).state_dict()
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trilemma.runs.build.check_network", lambda build: None)
        expected = build_network(recipe).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    nn.Linear(2, 2)
    assert not torch.nn.modules.module._global_parameter_registration_hooks


class TestTraining:
    def test_of_too_many_images_at_once_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe, found = demo(), anatomy(demo())
        assert recipe.training.micro_batch is None and recipe.training.ema and recipe.training.precision == "bf16"
        needed = found.parameters * 4 * 5 + (found.activations / 2 + 28 * 28 * 4) * recipe.training.batch
        for there, enough in ((needed, True), (needed - 1, False)):
            monkeypatch.setattr(devices, "memory", lambda there=there: there)
            if enough:
                check_memory(recipe, torch.device("cpu"), 1)
            else:
                with pytest.raises(InputError, match=r"training\.batch \d+: takes .* GiB of memory"):
                    check_memory(recipe, torch.device("cpu"), 1)
        check_memory(recipe, torch.device("cpu"), 2)  # each process takes its share

    @pytest.mark.parametrize("settings", [{"micro_batch": 1}, {"batch": 2}])
    def test_of_fewer_is_not(self, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "memory", lambda: 2**26)
        overrides = [f"training.{key}={value}" for key, value in settings.items()]
        recipe = completed(load("demo", overrides), outline("mnist5k"))
        check_memory(recipe, torch.device("cpu"), 1)

    def test_counts_the_images_of_a_step_however_few_are_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "memory", lambda: 2**30)
        overrides = ["training.micro_batch=1", "training.batch=1000000"]
        recipe = completed(load("demo", overrides), outline("mnist5k"))
        with pytest.raises(InputError, match=r"training\.batch 1000000: takes 2\.9 GiB .* 2\.9 for images"):
            check_memory(recipe, torch.device("cpu"), 1)

    def test_is_held_against_the_memory_of_its_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the GPU has in all, not what is free of it just now."""
        asked = []

        def info(device: torch.device) -> tuple[int, int]:
            asked.append(device)
            return 0, 2**30

        monkeypatch.setattr(torch.cuda, "mem_get_info", info)
        monkeypatch.setattr(devices, "memory", lambda: 0)
        check_memory(demo(), torch.device("cuda", 1), 1)
        large = completed(load("demo", ["training.batch=4096"]), outline("mnist5k"))
        with pytest.raises(InputError, match=r"training\.batch 4096: takes .* and there are 1\.0 GiB"):
            check_memory(large, torch.device("cuda", 1), 1)
        assert asked == [torch.device("cuda", 1)] * 2

    def test_is_told_by_a_dry_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "memory", lambda: 2**26)
        text = dry_run("demo", ["training.batch=4096"])
        assert re.search(r"# refused here: training\.batch 4096: takes .* GiB of memory .* 0\.1 GiB", text)
