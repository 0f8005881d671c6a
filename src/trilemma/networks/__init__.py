"""Plain modules: tensors in, tensors out. They know nothing else of this project."""

from trilemma.networks.classifier import ConvClassifier, NoisyClassifier
from trilemma.networks.growing import Growing
from trilemma.networks.refinenet import RefineNet
from trilemma.networks.unet import UNet

__all__ = ["ConvClassifier", "Growing", "NoisyClassifier", "RefineNet", "UNet"]
