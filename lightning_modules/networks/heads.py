"""Heads: small networks that read something out of a code."""

from torch import nn


class MLPHead(nn.Sequential):
    """Two linear layers with a ReLU between; 1,482 parameters for 12 -> 64 -> 10.

    Maps codes `(B, in_features)` to logits `(B, num_classes)`.
    """

    def __init__(self, in_features: int = 12, hidden_features: int = 64, num_classes: int = 10) -> None:
        """Builds the layers.

        Args:
            in_features: Length of the code.
            hidden_features: Width of the hidden layer.
            num_classes: Number of logits.
        """
        super().__init__(
            nn.Linear(in_features, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, num_classes),
        )
