"""LightningModules: each wraps an architecture with its loss."""

from . import networks
from .autoencoder import Autoencoder
from .classifier import Classifier
from .classifier_reconstructor import ClassifierReconstructor
from .inversion import Inversion, OptimizationInversion
from .networks import *  # noqa: F403
from .perceptual import LPIPS, FeatureDistance
from .schedules import OneCycle
from .semi_supervised import SemiSupervisedClassifier
from .vae import VAE
from .virtual_adversarial import VirtualAdversarialTraining

__all__ = [
    "LPIPS",
    "VAE",
    "Autoencoder",
    "Classifier",
    "ClassifierReconstructor",
    "FeatureDistance",
    "Inversion",
    "OneCycle",
    "OptimizationInversion",
    "SemiSupervisedClassifier",
    "VirtualAdversarialTraining",
]
__all__ += networks.__all__
