"""Two processes on the CPU give what one gives."""

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_modules import BYOL, DINO, BarlowTwins, JointEmbedding, MNISTEncoder, SelfSupervised, SimCLR, VICReg
from preimage.__main__ import main
from preimage.private_api import BatchNorm
from tests.conftest import PLAIN, QUICK, ROOT, Digits, Run, fork, write_idx
from tests.preimage.test_cli import rows, values

CODEC = ["--model.encoder=MNISTEncoder", "--model.encoder.latent_dim=10"]
CODEC += ["--model.decoder=MNISTDecoder", "--model.decoder.latent_dim=10"]
MODELS = {
    "Autoencoder": CODEC,
    "VAE": [
        *("--model.encoder=MNISTGaussianEncoder", "--model.decoder=MNISTDecoder", "--model.latent_dim=12"),
        "--model.num_importance_samples=20",
    ],
    "MaskedAutoencoder": CODEC,
    "Classifier": ["--model.encoder=MNISTGaussianEncoder", "--model.head=MLPHead", "--model.num_samples=3"],
    "ClassifierReconstructor": [*CODEC, "--model.latent_dim=10", "--model.num_classes=10"],
    "Inversion": [*CODEC, "--model.encoder_checkpoint=null", "--model.cache_codes=true"],
}


METHODS: list[type[JointEmbedding]] = [SimCLR, VICReg, BarlowTwins, BYOL, DINO]


