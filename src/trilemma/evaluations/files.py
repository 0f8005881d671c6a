"""Evaluation files: where one goes, and what of an earlier one it keeps."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trilemma.data.trees import open_store
from trilemma.errors import InputError
from trilemma.evaluations.judge import unlike
from trilemma.evaluations.record import FORMAT, Evaluation, read
from trilemma.machine.files import check_writable, sha256
from trilemma.metrics import METRICS
from trilemma.recipes.sampling import FOLLOWED, parse_sampling
from trilemma.runs.sample_sets import identity, record_of


def default_out(run: Path | None, evaluation: Evaluation, features: str | None, name: str | None = None) -> Path:
    """A place of its own for each set of samples (`name`, or their file's), reference and features (by the name that
    was asked for; weights that a path led to are told apart by their hash)."""
    against, look, samples = evaluation.reference, evaluation.features, Path(evaluation.samples.file or "")
    parts = [Path(against.data or "").stem, against.split or "", look.name or ""]
    parts += [(look.sha256 or "")[:8]] if features and ":" in features else []
    basis = "-".join(re.sub(r"[^\w.]+", "-", part).strip("-.") for part in parts if part)
    if run is None:
        return samples.with_name(f"{samples.name}-vs-{basis}.json")
    return run / "evaluations" / f"{name or samples.stem}-vs-{basis}.json"


def samples_sha256(path: Path) -> str:
    """The hash of a file of samples, or of a folder's content: the sorted names of its images, and of the labels in
    `dataset.json`, each with its bytes. Raises InputError for what is neither."""
    if path.is_file():
        return sha256(path)
    names = {*open_store(path).images(), *(found.relative_to(path).as_posix() for found in path.rglob("dataset.json"))}
    digest = hashlib.sha256()
    for name in sorted(names):
        # Hashes have one length each, so that no other names and bytes come to the same text.
        digest.update(hashlib.sha256(name.encode()).digest() + bytes.fromhex(sha256(path / name)))
    return digest.hexdigest()


def check_out(out: str | Path | None, subject: Path | None, reference: str) -> None:
    """Raises InputError for an `out` that is what is measured, or what it is measured against, or no .json, or cannot
    be written."""
    if out is None:
        return
    out = Path(out)
    inputs = [("the reference", Path(reference)), ("the reference", Path(reference.rpartition(":")[0] or reference))]
    if subject is not None:
        inputs += [("what is measured", subject), ("the record of the samples", record_of(subject))]
    for what, path in inputs:
        if out.resolve() == path.resolve():
            raise InputError(f"out: {out} is {what}, which would be overwritten; expected another FILE.json")
    check_writable(out, suffix=".json", format=FORMAT)


def with_kept(place: Path, evaluation: Evaluation) -> Evaluation:
    """The evaluation with those figures of an earlier one of the very same in `place` that asking for other metrics
    must not lose, and with the earlier warnings and records of held-out images and classifier that belong to them.

    Kept are figures that depended on what the evaluation has: precision and recall of the same k, speed and memory of
    the same machine, memorisation of the same held-out images."""
    try:
        found = read(place)
    except InputError:
        return evaluation
    if not _of_the_same(found, evaluation):
        return evaluation
    reference, held = evaluation.reference, found.reference.holdout
    if reference.holdout is None and held is not None:
        reference = reference.model_copy(update={"holdout": held})
    classifier = evaluation.classifier or found.classifier
    both = evaluation.model_copy(
        update={"reference": reference, "classifier": classifier, "metrics": found.metrics | evaluation.metrics}
    )
    gone = {key for name, metric in METRICS.items() if unlike(name, found, both) for key in metric.keys}
    kept = {key: value for key, value in found.metrics.items() if key not in evaluation.metrics.keys() | gone}
    if not kept:
        return evaluation
    return evaluation.model_copy(
        update={
            "reference": reference if "memorisation" in kept else evaluation.reference,
            "classifier": classifier
            if any("classifier" in METRICS[key].basis for key in kept.keys() & METRICS.keys())
            else evaluation.classifier,
            "metrics": kept | evaluation.metrics,
            "warnings": tuple(dict.fromkeys([*evaluation.warnings, *found.warnings])),
        }
    )


def written_in(folder: Path) -> list[Evaluation]:
    """The evaluations that lie in the folder, the newest first. What is none is passed over."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with suppress(InputError):
            found.append(read(path))
    return sorted(found, key=lambda one: one.created or "", reverse=True)


def is_of_set(evaluation: Evaluation, record: Mapping[str, Any]) -> bool:
    """Whether an evaluation measured the sample set of this record (`Run.record`), as plain JSON.

    The set is known by the hash of the weights, its seeds, the classes asked for and all else that its images depend
    on, whatever a file is called; a setting that a file does not state was at its default when it was written."""
    subject, samples, asked = evaluation.subject, evaluation.samples, record["sampler"]
    made = evaluation.sampler.model_dump(mode="json") if evaluation.sampler else {}
    basis = (subject.weights_sha256, samples.seeds_in_words, samples.classes)
    return (
        basis == (record["weights_sha256"], record["seeds"], record["classes"])
        and all(identity(made.get(key)) == identity(asked.get(key)) for key in FOLLOWED)
        and _settings({"weights": subject.weights, **made}) == _settings(asked)
    )


def _settings(recorded: Mapping[str, Any]) -> dict[str, Any] | None:
    """The sampling settings of a record, complete; None where they are none of today's."""
    with suppress(InputError):
        return parse_sampling({key: value for key, value in recorded.items() if key not in FOLLOWED}).recorded()
    return None


def _of_the_same(a: Evaluation, b: Evaluation) -> bool:
    """Whether two evaluations are of the same images, features and reference, by hashes that are known: where one is
    not, nothing says so."""
    if None in (a.samples.sha256, a.features.sha256, a.reference.sha256):
        return False
    parts = [
        (one.samples.sha256, one.features, one.reference.model_copy(update={"holdout": None}).model_dump(mode="json"))
        for one in (a, b)
    ]
    return parts[0] == parts[1]
