"""The package as a whole: who imports whom, what importing costs, what the wheel holds, what is pinned."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "trilemma"


def run(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its output captured as text."""
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def lint_imports(cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # Called as its console script does it: the script itself need not be on PATH.
    call = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    config = str(ROOT / ".importlinter")
    return run(sys.executable, "-c", call, "--config", config, "--no-cache", cwd=cwd, **environment)


class TestImportContract:
    def test_is_kept(self) -> None:
        result = lint_imports(ROOT)
        assert result.returncode == 0, result.stdout + result.stderr

    def test_notices_what_it_forbids(self, tmp_path: Path) -> None:
        forbidden = {  # who imports whom
            "networks": "process",
            "process": "samplers",
            "objectives": "samplers",
            "guidance": "samplers",
            "metrics": "data",
            "training": "metrics",
            "recipes": "runs",
            "runs": "report",
            "studies": "report",
            "report": "cli",
            "machine": "process",
            "evaluations": "exchange",
            "jobs": "report",
            "errors": "networks",
        }
        rooms = {*forbidden, *forbidden.values(), "exchange", "data", "inventory", "parts", "registry"}
        for room in rooms:
            (tmp_path / "trilemma" / room).mkdir(parents=True)
            lines = f"import trilemma.{forbidden[room]}\n" if room in forbidden else ""
            (tmp_path / "trilemma" / room / "__init__.py").write_text(lines)
        (tmp_path / "trilemma" / "attic").mkdir()
        (tmp_path / "trilemma" / "attic" / "__init__.py").touch()
        (tmp_path / "trilemma" / "__init__.py").touch()

        result = lint_imports(tmp_path, PYTHONPATH=str(tmp_path))

        assert result.returncode != 0
        assert "trilemma.attic" in result.stdout, "a room without a place in the contract goes unnoticed"
        unnoticed = [
            f"{importer} -> {imported}"
            for importer, imported in forbidden.items()
            if f"trilemma.{importer} -> trilemma.{imported}" not in result.stdout
        ]
        assert not unnoticed, result.stdout


class TestImport:
    def test_of_the_package_leaves_torch_alone(self) -> None:
        # `trilemma --help` and shell completion wait for what the package itself imports.
        heavy = "{'torch', 'scipy', 'sklearn', 'matplotlib', 'jinja2', 'accelerate'}"
        result = run(sys.executable, "-c", f"import sys, trilemma; print(sorted({heavy} & sys.modules.keys()))")
        assert result.stdout.strip() == "[]", result.stdout + result.stderr

    def test_of_every_exported_name_gives_it(self) -> None:
        """Editors and type checkers are told the same names."""
        import trilemma

        assert len(set(trilemma.__all__)) == len(trilemma.__all__) >= 30
        assert all(getattr(trilemma, name) is not None for name in trilemma.__all__)
        (block,) = (node for node in ast.parse(Path(trilemma.__file__).read_text()).body if isinstance(node, ast.If))
        told = {alias.name: node.module for node in block.body for alias in node.names}  # type: ignore[attr-defined]
        assert told == trilemma._HOMES

    def test_of_an_unknown_name_fails_as_python_does(self) -> None:
        import trilemma

        with pytest.raises(AttributeError, match="no_such_name"):
            trilemma.no_such_name  # noqa: B018

    def test_knows_its_version(self) -> None:
        import trilemma

        declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        assert trilemma.__version__ == declared == version("trilemma")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network from a copy, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(SOURCE, folder / "src" / "trilemma", ignore=shutil.ignore_patterns("__pycache__"))
    result = run(sys.executable, "-c", "from setuptools.build_meta import build_wheel; build_wheel('dist')", cwd=folder)
    assert result.returncode == 0, result.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


class TestWheel:
    def test_is_pure_python(self, wheel: Path) -> None:
        assert wheel.name.endswith("-py3-none-any.whl")
        with zipfile.ZipFile(wheel) as archive:
            (tags,) = (name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
            assert "Root-Is-Purelib: true" in archive.read(tags).decode()

    def test_holds_every_file_of_the_package(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            packed = {name for name in archive.namelist() if name.startswith("trilemma/")}
        source = {
            path.relative_to(SOURCE.parent).as_posix()
            for path in SOURCE.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert packed == source
        assert "trilemma/py.typed" in packed
        assert "trilemma/recipes/demo.yaml" in packed
        assert any(name.startswith("trilemma/metrics/weights/") for name in packed)

    def test_carries_licence_and_command(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            files = {name.partition(".dist-info/")[2]: name for name in archive.namelist()}
            assert "Apache License" in archive.read(files["licenses/LICENSE"]).decode()
            assert "trilemma = trilemma.cli:main" in archive.read(files["entry_points.txt"]).decode()


def test_every_dependency_is_pinned_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): pin for name, pin in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    declared = [Requirement(text) for text in [*project["dependencies"], *(text for extra in extras for text in extra)]]
    astray = [
        str(requirement)
        for requirement in declared
        if requirement.name != "trilemma"
        and not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0"))
    ]
    assert not astray
