from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from preimage.reporting.atlas import cka_figure, draw, read_rows, strips_figure


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_all_that_is_measured_is_drawn_the_same_every_time(atlas: Path) -> None:
    names = ["plane", "depth", "cka", "strips"]
    assert draw(atlas) == [atlas / f"{name}.png" for name in names]
    first = {path.name: path.read_bytes() for path in atlas.glob("*.svg")}
    assert sorted(first) == ["cka.svg", "depth.svg", "plane.svg"]
    assert b"<title>net (random), conv.1\nPSNR, dB: 21.00 \xc2\xb1 0.50</title>" in first["depth.svg"]
    for name in names:
        assert min(Image.open(atlas / f"{name}.png").size) > 200
    draw(atlas)
    assert {path.name: path.read_bytes() for path in atlas.glob("*.svg")} == first


def test_what_is_not_measured_is_left_out(atlas: Path) -> None:
    for name in ("cka.csv", "strips.npz"):
        (atlas / name).unlink()
    rows = pd.read_csv(atlas / "atlas.csv", dtype=str)
    rows.drop(columns="linear").to_csv(atlas / "atlas.csv", index=False)
    assert draw(atlas) == [atlas / "depth.png"]
    rows[["network", "layer"]].to_csv(atlas / "atlas.csv", index=False)
    assert draw(atlas) == []


def test_a_table_that_is_none_is_named(atlas: Path) -> None:
    (atlas / "atlas.csv").write_text("layer,psnr_64\nconv,20\n")
    with pytest.raises(ValueError, match=r"atlas\.csv has no column network or layer: measure the atlas anew"):
        read_rows(atlas)
    (atlas / "atlas.csv").unlink()
    with pytest.raises(ValueError, match=r"atlas\.csv cannot be read: .*; `preimage atlas --out .*` writes it"):
        read_rows(atlas)


def test_a_matrix_is_grouped_by_network(atlas: Path) -> None:
    figure = cka_figure(pd.read_csv(atlas / "cka.csv", index_col=0), read_rows(atlas))
    axes = figure.axes[0]
    layers = ["conv.1", "conv.2", "a $ layer"]
    assert [label.get_text() for label in axes.get_yticklabels()] == layers
    assert [label.get_text() for label in axes.get_xticklabels()] == layers
    assert texts(figure)[:2] == ["net (random)", "<b>"]
    assert texts(figure)[2:] == ["1.00", "0.50", "0.25", "0.50", "1.00", "0.12", "0.25", "0.12", "1.00"]
    assert [line.get_ydata() for line in axes.lines[::2]] == [[1.5, 1.5]]  # between the networks


def test_a_large_matrix_has_no_numbers(atlas: Path) -> None:
    names = [f"net {i}" for i in range(13)]
    assert texts(cka_figure(pd.DataFrame(np.eye(13), names, names), read_rows(atlas))) == [""]


def test_strips_are_a_block_per_network_and_a_row_per_image(atlas: Path) -> None:
    with np.load(atlas / "strips.npz") as strips:
        figure = strips_figure(dict(strips), read_rows(atlas))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["net (random)", "<b>"]
    first, second = figure.axes
    assert [label.get_text() for label in first.get_xticklabels()] == ["image", "conv.1", "conv.2"]
    assert [label.get_text() for label in second.get_xticklabels()] == ["image", "a $ layer"]
    assert [label.get_text() for label in second.get_yticklabels()] == ["cat", "dog\n(n1)"]
    shown = np.asarray(second.images[0].get_array())[32::67, 32::67, 0]  # the middles of the tiles
    assert shown.tolist() == [[0, 180, 255], [30, 210, 255]]  # and white, where this network has no layer
