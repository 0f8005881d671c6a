"""Plain modules: tensors in, tensors out. They know nothing else of this project."""

from trilemma.networks.classifier import ConvClassifier
from trilemma.networks.unet import UNet

__all__ = ["ConvClassifier", "UNet"]
