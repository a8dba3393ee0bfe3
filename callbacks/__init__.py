"""Callbacks: everything that draws, saves or watches."""

from lightning.pytorch import Callback as _Callback
from lightning.pytorch import callbacks as _lightning

from preimage.loggers import RunLogger, TensorBoardRunLogger, WandbRunLogger

from .averaging import AveragedEMA, AveragedSWA, AveragedWeights
from .best_checkpoint import BestCheckpoint
from .channels_last import ChannelsLast
from .checkpoints import AtomicCheckpointIO, LastCheckpoint, StopOnNaN
from .code_plane import CodePlane
from .compile import Compile
from .confusion_matrix import ConfusionMatrix
from .cpu_precision import CPUPrecision
from .curves import Curves
from .gradient_norms import GradientNorms
from .knn_probe import KNNProbe
from .labelled_grid import LabelledGrid
from .latent_projection import LatentProjection
from .latent_walks import Interpolation, Traversal
from .memory import ModelMemory
from .predictions import PredictionWriter
from .prior_samples import PriorSamples
from .progress import ProgressBar
from .provenance import Provenance
from .reconstruction_grid import ReconstructionGrid
from .run_directory import RunDirectory
from .run_state import RunState
from .scale import EffectiveBatch
from .tuning import BatchSizeSearch, LearningRateSearch

#: Callbacks of Lightning's, and those of ours that take their places with the same arguments.
REPLACED: dict[type[_Callback], type[_Callback]] = {
    _lightning.WeightAveraging: AveragedWeights,
    _lightning.EMAWeightAveraging: AveragedEMA,
    _lightning.StochasticWeightAveraging: AveragedSWA,
    _lightning.LearningRateFinder: LearningRateSearch,
    _lightning.BatchSizeFinder: BatchSizeSearch,
}

__all__ = [
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "CPUPrecision",
    "ChannelsLast",
    "CodePlane",
    "Compile",
    "ConfusionMatrix",
    "Curves",
    "EffectiveBatch",
    "GradientNorms",
    "Interpolation",
    "KNNProbe",
    "LabelledGrid",
    "LastCheckpoint",
    "LatentProjection",
    "ModelMemory",
    "PredictionWriter",
    "PriorSamples",
    "ProgressBar",
    "Provenance",
    "ReconstructionGrid",
    "RunDirectory",
    "RunLogger",
    "RunState",
    "StopOnNaN",
    "TensorBoardRunLogger",
    "Traversal",
    "WandbRunLogger",
]
