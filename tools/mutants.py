"""Break the code in small ways and see whether the tests notice: cosmic-ray's mutations, judged by the tests that
mirror each module.

    python tools/mutants.py [--mutants 60] [--seed 1] [--minutes 8] [--room process] [--survivors]

Works on a copy in a temporary folder. Places are drawn by the seed (one that has not been drawn by yet), as many a
room, and one mutation for each; a mutant that the tests neither fail on nor run out of time on has survived.
`results/reliability/mutants.json` gets one entry more under `runs`, and under `survivors` every mutant that ever
survived: what became of it since, and the `judgement` that a person writes there. `--survivors` tries those that
survive so far once more, with the tests as they are now, less those that are judged to be equivalent.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", MPLBACKEND="agg")

# What every mutant's tests would import: in their forks it is there already. Nothing of trilemma, which differs.
import hypothesis  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import sklearn.neighbors  # noqa: F401
import torch._dynamo  # noqa: F401
from accelerate import Accelerator  # noqa: F401
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "reliability" / "mutants.json"

ROOMS = {
    "process": ["process/*.py"],
    "objectives": ["objectives/*.py"],
    "samplers": ["samplers/*.py"],
    "learners": ["training/learners.py", "training/denoising.py", "training/classifying.py"],
    "metrics": [f"metrics/{name}.py" for name in ("balance", "density_coverage", "frechet", "inception_score", "kid")]
    + [f"metrics/{name}.py" for name in ("memorisation", "neighbours", "precision_recall", "statistics")],
}
"""What is mutated, below src/trilemma."""

JUDGES = {
    "process": [f"process/test_{name}.py" for name in ("calling", "exact", "condition", "edm")]
    + ["proofs/test_closed_forms.py"],
    "objectives": ["objectives/test_simple.py", "objectives/test_weightings.py", "objectives/test_variational.py"],
    "samplers": [f"samplers/test_{name}.py" for name in ("walk", "ddim", "sampler", "solver_agreement")]
    + ["runs/test_not_finite.py"],
    "learners": ["training/test_learners.py", "training/test_loop.py"],
    "metrics": ["metrics/test_properties.py"],
}
"""The tests that judge a room's modules, below tests/, after those that are named for the module."""

# They need arguments, or change what is written rather than what is done.
LEFT_OUT = ("VariableReplacer", "VariableInserter", "RemoveDecorator", "ExceptionReplacer", "BitOr")


def places(module: Path) -> list[list[tuple[str, int]]]:
    """The mutations (operator, occurrence) at each place of a module."""
    found: dict[Any, list[tuple[str, int]]] = {}
    text = module.read_text()
    tree, provider, said = get_ast(text), OperatorProvider(), decorated(text)
    for name in provider:
        if not any(part in name for part in LEFT_OUT):
            positions = [at for node in ast_nodes(tree) for at in provider[name]().mutation_positions(node)]
            for occurrence, at in enumerate(positions):
                if at[0][0] not in said:
                    found.setdefault(at, []).append((name, occurrence))
    return list(found.values())


def decorated(text: str) -> set[int]:
    """The lines of decorators: `@dataclass(frozen=True)` and the like say to the reader what nothing depends on."""
    made = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef | ast.FunctionDef))
    each = (decorator for node in made for decorator in node.decorator_list)
    return {line for one in each for line in range(one.lineno, (one.end_lineno or one.lineno) + 1)}


