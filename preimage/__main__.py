"""The command line: `preimage fit|validate|test|predict --config ...`, or `python main.py ...`."""

import gc
import importlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

COMMANDS = ("atlas", "evaluate", "label-efficiency", "layers", "report", "sweep")
_HELP = """\
usage: preimage COMMAND [--config FILE.yaml ...] [--key value ...]

Train, measure and invert image representations. An experiment is a YAML file, a variation is a second one or a flag.

commands:
  fit         train a model (and test it: --test_after_fit)
  validate    measure a checkpoint on the validation split
  test        measure a checkpoint on the test split
  predict     write codes and outputs of a checkpoint to predictions.npz, or with --network the codes of a folder
  layers      list the layers of a network, and kind and shape of their features
  evaluate    measure runs: reconstruction, generation, classification, time and memory, in one table
  atlas       what layers of networks keep, and what can be read out of them, in tables and one plane
  sweep       run the points of a W&B sweep file without a server, some at a time or one per SLURM array index
  report      tables, curves and pictures of finished runs: report.md, results.csv and one page, index.html
  label-efficiency  draw test error against the number of labels, from one encoder, by method

examples:
  preimage fit --config configs/quickstart.yaml
  preimage fit --config configs/mnist/autoencoder.yaml --data.root DIR --trainer.max_epochs 5
  preimage test --ckpt_path RUN
  preimage evaluate --ckpt_path RUN RUN
  preimage layers --network alexnet --image_size 224
  preimage predict --network timm/vit_small_patch14_dinov2 --layer norm --tokens cls --data.root DIR
  preimage atlas --network alexnet --layers conv1 conv2 conv5 fc6 fc8
  preimage sweep configs/sweep/vae_beta.yaml --jobs 2
  preimage report runs/mnist --out report

options:
  COMMAND --help           every option of a command
  COMMAND --print_config   the resolved configuration
  --debug                  show the traceback of an error
"""


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
        args: The arguments, by default those of the process.

    Raises:
        SystemExit: The arguments are wrong (code 2), the run failed or its training was interrupted (code 1), or what
            came before or after the training was, by Ctrl-C (code 130) or SIGTERM (143); one line says why.
    """
    given = list(sys.argv[1:] if args is None else args)
    if not set(given) - {"-h", "--help", "--debug"}:
        print(_HELP)
        return
    signals = _Signals()
    if args is None:
        signals.handle(signals.end)  # inside an import, KeyboardInterrupt would turn into errors of many kinds
    sys.path.append(os.getcwd())  # a user's own classes are named by their import path
    from preimage.errors import explain

    own = [arg for arg in given if arg != "--debug"]
    try:
        _check_packages()
        without_run = own[0] == "predict" and any(arg.partition("=")[0] == "--network" for arg in own)
        if own[0] in COMMANDS or without_run:
            signals.handle(signals.interrupt)
            importlib.import_module(f"preimage.commands.{own[0].replace('-', '_')}").main(own[1:])
        else:
            gc.disable()  # nothing that the imports make is garbage: 1 s less at the start
            from preimage.cli import PreimageCLI

            gc.freeze()
            gc.enable()
            signals.handle(signals.interrupt)
            PreimageCLI(own)
    except BaseException as error:
        if signals.received:  # whatever it has become on the way here: Lightning makes it an exit with code 1
            signals.say(str(error) if isinstance(error, KeyboardInterrupt) else "")
            raise SystemExit(128 + signals.received) from error
        if len(own) < len(given) or not isinstance(error, Exception):
            raise
        print(f"error: {explain(error)} (--debug shows where)", file=sys.stderr)
        raise SystemExit(1) from error
    finally:
        signals.handle(signals.end if args is None else None)
        gc.unfreeze()  # triton's bindings report as leaked what is still frozen at the exit


def _check_packages() -> None:
    """Raises an ImportError where Python finds another package by the name of one beside this one."""
    root = Path(__file__).absolute().parent.parent
    for name in ("callbacks", "datamodules", "lightning_modules"):
        spec = importlib.util.find_spec(name)
        path = next(iter(spec.submodule_search_locations or [str(spec.origin)])) if spec else "none"
        if Path(path).resolve() != (root / name).resolve():
            raise ImportError(
                f"the package {name} of preimage is in {root}, and Python finds {path}: rename that, or take its"
                " folder off PYTHONPATH"
            )


class _Signals:
    """What Ctrl-C and SIGTERM do; a training takes both over, and what the process was told to ignore stays ignored."""

    def __init__(self) -> None:
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        main_thread = threading.current_thread() is threading.main_thread()
        self._before = {n: before for n, before in usual.items() if main_thread and signal.getsignal(n) == before}
        self.received = 0

    def handle(self, handler: Callable[[int, FrameType | None], None] | None) -> None:
        """Sets the handler of both, or those from before."""
        for number, before in self._before.items():
            signal.signal(number, handler or before)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ends the command by an exception, so that it can clear up."""
        self.received = number
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def end(self, number: int, frame: FrameType | None) -> None:
        """Ends the process, which has nothing to clear up."""
        if not self.received:
            self.received = number
            self.say()
        os._exit(128 + number)

    def say(self, how: str = "") -> None:
        """Writes one line, of all processes of a run from the first."""
        if all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
            why = "interrupted" if self.received == signal.SIGINT else "told to end"
            sys.stderr.write(f"{why}{how and ': '}{how}\n")
            sys.stderr.flush()


if __name__ == "__main__":
    main()
