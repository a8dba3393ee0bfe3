"""What has to be trained and measured for an atlas, in parts that one process does."""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor

from datamodules import InMemoryDataModule
from lightning_modules import LPIPS
from lightning_modules.inversion import COMMON_SIZE
from preimage.files import read_plain, write_text
from preimage.runs import Run

from ..generation import Extractor, inception, measure_rfid, named_extractor
from ..measures import Images, feature_error, spread
from ..runs import default_device, figures_of, find_run, load_model, read_configs, read_data, train
from ..search import tuned_search
from .decoders import fair_decoder, parameters_of
from .measures import OF_CODES, errors, is_labelled, measure, model_of, pixels_again
from .points import PIXELS, Point, points_of

_TESTED = ("psnr_64", "ssim_64", "mse_64", "normalized_error_64", "feature_error", "psnr", "ssim")
_EPOCHS = "--trainer.max_epochs="


class Work(NamedTuple):
    """A part of an atlas that one process does.

    Attributes:
        name: What it is called.
        file: What is there when it is done, with the `settings` that it was done with.
        settings: A hash of what it depends on.
        do: Does it, and returns what else the file is to hold.
        needs: What has to be there before, of another part.
    """

    name: str
    file: Path
    settings: str
    do: Callable[[], dict[str, Any]]
    needs: Path | None = None

    def done(self) -> bool:
        """Whether it is.

        Raises:
            ValueError: It was done with other settings, or the file is damaged.
        """
        if not self.file.is_file():
            return False
        if noted(self.file)["settings"] != self.settings:
            cure = f"give another --out, or remove {self.file.with_suffix('')}*"
            raise ValueError(f"{self.name}: was made with other weights, data or options: {cure}")
        return True


def noted(path: Path) -> dict[str, Any]:
    """What the file of a part holds.

    Raises:
        ValueError: It is damaged.
    """
    content = read_plain(path)
    if not isinstance(content, dict) or not isinstance(content.get("settings"), str):
        raise ValueError(f"{path} is damaged: it has no settings; remove it to have it made anew")
    return content


def _remembered(rebuild: Images) -> Images:
    """The same for someone who asks for the reconstructions of the same images again, since a search takes minutes."""
    known: list[tuple[Tensor, Tensor]] = []

    def remembered(images: Tensor) -> Tensor:
        if not any(before.equal(images) for before, _ in known):
            known.append((images, rebuild(images)))
        return next(rebuilt for before, rebuilt in known if before.equal(images))

    return remembered


