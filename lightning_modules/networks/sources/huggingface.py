"""Vision backbones of transformers, as `hf/REPOSITORY`, `hf/FOLDER` or `hf/TYPE`, by its own loading code."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..statistics import Statistics
from ..weights import load_weights
from .base import Network, Source, extra, first_line, nearest

INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers


class HuggingFace(Source):
    """A repository of the Hub, a folder with its files, or a type of model in its default configuration."""

    def __init__(self, name: str) -> None:
        """Looks a type up; of a repository, only the Hub knows whether it is there."""
        super().__init__(name)
        self.is_type = "/" not in name and not Path(name).is_dir()
        if self.is_type:
            self.weights = ()
            if name not in self.names():
                near = nearest(name, self.names()).replace(", ", ", hf/")
                raise ValueError(
                    f"transformers has no vision model {name}: the nearest are hf/{near}; or hf/OWNER/NAME"
                )

    @staticmethod
    def names() -> list[str]:
        """The types of models that look at images."""
        auto = extra("transformers.models.auto")
        types = auto.modeling_auto.MODEL_MAPPING_NAMES
        seen = auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
        return [name for name in types if name.endswith("_vision_model") or _processor_type(name) in seen]

    def create(self, image_size: int | None) -> Network:
        """Builds the network with random weights."""
        config = self._config()
        return self._network(_transformers().AutoModel.from_config(config), config, silent=True)

    def pretrained(self, weights: str, image_size: int | None) -> Network:
        """Downloads configuration and weights from the Hub, or takes them from its cache or the folder."""
        config = self._config()
        load = _transformers().AutoModel.from_pretrained
        try:
            return self._load(load, self.name, config=config)
        except OSError as error:
            raise self._missing(error) from error

    def from_file(self, path: str, image_size: int | None) -> Network:
        """Builds the network with a file in the form of the Hub's, whose names transformers converts."""
        config = self._config()
        kind = type(_transformers().AutoModel.from_config(config))
        return self._load(kind.from_pretrained, None, config=config, state_dict=load_weights(path))

    def _load(self, load: Callable[..., Any], source: str | None, **kwargs: Any) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what the weights lack, such as a pooler, is the same every time
            try:
                module, report = load(source, output_loading_info=True, **kwargs)
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"the weights are not those of hf/{self.name}: {first_line(error)}") from error
        lacking = sorted(report["missing_keys"])
        if missing := [name for name in lacking if not name.startswith("pooler.")]:
            raise ValueError(f"the weights are not those of hf/{self.name}: they have no {missing[0]}")
        if lacking:
            warnings.warn(f"the weights of hf/{self.name} have no {lacking[0]}: its pooler is RANDOM", stacklevel=2)
        return self._network(module, kwargs["config"], silent=False)

    def _config(self) -> Any:
        transformers = _transformers()
        try:
            if self.is_type:
                config = transformers.CONFIG_MAPPING[self.name]()
            else:
                config = transformers.AutoConfig.from_pretrained(self.name)
        except OSError as error:
            raise self._missing(error) from error
        config = getattr(config, "vision_config", config)  # of CLIP, SigLIP and the like, which read texts too
        if config.model_type == "vit_mae":
            config.mask_ratio = 0.0  # it would hide three quarters of the image
        return config

    def _missing(self, error: OSError) -> FileNotFoundError:
        files = "config.json, preprocessor_config.json and model.safetensors"
        return FileNotFoundError(
            f"hf/{self.name} cannot be downloaded: bring {files} of huggingface.co/{self.name} into a folder, and give"
            f" hf/FOLDER ({first_line(error, 80)})"
        )

    def _network(self, module: nn.Module, config: Any, silent: bool) -> Network:
        if config.model_type == "vit_mae":
            module.embeddings.register_forward_pre_hook(_in_order, with_kwargs=True)  # type: ignore[union-attr]
        return Network(module, self._statistics(config, silent))

    def _statistics(self, config: Any, silent: bool) -> Statistics:
        with suppress(OSError, ValueError):  # of a repository or folder without a processor
            if not self.is_type:
                return processor_statistics(_transformers().AutoImageProcessor.from_pretrained(self.name))
        transformers = _transformers()
        known = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
        names = known.get(_processor_type(config.model_type), {})
        name = names.get("torchvision") or names.get("pil") or "BitImageProcessor"
        if not silent:
            text = (
                f"hf/{self.name} has no preprocessor_config.json that says how it wants its images: it gets the usual"
            )
            warnings.warn(
                f"{text} of {name}; set encoder.mean and encoder.std if it was trained otherwise", stacklevel=2
            )
        return processor_statistics(getattr(transformers, name)())


def processor_statistics(processor: Any) -> Statistics:
    """The statistics that an image processor of transformers holds."""
    size = dict(processor.size or {})
    side = size.get("shortest_edge") or size.get("height") or 224
    crop, squash = 1.0, "height" in size
    kept = dict(processor.crop_size or {}).get("height") if getattr(processor, "do_center_crop", False) else None
    if kept:
        side, crop = kept, min(1.0, kept / side)
    elif getattr(processor, "crop_pct", None):  # ConvNeXt's, which crops small images only
        crop, squash = (processor.crop_pct, False) if side < 384 else (1.0, True)
    standardized = bool(processor.do_normalize)
    return Statistics(
        mean=tuple(processor.image_mean) if standardized else (0.0,) * 3,
        std=tuple(processor.image_std) if standardized else (1.0,) * 3,
        size=side,
        interpolation=INTERPOLATIONS[int(processor.resample)],
        crop=crop,
        squash=squash,
    )


def _transformers() -> Any:
    transformers = extra("transformers")
    transformers.logging.set_verbosity_error()  # it reports in tables what is said here in a line
    return transformers


def _processor_type(name: str) -> str:
    """The type under which transformers keeps the image processor of a type of model."""
    return {"dinov2_with_registers": "dinov2", "dinov3_convnext": "dinov3_vit"}.get(
        name, name.removesuffix("_vision_model")
    )


def _in_order(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Gives MAE's embeddings numbers that leave the patches in their order, which it would shuffle."""
    patches: Any = module.patch_embeddings
    images = args[0] if args else kwargs["pixel_values"]
    numbers = torch.arange(patches.num_patches, device=images.device, dtype=torch.float32)
    return args, kwargs | {"noise": numbers.expand(len(images), -1)}