class Same(Callback):
    """Writes down what each process was given, and how many batches it evaluates."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        digest = hashlib.sha256(repr(data.class_names).encode())
        for split in (data.train_set, data.val_set, data.test_set):
            digest.update(split.images.numpy().tobytes() + split.labels.numpy().tobytes())
        found: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(found, [digest.hexdigest(), len(data.train_set)])
        if trainer.is_global_zero:
            Path(trainer.default_root_dir, "found.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def odd_root(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    """400 training and 129 test digits: an odd number, of which a sampler that pads makes 130."""
    root, (images, labels) = tmp_path_factory.mktemp("odd"), digits
    for name, part in (("train", slice(400)), ("t10k", slice(400, 529))):
        write_idx(root / f"{name}-images-idx3-ubyte", images[part])
        write_idx(root / f"{name}-labels-idx1-ubyte", labels[part])
    return root


@pytest.mark.parametrize(
    "model", [name if name in ("VAE", "Inversion") else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_two_processes_measure_and_predict_what_one_does(
    model: str, run: Run, odd_root: Path, tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace  # by which every file of a run comes to its place, in forked processes too

    def noted(path: Path, target: Path) -> Path:
        with (tmp_path / "written").open("a") as file:
            file.write(f"{target}\n")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noted)
    data = ["--data.dataset=mnist", f"--data.root={odd_root}", "--data.num_labels=200", f"--data.cache_dir={tmp_path}"]
    flags = [*QUICK, f"--model={model}", *MODELS[model], *data, "--data.val_size=65", "--data.batch_size=32"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp_fork"]
    runs = run("fit", *flags, *two, "--test_after_fit", f"--trainer.callbacks+={__name__}.Same")
    run_dir = runs / "quickstart/version_0"
    pictures = [line for line in (tmp_path / "written").read_text().split() if line.endswith(".png")]
    assert sorted(pictures) == sorted(map(str, run_dir.glob("images/**/*.png")))  # each from one process alone
    first, second = json.loads((runs / "found.json").read_text())
    assert first == second
    assert first[1] == 200
    flags += ["--ckpt_path", "last"]
    run("predict", *flags, *two)
    distributed = np.load(run_dir / "predictions.npz")
    for command in ("validate", "test", "predict"):
        run(command, *flags)
    single = np.load(run_dir / "predictions.npz")
    assert distributed["label"].tolist() == digits[1][400:529].tolist()  # all of them, in the data's order
    assert set(single) == set(distributed)
    for key in single:
        assert np.allclose(single[key], distributed[key], atol=1e-5)
    names = {key for row in rows(run_dir) for key, value in row.items() if value and key.startswith(("val/", "test/"))}
    assert {"val/loss", "test/loss"} < names
    for name in names:
        several, one = values(run_dir, name)
        assert several == pytest.approx(one, rel=1e-5), name
    assert {path.name for path in run_dir.parent.iterdir()} == {"version_0"}


@pytest.mark.slow
def test_started_processes_make_one_run_on_one_machine_and_on_two(run: Run, odd_root: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "runs/quickstart/version_0"
    overlays = [str(ROOT / f"configs/{name}.yaml") for name in ("trainer/ddp", "trainer/cpu", "logger/wandb")]
    data = ["--data.dataset=mnist", f"--data.root={odd_root}"]
    flags = [*QUICK, *(f"--config={path}" for path in overlays), *data]
    flags += [f"--trainer.default_root_dir={tmp_path / 'runs'}", "--trainer.callbacks=null"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment = kept | {"WANDB_MODE": "offline", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def start(command: list[str], **variables: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, **pipes, text=True, env=environment | variables)  # type: ignore[call-overload]

    fit = start([sys.executable, str(ROOT / "main.py"), "fit", *flags, "--trainer.devices=2"])
    out = fit.communicate(timeout=600)[0]
    assert fit.returncode == 0, out
    assert out.count("epoch 1/1  train/loss") == 1  # from rank 0 only
    assert out.count("batch of 32 x 2 processes x 1 accumulated = 64 images") == 1
    assert {path.name for path in run_dir.parent.iterdir()} == {"version_0"}
    assert len(list(run_dir.glob("wandb/offline-run-*"))) == 1
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = ["bash", str(ROOT / "cluster/torchrun.sh"), "test", *flags, "--trainer.logger=null", "--ckpt_path=last"]
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    nodes = [start(script, NNODES="2", NODE_RANK=str(i), NPROC="1", MASTER_PORT=port, PATH=path) for i in range(2)]
    outputs = [node.communicate(timeout=600)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert ["test/mse" in out for out in outputs] == [True, False], outputs  # from the first node alone
    assert len(values(run_dir, "test/mse")) == 1, outputs
    run("test", *QUICK, *data, "--ckpt_path", "last")
    for metric in ("mse", "psnr", "ssim"):
        two, one = values(run_dir, f"test/{metric}")
        assert two == pytest.approx(one, rel=1e-5)


@pytest.mark.slow  # each needs two processes, with all their imports
@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_processes_that_are_started_together_agree_on_their_run(tmp_path: Path, launcher: str) -> None:
    flags = [*QUICK, "--trainer.strategy=ddp", f"--trainer.default_root_dir={tmp_path}", "--trainer.callbacks=null"]

    def start(*more: str) -> list[tuple[int, str]]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        processes = []
        for rank in ("0", "1"):
            if launcher == "torchrun":
                command = ["bash", str(ROOT / "cluster/torchrun.sh"), "fit", *flags, *more]
                variables = {"NNODES": "2", "NODE_RANK": rank, "NPROC": "1", "MASTER_PORT": port}
            else:
                command = [sys.executable, str(ROOT / "main.py"), "fit", *flags, *more, "--trainer.devices=2"]
                slurm = {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1"}
                slurm |= {"NODELIST": "127.0.0.1", "NODEID": "0", "STEP_ID": "0", "PROCID": rank, "LOCALID": rank}
                variables = {f"SLURM_{key}": value for key, value in slurm.items()} | {"MASTER_PORT": port}
            environment = os.environ | variables | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            processes.append(subprocess.Popen(command, env=environment, **pipes))
        outputs = [process.communicate(timeout=300)[0] for process in processes]
        return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]

    runs = tmp_path / "quickstart"
    for more, names in (([], ["version_0"]), ([], ["version_0", "version_1"]), (["--ckpt_path=auto"], [])):
        found = start(*more)
        assert [code for code, _ in found] == [0, 0], found
        assert sorted(path.name for path in runs.iterdir()) == (names or ["version_0", "version_1"])
    assert "is finished after 1 epochs" in found[0][1]
    assert not list(runs.glob("*/.lock"))
    for code, output in start("--ckpt_path=last", "--data.batch_size=16"):
        assert code == 1
        assert "data.batch_size=32, not 16" in output


class OneBadImage(Callback):
    """Gives one of the processes an image that is no number."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 1:
            batch[0].fill_(float("nan"))


