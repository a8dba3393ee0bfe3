from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from preimage.reporting.charts import colours
from preimage.reporting.runs import read_findings

METRICS = "epoch,step,test/mse\n0,1,0.5\n"
CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "name": "vae",
    "model": {
        "class_path": "lightning_modules.VAE",
        "init_args": {"encoder": {"class_path": "lightning_modules.MNISTGaussianEncoder"}, "beta": 1.0},
    },
    "data": {"class_path": "datamodules.MNISTDataModule", "init_args": {"dataset": "digits5k", "batch_size": 32}},
    "trainer": {"max_epochs": 1, "callbacks": [{"class_path": "callbacks.ReconstructionGrid"}]},
}


def labels(folder: Path, changes: list[dict[str, Any]]) -> list[str]:
    """What runs are called whose configs have these options, by their dotted path."""
    for i, options in enumerate(changes):
        changed = deepcopy(CONFIG)
        for path, value in options.items():
            *parents, last = path.split(".")
            part: Any = changed
            for key in parents:
                part = part.setdefault(key, {})
                part = part.setdefault("init_args", {}) if "class_path" in part else part
            part[last] = value
        run = folder / f"version_{i}"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(yaml.safe_dump(changed))
        (run / "metrics.csv").write_text(METRICS)
    return [group.label for group in read_findings([folder]).groups]


def test_a_run_and_its_best_checkpoint_are_one_encoder(tmp_path: Path) -> None:
    files = ["", "/", "/checkpoints/best.ckpt", "/checkpoints/last.ckpt"]
    key = "model.encoder_checkpoint"
    assert len(labels(tmp_path, [{key: f"runs/vae/version_{i}{file}"} for i, file in enumerate(files)])) == 2


def averaged(decay: float) -> dict[str, Any]:
    return {"trainer.callbacks": [{"class_path": "callbacks.AveragedEMA", "init_args": {"decay": decay}}]}


NAMED: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "once what is said in several places": (
        [{"data.image_size": size, "model.encoder.image_size": size, "model.image_size": size} for size in (64, 128)],
        ["vae (image_size 64)", "vae (image_size 128)"],
    ),
    "whose it is, where two are of one name": (
        [{"data.image_size": a, "model.encoder.image_size": b} for a, b in ((64, 64), (64, 128), (128, 64))],
        [f"vae (data image_size {a}, encoder image_size {b})" for a, b in ((64, 64), (64, 128), (128, 64))],
    ),
    "no more than tells them apart": (
        [{"data.batch_size": a, "model.beta": b} for a, b in ((16, 1), (16, 2), (32, 4))],
        [f"vae (beta {beta}, ...)" for beta in (1, 2, 4)],
    ),
    "classes and runs by their names": (
        [
            {"model.encoder_checkpoint": f"runs/{name}/version_3/checkpoints/best.ckpt", "model.encoder": encoder}
            for name, encoder in (("vae", None), ("vae", {"class_path": "mine.Deep"}), ("auto", None))
        ],
        [
            "vae (encoder null, encoder_checkpoint vae)",
            "vae (encoder Deep, encoder_checkpoint vae)",
            "vae (encoder null, encoder_checkpoint auto)",
        ],
    ),
    "the options of callbacks that learn": (
        [averaged(0.9), averaged(0.99)],
        ["vae (decay 0.9)", "vae (decay 0.99)"],
    ),
    "and nothing of those that watch": (
        [{}, {"trainer.callbacks": [{"class_path": "callbacks.KNNProbe"}]}, {"trainer.callbacks": None}],
        ["vae"],
    ),
    "a number, where no few words say it": (
        [{"data.augmentations": [[[{"a": value}]]]} for value in (1, 2)],
        ["vae (#1)", "vae (#2)"],
    ),
    "data sets first": (
        [{"data.dataset": "mnist"}, {"data.dataset": "kmnist"}, {"data.dataset": "kmnist", "model.beta": 3}],
        ["vae (mnist, beta 1)", "vae (kmnist, beta 1)", "vae (kmnist, beta 3)"],
    ),
}


@pytest.mark.parametrize("case", NAMED)
def test_a_name_says_what_a_person_would_say_differs(tmp_path: Path, case: str) -> None:
    changes, expected = NAMED[case]
    assert labels(tmp_path, changes) == expected


def test_no_two_models_share_a_colour() -> None:
    names = [f"model {i}" for i in range(60)]
    assert len(set(colours([*names, *names]).values())) == 60


DAMAGE: dict[str, bytes] = {
    "deep": b"[" * 2000 + b"]" * 2000,
    "deep mapping": b"a: " + b"{a: " * 2000 + b"1" + b"}" * 2000,
    "400 digits": b"a: " + b"9" * 400,
    "5000 digits": b"a: " + b"9" * 5000,
    "binary": bytes(range(256)) * 10,
    "empty": b"",
    "within itself": b"a: &a [*a]",
    "of aliases": b"".join(
        b"%c: &%c [%s]\n" % (97 + i, 97 + i, b",".join([b"*%c" % (96 + i) if i else b"x"] * 10)) for i in range(8)
    ),
    "a list": b"[1, 2]",
    "a set": b"!!set {a, b}",
    "half a character": b'{"name": "\\ud800"}',
    "half a mapping": b"{",
    "text for numbers": b"epoch,step\nx,1\n",
    "no text": b"\xff",
}


@pytest.mark.parametrize("name", ["config.yaml", "evaluation.json", "metrics.csv", "classes.json"])
def test_a_damaged_run_is_left_out_and_named(tmp_path: Path, name: str) -> None:
    contents = {"config.yaml": yaml.safe_dump(CONFIG), "metrics.csv": METRICS, "classes.json": '["a", "b"]'}
    contents["evaluation.json"] = '{"reconstruction": {"mse": 0.5}}'
    for damage in ("none", "a folder", *DAMAGE):
        (tmp_path / damage).mkdir()
        for other, text in contents.items():
            (tmp_path / damage / other).write_text(text)
    (tmp_path / "a folder" / name).unlink()
    (tmp_path / "a folder" / name).mkdir()
    for damage, content in DAMAGE.items():
        (tmp_path / damage / name).write_bytes(content)
    findings = read_findings([tmp_path])
    assert {run.folder.name for run in findings.runs} == {"none", "a folder", *DAMAGE}
    for damage in DAMAGE.keys() - ({"a list"} if name == "classes.json" else set()):
        assert f"{name} cannot be read" in findings.lacking[tmp_path / damage], damage
    assert f"no {name}" in findings.lacking[tmp_path / "a folder"]
    assert tmp_path / "none" not in findings.lacking
    (group,) = findings.groups
    readable = ["none"] if name == "config.yaml" else ["none", "a folder", *DAMAGE]
    assert {run.folder.name for run in group.measured} == set(readable)
    assert all(isinstance(value, float) for values in group.values for value in values.values())


def test_random_weights_are_in_the_name_and_not_twice(tmp_path: Path) -> None:
    random = {"model.encoder.class_path": "lightning_modules.FrozenFeatures", "model.encoder.weights": "random"}
    changes = [{"name": "vit", **random}, {"name": "cnn_random", **random}, {"name": "vae", "model": "damaged"}]
    assert set(labels(tmp_path, changes)) == {"vit_random", "cnn_random", "vae"}
