"""How figures are called and written, and Markdown tables of them."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """How a kind of figure is called and written."""

    title: str
    decimals: int | None = None  # None for four digits
    better: int = 0  # -1 where less is better, 1 where more is
    unit: str = ""

    @property
    def heading(self) -> str:
        """Title with unit, as a column or an axis has it."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def scale(self) -> int:
        """What a value is multiplied by: shares of one are shown in percent."""
        return 100 if self.unit == "%" else 1

    def text(self, value: float, deviation: float = math.nan) -> str:
        """Writes a value without its unit, and its standard deviation if there is one."""
        if not math.isfinite(deviation):
            form = ".4g" if self.decimals is None else f",.{self.decimals}f"
            return f"{value * self.scale:{form}}"
        return f"{self.text(value)} ± {self.text(deviation)}"


#: Every kind of figure by its key, in the order of the columns.
METRICS = {
    "mse": Metric("MSE", 4, -1),
    "psnr": Metric("PSNR", 2, 1, "dB"),
    "ssim": Metric("SSIM", 3, 1),
    "normalized_error": Metric("normalised error", 3, -1),
    "lpips": Metric("LPIPS", 3, -1),
    "feature_error": Metric("feature error", 3, -1),
    "rfid": Metric("rFID", 2, -1),
    "rfid_floor": Metric("rFID of halves of the images", 2),
    "fid": Metric("FID", 2, -1),
    "fid_floor": Metric("FID of halves of the images", 2),
    "kid": Metric("KID", 4, -1),
    "linear": Metric("linear probe", 2, 1, "%"),
    "knn": Metric("kNN", 2, 1, "%"),
    "mlp": Metric("MLP probe", 2, 1, "%"),
    "accuracy": Metric("accuracy", 2, 1, "%"),
    "error": Metric("test error", 2, -1, "%"),
    "f1": Metric("F1", 2, 1, "%"),
    "auroc": Metric("ROC AUC", None, 1),
    "average_precision": Metric("average precision", None, 1),
    "calibration_error": Metric("calibration error", 2, -1, "%"),
    "knn_accuracy": Metric("kNN accuracy", 2, 1, "%"),
    "knn_f1": Metric("kNN F1", 2, 1, "%"),
    "elbo": Metric("ELBO", 1, unit="nats"),
    "log_likelihood": Metric("log p(x)", 1, 1, "nats"),
    "bits_per_image": Metric("bits per image", 1),
    "code_entropy": Metric("entropy of the code", 1, unit="bits"),
    "used_levels": Metric("used levels", 2),
    "numbers": Metric("numbers of the code", 0),
    "effective_rank": Metric("effective rank", 1),
    "intrinsic_dimension": Metric("intrinsic dimension", 1),
    "active_units": Metric("active units", 1),
    "parameters": Metric("parameters", 0),
    "trainable_parameters": Metric("trainable", 0),
    "training_minutes": Metric("training", 1, unit="min"),
    "images_per_second": Metric("images/s encoded", 0),
    "peak_memory_gb": Metric("peak memory", 2, unit="GB"),
    # Only of an atlas.
    "values": Metric("numbers of the code", 0),
    "bits": Metric("bits of the code", 0),
    "encoder_parameters": Metric("parameters of the encoder", 0),
    "decoder_parameters": Metric("parameters of the decoder", 0),
    "epochs": Metric("epochs", 0),
    "minutes": Metric("training", 1, unit="min"),
    "memory_gb": Metric("memory", 2, unit="GB"),
    "seeds": Metric("seeds", 0),
}
#: What stands behind the name of a figure in a column of an atlas.
_VARIANTS = {"twice": "twice the budget", "few": "few images", "search": "search", "downscaled": "image downscaled"}
#: Where the name of the network stands that a figure was measured with.
_NETWORKS = {
    "lpips": "lpips_network",
    "rfid": "rfid_extractor",
    "rfid_floor": "rfid_extractor",
    "fid": "extractor",
    "fid_floor": "extractor",
    "kid": "extractor",
}
_PROBES, _HEAD, _SHAPE = "Probes of the code, fitted to their optimum", "This run's head", "Shape of the code"
#: Why two linear figures of one code differ, by their section.
_NOTES = {
    _PROBES: "A linear probe is fitted to its optimum on the frozen code.",
    _HEAD: "This run's head is what the run itself has trained.",
}
COST = ("active_units", "parameters", "trainable_parameters", "training_minutes", "images_per_second", "peak_memory_gb")
_SECTIONS = ("Reconstruction", "Generation", _PROBES, _HEAD, "Own test", _SHAPE, "Size and cost")


