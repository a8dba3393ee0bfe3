"""What decoders of several kinds share."""

from torch import Tensor, nn


class SigmoidDecoder(nn.Sequential):
    """Layers from codes to images in [0, 1], of which the last is a sigmoid of the pixels' logits."""

    def __init__(self, *layers: nn.Module) -> None:
        """Takes the layers, from codes `(B, ...)` to images `(B, C, H, W)`; the last must be `nn.Sigmoid`."""
        super().__init__(*layers)
        if not isinstance(layers[-1], nn.Sigmoid):
            raise ValueError(f"a decoder with logits must end in a Sigmoid, not in {type(layers[-1]).__name__}")

    def logits(self, code: Tensor) -> Tensor:
        """Maps codes `(B, ...)` to the logits of the pixels `(B, C, H, W)`."""
        for layer in list(self)[:-1]:
            code = layer(code)
        return code
