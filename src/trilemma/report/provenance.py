"""What was run and on what: the facts that evaluations share, those that differ, and commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from trilemma.recipes import renamed, sampling_words
from trilemma.report.sources import RunFiles
from trilemma.report.tables import DASH, Evaluation, Row, Table, lookup


def _short(digest: object) -> str:
    """The first half of a hash's first 24 digits: enough to compare by eye."""
    return str(digest)[:12] if digest else ""


def _grouped(count: object) -> str:
    return f"{count:,}".replace(",", " ") if isinstance(count, int) else str(count)


def _join(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part not in (None, ""))


def _sampler(sampler: Mapping[str, Any]) -> str:
    sampler = renamed(sampler)
    steps, eta, spacing = sampler.get("steps"), sampler.get("eta"), sampler.get("spacing")
    clip = {"static": "x₀ clipped", "dynamic": "x₀ clipped dynamically"}.get(str(sampler.get("clip")), "")
    order = sampler.get("order")
    return _join(
        sampler.get("sampler"),
        f"{steps} steps" if steps is not None else "",
        f"η = {eta:g}" if isinstance(eta, int | float) else "",
        f"{spacing} grid" if spacing else "",
        f"order {order}" if order is not None else "",
        "stochastic" if sampler.get("stochastic") else "",
        clip,
        sampler.get("precision"),
    )


def facts(evaluation: Evaluation) -> dict[str, str]:
    """What an evaluation depended on, in words, without the facts that it does not state."""
    get = lambda path: lookup(evaluation, path)  # noqa: E731
    reference, size = get("reference.data"), get("reference.size")
    step, threads, processes = get("subject.checkpoint_step"), get("environment.threads"), get("environment.processes")
    seconds = get("wall_time_s")
    found = {
        "Measured": _join(get("subject.path"), f"recipe {get('subject.recipe')}" if get("subject.recipe") else ""),
        "Model": _join(
            f"{_grouped(get('subject.parameters'))} parameters" if get("subject.parameters") else "",
            f"step {_grouped(step)}" if step is not None else "",
            f"{get('subject.weights')} weights" if get("subject.weights") else "",
        ),
        "Sampler": _sampler(get("sampler")) if isinstance(get("sampler"), Mapping) else "",
        "Samples": _join(
            _grouped(get("samples.count")),
            f"seeds {get('samples.seeds')}" if get("samples.seeds") else "",
            f"classes: {get('samples.classes')}" if get("samples.classes") is not None else "",
        ),
        "Samples file": _join(
            get("samples.file"), f"sha256 {_short(get('samples.sha256'))}" if get("samples.sha256") else ""
        ),
        "Features": _join(
            get("features.name"),
            f"{get('features.dim')} dimensions" if get("features.dim") else "",
            f"resize: {get('features.resize')}" if get("features.resize") else "",
            f"sha256 {_short(get('features.sha256'))}" if get("features.sha256") else "",
        ),
        "Reference": _join(
            f"{reference}:{get('reference.split')}" if get("reference.split") else reference,
            f"{_grouped(get('reference.count'))} images" if get("reference.count") else "",
            f"{size[1]}×{size[2]}, {size[0]} channel{'s' * (size[0] != 1)}"
            if isinstance(size, list) and len(size) == 3 else "",
            f"sha256 {_short(get('reference.sha256'))}" if get("reference.sha256") else "",
        ),
        "Machine": _join(
            get("environment.hardware"),
            f"device {get('environment.device')}" if get("environment.device") else "",
            f"{threads} thread{'s' * (threads != 1)}" if threads else "",
            f"{processes} process{'es' * (processes != 1)}" if processes else "",
        ),
        "Versions": _join(
            *(f"{name} {get(f'environment.{name}')}" for name in ("trilemma", "torch", "python")
              if get(f"environment.{name}"))
        ),
        "Time to measure": f"{seconds:.1f} s" if isinstance(seconds, int | float) else "",
        "Created": str(get("created") or "").replace("T", " ").replace("Z", " UTC"),
    }  # fmt: skip
    return {name: text for name, text in found.items() if text}


