"""LightningModules: each wraps an architecture with its loss."""

from .autoencoder import Autoencoder
from .classifier import Classifier
from .classifier_reconstructor import ClassifierReconstructor
from .fixmatch import FixMatch
from .inversion import Inversion, OptimizationInversion
from .networks import (
    ConvDecoder,
    ConvGaussianEncoder,
    ConvInverter,
    FaceDecoder,
    FaceEncoder,
    FrozenFeatures,
    FullyConnectedInverter,
    MLPHead,
    MNISTDecoder,
    MNISTEncoder,
    MNISTGaussianEncoder,
    ResidualDecoder,
    ResidualGaussianEncoder,
)
from .schedules import OneCycle
from .vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "Classifier",
    "ClassifierReconstructor",
    "ConvDecoder",
    "ConvGaussianEncoder",
    "ConvInverter",
    "FaceDecoder",
    "FaceEncoder",
    "FixMatch",
    "FrozenFeatures",
    "FullyConnectedInverter",
    "Inversion",
    "MLPHead",
    "MNISTDecoder",
    "MNISTEncoder",
    "MNISTGaussianEncoder",
    "OneCycle",
    "OptimizationInversion",
    "ResidualDecoder",
    "ResidualGaussianEncoder",
]
