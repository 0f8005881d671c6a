"""Fill the tables of README and docs from the files under results/.

    python tools/tables.py           write them
    python tools/tables.py --check   exit 1 if one is not what its files say

A table stands between `<!-- KIND: PATH -->` and `<!-- end table -->`. The kinds: `table`, a folder of evaluations;
`seeds`, a folder of evaluations NAME-SEED.json, a row a name; `networks`, a file of `trilemma network --json`; `speed`,
a file of a benchmark against a peer; `bounds`, a folder of `nll`'s files; `figures`, another benchmark's file;
`estimates`, a folder of bench_estimates.py's; `attack`, `mutants` and `survivors`, the files of tools/attack and
tools/mutants.py.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from trilemma.evaluations.record import read
from trilemma.report.table_views import to_markdown
from trilemma.report.tables import build_table

ROOT = Path(__file__).parents[1]


def evaluations(folder: Path) -> str:
    """The evaluations of a folder, in the order they were made."""
    found = [read(path) for path in sorted(folder.glob("*.json"))]
    return to_markdown(build_table(sorted(found, key=lambda evaluation: evaluation.created or "")))


def seeds(folder: Path) -> str:
    """Evaluations of the same networks trained from several seeds: means, and the half of the range they span."""
    named: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*-[0-9].json")):
        named.setdefault(path.stem.rpartition("-")[0], []).append(json.loads(path.read_text()))
    costs = {one["name"]: one for one in json.loads((folder / "costs.json").read_text())["networks"]}
    rows = []
    for name, runs in named.items():
        figures = [run["metrics"] for run in runs]
        cost = costs[f"mnist-{name}"]
        relative = cost["relative_to_first"]
        rows.append(
            [
                name,
                f"{cost['parameters'] / 1e6:.2f}",
                *(spread([m[key] for m in figures], form) for key, form in SHOWN.items()),
                f"{relative['speed']:.2f}",
                f"{relative['training']:.2f}",
            ]
        )
    rows.sort(key=lambda row: float(row[2].split()[0]))
    n = {run["samples"]["count"] for runs in named.values() for run in runs}
    assert len(n) == 1, f"{folder}: distances of {sorted(n)} samples do not compare"
    titles = ["parameters, M", f"FD-{n.pop():,} ↓", "precision ↑", "recall ↑", "speed ↑", "training time ↓"]
    return markdown(["network", *titles], rows)


SHOWN = {"frechet_distance": "{:.2f}", "precision": "{:.3f}", "recall": "{:.3f}"}


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± half the range."""
    return f"{form.format(statistics.mean(values))} ± {form.format((max(values) - min(values)) / 2)}"


def networks(path: Path) -> str:
    """What networks cost, beside what their sources printed."""
    rows = []
    for one in json.loads(path.read_text())["networks"]:
        source = one["source"] or {}
        deviation = one["parameters_deviation"]
        rows.append(
            [
                f"`{one['name']}`",
                f"{one['parameters_mi']:.2f}",
                f"{source['parameters_mi']:.2f}" if source.get("parameters_mi") else "–",
                f"{deviation:+.1%}" if deviation is not None else "–",
                f"{one['multiply_adds'] / 1e9:.2f}",
                f"{one['activations'] / 2**20:.1f}",
                f"{source['fid']:.2f} ({source['paper']})" if source.get("fid") else "–",
            ]
        )
    titles = ["parameters, Mi", "source's", "deviation", "multiply-adds, G", "activations, MiB", "source's FID"]
    return markdown(["recipe", *titles], rows)


def speed(path: Path) -> str:
    """A benchmark's rows: of their keys those that `COLUMNS` has, words first."""
    rows = json.loads(path.read_text())["rows"]
    shown = {key: column for key, column in COLUMNS.items() if key in rows[0]}
    cells = [[show(row[key]) for key, (_, show) in shown.items()] for row in rows]
    return markdown([title for title, _ in shown.values()], cells, words=sum(key in WORDS for key in shown))


