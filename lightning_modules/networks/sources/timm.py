"""Networks of timm, as `timm/NAME` or `timm/NAME.TAG`, by its own loading code."""

from dataclasses import replace
from typing import Any

from ..statistics import statistics_of
from ..weights import load_weights
from .base import Network, Source, extra, first_line, nearest


class Timm(Source):
    """A network of timm, such as `vit_small_patch14_dinov2` or `vit_base_patch16_224.mae`."""

    def __init__(self, name: str) -> None:
        """Looks the name up."""
        super().__init__(name)
        if name not in self.names():
            near = nearest(name, self.names()).replace(", ", ", timm/")
            raise ValueError(f"timm has no network {name}: the nearest are timm/{near}")

    @staticmethod
    def names() -> list[str]:
        """All names, with and without the tag of their weights."""
        timm = extra("timm")
        return [*timm.list_models(), *timm.list_pretrained()]

    def create(self, image_size: int | None) -> Network:
        """Builds the network with random weights."""
        return self._build(image_size)

    def pretrained(self, weights: str, image_size: int | None) -> Network:
        """Downloads the weights from the Hub, or takes them from its cache."""
        config = extra("timm").get_pretrained_cfg(self.name)
        if config is None or not config.has_weights:
            raise FileNotFoundError(f"timm has no weights of {self.name}: set encoder.weights to a file, or to random")
        try:
            return self._build(image_size, pretrained=True)
        except OSError as error:
            file = config.hf_hub_filename or "model.safetensors"
            where = f"{file} of huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
            raise FileNotFoundError(
                f"weights of timm/{self.name} cannot be downloaded: bring {where} and set encoder.weights to that file"
                f" ({first_line(error, 80)})"
            ) from error

    def from_file(self, path: str, image_size: int | None) -> Network:
        """Builds the network with a file in timm's form or in that of its authors, which timm converts."""
        try:
            overlay = {"state_dict": load_weights(path), "custom_load": False}
            return self._build(image_size, pretrained=True, pretrained_cfg_overlay=overlay)
        except (RuntimeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} is of another model than timm/{self.name}: {reason}") from error

    def _build(self, image_size: int | None, **kwargs: Any) -> Network:
        timm = extra("timm")
        config = timm.get_pretrained_cfg(self.name)
        if image_size is not None and config is not None and config.fixed_input_size:
            kwargs["img_size"] = image_size
        try:
            module = timm.create_model(self.name, **kwargs)
        except AssertionError as error:  # a size that its windows or patches do not divide
            raise ValueError(
                f"timm/{self.name} does not take images of {image_size} pixels ({first_line(error)}): choose another"
                " image_size"
            ) from error
        own = statistics_of(timm.data.resolve_model_data_config(module))
        return Network(module, replace(own, size=image_size or own.size))