class Plan:
    """An atlas in its folder.

    Args:
        options: The arguments of the command.
        rest: Flags for the fit of each decoder.
    """

    def __init__(self, options: argparse.Namespace, rest: list[str]) -> None:
        self.options = options
        self.rest = rest
        self.points = points_of(options)
        self.device = default_device()
        self.keeps = "keeps" in options.measure

    @cached_property
    def data(self) -> InMemoryDataModule:
        """The images, with all their labels."""
        return read_data(self.options.config, [flag for flag in self.rest if flag.startswith("--data")])

    @cached_property
    def of_codes(self) -> list[str]:
        """What is measured without a decoder; what cannot be is told."""
        kinds = [kind for kind in OF_CODES if kind in self.options.measure]
        if "reads" in kinds and not is_labelled(self.data):
            print(
                "reads are left out: the data has no labels of two classes to learn from, or none to test", flush=True
            )
            kinds.remove("reads")
        return kinds

    @cached_property
    def pixels(self) -> list[Point]:
        """The image itself, scaled down to fewer and fewer numbers, as points."""
        _, channels, size, _ = self.data.test_set.images.shape
        sides = takewhile(lambda side: side > 1, (size >> halvings for halvings in range(20)))
        return [
            Point(PIXELS, f"{side} x {side}", self.options.out / PIXELS / str(side), {"side": side}, shape)
            for side in sides
            for shape in [(channels, side, side)]
        ]

    @cached_property
    def works(self) -> list[Work]:
        """All parts, in the order in which they are done: what is quick, then a decoder of every point per seed."""
        works = []
        for point in [*self.points, *self.pixels] if self.of_codes else []:
            asked = [point.arguments, point.weights_hash, self.options.labels_per_class]
            for kind in self.of_codes:
                works.append(
                    self._work(f"{point.name}: {kind}", point, kind, asked, partial(self._measure, kind, point))
                )
        return [*works, *self._works_of_decoders()] if self.keeps else works

    def _works_of_decoders(self) -> Iterator[Work]:
        """The decoders, and what needs them."""
        options = self.options
        models: list[tuple[Point, list[Any]]] = [
            (point, [self._model(point, 1), point.weights_hash]) for point in self.points
        ]
        for seed in options.seeds:
            for point, made_of in models:
                do = partial(self._fit, point, made_of[0], f"seed_{seed}", seed, 1)
                name = f"{point.name}: decoder, seed_{seed}"
                yield self._work(name, point, f"seed_{seed}", [*made_of, seed], do)
        for point in self.points if options.twice else []:
            model, seed = self._model(point, 2), options.seeds[0]
            do = partial(self._fit, point, model, "twice", seed, 2)
            yield self._work(f"{point.name}: decoder, twice", point, "twice", [model, point.weights_hash, seed], do)
        first = f"seed_{options.seeds[0]}"
        for point, made_of in models if options.optimize else []:
            do = partial(self._search, point, first)
            yield self._work(f"{point.name}: search", point, "search", [*made_of, first, options.optimize], do, first)
        asked = [options.lpips, options.extractor]
        if not any(asked):
            return
        for point in self.pixels:
            do = partial(self._perceived, pixels_again(point.shape[1]))
            yield self._work(f"{point.name}: LPIPS, rFID", point, "perceived", asked, do)
        for seed in options.seeds:
            for point, made_of in models:
                do = partial(self._perceived_by_decoder, point.folder / f"seed_{seed}")
                name, file = f"{point.name}: LPIPS, rFID, seed {seed}", f"perceived_{seed}"
                yield self._work(name, point, file, [*made_of, seed, *asked], do, f"seed_{seed}")

    def _work(
        self, name: str, point: Point, file: str, made_of: list[Any], do: Callable[[], dict[str, Any]], needs: str = ""
    ) -> Work:
        settings = hashlib.sha256(json.dumps([*self._common, made_of]).encode()).hexdigest()
        needed = point.folder / f"{needs}.json" if needs else None
        return Work(name, point.folder / f"{file}.json", settings, do, needed)

    @cached_property
    def _common(self) -> list[Any]:
        """What all parts depend on: the content of configs, and flags but the trainer's."""
        own = [flag for flag in self.rest if not flag.startswith("--trainer.")]
        return [read_configs(self.options.config), own]

    @cached_property
    def _asked(self) -> set[Path]:
        return {work.file for work in self.works}

    def figures(self, file: Path) -> dict[str, Any]:
        """The figures of a part; none of one that is not done, or not asked for: it may be of other settings.

        Raises:
            ValueError: The file is damaged.
        """
        there = noted(file) if file in self._asked and file.is_file() else {}
        return {key: value for key, value in there.items() if key != "settings"}

    def _measure(self, kind: str, point: Point) -> dict[str, Any]:
        return measure(kind, point, self.data, self.device, self.options.labels_per_class)

    def _model(self, point: Point, times: int) -> dict[str, Any]:
        """Encoder and decoder of a point, as a config."""
        options = self.options
        channels = self.data.test_set.images.shape[1]
        decoder = fair_decoder(point.name, point.shape, options.image_size, times * options.parameters, channels)
        return {"model": {"init_args": {"encoder": point.encoder(), "decoder": decoder}}}

    def _fit(self, point: Point, model: dict[str, Any], name: str, seed: int, times: int) -> dict[str, Any]:
        """Trains and tests a decoder, or goes on with one that was interrupted; gives what the test says."""
        run, config = Run(point.folder / name), point.folder / f"{name}.yaml"
        write_text(config, yaml.safe_dump(model))
        resumed, start = run.checkpoint("last").is_file(), time.monotonic()
        flags = [f"--seed_everything={seed}", *self.rest]
        flags += [f"{_EPOCHS}{times * self._epochs()}"] if times > 1 else []
        train(run.folder, *(f"--config={path}" for path in (*self.options.config, config)), *flags)
        tested = figures_of(run.folder)
        if missing := [key for key in _TESTED if f"test/{key}" not in tested]:
            raise ValueError(
                f"{run.folder / 'metrics.csv'} has no test/{missing[0]}: remove {run.folder} to train it anew"
            )
        trained = [row["epoch"] for row in run.logged() if any(key.startswith("train/") for key in row)]
        return {
            "decoder_parameters": parameters_of(model["model"]["init_args"]["decoder"]),
            "epochs": int(max(trained)) + 1,
            "minutes": None if resumed else (time.monotonic() - start) / 60,  # what passed before nobody knows
        } | {key: tested[f"test/{key}"] for key in _TESTED}

    def _epochs(self) -> int:
        """`trainer.max_epochs` of the fits."""
        trainers = [config["trainer"] for config in read_configs(self.options.config) if config.get("trainer")]
        given = [trainer["max_epochs"] for trainer in trainers if "max_epochs" in trainer]
        given += [flag.removeprefix(_EPOCHS) for flag in self.rest if flag.startswith(_EPOCHS)]
        if not given or not str(given[-1]).isdecimal():
            raise ValueError("--twice trains for twice the epochs: give --trainer.max_epochs")
        return int(given[-1])

    def _search(self, point: Point, decoder: str) -> dict[str, Any]:
        """Searches a few images without training, by weights that were chosen on as many validation images."""
        count = self.options.optimize
        few, val = (split.images[spread(split.images, count)] for split in (self.data.test_set, self.data.val_set))
        encoder = model_of(point, self.device, grid=True).encoder
        search, chosen = tuned_search(encoder, val, COMMON_SIZE, self.device)
        figures: dict[str, Any] = {"chosen": chosen}
        decoded = load_model(find_run(point.folder / decoder)).to(self.device)
        for name, rebuild in (("search", _remembered(search)), ("few", decoded)):
            figures[f"psnr_64_{name}"] = errors(rebuild, few, self.device)["psnr_64"]
            figures[f"feature_error_{name}"] = feature_error(rebuild, encoder, few, self.device)
        return figures

    @cached_property
    def _lpips(self) -> LPIPS | None:
        return LPIPS.named(self.options.lpips).to(self.device) if self.options.lpips else None

    @cached_property
    def _extractor(self) -> Extractor | None:
        named = self.options.extractor
        if not named or named == "Inception":
            return inception(self.device) if named else None
        return named_extractor(named, self.device)

    def _perceived(self, rebuild: Images) -> dict[str, Any]:
        """How far reconstructions are from test images for a network."""
        test, figures = self.data.test_set.images, dict[str, Any]()
        if self._lpips:
            figures["lpips_64"] = errors(rebuild, test, self.device, self._lpips)["lpips_64"]
            figures["lpips_network"] = self._lpips.name
        if self._extractor:
            figures |= measure_rfid(rebuild, test, self._extractor, self.device)
        return figures

    def _perceived_by_decoder(self, run: Path) -> dict[str, Any]:
        return self._perceived(load_model(find_run(run)).to(self.device))
