from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import trilemma.metrics as metrics
from trilemma.errors import InputError
from trilemma.metrics import (
    METRICS,
    Features,
    MetricWarning,
    ReferenceFeatures,
    Speed,
    TooFewError,
    check_needs,
    compute,
    gathered_cautions,
)

SPEED = Speed(80.0, 70.0, 90.0, batch=16, repeats=3, warmup=1, network_evaluations=10, multiply_adds=5, peak_memory=6)


def features(seed: int, n: int, logits: bool = True, spatial: bool = False) -> Features:
    rng = np.random.default_rng(seed)
    pooled = rng.standard_normal((n, 6)).astype(np.float32)
    more = rng.standard_normal((n, 3)).astype(np.float32) if logits else None
    return Features(pooled, more, spatial=rng.standard_normal((n, 4)).astype(np.float32) if spatial else None)


REAL, FAKE = ReferenceFeatures.of(features(0, 200)), features(1, 150)
LABELS = np.arange(150) % 3


def test_everything_at_once_gives_the_keys_of_an_evaluation():
    real = ReferenceFeatures.of(features(0, 200, spatial=True), holdout=features(2, 120))
    values = compute(
        None, real=real, fake=features(1, 150, spatial=True), labels=LABELS, sampler=lambda: SPEED, counts=[50, 150]
    )
    assert set(values) <= {key for metric in METRICS.values() for key in metric.keys}
    assert set(values) >= {key for name, metric in METRICS.items() for key in (name, *metric.details)}
    assert set(values) >= {
        "frechet_distance", "frechet_distance_se", "frechet_infinity", "frechet_infinity_se", "frechet_by_count",
        "sfid", "sfid_se", "kid", "kid_se", "kid_std", "kid_full", "inception_score", "inception_score_std",
        "precision", "precision_se", "recall", "recall_se", "density", "density_se", "coverage", "coverage_se",
        "memorisation", "memorisation_ratio", "memorisation_z", "recognised", "recognised_se", "recognised_by_class",
        "confidence", "confident", "confidence_by_class", "confident_by_class", "class_counts",
        "balance_kl", "balance_kl_se", "balance_chi2", "balance_p", "images_per_second", "seconds_per_image",
        "network_evaluations", "multiply_adds", "peak_memory_bytes", "peak_memory_kind",
    }  # fmt: skip
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_figures_are_those_of_the_measures():
    values = compute(None, real=REAL, fake=FAKE, labels=LABELS, sampler=lambda: SPEED, neighbours=5)
    pair = metrics.precision_recall(real=REAL.features.pooled, fake=FAKE.pooled, k=5)
    assert {key: values[key] for key in vars(pair)} == vars(pair)
    fake = metrics.Statistics.of(FAKE.pooled)
    assert values["frechet_distance"] == metrics.frechet_distance(real=REAL.statistics, fake=fake)
    assert values["frechet_distance_se"] == metrics.frechet_standard_error(real=REAL.statistics, fake=FAKE.pooled)
    assert values["frechet_infinity"] == metrics.frechet_infinity(real=REAL.statistics, fake=FAKE.pooled).distance
    assert values["kid"] == metrics.kid(real=REAL.features.pooled, fake=FAKE.pooled).mean
    assert values["inception_score"] == metrics.inception_score(fake=FAKE.logits).mean
    covered = metrics.density_coverage(real=REAL.features.pooled, fake=FAKE.pooled)
    assert {key: values[key] for key in vars(covered)} == vars(covered)
    assert values["confidence"] == metrics.recognisability_by_class(FAKE.logits).confidence
    assert values["recognised"] == metrics.recognised(FAKE.logits, LABELS).fraction
    assert values["class_counts"] == metrics.class_counts(FAKE.logits).tolist()
    assert (values["images_per_second"], values["seconds_per_image"], values["speed_batch"]) == (80, 1 / 80, 16)


