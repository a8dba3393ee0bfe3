import base64
import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from preimage.__main__ import main
from preimage.reporting.charts import curve_figures, error_figure
from preimage.reporting.label_errors import errors_of_groups
from preimage.reporting.page import colours_of
from preimage.reporting.pictures import compare
from preimage.reporting.report import write_report
from preimage.reporting.runs import read_findings
from preimage.reporting.tables import plain
from tests.conftest import Fails
from tests.preimage.conftest import evaluation

CHROMIUM = shutil.which("chromium")
VOID = {"meta", "link", "img", "wbr"}


def results(out: Path) -> dict[str, dict[str, str]]:
    with (out / "results.csv").open() as file:
        return {row["label"]: row for row in csv.DictReader(file)}


class Page(HTMLParser):
    """Checks that elements close in order, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.titles: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, text: str) -> None:
        if self.stack[-1:] == ["title"]:
            self.titles.append(text)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.elements if name == tag)


def test_seeds_of_a_config_are_one_row_with_mean_and_deviation(trained: Path, tmp_path: Path) -> None:
    write_report([trained], tmp_path, "Title")
    rows = results(tmp_path)
    assert set(rows) == {"quickstart", "classifier"}
    row = rows["quickstart"]
    assert (row["runs"], row["seeds"], row["model"], row["data"]) == ("2", "0 1", "Autoencoder", "digits5k")
    assert float(row["reconstruction/psnr"]) == 17.5
    assert float(row["reconstruction/psnr/sd"]) == pytest.approx(np.std([17, 18], ddof=1))
    accuracies = [0.8, 0.81]
    assert float(row["reading/linear/accuracy"]) == pytest.approx(np.mean(accuracies))
    assert float(row["reading/linear/accuracy/sd"]) == pytest.approx(np.std(accuracies, ddof=1))
    assert rows["classifier"]["reconstruction/psnr"] == ""
    with (trained / "classifier/version_0/metrics.csv").open() as file:
        tested = [line["test/accuracy"] for line in csv.DictReader(file) if line["test/accuracy"]]
    assert rows["classifier"]["test/accuracy"] == tested[-1]
    report = (tmp_path / "report.md").read_text()
    assert "| quickstart | 2 | 0.0200 ± 0.0000 | 17.50 ± 0.71 | 0.500 ± 0.000 | 0.300 ± 0.000 |" in report
    assert "| quickstart | 2 | 80.50 ± 0.71 |" in report


def test_a_picture_that_is_shown_smaller_is_there_at_full_size(runs: Path, tmp_path: Path) -> None:
    Image.new("RGB", (2200, 2300)).save(runs / "classifier/version_0/images/confusion/test.png")
    write_report([runs], tmp_path / "out", "Title")
    page = Page((tmp_path / "out/index.html").read_text())
    opened = [button["aria-label"] for button in page.all("button") if button.get("class") == "large"]
    assert "Confusion matrices of classifier, at full size" in opened
    (shown,) = (image for image in page.all("img") if image["alt"] == "Confusion matrices of classifier")
    assert (shown["width"], shown["height"]) == ("520", "544")
    with Image.open(io.BytesIO(base64.b64decode(str(shown["src"]).partition(",")[2]))) as image:
        assert image.size == (2200, 2300)


def test_what_only_watches_a_run_makes_no_other_experiment_of_it(runs: Path) -> None:
    path = runs / "quickstart/version_1/config.yaml"
    config = yaml.safe_load(path.read_text())
    del config["provenance"]  # as an earlier version has it
    config["data"]["init_args"]["download"] = True
    path.write_text(yaml.safe_dump(config | {"stop_on_nan": None}))
    assert [len(group.runs) for group in read_findings([runs / "quickstart"]).groups] == [2]


def test_extractors_are_never_mixed_in_a_column(trained: Path, tmp_path: Path) -> None:
    write_report([trained], tmp_path, "Title")
    rows = results(tmp_path)
    assert float(rows["quickstart"]["generation/fid/inception"]) == 10.5
    assert rows["quickstart"]["generation/fid/mnist_classifier"] == ""
    report = (tmp_path / "report.md").read_text()
    assert (
        "| model | seeds | FID (inception) | FID (mnist_classifier) | KID (inception) | KID (mnist_classifier) |"
        in report
    )
    assert "| quickstart | 2 | 10.50 ± 0.71 |  | 0.0100 ± 0.0000 |  |" in report


def test_the_test_of_a_run_stands_in_for_its_evaluation(runs: Path, tmp_path: Path) -> None:
    for path in runs.rglob("evaluation.json"):
        path.unlink()
    write_report([runs], tmp_path / "out", "Title")
    row = results(tmp_path / "out")["quickstart"]
    psnrs = []
    for path in sorted(runs.glob("quickstart/*/metrics.csv")):
        with path.open() as file:
            psnrs += [float(line["test/psnr"]) for line in csv.DictReader(file) if line["test/psnr"]]
    assert float(row["reconstruction/psnr"]) == pytest.approx(np.mean(psnrs))
    assert float(row["reconstruction/psnr/sd"]) == pytest.approx(np.std(psnrs, ddof=1))
    assert "FID" not in (tmp_path / "out/report.md").read_text()  # a column is there only where a run has a value


@pytest.mark.parametrize(
    ("setting", "first", "second"),
    [("batch_size", "32", "16"), ("split_seed", "0", "1"), ("binarize_seed", "null", "0")],
)
def test_a_setting_that_differs_makes_two_rows(
    runs: Path, tmp_path: Path, setting: str, first: str, second: str
) -> None:
    path = runs / "quickstart/version_1/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"]["init_args"][setting] = int(second)
    path.write_text(yaml.safe_dump(config))
    write_report([runs], tmp_path / "out", "Title")
    rows = {f"quickstart ({setting} {value})" for value in (first, second)}
    assert set(results(tmp_path / "out")) == rows | {"classifier"}


def test_damaged_files_stop_nothing(runs: Path, tmp_path: Path) -> None:
    (runs / "quickstart/version_1/config.yaml").write_text("model: [")
    (runs / "quickstart/version_0/metrics.csv").write_text("epoch,step\nx,1\n")
    (runs / "quickstart/version_0/evaluation.json").write_text('{"reconstruction": [1], "reading": {"knn": 3}}')
    for path in (*runs.rglob("test.png"), *runs.rglob("pairs.npz")):
        path.write_bytes(path.read_bytes()[:100])
    write_report([runs], tmp_path / "out", "Title")
    assert "version_1: config.yaml cannot be read" in (tmp_path / "out/report.md").read_text()
    assert results(tmp_path / "out")["quickstart"]["runs"] == "1"
    assert Page((tmp_path / "out/index.html").read_text()).stack == []


def test_reconstructions_are_those_of_the_grid_s_arrays(runs: Path) -> None:
    path = runs / "quickstart/version_0/images/reconstructions/pairs.npz"
    with np.load(path) as arrays:
        target, rebuilt = arrays["target"], arrays["reconstruction"]
    assert target.shape == rebuilt.shape == (32, 1, 28, 28)
    np.savez(path, target=target[:10], reconstruction=255 - target[:10])
    (comparison,) = compare(read_findings([runs / "quickstart/version_0"]).groups)
    originals, strip = np.asarray(comparison.originals), np.asarray(comparison.rows[0][1])
    for place in range(10):
        tile = slice(place * 58, place * 58 + 56)  # enlarged twice, two pixels apart
        assert np.array_equal(originals[::2, tile][:, ::2, 0], target[place, 0])
        assert np.array_equal(strip[::2, tile][:, ::2, 0], 255 - target[place, 0])


def test_a_run_without_pictures_or_evaluation_is_listed(runs: Path, tmp_path: Path) -> None:
    path = runs / "quickstart/version_1"
    shutil.rmtree(path / "images")
    (path / "evaluation.json").unlink()
    write_report([runs], tmp_path / "out", "Title")
    report = (tmp_path / "out/report.md").read_text()
    assert "quickstart/version_1: no evaluation.json\n" in report
    assert "| quickstart | 2 | 80.00 (1 of 2) |" in report


def test_runs_without_results_are_in_no_table_and_named_in_one_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("begun", "crashed"):
        path = Path(shutil.copytree(runs / "quickstart/version_1", runs / name / "version_0"))
        (path / "evaluation.json").unlink()
        config = yaml.safe_load((path / "config.yaml").read_text()) | {"name": name}
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        lines = (path / "metrics.csv").read_text().splitlines()
        tested = lines[0].split(",").index("test/mse")
        untested = [line for line in lines if not line.split(",")[tested] or line == lines[0]]
        (path / "metrics.csv").write_text("\n".join([untested[0].replace("test/", "other/"), *untested[1:]]))
    (runs / "crashed/version_0/metrics.csv").unlink()
    write_report([runs], tmp_path / "out", "Title")
    line = f"Without results, and in no table: {runs / 'begun/version_0'}, {runs / 'crashed/version_0'}."
    page, report = ((tmp_path / "out" / name).read_text() for name in ("index.html", "report.md"))
    assert f"<p>2 models, 3 runs, 1 data set. {line}</p>" in page
    assert report.endswith(f"\n{plain(line)}\n")
    assert line in capsys.readouterr().out.splitlines()
    assert set(results(tmp_path / "out")) == {"quickstart", "classifier"}
    assert not re.search(r"\| (begun|crashed)", report)
    assert not re.search("<th[^>]*>[^<]*(begun|crashed)", page)
    assert any("begun" in said and "crashed" not in said for said in charts(Page(page)))  # what it logged is drawn


def test_no_run_is_one_line_of_error(fails: Fails, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.conftest.main", lambda args: main(args[:-2]))  # `report` has no default_root_dir
        assert "there is no run in" in fails("report", tmp_path)
        assert "there is no folder" in fails("report", tmp_path / "nowhere")


def test_the_page_is_whole_alone_and_described(trained: Path, tmp_path: Path) -> None:
    write_report([trained], tmp_path, "Title")
    text = (tmp_path / "index.html").read_text()
    page = Page(text)
    assert page.stack == []
    for tag, attributes in page.elements:
        for name in ("src", "href", "data", "action", "srcset"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), (tag, name)
    assert not re.search(r"@import|url\(|https?://", text)
    images = list(page.all("img"))
    assert len(images) == 2 + 2 + 1 + len(charts(page))  # two strips, two maps, a confusion matrix
    assert len(charts(page)) == 7  # few labels; two losses and four metrics
    assert all(image["alt"] for image in images)
    ids = {attributes["id"] for _, attributes in page.elements if attributes.get("id")}
    assert {str(link["href"])[1:] for link in page.all("a")} <= ids
    assert len(text) < 500_000
    assert "<h2 id=" in text
    assert 'aria-sort="none"' in text


def test_names_from_runs_are_text_and_never_markup(runs: Path, tmp_path: Path) -> None:
    evil = '<script>alert("x")</script> | `a`'
    for path in runs.glob("quickstart/*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        config["name"] = config["data"]["init_args"]["dataset"] = evil
        config["seed_everything"] = evil
        path.write_text(yaml.safe_dump(config))
        written = evaluation(0, evil)
        written["reading"][evil] = {"accuracy": 0.5}
        (path.parent / "evaluation.json").write_text(json.dumps(written))
    (runs / "sweep.csv").write_text(f'"{evil.replace(chr(34), chr(34) * 2)}",value\n<script>,1\n')
    write_report([runs], tmp_path / "out", evil)
    page = Page((tmp_path / "out/index.html").read_text())
    assert page.stack == []
    assert len(list(page.all("script"))) == 1
    report = (tmp_path / "out/report.md").read_text()
    assert "<script" not in report
    assert '&lt;script&gt;alert("x")&lt;/script&gt; \\| \\`a\\`' in report
    assert "<script" not in "".join(path.read_text() for path in (tmp_path / "out/images").glob("*.svg"))


def test_the_readme_is_written_between_its_markers_only(trained: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    before = b"# A\r\n\nquotes `<!-- report:begin -->`\n<!-- report:begin -->\n"
    after = b"<!-- report:end -->\n\xc3\xa4 the rest\r\n"
    readme.write_bytes(before + b"old\n" + after)
    write_report([trained], tmp_path / "out", "Title", readme)
    first = readme.read_bytes()
    assert first.startswith(before)
    assert first.endswith(after)
    assert b"old" not in first
    assert b"| quickstart | 2 | 0.0200" in first
    for picture in re.findall(r"\]\((.*?)\)", first.decode()):
        assert (tmp_path / picture).is_file()
    write_report([trained], tmp_path / "out", "Title", readme)
    assert readme.read_bytes() == first


@pytest.mark.parametrize("text", ["", "<!-- report:begin -->\n", "<!-- report:end -->\n<!-- report:begin -->\n"])
def test_a_readme_without_markers_is_an_error_before_anything_is_written(
    trained: Path, tmp_path: Path, text: str
) -> None:
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(ValueError, match="has no markers"):
        write_report([trained], tmp_path / "out", "Title", tmp_path / "README.md")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == text


def charts(page: Page) -> dict[str, str]:
    """SVGs of the page by what is said of them."""
    images = {str(image["alt"]): str(image["src"]) for image in page.all("img") if image.get("class") == "chart"}
    return {alt: unquote(source.removeprefix("data:image/svg+xml,")) for alt, source in images.items()}


def test_label_efficiency_and_sweeps_are_shown(runs: Path, tmp_path: Path) -> None:
    rows = ["data,labels,method,seed,accuracy", "mnist,10,scratch,0,0.5", "mnist,10,scratch,1,0.7"]
    (runs / "label_efficiency.csv").write_text("\n".join([*rows, "mnist,100,scratch,0,0.9"]))
    (runs / "sweep.csv").write_text("beta,psnr\n1,18.123456\n")
    write_report([runs], tmp_path / "out", "Title")
    report = (tmp_path / "out/report.md").read_text()
    assert "### Label efficiency\n\n| error, %, on mnist | 10 | 100 |" in report
    assert "| from scratch | 40.00 ± 14.14 | 10.00 |  |  |  |\n| M1+TSVM, Kingma et al. |  | 11.82 |" in report
    assert "| beta | psnr |\n| --- | --- |\n| 1 | 18.12 |" in report
    shown = charts(Page((tmp_path / "out/index.html").read_text()))
    name = "mnist: test error, % against number of labels: from scratch, M1+TSVM, Kingma et al., M1+M2, Kingma et al."
    assert shown[name] == (tmp_path / "out/images/few_labels_0.svg").read_text()
    assert "digits5k, linear probes: test error, % against number of labels: classifier, quickstart" in shown
    for text in shown.values():
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"


def test_label_efficiency_needs_no_runs(tmp_path: Path) -> None:
    (tmp_path / "label_efficiency.csv").write_text("data,labels,method,seed,accuracy\ndigits5k,10,knn,0,0.5\n")
    write_report([tmp_path], tmp_path / "out", "Title")
    assert "| kNN | 50.00 |" in (tmp_path / "out/report.md").read_text()
    page = Page((tmp_path / "out/index.html").read_text())
    assert list(charts(page)) == ["digits5k: test error, % against number of labels: kNN"]


def test_curves_and_few_labels_are_those_of_the_runs(trained: Path) -> None:
    findings = read_findings([trained])
    own = colours_of(findings.groups)
    figures = {figure.axes[0].get_title(): figure.axes[0] for figure in curve_figures(findings.groups, own)}
    assert {"Loss of Autoencoder", "Loss of Classifier", "MSE", "PSNR, dB", "SSIM", "Accuracy, %"} == set(figures)
    group = next(group for group in findings.groups if group.name == "quickstart")
    expected = [
        [(row["epoch"] + 1, row[key]) for row in run.logged() if key in row]
        for run in group.runs
        for key in ("train/loss", "val/loss")
    ]
    lines = figures["Loss of Autoencoder"].lines
    assert [np.column_stack([line.get_xdata(), line.get_ydata()]).tolist() for line in lines] == [
        [list(point) for point in points] for points in expected
    ]
    assert [line.get_linestyle() for line in lines] == ["--", "-"] * 2
    assert {line.get_color() for line in lines} == {own["quickstart"]}
    figure = error_figure(errors_of_groups(findings.groups), own)
    line = next(line for line in figure.axes[0].lines if line.get_label() == "quickstart")
    assert list(np.asarray(line.get_ydata())) == pytest.approx([60, 35, 30])  # 60 % and 70 % right on 100 labels


def said(folder: Path, script: str) -> list[str]:
    """What a script at the end of a page posts from a frame that is as narrow as a phone."""
    if CHROMIUM is None:
        pytest.skip("needs a chromium on the path")
    script += """
    const frame = document.documentElement;
    said.push(`width ${innerWidth} beyond ${frame.scrollWidth - frame.clientWidth}`);
    parent.postMessage(said.join(";"), "*");"""
    page = (folder / "index.html").read_text().replace("</body>", f"<script>{script}</script></body>")
    (folder / "page.html").write_text(page)
    # A window is 500 pixels wide at least.
    frame = '<iframe src="page.html" width="375" height="700" style="border: 0"></iframe><script>'
    frame += 'addEventListener("message", (event) => { document.title = event.data; });</script>'
    (folder / "frame.html").write_text(frame)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--virtual-time-budget=5000",
    ]
    command = [CHROMIUM, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run([*command, (folder / "frame.html").as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    return found[1].split(";")


def test_the_page_fits_a_phone_and_its_tables_sort(trained: Path, tmp_path: Path) -> None:
    write_report([trained], tmp_path, "Title")
    check = """
    const table = document.querySelector("table.sortable"), said = [];
    const names = () => [...table.tBodies[0].rows].map(row => row.cells[0].innerText.trim()).join();
    const button = [...table.querySelectorAll("th button")].find(each => each.innerText.startsWith("PSNR"));
    const heading = button.closest("th");
    const sorted = () => heading.getAttribute("aria-sort") + ":" + names();
    for (let click = 0; click < 2; click++) { button.click(); said.push(sorted()); }
    const seeds = [...table.querySelectorAll("th button")].find(each => each.innerText.startsWith("seeds"));
    seeds.focus(); seeds.click();
    said.push(document.activeElement === seeds, sorted());
    const box = document.querySelector(".scroll");
    said.push(`boxes scroll ${box.scrollWidth > box.clientWidth}`);"""
    up, down, focus, other, scroll, width = said(tmp_path, check)
    assert up == "ascending:quickstart,classifier"  # an empty cell is last either way
    assert down == "descending:quickstart,classifier"
    assert focus == "true"
    assert other == "none:classifier,quickstart"
    assert scroll == "boxes scroll true"
    assert width == "width 375 beyond 0"


def test_a_point_of_an_atlas_tells_its_figures_to_the_keyboard(atlas: Path, tmp_path: Path) -> None:
    write_report([atlas], tmp_path, "Title")
    check = """
    const said = [], point = document.getElementById("plane-0-all-row-4");
    point.focus();
    const box = tip.getBoundingClientRect();
    said.push(tip.hidden, tip.textContent.split("\\n")[0], box.left >= 0 && box.right <= innerWidth);
    dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    said.push(tip.hidden, point.tabIndex, document.getElementById("depth-0-linear-row-4").tabIndex);"""
    assert said(tmp_path, check) == [
        *("false", "net (random), conv.2", "true"),
        *("true", "0", "-1"),
        "width 375 beyond 0",
    ]


def test_a_report_of_damaged_tables_and_numbers_is_written_all_the_same(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs/a"
    shutil.copytree(trained / "quickstart/version_0", run)
    rows = "step,epoch,train/loss,val/loss,test/mse\n0,0,inf,nan,\n1,1e300,1e308,-1e308,nan\n2,nan,1,1,\n"
    (run / "metrics.csv").write_text(rows + f"3,{'9' * 400},1,1,{'9' * 400}\n")
    tables = tmp_path / "runs/tables"
    (tables / "atlas.csv").mkdir(parents=True)
    for name in ("sweep.csv", "label_efficiency.csv"):
        (tables / name).write_bytes(bytes(range(256)))
    main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "report")])
    out = capsys.readouterr().out
    for name in ("sweep.csv", "label_efficiency.csv"):
        assert f"runs/tables/{name}: cannot be read" in out
        assert f"{name}: cannot be read" in (tmp_path / "report/report.md").read_text().replace("\\_", "_")


def test_an_atlas_is_drawn_into_the_page_and_tells_the_figures_of_its_points(atlas: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(atlas / "strips.png")
    write_report([atlas], tmp_path / "out", "Title")
    page = Page((tmp_path / "out/index.html").read_text())
    assert page.stack == []
    assert len(list(page.all("svg"))) == 3  # plane, curves and matrix
    identities = [str(attributes["id"]) for _, attributes in page.elements if attributes.get("id")]
    assert len(identities) == len(set(identities))
    for _, attributes in page.elements:
        links = [attributes.get("xlink:href") or "", *re.findall(r"url\((.*?)\)", str(attributes))]
        assert {link[1:] for link in links if link.startswith("#")} <= set(identities)
    assert [name for name in identities if name.startswith("plane-0-all-row-")][2:] == [
        f"plane-0-all-row-{row}" for row in (3, 4, 5)
    ]
    assert page.titles[1:3] == [
        "pixels, 64 x 64\nnumbers of the code: 12,288\nbits of the code: 393,216\nnormalised error: 0.000\n"
        "linear probe, %: 20.00\nlinear probe, 100 labels, %: 10.00\neffective rank: 40.0",
        "pixels, 1 x 1\nnumbers of the code: 3\nbits of the code: 96\nnormalised error: 0.690\nPSNR, dB: 11.60\n"
        "linear probe, %: 5.00\nlinear probe, 100 labels, %: 5.00\neffective rank: 2.0",
    ]
    (image,) = page.all("img")
    assert image["alt"] == "Images rebuilt from the layers in atlas"
    report = (tmp_path / "out/report.md").read_text()
    for name in ("plane", "depth", "cka"):
        assert f"(atlas)](images/atlas_0_{name}.svg)" in report
        ElementTree.parse(tmp_path / f"out/images/atlas_0_{name}.svg")
    header, _, *rows = (line for line in report.splitlines() if line.startswith("|"))
    assert header.startswith(
        "| layer | numbers of the code | bits of the code | normalised error | PSNR, dB | PSNR (twice"
    )
    assert rows[3].startswith("| net (random) conv.1 | 32,768 | 1,048,576 | 0.300 ± 0.010 | 21.00 ± 0.50 | 21.25 |")
    assert rows[2].startswith("| mean image | 0 |  | 0.700 | 11.50 |  |")


def test_an_atlas_of_one_network_is_shown_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "atlas.csv").write_text("layer,shape,values,minutes,psnr_64,mse_64\nmean image,,0,,11.5315,0.08\n")
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(folder / "atlas.png")
    write_report([folder], tmp_path / "out", "Title")
    assert "| layer | PSNR, dB |\n| --- | --- |\n| mean image | 11.53 |" in (tmp_path / "out/report.md").read_text()
    page = Page((tmp_path / "out/index.html").read_text())
    assert not list(page.all("svg"))
    (image,) = page.all("img")
    assert image["alt"] == "Error against depth in net, with images rebuilt from each of its layers"


def test_a_damaged_matrix_is_named_and_the_rest_of_the_atlas_shown(atlas: Path, tmp_path: Path) -> None:
    (atlas / "cka.csv").write_bytes(bytes(range(128, 256)))
    write_report([atlas], tmp_path / "out", "Title")
    report = (tmp_path / "out/report.md").read_text()
    assert "cka.csv: cannot be read" in report
    assert "| net (random) conv.1 |" in report
