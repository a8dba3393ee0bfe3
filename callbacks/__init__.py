"""Callbacks: `pictures` draws, `run` saves, watches and measures."""
# ruff: noqa: F401

from lightning.pytorch import Callback as _Callback
from lightning.pytorch import callbacks as _lightning

from .pictures.confusion_matrix import ConfusionMatrix
from .pictures.curves import Curves
from .pictures.grids import PriorSamples, ReconstructionGrid
from .pictures.labelled_grid import LabelledGrid
from .pictures.planes import CodePlane, LatentProjection
from .pictures.walks import Interpolation, Traversal
from .run.averaging import AveragedEMA, AveragedSWA, AveragedWeights
from .run.checkpoints import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from .run.directory import PredictionWriter, RunDirectory
from .run.gradients import GradientNorms, StopOnNaN
from .run.knn_probe import KNNProbe
from .run.progress import ProgressBar
from .run.scale import EffectiveBatch, ModelMemory, ModelParts
from .run.speed import ChannelsLast, Compile, CPUPrecision
from .run.state import Provenance, RunState
from .run.tuning import BatchSizeSearch, LearningRateSearch

__all__ = [name for name in dir() if name[0].isupper()]

#: Callbacks of Lightning's, and those of ours that take their places with the same arguments.
REPLACED: dict[type[_Callback], type[_Callback]] = {
    _lightning.WeightAveraging: AveragedWeights,
    _lightning.EMAWeightAveraging: AveragedEMA,
    _lightning.StochasticWeightAveraging: AveragedSWA,
    _lightning.LearningRateFinder: LearningRateSearch,
    _lightning.BatchSizeFinder: BatchSizeSearch,
}
