"""Plain networks: encoders, decoders and heads; no Lightning in here."""

from .decoder import SigmoidDecoder
from .discriminators import PatchDiscriminator
from .faces import FaceDecoder, FaceEncoder
from .features import FrozenFeatures
from .gaussian import ConvDecoder, ConvGaussianEncoder, MNISTGaussianEncoder
from .heads import AttentivePool, MLPHead
from .inverters import ConvInverter, FullyConnectedInverter
from .mnist import MNISTDecoder, MNISTEncoder
from .priors import VampPrior
from .quantizers import FSQ, VQ
from .regularizers import L2, MMD, Contractive
from .residual import ResidualDecoder, ResidualGaussianEncoder

__all__ = [
    "FSQ",
    "L2",
    "MMD",
    "VQ",
    "AttentivePool",
    "Contractive",
    "ConvDecoder",
    "ConvGaussianEncoder",
    "ConvInverter",
    "FaceDecoder",
    "FaceEncoder",
    "FrozenFeatures",
    "FullyConnectedInverter",
    "MLPHead",
    "MNISTDecoder",
    "MNISTEncoder",
    "MNISTGaussianEncoder",
    "PatchDiscriminator",
    "ResidualDecoder",
    "ResidualGaussianEncoder",
    "SigmoidDecoder",
    "VampPrior",
]
