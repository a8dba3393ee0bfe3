"""The encoder of TAEF2, the tiny autoencoder of a latent diffusion model (github.com/madebyollin/taesd).

It was trained to keep an image, where the other networks here were trained to name what is in it:
`preimage atlas --network module:benchmarks.taef2.Encoder --weights taef2_encoder.pth --layers 5 9 14 --data.root ROOT`.
"""

from typing import ClassVar

from torch import Tensor, nn


class Block(nn.Module):
    """A residual block of three convolutions; one with `pool` looks at the whole image first, by its group norm."""

    def __init__(self, channels: int, pool: bool) -> None:
        """Builds the layers."""
        super().__init__()
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2])
        self.fuse = nn.ReLU()
        if pool:
            wide = 4 * channels
            layers = [nn.Conv2d(channels, wide, 1, bias=False), nn.GroupNorm(4, wide), nn.ReLU()]
            self.pool = nn.Sequential(*layers, nn.Conv2d(wide, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, channels, h, w)` to the same shape."""
        if hasattr(self, "pool"):
            x = x + self.pool(x)
        result: Tensor = self.fuse(self.conv(x) + x)
        return result


class Encoder(nn.Sequential):
    """Maps images `(B, 3, 8 h, 8 w)` in [0, 1] to codes `(B, 32, h, w)`; its layers have the names of the file's."""

    #: It takes images as they are, which is said as timm says it.
    pretrained_cfg: ClassVar = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "input_size": (3, 128, 128)}

    def __init__(self, channels: int = 64) -> None:
        """Builds the layers."""
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), Block(channels, pool=False)]
        for stage in range(3):
            layers.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False))
            layers += [Block(channels, pool=stage == 2) for _ in range(3)]
        super().__init__(*layers, nn.Conv2d(channels, 32, 3, padding=1))