def drawn(room: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Mutants of a room, in the seed's order: a module and its mutated code."""
    base = ROOT / "src" / "trilemma"
    modules = sorted(path for pattern in ROOMS[room] for path in base.glob(pattern))
    everywhere = [(module, place) for module in modules for place in places(module)]
    rng.shuffle(everywhere)
    for module, place in everywhere:
        operator, occurrence = rng.choice(place)
        code = mutate_code(module.read_text(), OperatorProvider()[operator](), occurrence)
        try:
            compile(code, module.name, "exec")
        except (SyntaxError, TypeError):
            continue
        yield module.relative_to(base).as_posix(), code


def judges(room: str, module: str) -> list[str]:
    """The tests that judge a module: those named for it first, since the first failure ends it."""
    named = (ROOT / "tests" / Path(module).parent).glob(f"test_{Path(module).stem.rstrip('s')}*.py")
    tests = [
        *(path.relative_to(ROOT).as_posix() for path in sorted(named)),
        *(f"tests/{name}" for name in JUDGES[room]),
    ]
    return list(dict.fromkeys(tests))


def tested(copy: Path, tests: list[str], seconds: float) -> str:
    """What the tests say of the copy, run in a fork: `passed`, `failed` or `timeout`."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        os.chdir(copy)
        sys.path[:0] = [str(copy / "src"), str(copy)]
        os.environ["PYTHONPATH"] = str(copy / "src")
        os._exit(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests])))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "failed" if status else "passed"
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "timeout"


def change(before: str, after: str) -> dict[str, Any]:
    """The line that a mutation changes, and what it becomes."""
    old, new = before.splitlines(), after.splitlines()
    for tag, i, k, j, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            return {"line": i + 1, "was": "\n".join(old[i:k]).strip(), "became": "\n".join(new[j:m]).strip()}
    raise AssertionError("nothing is changed")


def sampled(rooms: list[str], seed: int) -> Iterator[tuple[str, str, str]]:
    """Mutants of the rooms in turn: room, module, its mutated code."""
    sources = {room: drawn(room, random.Random(f"{seed} {room}")) for room in rooms}
    while sources:
        for room in list(sources):
            if (mutant := next(sources[room], None)) is None:
                del sources[room]
            else:
                yield room, *mutant


def survived(survivors: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """The mutants that survive so far, less the equivalent ones and those whose code has changed since."""
    for one in survivors:
        lines = (ROOT / "src" / "trilemma" / one["module"]).read_text().splitlines(keepends=True)
        at = one["line"] - 1
        tried = one["now"] == "survives" and not one["judgement"].startswith("equivalent")
        if tried and "".join(lines[at:]).lstrip().startswith(one["was"]):
            code = "".join(lines[:at]) + "".join(lines[at:]).replace(one["was"], one["became"], 1)
            yield room_of(one["module"]), one["module"], code


def room_of(module: str) -> str:
    """The room that a mutated module is of."""
    return next(room for room in ROOMS if ROOMS[room][0].startswith(module.split("/")[0]))


def main() -> None:
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"runs": [], "survivors": []}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=60, help="how many in all")
    parser.add_argument("--seed", type=int, default=len(kept["runs"]))
    parser.add_argument("--minutes", type=float, default=8.0, help="after which none is begun")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds a mutant; it counts as killed then")
    parser.add_argument("--room", choices=ROOMS, action="append", help="only this; repeatable")
    parser.add_argument("--survivors", action="store_true", help="those that survive so far once more")
    asked = parser.parse_args()
    if asked.seed in (run["seed"] for run in kept["runs"]) and not asked.survivors:
        parser.error(f"--seed {asked.seed} has been drawn by: choose another, or --survivors")
    known = {(one["module"], one["was"], one["became"]): one for one in kept["survivors"]}
    scores = {room: {"room": room, "tried": 0, "killed": 0} for room in asked.room or ROOMS}
    sound: set[tuple[str, ...]] = set()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        for name in ("src", "tests", "docs", "tools"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        drawn_now = sampled(list(scores), asked.seed)
        for room, module, code in survived(kept["survivors"]) if asked.survivors else islice(drawn_now, asked.mutants):
            if time.monotonic() - began > 60 * asked.minutes:
                break
            place = copy / "src" / "trilemma" / module
            original = place.read_text()
            told = {"module": module, **change(original, code)}
            entry = known.get((module, told["was"], told["became"]))
            if entry is not None and not asked.survivors:
                continue  # it has been counted
            place.write_text(code)
            tests = judges(room, module)
            verdict = tested(copy, tests, asked.limit)
            place.write_text(original)
            # Only tests that pass when nothing is broken can notice that something is.
            if verdict != "passed" and tuple(tests) not in sound:
                if (whole := tested(copy, tests, asked.limit)) != "passed":
                    print(f"not judged: {whole} as it is: {' '.join(tests)}", flush=True)
                    continue
                sound.add(tuple(tests))
            print(f"{verdict:8}{module}:{told['line']}  {told['was']}  ->  {told['became']}", flush=True)
            if room in scores:
                scores[room]["tried"] += 1
                scores[room]["killed"] += verdict != "passed"
            if entry is not None:
                entry.update(told, now="survives" if verdict == "passed" else "killed")
            elif verdict == "passed":
                kept["survivors"].append({**told, "now": "survives", "judgement": "not judged yet"})
    score = {key: sum(one[key] for one in scores.values()) for key in ("tried", "killed")}
    if not asked.survivors:
        kept["runs"].append({"seed": asked.seed, **score, "rooms": list(scores.values())})
    kept["tool"] = f"cosmic-ray {version('cosmic_ray')}"
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(
        f"{score['killed']} of {score['tried']} killed in {time.monotonic() - began:.0f} s: {RESULTS.relative_to(ROOT)}"
    )


if __name__ == "__main__":
    main()
