"""A trained representation that can be asked, from Python: what it makes of images, and what it rebuilds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from datamodules.image_cache import opened, square, to_rgb
from datamodules.source import Source, is_image
from lightning_modules import FrozenFeatures
from lightning_modules.networks.sources.torchvision import Torchvision
from lightning_modules.networks.tokens import Tokens
from preimage.evaluation.runs import default_device, find_run, load_data, load_model
from preimage.runs import Run

#: A picture, a file, a folder or zip file, an array, or several of these.
Images: TypeAlias = "Image.Image | str | Path | NDArray[Any] | Tensor | Sequence[Images]"
_Convert = Callable[[Image.Image], Tensor]

_BATCH = 64


class Model:
    """A model in eval mode, frozen, on the device where it computes; `load` makes it.

    Images are pictures of PIL, paths of files, folders or zip files, tensors or arrays `(N, C, H, W)` or `(C, H, W)` of
    uint8 or of floats in [0, 1], or a sequence of any of these. They are converted as the data module of the run does,
    and go through the model in batches; what comes back is a tensor on the CPU, in the order of the images (those of a
    folder by their paths), with one row for each, also where it is a single one.

    Args:
        module: One of this project, or any network from images `(B, C, H, W)` in [0, 1] to codes.
        convert: Turns a picture into what the module takes, uint8 `(C, H, W)`; without it only tensors will do.
        size: Shape `(C, H, W)` of what the module takes; tensors of another one are converted as pictures are. By
            default it takes any.
        device: Where it computes; by default the GPU, where there is one.
    """

    def __init__(
        self,
        module: nn.Module,
        convert: _Convert | None = None,
        size: tuple[int, int, int] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.device = torch.device(device or default_device())
        self.module = module.to(self.device).eval().requires_grad_(False)
        self.convert = convert
        self.size = size

    def __repr__(self) -> str:
        """The class of the module, and where it is."""
        return f"Model({type(self.module).__name__} on {self.device})"

    def encode(self, images: Images) -> Tensor:
        """Codes `(N, ...)` of images; for a `VAE`, the means."""
        return self._through(getattr(self.module, "encode", self.module), images)

    def reconstruct(self, images: Images) -> Tensor:
        """Reconstructions `(N, C, h, w)` of images, in [0, 1]."""
        return self._through(self._verb("reconstruct"), images)

    def classify(self, images: Images) -> Tensor:
        """Logits `(N, num_classes)` of images."""
        return self._through(self._verb("classify"), images)

    def decode(self, codes: Tensor | NDArray[Any]) -> Tensor:
        """Images `(N, C, h, w)` in [0, 1] of codes `(N, ...)`, as `encode` gives them, a tensor or an array."""
        weight = next(self.module.parameters(), torch.empty(0))
        rows = torch.as_tensor(codes, dtype=weight.dtype)
        return self._apply(self._verb("decode"), rows.split(_BATCH))

    def sample(self, count: int) -> Tensor:
        """Draws images `(count, C, h, w)` in [0, 1] from the prior."""
        with torch.inference_mode():
            return self._verb("sample")(count).cpu()

    def _verb(self, name: str) -> Callable[..., Tensor]:
        verb: Callable[..., Tensor] | None = getattr(self.module, name, None)
        if verb is None:
            known = [word for word in ("decode", "reconstruct", "classify", "sample") if hasattr(self.module, word)]
            raise ValueError(f"{type(self.module).__name__} cannot {name}, only {', '.join(['encode', *known])}")
        return verb

    def _through(self, function: Callable[[Tensor], Tensor], images: Images) -> Tensor:
        return self._apply(function, _as_batches(images, self.convert, self.size))

    def _apply(self, function: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
        with torch.inference_mode():
            return torch.cat([function(batch.to(self.device)).cpu() for batch in batches])


def load(
    source: str | Path,
    layer: str | None = None,
    weights: str = "DEFAULT",
    image_size: int | None = None,
    device: str | torch.device | None = None,
    tokens: Tokens = "all",
) -> Model:
    """Loads a trained model, to be asked.

    Args:
        source: A run directory (of which it takes the best checkpoint), a checkpoint, or with `layer` the name of a
            network, see `FrozenFeatures`.
        layer: Layer of the network, as `preimage layers` lists them.
        weights: The network's weights, see `FrozenFeatures`.
        image_size: Height and width at which the network looks, in pixels; by default its own.
        device: Where it computes; by default the GPU, where there is one.
        tokens: What is taken of the layer's tokens or maps, see `FrozenFeatures`.

    Raises:
        FileNotFoundError: There is no such run or checkpoint.
        ValueError: The run or checkpoint cannot be read, or there is no such network or layer.
    """
    if layer is not None:
        features = FrozenFeatures(str(source), layer, weights, image_size or "own", tokens=tokens)
        pixels = features.image_size
        if pixels is None:
            raise ValueError(f"{source} takes images of any size: give the image_size at which it shall look")
        # Those of torchvision see the middle square, as our data modules cut it; others what they are evaluated on.
        plain = str(source) in Torchvision.names()

        def convert(image: Image.Image) -> Tensor:
            return torch.from_numpy(square(image, pixels).copy()) if plain else features.picture(to_rgb(image))

        return Model(features, convert, device=device)
    path = Path(source)
    if path.is_file() and not (path.parent.parent / "config.yaml").is_file():
        return Model(load_model(Run(path.parent.parent, path)), device=device)
    run = find_run(path)
    data = load_data(run, ready=False)
    channels, side = (getattr(data, name, None) for name in ("channels", "image_size"))
    size = None if channels is None or side is None else (channels, side, side)
    return Model(load_model(run), data.convert, size, device)


def _as_batches(images: Images, convert: _Convert | None, size: tuple[int, int, int] | None) -> Iterator[Tensor]:
    """Float images in [0, 1] `(B, C, H, W)`, some at a time; a tensor of another size is converted as a picture is."""
    some: list[Tensor] = []
    for image in _each(images, convert):
        if convert is not None and size is not None and image.shape != size:
            pixels = (image * 255).round().byte().numpy()
            picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
            image = _converted(picture, convert)
        if some and image.shape != some[0].shape:
            raise ValueError(f"images of {tuple(some[0].shape)} and {tuple(image.shape)} do not make a batch")
        if len(some) == _BATCH:
            yield torch.stack(some)
            some = []
        some.append(image)
    if not some:
        raise ValueError("there is no image")
    yield torch.stack(some)


def _as_float(images: Tensor) -> Tensor:
    """Images `(N, C, H, W)` or `(C, H, W)`, uint8 or floats in [0, 1], as floats `(N, C, H, W)`."""
    shape = tuple(images.shape)
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"{shape} is no shape of images: give (N, C, H, W), with one or three channels")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise ValueError(f"images of {images.dtype} have no known range: give uint8, or floats in [0, 1]")
    low, high = (float(end) for end in images.aminmax()) if images.numel() else (0.0, 1.0)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"float images must be in [0, 1], and these are in [{low:g}, {high:g}]: give uint8, or divide")
    return images.float()


def _each(images: Any, convert: _Convert | None) -> Iterator[Tensor]:
    """Every image by itself, a float tensor `(C, H, W)`."""
    if isinstance(images, Image.Image):
        yield _converted(images.copy(), convert)  # a JPEG that was not read yet would be left at a smaller size
    elif isinstance(images, str | Path):
        for name, data in _files(Path(images)):
            try:
                with opened(data) as image:
                    converted = _converted(image, convert)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            yield converted
    elif isinstance(images, Tensor | np.ndarray) and not str(images.dtype).startswith(("object", "<U")):
        yield from _as_float(torch.as_tensor(images))
    elif isinstance(images, Iterable):
        for image in images:
            yield from _each(image, convert)
    else:
        raise ValueError(f"{type(images).__name__} is no image: give pictures, paths, or tensors (N, C, H, W)")


def _files(path: Path) -> Iterator[tuple[Path, bytes]]:
    """Path and content of a file, or of the images of a folder or zip file in the order of their paths."""
    if path.is_file() and path.suffix.lower() != ".zip":
        yield path, path.read_bytes()
        return
    source = Source(path, "images")
    for name in filter(is_image, source.sizes):
        yield path / name, source.read(name)


def _converted(image: Image.Image, convert: _Convert | None) -> Tensor:
    if convert is None:
        raise ValueError("a checkpoint alone does not say how pictures are converted: give its run, or tensors")
    return convert(image).float() / 255
