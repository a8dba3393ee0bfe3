"""LightningModules: each wraps an architecture with its loss."""

from .autoencoder import Autoencoder
from .classifier import Classifier
from .classifier_reconstructor import ClassifierReconstructor
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
    SigmoidDecoder,
)
from .schedules import OneCycle
from .semi_supervised import SemiSupervisedClassifier
from .vae import VAE
from .virtual_adversarial import VirtualAdversarialTraining

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
    "SemiSupervisedClassifier",
    "SigmoidDecoder",
    "VirtualAdversarialTraining",
]
