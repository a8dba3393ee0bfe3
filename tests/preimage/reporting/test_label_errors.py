import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from preimage.reporting.charts import describe, error_figure, svg
from preimage.reporting.label_errors import COLOURS, PUBLISHED, error_table, errors_of
from preimage.reporting.runs import over_seeds

ACCURACIES = {10: (0.5, 0.6, 0.8), 100: (0.8, 0.9), 1000: (0.97,)}


def row(data: str, labels: object, method: str, seed: object, accuracy: object) -> dict[str, str]:
    values = zip(("data", "labels", "method", "seed", "accuracy"), (data, labels, method, seed, accuracy), strict=True)
    return {key: str(value) for key, value in values}


ROWS = [
    row("mnist", count, "linear", seed, value)
    for count, found in ACCURACIES.items()
    for seed, value in enumerate(found)
]
ROWS += [row("fashion_mnist", 100, "knn", 0, 0.75), row("mnist", "many", "knn", 0, 0.5), row("mnist", 10, "knn", 0, "")]


def points(axes: Axes, name: str) -> dict[float, float]:
    (line,) = (line for line in axes.lines if line.get_label() == name)
    return dict(zip(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist(), strict=True))


def test_lines_are_means_and_bands_deviations() -> None:
    panels = error_figure(errors_of(ROWS), COLOURS).axes
    assert [panel.get_title() for panel in panels] == ["mnist: test error, %", "fashion_mnist: test error, %"]
    errors = {count: 100 * (1 - np.array(found)) for count, found in ACCURACIES.items()}
    assert points(panels[0], "linear") == pytest.approx({count: found.mean() for count, found in errors.items()})
    (corners,) = panels[0].collections[0].get_paths()
    for count, found in errors.items():
        half = found.std(ddof=1) if len(found) > 1 else 0
        ends = [y for x, y in np.asarray(corners.vertices).tolist() if x == count]
        assert [min(ends), max(ends)] == pytest.approx([found.mean() - half, found.mean() + half])
    assert points(panels[1], "kNN") == {100: 25}
    assert len(panels[1].lines) == 1  # nothing is published, and what is no number is left out
    assert all(panel.get_xscale() == panel.get_yscale() == "log" for panel in panels)


def test_published_points_are_black_and_in_the_legend() -> None:
    figure = error_figure(errors_of(ROWS), COLOURS)
    for name, published in PUBLISHED["mnist"].items():
        assert points(figure.axes[0], name) == pytest.approx({count: 100 * error for count, error in published.items()})
        (line,) = (line for line in figure.axes[0].lines if line.get_label() == name)
        assert (to_hex(line.get_color()), line.get_linestyle()) == ("#000000", "None")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["linear", *PUBLISHED["mnist"], "kNN"]
    assert "mnist: test error, % against number of labels: linear, M1+TSVM" in describe(figure)


def test_a_line_that_lies_on_another_lets_it_be_seen() -> None:
    values = [
        ("a", name, labels, 1 / labels + (name == "other")) for name in ("one", "two", "other") for labels in (3, 30)
    ]
    errors = over_seeds(pd.DataFrame(values, columns=["data", "line", "labels", "value"]), ["data", "line", "labels"])
    (axes,) = error_figure(errors, dict.fromkeys(("one", "two", "other"), "#123456")).axes
    styles = {line.get_label(): line.get_linestyle() for line in axes.lines}
    assert (styles["one"], styles["two"], styles["other"]) == ("-", "--", "-")


def test_the_table_has_means_deviations_and_the_published_errors() -> None:
    lines = error_table(errors_of(ROWS)).splitlines()
    assert lines[0] == "| error, %, on mnist | 10 | 100 | 600 | 1000 | 3000 |"
    deviations = [np.std([50, 40, 20], ddof=1), np.std([20, 10], ddof=1)]
    assert lines[2] == f"| linear | 36.67 ± {deviations[0]:.2f} | 15.00 ± {deviations[1]:.2f} |  | 3.00 |  |"
    assert "| M1+M2, Kingma et al. |  | 3.33 | 2.59 | 2.40 | 2.18 |" in lines
    assert lines[-1] == "| kNN | 25.00 |"


def test_an_error_of_nothing_is_left_out_of_the_logarithm() -> None:
    figure = error_figure(errors_of([row("a", 10, "knn", 0, 0.5), row("a", 100, "knn", 0, 1)]), COLOURS)
    assert svg(figure)
    assert figure.axes[0].get_ylim()[0] > 1


def test_names_are_text_and_the_same_figure_is_the_same_svg() -> None:
    name = "$x_1$ <b> & __y"
    values = [(name, name, 10, 0.05), (name, name, 10, 0.06), (name, name, 100, 0.02)]
    keys = ["data", "line", "labels"]
    errors = over_seeds(pd.DataFrame(values, columns=[*keys, "value"]), keys)
    texts = {svg(error_figure(errors, {name: "#123456"})) for _ in range(2)}
    (text,) = texts
    assert text.count("$x_1$ &lt;b&gt; &amp; __y") == 2  # the title and the legend
