"""Error against bits, from the runs of a sweep."""

import csv
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from preimage.reporting.charts import rate_figures
from preimage.reporting.report import draw_rates, write_report
from preimage.reporting.runs import read_findings

#: Bits and errors; the third of the autoencoder costs more than the second and is no better.
POINTS = {"fsq": [(12.0, 0.04), (36.0, 0.02), (48.0, 0.03), (96.0, 0.01)], "vae": [(20.0, 0.03)]}


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    """A run for each point; the errors of a VAE's means are not those that its bits pay for."""
    for name, points in POINTS.items():
        for number, (bits, error) in enumerate(points):
            folder = tmp_path / f"rates/{name}/point_{number:03d}"
            folder.mkdir(parents=True)
            data = {"class_path": "MNISTDataModule", "init_args": {"dataset": "mnist"}}
            model = {"class_path": "Autoencoder", "init_args": {"levels": number}}
            (folder / "config.yaml").write_text(yaml.safe_dump({"name": name, "model": model, "data": data}))
            tested = {"test/bits_per_image": bits, "test/mse": error}
            tested |= {"test/mse": error / 2, "test/mse_drawn": error} if name == "vae" else {}
            with (folder / "metrics.csv").open("w") as file:
                writer = csv.DictWriter(file, ["epoch", "step", *tested])
                writer.writeheader()
                writer.writerow({"epoch": 1, "step": 9} | tested)
    return tmp_path / "rates"


def drawn(figure: Figure) -> dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]]:
    """All points of each system, and those of its line."""
    (axes,) = figure.axes
    return {
        str(line.get_label()): ([tuple(p) for p in dots.get_offsets()], [tuple(p) for p in line.get_xydata()])  # type: ignore[union-attr,arg-type]
        for line, dots in zip(axes.lines, axes.collections, strict=True)
    }


def test_a_line_goes_through_what_no_cheaper_point_beats(rates: Path) -> None:
    (figure,) = rate_figures(read_findings([rates]).groups)
    systems = drawn(figure)
    assert set(systems) == set(POINTS)
    assert systems["fsq"] == (POINTS["fsq"], [POINTS["fsq"][i] for i in (0, 1, 3)])
    assert systems["vae"] == (POINTS["vae"], POINTS["vae"])
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == ("log", "log")


def test_there_is_no_figure_of_systems_with_one_rate_each(rates: Path, tmp_path: Path) -> None:
    folders = [rates / "fsq/point_000", rates / "vae/point_000"]
    assert rate_figures(read_findings(folders).groups) == []
    draw_rates(rates / "vae")
    assert not (rates / "vae/rate.png").exists()


def test_a_sweep_and_a_report_have_the_figure(rates: Path, tmp_path: Path) -> None:
    draw_rates(rates / "fsq")
    assert {path.name for path in rates.glob("fsq/rate.*")} == {"rate.png", "rate.svg"}
    write_report([rates], tmp_path / "out", "Title")
    report = (tmp_path / "out/report.md").read_text()
    assert "![mnist: MSE against bits per image: fsq, vae](images/rate_0.svg)" in report
    assert "Error against bits" in (tmp_path / "out/index.html").read_text()
