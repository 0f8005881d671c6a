"""Plain modules: tensors in, tensors out. They know nothing else of this project."""

from trilemma.networks.autoencoder import Autoencoder
from trilemma.networks.classifier import ConvClassifier, NoisyClassifier
from trilemma.networks.ddgan import DDGANDiscriminator
from trilemma.networks.growing import Growing
from trilemma.networks.patchgan import PatchDiscriminator
from trilemma.networks.refinenet import RefineNet
from trilemma.networks.resnet import ResNetEncoder, SNGANDiscriminator, SNGANGenerator
from trilemma.networks.unet import UNet

__all__ = [
    "Autoencoder",
    "ConvClassifier",
    "DDGANDiscriminator",
    "Growing",
    "NoisyClassifier",
    "PatchDiscriminator",
    "RefineNet",
    "ResNetEncoder",
    "SNGANDiscriminator",
    "SNGANGenerator",
    "UNet",
]