def metric_of(key: str) -> Metric:
    """How a column of an atlas is called and written, such as `psnr_64_few`, `few_100` and `invariance_shift`."""
    name, variant = re.fullmatch(rf"(.+?)(?:_64)?(?:_({'|'.join(_VARIANTS)}))?", key).groups()  # type: ignore[union-attr]
    if name.startswith("invariance_"):
        return Metric(f"moved by {name.removeprefix('invariance_')}", 3, -1)
    if re.fullmatch(r"few_\d+", name):
        return METRICS["linear"]._replace(title=f"linear probe, {name.removeprefix('few_')} labels")
    metric = METRICS.get(name) or Metric(name.replace("_", " "))
    return metric._replace(title=f"{metric.title} ({_VARIANTS[variant]})") if variant else metric


class Column(NamedTuple):
    """A figure of the tables."""

    key: str
    section: str
    metric: Metric


def figures(evaluation: Any) -> dict[str, float]:
    """The numbers of an `evaluation.json` by name, such as `reconstruction/psnr`.

    LPIPS, FID and the like carry the name of the network that they were measured with, so that no two are ever
    averaged. What is no finite number is left out, of which a file that someone edited may have any.
    """
    return dict(_numbers(evaluation))


def _numbers(tree: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            of = f"/{tree.get(_NETWORKS[key]) or 'unnamed'}" if key in _NETWORKS else ""
            yield from _numbers(value, f"{path}/{key}{of}".strip("/"))
    elif isinstance(tree, int | float) and not isinstance(tree, bool) and math.isfinite(tree):
        yield path, float(tree)


def in_order(keys: Iterable[str]) -> list[str]:
    """Names of figures as a reader wants them: known ones in their order, numbers by size, the rest by name."""
    known = list(METRICS)

    def rank(part: str) -> tuple[int, float, str]:
        return known.index(part) if part in known else len(known), float(part) if part.isdigit() else 0.0, part

    return sorted(set(keys), key=lambda key: [rank(part) for part in key.split("/")])


def columns_of(keys: Iterable[str]) -> list[Column]:
    """The columns of figures that have one, in the order of the sections; also of a run's own test, as `test/f1`."""
    columns = [column for key in in_order(keys) if (column := _column(key))]
    return sorted(columns, key=lambda column: _SECTIONS.index(column.section))


def notes_on(keys: Iterable[str]) -> str:
    """What has to be said of the sections of those figures."""
    sections = {column.section for column in columns_of(keys)}
    return " ".join(text for section, text in _NOTES.items() if section in sections)


def _column(key: str) -> Column | None:
    match key.split("/"):
        case ["reconstruction" | "generation" as section, name, *network] if name in _NETWORKS:
            metric = METRICS[name]
            return Column(key, section.capitalize(), metric._replace(title=f"{metric.title} ({'/'.join(network)})"))
        case ["reconstruction", name]:
            return Column(key, "Reconstruction", METRICS.get(name) or Metric(name.replace("_", " ")))
        case ["reading", "few_labels", count, "accuracy"]:
            return Column(key, _PROBES, METRICS["linear"]._replace(title=f"{count} labels"))
        case ["reading", name, "accuracy"]:
            return Column(key, _PROBES, METRICS.get(name) or METRICS["accuracy"]._replace(title=name))
        case ["test", ("accuracy" | "f1" | "auroc" | "average_precision" | "calibration_error") as name]:
            return Column(key, _HEAD, METRICS[name])
        case ["test", ("knn_accuracy" | "knn_f1" | "elbo" | "log_likelihood") as name]:
            return Column(key, "Own test", METRICS[name])
        case ["test", ("bits_per_image" | "code_entropy" | "used_levels") as name]:
            return Column(key, _SHAPE, METRICS[name])
        case ["geometry", name] if name in METRICS:
            return Column(key, _SHAPE, METRICS[name])
        case [name] if name in COST:
            return Column(key, "Size and cost", METRICS[name])
    return None


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out a Markdown table; its cells are plain text, whatever they hold."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(plain(text) for text in line)} |\n" for line in lines)


def plain(text: str) -> str:
    """Keeps a text from being read as HTML or as the end of a cell."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`*\[\]])", r"\\\1", text)
