"""LightningModules: each wraps an architecture with its loss."""
# ruff: noqa: F401, F403

from .autoencoder import Autoencoder
from .classifier import Classifier
from .classifier_reconstructor import ClassifierReconstructor
from .inversion import Inversion, OptimizationInversion
from .joint_embedding import BYOL, DINO, BarlowTwins, JointEmbedding, SimCLR, VICReg
from .masked_autoencoder import MaskedAutoencoder
from .networks import *
from .perceptual import LPIPS, FeatureDistance
from .schedules import OneCycle
from .self_supervised import SelfSupervised
from .semi_supervised import SemiSupervisedClassifier
from .vae import VAE
from .virtual_adversarial import VirtualAdversarialTraining

__all__ = [name for name in dir() if name[0].isupper()]