class Terminated(Callback):
    """Tells one of the processes to end."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 3:
            signal.raise_signal(signal.SIGTERM)


def fit_two(run_dir: Path, log: Path, callback: type[Callback], *flags: str) -> tuple[int | None, str]:
    """Trains in two processes forked from one that is forked from this: its exit code, and what all have said."""

    def child() -> None:
        sys.argv = ["preimage"]
        with log.open("w") as file:
            os.dup2(file.fileno(), 2)
            sys.stderr = file
            two = ["--trainer.devices", "2", "--trainer.strategy", "ddp_fork", "--run_dir", str(run_dir)]
            main(["fit", *QUICK, *two, "--trainer.callbacks", f"{__name__}.{callback.__name__}", *flags])

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(600)
    return process.exitcode, log.read_text()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_loss_that_is_no_number_on_one_process_ends_all(tmp_path: Path, precision: str) -> None:
    code, err = fit_two(tmp_path / "run", tmp_path / "err", OneBadImage, "--trainer.precision", precision)
    assert code == 1
    assert "the training loss is NaN or infinite at step 2 (epoch 0); last good checkpoint: none yet" in err
    assert not (tmp_path / "run/checkpoints/last.ckpt").exists()


def test_a_signal_to_one_process_ends_all_after_the_same_step(tmp_path: Path) -> None:
    flags = ["--trainer.max_epochs", "1000", "--trainer.limit_train_batches", "100"]
    code, err = fit_two(tmp_path / "run", tmp_path / "err", Terminated, *flags)
    assert code == 1
    assert "terminated with exit code 143" in err  # SIGTERM, and not what waits in vain for the other
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert 4 <= saved["global_step"] <= 4 + 50


class SlowFlatten(nn.Flatten):
    """Takes longer for a batch of 64 than processes wait for each other; or ends the second process there."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, images: Tensor) -> Tensor:
        if len(images) == 64 and self.seconds:
            time.sleep(self.seconds)
        elif len(images) == 64 and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(images)


FLAT = ["--model=Classifier", f"--model.encoder={__name__}.SlowFlatten", "--model.freeze_encoder=true"]
FLAT += ["--model.head=MLPHead", "--model.head.in_features=784", "--model.cache_codes=true"]


@pytest.mark.slow
def test_a_cache_may_take_longer_than_processes_wait_for_each_other(tmp_path: Path) -> None:
    strategy = "--trainer.strategy=lightning.pytorch.strategies.DDPStrategy"
    flags = [*PLAIN, *FLAT, "--model.encoder.seconds=7", "--data.num_labels=50", f"--data.cache_dir={tmp_path}"]
    flags += ["--trainer.devices=2", strategy, "--trainer.strategy.start_method=fork"]
    flags += ["--trainer.strategy.process_group_backend=gloo", "--trainer.strategy.timeout=0:00:05"]
    process = fork(lambda: main(["fit", *flags, f"--run_dir={tmp_path / 'run'}"]), tmp_path / "said")
    start = time.monotonic()
    process.join(120)
    assert process.exitcode == 0, (tmp_path / "said").read_text()
    assert time.monotonic() - start > 7
    assert values(tmp_path / "run", "val/loss")


