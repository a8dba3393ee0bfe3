import math
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from preimage.reporting.plane import hoverable_svg, numbers, plane_figure, styles


def drawn(rows: pd.DataFrame) -> Figure:
    figure = plane_figure(numbers(rows))
    assert figure is not None
    return figure


def lines(axes: Axes) -> list[list[tuple[float, float]]]:
    return [[(x, y) for x, y in np.asarray(line.get_xydata()).tolist()] for line in axes.lines]


def test_paths_lead_from_the_image_to_the_last_layer(atlas_rows: pd.DataFrame) -> None:
    (axes,) = drawn(atlas_rows).axes
    paths = [path for path in lines(axes) if len(path) > 1]
    assert [(0, 20), (0.69, 5)] in paths
    assert [(0, 20), (0.3, 30), (0.5, 50)] in paths
    assert [(0, 20), (0.6, 60)] in paths
    assert [(0.7, 0), (0.7, 1)] in paths  # the mean image, from bottom to top


def test_the_search_stands_where_its_ratio_to_the_decoder_puts_it(atlas_rows: pd.DataFrame) -> None:
    (axes,) = drawn(atlas_rows).axes
    hollow = [line for line in axes.lines if line.get_fillstyle() == "none" and len(np.asarray(line.get_xdata()))]
    (point,) = (np.asarray(line.get_xydata())[0] for line in hollow)
    # 6 dB more are a mean squared error of 10 ** 0.6, and the normalised error is one of distances, not of squares.
    assert point.tolist() == pytest.approx([0.3 * math.sqrt(10**0.6), 30])


def test_markers_are_sized_by_numbers_and_named_at_the_ends(atlas_rows: pd.DataFrame) -> None:
    figure = drawn(atlas_rows)
    (axes,) = figure.axes
    sizes = {line.get_gid(): line.get_markersize() for line in axes.lines if line.get_gid()}
    assert sizes["all-row-5"] == pytest.approx(3 + 2 * 1)  # 10 numbers
    assert sizes["all-row-3"] - sizes["all-row-4"] == pytest.approx(2 * math.log10(32768 / 512))
    names = [text.get_text() for text in axes.texts]
    assert names == ["image", "1 x 1", "conv.1", "conv.2", "a $ layer"]
    legend, of_sizes = ([text.get_text() for text in part.get_texts()] for part in figure.legends)
    assert legend == ["pixels, downscaled", "net (random)", "<b>", "search without training", "mean image"]
    assert of_sizes == ["1", "10", "100", "1,000", "10,000"]


def test_names_cover_no_other_name_and_stay_inside(atlas_rows: pd.DataFrame) -> None:
    crowd = pd.concat([atlas_rows, *(atlas_rows[3:5].assign(network=f"net {i}") for i in range(4))], ignore_index=True)
    figure = drawn(crowd)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts if isinstance(text, Annotation)]
    assert len(boxes) == 13
    limits = axes.get_window_extent()
    assert all(limits.x0 <= box.x0 and box.x1 <= limits.x1 for box in boxes)
    assert not any(first.overlaps(second) for i, first in enumerate(boxes) for second in boxes[:i])


def test_deviations_are_bars(atlas_rows: pd.DataFrame) -> None:
    (axes,) = drawn(atlas_rows).axes
    bars = [segment for part in axes.collections for segment in part.get_segments()]  # type: ignore[attr-defined]
    spans = [np.ptp(np.asarray(bar), axis=0).tolist() for bar in bars]
    assert [span for span in spans if max(span) > 0] == [
        pytest.approx(span, abs=1e-9) for span in ([0.02, 0], [0, 4], [0.04, 0], [0, 2])
    ]


def test_the_points_of_an_svg_tell_their_figures(atlas_rows: pd.DataFrame) -> None:
    rows = numbers(atlas_rows)
    svg = hoverable_svg(drawn(atlas_rows), rows)
    assert svg == hoverable_svg(drawn(atlas_rows), rows)
    titles = re.findall(r'<g id="all-row-(\d)"><title>(.*?)</title>', svg, re.DOTALL)
    assert [int(index) for index, _ in titles] == [0, 1, 3, 4, 5]
    told = dict(titles)
    assert told["3"].splitlines()[:6] == [
        "net (random), conv.1",
        "numbers of the code: 32,768",
        "bits of the code: 1,048,576",
        "normalised error: 0.300 ± 0.010",
        "PSNR, dB: 21.00 ± 0.50",
        "PSNR (twice the budget), dB: 21.25",
    ]
    assert "linear probe, %: 30.00 ± 2.00\nlinear probe, 100 labels, %: 15.00" in told["3"]
    assert told["5"].startswith("&lt;b&gt;, a $ layer\n")
    assert "effective rank" not in told["5"]  # which is infinite


@pytest.mark.parametrize("lacking", ["normalized_error_64", "linear"])
def test_there_is_no_plane_without_both_axes(atlas_rows: pd.DataFrame, lacking: str) -> None:
    assert plane_figure(numbers(atlas_rows.drop(columns=lacking))) is None
    assert plane_figure(numbers(atlas_rows.assign(**{lacking: ""}))) is None
    assert plane_figure(numbers(atlas_rows[:3])) is None  # no network


def test_the_least_makes_a_plane(atlas_rows: pd.DataFrame) -> None:
    rows = atlas_rows[["network", "layer", "normalized_error_64", "linear"]]
    (axes,) = drawn(rows[3:4]).axes
    assert [(0.3, 30)] in lines(axes)


def test_no_two_of_many_networks_look_alike() -> None:
    names = [f"net {i}" for i in range(60)]
    looks = styles(["mean image", *names, "pixels", *names])
    assert list(looks) == names
    assert len(set(looks.values())) == 60