def test_spatial_features_and_held_out_images_have_their_measures():
    theirs, ours, held = features(0, 200, spatial=True), features(1, 150, spatial=True), features(2, 120)
    real = ReferenceFeatures.of(theirs, holdout=held)
    values = compute(["sfid", "memorisation", "frechet_by_count"], real=real, fake=ours, counts=[150, 20])
    of_spatial = [metrics.Statistics.of(x.spatial) for x in (theirs, ours)]
    assert values["sfid"] == metrics.frechet_distance(real=of_spatial[0], fake=of_spatial[1])
    found = metrics.memorisation(real=theirs.pooled, fake=ours.pooled, holdout=held.pooled)
    assert (values["memorisation"], values["memorisation_z"]) == (found.share, found.z)
    assert [count for count, _ in values["frechet_by_count"]] == [20, 150]
    assert values["frechet_by_count"][-1][1] == pytest.approx(
        compute(["frechet_distance"], real=real, fake=ours)["frechet_distance"], rel=1e-9
    )


def test_statistics_of_spatial_features_serve_sfid():
    spatial = metrics.Statistics.of(features(0, 200, spatial=True).spatial)
    ours = features(1, 150, spatial=True)
    values = compute(["sfid"], real=ReferenceFeatures(REAL.statistics, spatial=spatial), fake=ours)
    assert values["sfid"] == metrics.frechet_distance(real=spatial, fake=metrics.Statistics.of(ours.spatial))


def test_only_what_is_asked_is_computed():
    def sampler():
        pytest.fail("the sampler was timed")

    assert set(compute(["recall"], real=REAL, fake=FAKE, sampler=sampler)) == {"recall", "recall_se"}
    found = compute(["recognised"], real=REAL, fake=FAKE, labels=LABELS)
    assert set(found) == {"recognised", "recognised_se", "recognised_by_class"}


def test_a_joint_measure_runs_once(monkeypatch):
    calls = []
    original = metrics.catalogue.overlap
    monkeypatch.setattr(metrics.catalogue, "overlap", lambda **a: calls.append(a) or original(**a))
    compute(["precision", "recall", "coverage", "precision"], real=REAL, fake=FAKE)
    compute(["density"], real=REAL, fake=FAKE)
    assert [(sorted(call["real_ks"]), call["fake_ks"]) for call in calls] == [([3, 5], [3]), ([5], [])]


def test_by_default_what_cannot_be_had_is_left_out():
    plain = compute(
        None, real=ReferenceFeatures.of(features(0, 200, logits=False)), fake=features(1, 150, logits=False)
    )
    assert set(plain) == {
        "frechet_distance", "frechet_distance_se", "frechet_infinity", "frechet_infinity_se",
        "kid", "kid_se", "kid_std", "kid_full", "precision", "precision_se", "recall", "recall_se",
        "density", "density_se", "coverage", "coverage_se",
    }  # fmt: skip


def test_by_default_what_takes_more_images_is_left_out_and_said():
    few = features(5, 5)
    with gathered_cautions() as texts:
        values = compute(None, real=REAL, fake=few)
    assert {"frechet_distance", "kid", "confidence", "precision", "recall"} < set(values)
    assert not {"frechet_infinity", "inception_score", "density", "coverage"} & set(values)
    for name in ("frechet_infinity", "inception_score", "density", "coverage"):
        assert any(text.startswith(f"left out: {name}; ") and "5 image" in text for text in texts), name
    with pytest.raises(TooFewError, match="generated: 5 image"):
        compute(["coverage"], real=REAL, fake=few)


def test_statistics_alone_serve_the_frechet_distance():
    alone = ReferenceFeatures(REAL.statistics)
    with pytest.warns(
        MetricWarning, match="left out: kid, precision, density, recall, coverage, balance_kl; .* statistics alone"
    ):
        values = compute(None, real=alone, fake=FAKE)
    had = ["frechet_distance", "frechet_infinity", "inception_score", "confidence"]
    assert values == compute(had, real=REAL, fake=FAKE)
    able = "frechet_distance, frechet_infinity, inception_score, confidence$"
    with pytest.raises(InputError, match=rf"'recall' needs the reference's features.*to be had here: {able}"):
        compute(["frechet_distance", "recall"], real=alone, fake=FAKE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("recognised", "the classes that were asked for"),
        ("images_per_second", "a sampler to time"),
        ("sfid", "spatial features on both sides"),
        ("memorisation", "held-out images"),
        ("frechet_by_count", "the counts of images"),
    ],
)
def test_what_is_asked_by_name_must_be_possible(name, message):
    with pytest.raises(InputError, match=f"metric '{name}' needs {message}"):
        compute([name], real=REAL, fake=FAKE)
    with pytest.raises(InputError, match=f"metric '{name}' needs {message}"):
        check_needs([name], REAL, FAKE, labels=False, sampler=False)


