"""LightningModules: each wraps an architecture with its loss."""

from .autoencoder import Autoencoder
from .classifier import Classifier
from .inversion import Inversion
from .networks import MLPHead, MNISTDecoder, MNISTEncoder
from .schedules import OneCycle

__all__ = ["Autoencoder", "Classifier", "Inversion", "MLPHead", "MNISTDecoder", "MNISTEncoder", "OneCycle"]
