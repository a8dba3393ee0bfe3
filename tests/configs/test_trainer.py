"""The overlays for machines fit experiments, and each other; what they ask for is made, GPUs or not."""

import itertools
from typing import Any

import pytest
import torch
import yaml
from lightning.fabric.accelerators import cuda
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from callbacks import ChannelsLast
from preimage.cli import PreimageCLI
from tests.conftest import ROOT

CONFIGS = ROOT / "configs"
pytestmark = pytest.mark.usefixtures("elsewhere")


def trainer(monkeypatch: pytest.MonkeyPatch, *overlays: str, flags: tuple[str, ...] = ()) -> Trainer:
    """The trainer that a config with overlays makes on a machine with two GPUs, none of which is touched."""
    monkeypatch.setattr("sys.argv", ["preimage"])
    monkeypatch.setattr(cuda, "num_cuda_devices", lambda: 2)
    monkeypatch.setattr("lightning.pytorch.accelerators.cuda.num_cuda_devices", lambda: 2)
    monkeypatch.setattr("lightning.fabric.accelerators.cuda._get_all_visible_cuda_devices", lambda: [0, 1])
    monkeypatch.setattr(PreimageCLI, "_run_subcommand", lambda self, name: None)
    files = [CONFIGS / "mnist/vae.yaml", *(CONFIGS / f"trainer/{name}.yaml" for name in overlays)]
    return PreimageCLI(["fit", *itertools.chain(*(("--config", str(path)) for path in files)), *flags]).trainer


@pytest.fixture(autouse=True)
def benchmark_off() -> Any:
    """A trainer with `benchmark` sets it for the whole process."""
    before = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = before


def test_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = trainer(monkeypatch, "gpu"), trainer(monkeypatch, "cpu")
    assert (gpu.strategy.root_device, cpu.strategy.root_device) == (torch.device("cuda", 0), torch.device("cpu"))
    assert (gpu.precision, cpu.precision) == ("bf16-mixed", "32-true")
    assert (gpu.world_size, cpu.world_size) == (1, 1)
    assert sum(isinstance(callback, ChannelsLast) for callback in gpu.callbacks) == 1  # type: ignore[attr-defined]


def test_all_gpus_or_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus, cpus = trainer(monkeypatch, "ddp"), trainer(monkeypatch, "ddp", "cpu", flags=("--trainer.devices=3",))
    for several, device, sync in ((gpus, "cuda", True), (cpus, "cpu", False)):
        assert isinstance(several.strategy, DDPStrategy)
        assert several.strategy.root_device.type == device
        assert (several.strategy._layer_sync is not None) == sync
    assert (gpus.world_size, cpus.world_size) == (2, 3)


def test_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    sharded = trainer(monkeypatch, "fsdp")
    assert isinstance(sharded.strategy, FSDPStrategy)
    assert sharded.strategy.sharding_strategy.name == "SHARD_GRAD_OP"
    assert sharded.world_size == 2
    names = {type(callback).__name__ for callback in sharded.callbacks}  # type: ignore[attr-defined]
    assert {"LastCheckpoint", "RunDirectory"} < names
    assert not names & {"PriorSamples", "Interpolation", "Traversal"}


def test_a_job_of_two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"NTASKS": 4, "NTASKS_PER_NODE": 2, "NNODES": 2, "PROCID": 3, "LOCALID": 1, "NODEID": 1, "JOB_ID": 5}
    for name, value in (variables | {"STEP_ID": 0, "JOB_NAME": "preimage", "NODELIST": "a1,a2"}).items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # so that monkeypatch takes back what Lightning sets
        monkeypatch.delenv(name)
    # The other three processes, which would agree on a run with this one, are not there.
    monkeypatch.setattr("preimage.cli.agree", lambda begin, *others: (begin(), True))
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # which Lightning sets for the whole process: later tests are rank 0
    job = trainer(monkeypatch, "slurm")
    assert (job.world_size, job.global_rank, job.local_rank, job.node_rank) == (4, 3, 1, 1)
    assert isinstance(job.strategy, DDPStrategy)
    assert job.strategy.cluster_environment is not None
    assert job.strategy.cluster_environment.main_address == "a1"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("trainer/*.yaml")), ids=lambda path: path.stem)
def test_an_overlay_is_about_the_trainer_alone(path: Any) -> None:
    assert set(yaml.safe_load(path.read_text())) == {"trainer"}