def training_facts(log: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What a log says of a training: its length, time, rate and skipped steps."""

    def last(key: str) -> float | None:
        return next((entry[key] for entry in reversed(log) if isinstance(entry.get(key), int | float)), None)

    step, images, seconds = last("step"), last("images"), last("time_s")
    skipped = max((entry["skipped"] for entry in log if isinstance(entry.get("skipped"), int)), default=0)
    validation = last("validation_loss")
    text = _join(
        f"{_grouped(int(step))} steps" if step is not None else "",
        f"{_grouped(int(images))} images seen" if images is not None else "",
        f"{seconds / 60:.1f} minutes" if seconds is not None else "",
        f"{images / seconds:.0f} images/s" if images and seconds else "",
        f"{skipped} non-finite steps skipped" if skipped else "",
        f"validation loss at the end {validation:.4g}" if validation is not None else "",
    )
    return {"Training": text} if text else {}


def _evaluate_command(evaluation: Evaluation) -> str | None:
    kind, path, reference = (lookup(evaluation, p) for p in ("subject.kind", "subject.path", "reference.data"))
    if kind not in ("run", "samples") or not path or not reference:
        return None
    words = ["trilemma", "evaluate", str(path)]
    sampler = lookup(evaluation, "sampler")
    if kind == "run" and isinstance(sampler, Mapping):
        made = {"weights": lookup(evaluation, "subject.weights"), **sampler}
        words += sampling_words(made, lookup(evaluation, "samples.seeds"), lookup(evaluation, "samples.classes"))
    split = lookup(evaluation, "reference.split")
    words += ["--reference", f"{reference}:{split}" if split else str(reference)]
    if lookup(evaluation, "features.name"):
        words += ["--features", str(lookup(evaluation, "features.name"))]
    return shlex.join(words)


def commands(runs: Sequence[RunFiles], rows: Sequence[Row]) -> list[str]:
    """Commands that train and measure the same again, as far as the files say."""
    trained = [
        shlex.join(["trilemma", "train", str(run.path / "recipe.yaml"), "--out", f"{run.path}-again"])
        for run in runs
        if run.recipe
    ]
    return list(dict.fromkeys([*trained, *(c for row in rows if (c := _evaluate_command(row.evaluation)))]))


def _definitions(pairs: Mapping[str, str]) -> str:
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in pairs.items())


def provenance_html(table: Table, runs: Sequence[RunFiles]) -> str:
    """Shared facts as a list, the others as a table with one row an evaluation, then warnings, commands and recipes."""
    stated = [(row, facts(row.evaluation)) for row in table.rows]
    names = list(dict.fromkeys(name for _, known in stated for name in known))
    shared = {}
    for name in names:
        values = {known[name] for _, known in stated if name in known}
        if len(values) == 1:
            shared[name] = values.pop()
    varying = [name for name in names if name not in shared]
    parts = []
    for run in runs:
        trained = training_facts(run.log)
        shared = {
            **({f"Training of {run.path.name}": trained["Training"]} if len(runs) > 1 and trained else trained),
            **shared,
        }
    if shared:
        parts.append(f'<dl class="facts">{_definitions(shared)}</dl>')
    if varying:
        heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in varying)
        body = "".join(
            f'<tr><th scope="row">{escape(row.label)}</th>'
            + "".join(f"<td>{escape(known.get(name, DASH))}</td>" for name in varying)
            + "</tr>"
            for row, known in stated
        )
        parts.append(
            f'<div class="scroll"><table class="details"><thead><tr><td></td>{heads}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
    parts.append(warnings_html(table))
    if todo := commands(runs, table.rows):
        parts.append(f"<h3>The same again</h3><pre>{escape(chr(10).join(todo))}</pre>")
    for run in runs:
        if run.recipe:
            title = f"Recipe of {run.path.name}" if len(runs) > 1 else "Recipe"
            parts.append(f'<h3>{escape(title)}</h3><pre class="recipe">{escape(run.recipe.strip())}</pre>')
    return "".join(parts)


def warnings_html(table: Table) -> str:
    """Every warning of the evaluations, once, with the rows that it is about; empty where there are none."""
    about: dict[str, list[str]] = {}
    for row in table.rows:
        for warning in lookup(row.evaluation, "warnings") or ():
            about.setdefault(str(warning), []).append(row.label)
    if not about:
        return ""
    items = []
    for text, labels in about.items():
        who = "all rows" if len(labels) == len(table.rows) > 1 else ", ".join(labels)
        items.append(f"<li>{escape(text)} <small>({escape(who)})</small></li>")
    return f'<h3 id="warnings">Warnings</h3><ul class="warnings">{"".join(items)}</ul>'