def bounds(folder: Path) -> str:
    """Bounds on −log₂ p of the same images, in bits/dim, the best first."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    rows = []
    for one in sorted(found, key=lambda each: each["bits_per_dim"]["total"]["mean"]):
        parts, grid = one["bits_per_dim"], one["grid"]
        steps = f"{grid['steps']:,} steps" if grid["steps"] else "continuous time"
        of = sum(parts[key]["mean"] for key in ("distortion", "entropy") if key in parts)
        rows.append(
            [
                f"`{one['subject']['recipe']}`, {steps}",
                f"{parts['prior']['mean']:.4f}",
                f"{parts['sum']['mean']:.3f}",
                f"{parts['decoder']['mean']:.3f}",
                f"{of:.3f}" if "distortion" in parts else "–",
                f"{parts['total']['mean']:.3f} ± {parts['total']['standard_error']:.3f}",
            ]
        )
    return markdown(["bits/dim", "prior", "diffusion", "decoder", "codec", "total ↓"], rows)


def milliseconds(value: float) -> str:
    return f"{value * 1e3:.1f}"


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "network": ("network", str),
    "batch": ("batch", str),
    "precision": ("precision", str),
    "what": ("what", str),
    "ours_s": ("ours, ms", milliseconds),
    "theirs_s": ("theirs, ms", milliseconds),
    "pixels": ("pixels", "{:.2f}".format),
    "latents": ("latents", "{:.2f}".format),
    "eager_s": ("a batch, ms", milliseconds),
    "compiled_s": ("compiled, ms", milliseconds),
    "evaluations": ("network evaluations", str),
    "images_per_s": ("images/s", "{:.1f}".format),
    "faster": ("times as fast as plain", "{:.2f}".format),
    "ratio": ("ratio", "{:.2f}".format),
    "compile_s": ("compiling, s", "{:.0f}".format),
    "seconds": ("a step, s", "{:.2f}".format),
    "memory": ("memory, MiB", lambda value: f"{value / 2**20:,.0f}"),
    "time_ratio": ("time", "{:.2f}".format),
    "memory_ratio": ("of the memory", "{:.2f}".format),
    "classifier_free_ratio": ("classifier-free", "{:.3f}".format),
    "classifier_ratio": ("by a classifier", "{:.3f}".format),
    "autoguidance_ratio": ("autoguidance", "{:.3f}".format),
}
WORDS = ("network", "batch", "precision", "what")


FIGURES = {
    "statistics_cpu_s": "statistics of one set, one pass, CPU seconds",
    "statistics_gib": "its memory beyond the features, GiB",
    "trace_cpu_s": "the distance's trace term, CPU seconds",
    "sqrtm_cpu_s": "the same by `scipy.linalg.sqrtm`, CPU seconds",
    "trace_ratio": "ratio",
    "singular_trace_cpu_s": "the trace term of singular covariances (half as many images as features), CPU seconds",
    "trace_difference": "relative difference of the two",
    "precision_recall_cpu_s": "precision and recall, CPU seconds",
    "precision_recall_gib": "its memory beyond the features, GiB",
    "precision_recall_all_cpu_s": "precision and recall of all images a side, CPU seconds",
    "precision_recall_all_gib": "its memory beyond the features, GiB",
}


def figures(path: Path) -> str:
    """A benchmark's figures, one a row."""
    found = json.loads(path.read_text())
    counts = f"{found['count']:,} × {found['dim']:,} features, {found['threads']} thread"
    few = f" ({found['precision_recall_count']:,} images a side)"
    rows = [
        [words + (few if key == "precision_recall_cpu_s" else ""), f"{found[key]:.3g}"]
        for key, words in FIGURES.items()
        if key in found
    ]
    return markdown([counts, ""], rows)


def estimates(folder: Path) -> str:
    """What trainings were estimated to take, and what they took."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        one = json.loads(path.read_text())
        told, took = one["estimated"], one["actual"]
        rows.append(
            [
                one["recipe"],
                f"{one['steps']:,}",
                *(f"{each['seconds']:.1f}" for each in (told, took)),
                f"{told['seconds'] / took['seconds']:.2f}",
                *(f"{each['peak_memory'] / 2**20:,.0f}" for each in (told, took)),
                f"{told['peak_memory'] / took['peak_memory']:.2f}",
            ]
        )
    titles = ["steps", "seconds, estimated", "taken", "ratio", "MiB, estimated", "taken", "ratio"]
    return markdown(["training", *titles], rows)


def attack(path: Path) -> str:
    """What was tried and what survived, by class, and the faults by kind."""
    found = json.loads(path.read_text())
    rows = [[one["class"], f"{one['tried']:,}", f"{one['survived']:,}"] for one in found["classes"]]
    tried, survived = (sum(one[key] for one in found["classes"]) for key in ("tried", "survived"))
    return markdown([f"as {found['as']}", "tried", "survived"], [*rows, ["all", f"{tried:,}", f"{survived:,}"]])


def mutants(path: Path) -> str:
    """How many mutants were killed, by room: when they were drawn, and since."""
    kept = json.loads(path.read_text())
    found: dict[str, tuple[int, int, int]] = {}
    for one in (one for run in kept["runs"] for one in run["rooms"]):
        since = sum(
            mutant["now"] == "killed"
            for mutant in kept["survivors"]
            if mutant["module"].startswith({"learners": "training"}.get(one["room"], one["room"]))
        )
        tried, before, _ = found.get(one["room"], (0, 0, 0))
        found[one["room"]] = (tried + one["tried"], before + one["killed"], since)
    found["all"] = tuple(map(sum, zip(*found.values(), strict=True)))
    rows = [
        [room, f"{before} of {tried}", f"{before + since} of {tried}"] for room, (tried, before, since) in found.items()
    ]
    return markdown(["killed", "before", "after"], rows)


def survivors(path: Path) -> str:
    """The mutants that survived at some time, and what is thought of them."""
    rows = [
        [f"`{one['module']}:{one['line']}`", f"`{one['was']}`", f"`{one['became']}`", one["now"], one["judgement"]]
        for one in json.loads(path.read_text())["survivors"]
    ]
    return markdown(
        ["place", "was", "became", "now", "judgement"], [[c.replace("|", "\\|") for c in r] for r in rows], 5
    )


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A Markdown table whose first `words` columns are words and the others figures."""
    rule = ["---"] * words + ["---:"] * (len(titles) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, rule, *rows])


KINDS: dict[str, Callable[[Path], str]] = {
    "table": evaluations,
    "seeds": seeds,
    "networks": networks,
    "speed": speed,
    "bounds": bounds,
    "figures": figures,
    "estimates": estimates,
    "attack": attack,
    "mutants": mutants,
    "survivors": survivors,
}
PLACE = re.compile(rf"(<!-- ({'|'.join(KINDS)}): (\S+) -->\n).*?(<!-- end table -->)", re.DOTALL)


def filled(text: str) -> str:
    """The text with every table as its files say now."""
    return PLACE.sub(lambda match: f"{match[1]}\n{KINDS[match[2]](ROOT / match[3]).strip()}\n\n{match[4]}", text)


def main() -> None:
    stale = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        if filled(text) != text:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(filled(text))
    print(f"{'stale' if '--check' in sys.argv else 'written'}: {', '.join(stale) or 'none'}")
    sys.exit(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    main()
