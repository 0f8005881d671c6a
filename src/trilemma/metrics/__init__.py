"""Measures of generated images: quality, coverage and speed. They see arrays and features, not models."""

from trilemma.metrics import catalogue, sampling_costs
from trilemma.metrics.balance import absent, balance, class_counts, recognisability_by_class, recognised
from trilemma.metrics.cautions import MetricWarning, caution, gathered_cautions
from trilemma.metrics.checks import TooFewError
from trilemma.metrics.computing import check_enough, check_needs, compute
from trilemma.metrics.costs import kept_for_backward, multiply_adds
from trilemma.metrics.density_coverage import density_coverage
from trilemma.metrics.extractors import open_extractor
from trilemma.metrics.features import ClassifierExtractor, Extractor, Features, PixelExtractor, extract, load_classifier
from trilemma.metrics.frechet import frechet_distance, frechet_standard_error
from trilemma.metrics.frechet_counts import frechet_by_count, frechet_infinity
from trilemma.metrics.inception_score import inception_score
from trilemma.metrics.inputs import Inputs, ReferenceFeatures
from trilemma.metrics.kid import kid
from trilemma.metrics.memorisation import memorisation
from trilemma.metrics.metric import AXES, METRICS, Metric, metric
from trilemma.metrics.precision_recall import precision_recall
from trilemma.metrics.speed import Speed, measure, peak_memory, resident
from trilemma.metrics.statistics import Moments, Statistics, load_statistics, save_statistics

__all__ = [
    "AXES",
    "METRICS",
    "ClassifierExtractor",
    "Extractor",
    "Features",
    "Inputs",
    "Metric",
    "MetricWarning",
    "Moments",
    "PixelExtractor",
    "ReferenceFeatures",
    "Speed",
    "Statistics",
    "TooFewError",
    "absent",
    "balance",
    "catalogue",
    "caution",
    "check_enough",
    "check_needs",
    "class_counts",
    "compute",
    "density_coverage",
    "extract",
    "frechet_by_count",
    "frechet_distance",
    "frechet_infinity",
    "frechet_standard_error",
    "gathered_cautions",
    "inception_score",
    "kept_for_backward",
    "kid",
    "load_classifier",
    "load_statistics",
    "measure",
    "memorisation",
    "metric",
    "multiply_adds",
    "open_extractor",
    "peak_memory",
    "precision_recall",
    "recognisability_by_class",
    "recognised",
    "resident",
    "sampling_costs",
    "save_statistics",
]