@pytest.mark.slow
def test_a_process_that_dies_while_encoding_ends_the_others_and_its_work_is_kept(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    flags = [*PLAIN, *FLAT, "--data.num_labels=500", f"--data.cache_dir={tmp_path / 'cache'}"]

    def work(rank: str) -> None:
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
        os.environ |= {"TORCHELASTIC_RUN_ID": "7", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        main(["fit", *flags, "--trainer.devices=2", "--trainer.strategy=ddp", f"--run_dir={tmp_path / 'run'}"])

    first, second = (fork(partial(work, str(rank)), tmp_path / f"said_{rank}") for rank in range(2))
    for process in (first, second):
        process.join(120)
    said = (tmp_path / "said_0").read_text()
    assert [first.exitcode, second.exitcode] == [1, -signal.SIGKILL], said
    assert said.splitlines()[-1].startswith("error: a process of this run has ended while codes were encoded"), said
    assert len(list((tmp_path / "cache").glob("codes-*/codes"))) == 2  # whole, without the one that died
    assert not list((tmp_path / "cache").glob("*.part-*"))


@pytest.mark.slow
def test_two_processes_learn_from_batches_without_a_label(tmp_path: Path) -> None:
    config = str(ROOT / "configs/mnist/classifier_100_semi.yaml")
    flags = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
    flags += ["--trainer.limit_train_batches=3", "--trainer.callbacks=[]", "--trainer.enable_model_summary=false"]
    flags += ["--data.dataset=digits5k", "--data.num_labels=10", "--data.label_repeat=1", "--data.batch_size=8"]
    flags += ["--model.encoder_checkpoint=null", "--model.auxiliary_decoder=MNISTDecoder"]
    command = [sys.executable, str(ROOT / "main.py"), "fit", "--config", config, *flags, f"--run_dir={tmp_path}/run"]
    subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert 0 < values(tmp_path / "run", "train/adversarial_kl")[0] < 1
    assert 0 < values(tmp_path / "run", "train/mse")[0] < 0.5
    assert values(tmp_path / "run", "train/loss")[0] > 1


def compared(method: type[JointEmbedding], views: Tensor) -> list[Tensor]:
    """The loss of two views `(2, B, C, H, W)`, the gradient of each weight, and what else a step moves.

    Batch norms are as in evaluation: SyncBatchNorm, which is right for several processes, needs GPUs.
    """
    torch.manual_seed(0)
    model = SelfSupervised(MNISTEncoder(), method(), view=[]).double()
    for part in model.modules():
        if isinstance(part, BatchNorm):
            part.eval()
    _, loss = model.compare(list(views))
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [loss.detach(), *gradients, *(buffer for name, buffer in model.named_buffers() if "center" in name)]


def test_views_are_compared_with_those_of_all_processes(tmp_path: Path) -> None:
    views = torch.rand(2, 12, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def work(rank: int) -> None:
        store = f"file://{tmp_path / 'store'}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
        for method in METHODS:
            found = compared(method, views.chunk(2, dim=1)[rank])
            for value in found:
                torch.distributed.all_reduce(value)  # DDP averages the gradients
            torch.save([value / 2 for value in found], tmp_path / f"{method.__name__}_{rank}.pt")

    processes = [fork(partial(work, rank), tmp_path / f"{rank}.txt") for rank in range(2)]
    for process in processes:
        process.join(120)
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert [process.exitcode for process in processes] == [0, 0], said
    for method in METHODS:
        alone, halves = compared(method, views), [compared(method, half)[0] for half in views.chunk(2, dim=1)]
        both = torch.load(tmp_path / f"{method.__name__}_0.pt")
        assert len(alone) == len(both) > 6
        for one, two in zip(alone, both, strict=True):
            assert torch.allclose(one, two, rtol=1e-9, atol=1e-12), method.__name__
        by_itself = torch.isclose(alone[0], torch.stack(halves).mean(), rtol=1e-9).item()
        assert by_itself == (method in (BYOL, DINO))  # which hold no image against another


class SameWeights(Callback):
    """Holds the weights of all processes against each other, those of a teacher too."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        mine = {name: value.detach() for name, value in pl_module.named_parameters()}
        found: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(found, mine)
        assert all(torch.equal(value, other[name]) for other in found for name, value in mine.items())
        Path(trainer.default_root_dir, "same.txt").write_text(str(len(mine)))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_on_views(method: type[JointEmbedding], tmp_path: Path) -> None:
    flags = ["--model=SelfSupervised", "--model.encoder=MNISTEncoder", f"--model.method={method.__name__}"]
    flags += ["--model.view=[{class_path: PerImageAffine}]", "--model.num_classes=10", "--data.val_size=301"]
    flags += [f"--trainer.default_root_dir={tmp_path}"]
    code, err = fit_two(tmp_path / "run", tmp_path / "err", SameWeights, *flags)
    assert code == 0, err
    assert int((tmp_path / "same.txt").read_text()) > 10
    assert values(tmp_path / "run", "val/effective_rank")[0] >= 1