def test_needs_that_will_be_met_pass():
    real = ReferenceFeatures.of(features(0, 200, spatial=True), holdout=features(2, 120))
    check_needs(list(METRICS), real, features(1, 1, spatial=True), labels=True, sampler=True, counts=True)
    check_needs(None, ReferenceFeatures(REAL.statistics), features(1, 1, logits=False), labels=False, sampler=False)
    with pytest.raises(InputError, match="unknown metric 'recal'"):
        check_needs(["recal"], real, FAKE, labels=True, sampler=True)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="unknown metric 'recal': did you mean 'recall'"):
        compute(["recal"], real=REAL, fake=FAKE)


def test_other_features_than_the_references_are_refused():
    real = ReferenceFeatures.of(REAL.features, {"features": {"name": "digits", "sha256": "a", "resize": "none"}})
    with pytest.raises(InputError, match="sha256 'b', expected 'a'"):
        compute(None, real=real, fake=FAKE, features={"name": "digits", "sha256": "b", "resize": "none"})


def test_figures_that_are_not_finite_become_none():
    logits = np.zeros((200, 3), np.float32)
    logits[:, 0] = 1
    real = ReferenceFeatures.of(Features(REAL.features.pooled, logits))
    with pytest.warns(MetricWarning, match="not in the reference"):
        values = compute(["balance_kl", "recognised"], real=real, fake=FAKE, labels=np.zeros(150, int))
    assert values["balance_kl"] is None
    assert values["balance_kl_se"] is None
    assert values["balance_p"] == 0
    assert values["recognised_by_class"][1:] == [None, None]


def test_one_image_and_nan_are_refused():
    with pytest.raises(InputError, match="1 image"):
        compute(["frechet_distance"], real=REAL, fake=features(2, 1))
    broken = features(3, 50)
    broken.pooled[7] = np.nan
    for name in ("frechet_distance", "frechet_infinity", "kid", "precision", "density"):
        with pytest.raises(InputError, match="1 of 50 images have NaN"):
            compute([name], real=REAL, fake=broken)


def test_cautions_are_gathered_once_each_and_others_pass():
    def measured() -> list[str]:
        with gathered_cautions() as texts:
            for _ in range(2):
                compute(["frechet_distance"], real=REAL, fake=features(4, 5))
            warnings.warn("other", UserWarning, stacklevel=1)
        return texts

    with pytest.warns(UserWarning, match="other") as passed:
        texts = measured()
    assert texts == ["frechet_distance: 5 generated images for 6 features bias it upward, expected more than 6"]
    assert [str(w.message) for w in passed] == ["other"]


@pytest.mark.parametrize(("count", "there"), [(3, set()), (4, {"precision", "recall"}), (5, {"precision", "recall"})])
def test_each_neighbour_measure_has_a_minimum_by_its_own_k(count, there):
    names = ["precision", "recall", "density", "coverage"]
    real, fake = ReferenceFeatures.of(features(0, 40)), features(1, count)
    with gathered_cautions() as cautions:
        found = compute(names, real=real, fake=fake, lenient=True)
    assert set(found) == {key for name in there for key in (name, f"{name}_se")}
    assert all(found[f"{name}_se"] is None for name in there)  # too few to halve
    k = {name: 3 if name in ("precision", "recall") else 5 for name in names}
    for name in set(names) - there:
        assert any(f"left out: {name}; " in line and line.endswith(f"for k = {k[name]}") for line in cautions)
    with pytest.raises(TooFewError, match="for k = "):
        compute(names, real=real, fake=fake)
