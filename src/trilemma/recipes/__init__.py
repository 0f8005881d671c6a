"""Recipes: one of each noun, the data and the training settings, as YAML: checked, completed, saved with the run."""

# The rooms whose parts recipes name: importing them registers these.
import trilemma.networks
import trilemma.objectives
import trilemma.samplers
import trilemma.training  # noqa: F401
from trilemma.inventory import headline, packaged
from trilemma.recipes.components import component, construct
from trilemma.recipes.files import dump, load, put, values_of
from trilemma.recipes.sampling import SamplingSettings, parse_sampling, renamed, sampling_words
from trilemma.recipes.schema import CompletedRecipe, Images, Recipe, Source, parse

__all__ = [
    "CompletedRecipe",
    "Images",
    "Recipe",
    "SamplingSettings",
    "Source",
    "component",
    "construct",
    "dump",
    "headline",
    "load",
    "packaged",
    "parse",
    "parse_sampling",
    "put",
    "renamed",
    "sampling_words",
    "values_of",
]
