"""Measures of generated images: quality, coverage and speed. They see arrays and features, not models."""

from trilemma.metrics.balance import Balance, Recognised, balance, class_counts, recognised
from trilemma.metrics.catalogue import METRICS, Metric, ReferenceFeatures, check_needs, compute
from trilemma.metrics.cautions import MetricWarning, caution, gathered_cautions
from trilemma.metrics.features import (
    EXTRACTORS,
    ClassifierExtractor,
    Extractor,
    Features,
    PixelExtractor,
    extract,
    load_classifier,
    open_extractor,
)
from trilemma.metrics.frechet import frechet_distance, frechet_standard_error
from trilemma.metrics.precision_recall import PrecisionRecall, precision_recall
from trilemma.metrics.speed import Speed, measure
from trilemma.metrics.statistics import Moments, Statistics, load_statistics, save_statistics

__all__ = [
    "EXTRACTORS",
    "METRICS",
    "Balance",
    "ClassifierExtractor",
    "Extractor",
    "Features",
    "Metric",
    "MetricWarning",
    "Moments",
    "PixelExtractor",
    "PrecisionRecall",
    "Recognised",
    "ReferenceFeatures",
    "Speed",
    "Statistics",
    "balance",
    "caution",
    "check_needs",
    "class_counts",
    "compute",
    "extract",
    "frechet_distance",
    "frechet_standard_error",
    "gathered_cautions",
    "load_classifier",
    "load_statistics",
    "measure",
    "open_extractor",
    "precision_recall",
    "recognised",
    "save_statistics",
]
