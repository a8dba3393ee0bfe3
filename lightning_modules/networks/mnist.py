"""The small convolutional encoder and decoder for 28 x 28 grayscale images."""

from torch import nn

from preimage.checks import check_range

from .decoder import SigmoidDecoder


class MNISTEncoder(nn.Sequential):
    """Three convolutions and a linear layer; 30,476 parameters for a 12-dimensional code.

    Maps images `(B, 1, 28, 28)` in [0, 1] to codes `(B, latent_dim)`, unbounded.

    Args:
        latent_dim: Length of the code.
    """

    def __init__(self, latent_dim: int = 12) -> None:
        check_range("MNISTEncoder", "[1, inf)", latent_dim=latent_dim)
        super().__init__(
            nn.Conv2d(1, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(576, latent_dim),
        )


class MNISTDecoder(SigmoidDecoder):
    """A linear layer and three transposed convolutions; 30,977 parameters for a 12-dimensional code.

    Maps codes `(B, latent_dim)` to images `(B, 1, 28, 28)` in [0, 1].

    Args:
        latent_dim: Length of the code.
    """

    def __init__(self, latent_dim: int = 12) -> None:
        check_range("MNISTDecoder", "[1, inf)", latent_dim=latent_dim)
        super().__init__(
            nn.Linear(latent_dim, 576),
            nn.Unflatten(1, (64, 3, 3)),
            nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 5, stride=2, output_padding=1),
            nn.Sigmoid(),
        )
