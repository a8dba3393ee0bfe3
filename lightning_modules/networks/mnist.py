"""The small convolutional encoder and decoder for 28 x 28 grayscale images (system S2/S3)."""

from torch import nn


class MNISTEncoder(nn.Sequential):
    """Three convolutions and a linear layer; 30,476 parameters for a 12-dimensional code.

    Maps images `(B, 1, 28, 28)` in [0, 1] to codes `(B, latent_dim)`, unbounded.
    """

    def __init__(self, latent_dim: int = 12, width: int = 16) -> None:
        """Builds the layers.

        Args:
            latent_dim: Length of the code.
            width: Channels after the first convolution; each later one doubles them.
        """
        super().__init__(
            nn.Conv2d(1, width, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36 * width, latent_dim),
        )


class MNISTDecoder(nn.Sequential):
    """A linear layer and three transposed convolutions; 30,977 parameters for a 12-dimensional code.

    Maps codes `(B, latent_dim)` to images `(B, 1, 28, 28)` in [0, 1].
    """

    def __init__(self, latent_dim: int = 12, width: int = 16) -> None:
        """Builds the layers.

        Args:
            latent_dim: Length of the code.
            width: Channels before the last convolution; each earlier one has twice those of the next.
        """
        super().__init__(
            nn.Linear(latent_dim, 36 * width),
            nn.Unflatten(1, (4 * width, 3, 3)),
            nn.ConvTranspose2d(4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 1, 5, stride=2, output_padding=1),
            nn.Sigmoid(),
        )
