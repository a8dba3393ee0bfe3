"""The inversion of a representation: a decoder that learns the expected image behind a frozen encoder's code."""

from typing import Any

from torch import nn

from .autoencoder import Autoencoder


class Inversion(Autoencoder):
    """Learns a decoder for an encoder that stays as it is (Dosovitskiy and Brox 2016, arXiv 1506.02753).

    Under the squared error the decoder's answer to a code is the mean of all images that share it, so what is sharp in
    the reconstruction is what the code keeps.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, encoder_checkpoint: str | None, **kwargs: Any) -> None:
        """Joins a frozen encoder and a new decoder.

        Args:
            encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`; it is frozen.
            decoder: Network from codes to images `(B, C, h, w)` in [0, 1].
            encoder_checkpoint: Checkpoint of the run that trained the encoder; null for an encoder that brings its
                weights along.
            kwargs: What trains the decoder, see `EncoderModule`.
        """
        super().__init__(encoder, decoder, encoder_checkpoint=encoder_checkpoint, freeze_encoder=True, **kwargs)
