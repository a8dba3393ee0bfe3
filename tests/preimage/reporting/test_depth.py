import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from preimage.reporting.depth import depth_figure
from preimage.reporting.plane import numbers


def drawn(rows: pd.DataFrame) -> Figure:
    figure = depth_figure(numbers(rows))
    assert figure is not None
    return figure


def panel(figure: Figure, title: str) -> Axes:
    (axes,) = (axes for axes in figure.axes if axes.get_title() == title)
    return axes


def curve(axes: Axes, name: str) -> list[list[float]]:
    """The values of a network's lines, over the layers 1, 2, ..."""
    lines = [line for line in axes.lines if line.get_label() == name]
    assert all(list(line.get_xdata()) == [*range(1, len(line.get_xdata()) + 1)] for line in lines)  # type: ignore
    return [np.asarray(line.get_ydata()).tolist() for line in lines]


def test_there_is_a_panel_for_what_is_measured(atlas_rows: pd.DataFrame) -> None:
    figure = drawn(atlas_rows)
    titles = ["PSNR, dB", "PSNR (few images), dB", "LPIPS", "normalised error", "linear probe, %"]
    titles += ["linear probe, 100 labels, %", "effective rank", "moved by shift"]
    assert [axes.get_title() for axes in figure.axes] == titles
    psnr = panel(figure, "PSNR, dB")
    assert curve(psnr, "net (random)") == [[21, 17], [21.25, 17.5], [25, 18]]  # decoder, twice the budget, downscaled
    assert np.asarray(curve(panel(figure, "linear probe, %"), "net (random)")) == pytest.approx(np.array([[30, 50]]))
    first, second = curve(panel(figure, "PSNR (few images), dB"), "net (random)")
    assert (first[0], second[0]) == (20, 14)
    assert np.isnan([first[1], second[1]]).all()


@pytest.fixture
def legend(atlas_rows: pd.DataFrame) -> list[str]:
    return [text.get_text() for text in drawn(atlas_rows).legends[0].get_texts()]


def test_a_legend_says_whose_the_lines_are_and_what_they_show(legend: list[str]) -> None:
    assert legend[:2] == ["net (random): conv.1 … conv.2", "<b>: a $ layer"]
    assert legend[2:6] == [
        "decoder, or the code itself",
        "decoder of twice the budget",
        "image downscaled to as many numbers",
        "search without training",
    ]
    assert legend[6:] == ["mean image", "pixels", "as far as another image"]


def levels(axes: Axes) -> dict[str, float]:
    across = [line for line in axes.lines if len(set(np.asarray(line.get_ydata()))) == 1 and len(line.get_xdata()) > 1]  # type: ignore
    return {str(line.get_label()): np.asarray(line.get_ydata())[0] for line in across}


def test_mean_image_and_pixels_are_lines_across(atlas_rows: pd.DataFrame) -> None:
    figure = drawn(atlas_rows)
    assert levels(panel(figure, "PSNR, dB")) == {"mean image": 11.5}  # the PSNR of the image itself is infinite
    assert levels(panel(figure, "normalised error")) == {"mean image": 0.7, "pixels": 0}
    assert levels(panel(figure, "linear probe, %")) == {"pixels": 20}
    assert levels(panel(figure, "moved by shift")) == {"as far as another image": 1}
    assert panel(figure, "moved by shift").get_ylim()[0] == 0


def test_bands_are_deviations(atlas_rows: pd.DataFrame) -> None:
    band = panel(drawn(atlas_rows), "PSNR, dB").collections[0].get_paths()[0].vertices
    corners = {(x, y) for x, y in np.asarray(band).tolist()}
    assert corners == {(1, 20.5), (1, 21.5), (2, 16.75), (2, 17.25)}


def test_layers_are_named_where_they_are_of_one_network(atlas_rows: pd.DataFrame) -> None:
    def ticks(rows: pd.DataFrame) -> list[list[str]]:
        return [[text.get_text() for text in axes.get_xticklabels()] for axes in drawn(rows).axes]

    assert ticks(atlas_rows)[-3:] == [["1", "2"]] * 3
    assert ticks(atlas_rows)[:5] == [["", ""]] * 5
    alone = atlas_rows[atlas_rows["network"] != "<b>"]
    assert ticks(alone)[-3:] == [["conv.1", "conv.2"]] * 3


def test_one_layer_with_one_figure_is_enough_and_nothing_too_little(atlas_rows: pd.DataFrame) -> None:
    (axes,) = drawn(atlas_rows.loc[5:, ["network", "layer", "linear"]]).axes
    assert curve(axes, "<b>") == [[60]]
    assert depth_figure(numbers(atlas_rows[["network", "layer", "values"]])) is None
    assert depth_figure(numbers(atlas_rows[:3])) is None
