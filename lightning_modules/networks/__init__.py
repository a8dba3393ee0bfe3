"""Plain networks: encoders, decoders and heads; no Lightning in here."""

from .heads import MLPHead
from .mnist import MNISTDecoder, MNISTEncoder

__all__ = ["MLPHead", "MNISTDecoder", "MNISTEncoder"]
