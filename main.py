"""The command line: `preimage fit|validate|test|predict --config ...`, or `python main.py ...`."""

import gc
import importlib
import os
import sys
from collections.abc import Sequence

HELP = """\
usage: preimage COMMAND [--config FILE.yaml ...] [--key value ...]

Train, measure and invert image representations. An experiment is a YAML file, a variation is a second one or a flag.

commands:
  fit         train a model (and test it: --test_after_fit)
  validate    measure a checkpoint on the validation split
  test        measure a checkpoint on the test split
  predict     write codes and outputs of a checkpoint to predictions.npz
  layers      list the layers of a torchvision network and the shapes of their features
  evaluate    measure runs: reconstruction, generation, classification, time and memory, in one table
  atlas       train a decoder for each of several layers: error against depth, in a table and a figure
  sweep       run the points of a W&B sweep file without a server, some at a time or one per SLURM array index
  report      tables, curves and pictures of finished runs: report.md, results.csv and one page, index.html
  label-efficiency  draw test error against the number of labels, from one encoder, by method

examples:
  preimage fit --config configs/quickstart.yaml
  preimage fit --config configs/mnist/autoencoder.yaml --data.root DIR --trainer.max_epochs 5
  preimage test --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt
  preimage evaluate --ckpt_path RUN RUN
  preimage layers --network alexnet --image_size 224
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
        SystemExit: The arguments are wrong (code 2), or the run failed or was interrupted (code 1); one line says why.
    """
    given = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in given
    if not set(given) - {"-h", "--help", "--debug"}:
        print(HELP)
        return
    # A user's own classes are named by their import path; behind ours, for a report.py of theirs is not the command's.
    sys.path += [os.path.dirname(os.path.abspath(__file__)), os.getcwd()]
    gc.disable()  # nothing that the imports make is garbage: 1 s less at the start
    from cli import PreimageCLI
    from errors import explain

    gc.freeze()
    gc.enable()
    own = [arg for arg in given if arg != "--debug"]
    try:
        if own[0] in ("atlas", "evaluate", "label-efficiency", "layers", "report", "sweep"):
            importlib.import_module(own[0].replace("-", "_")).main(own[1:])
        else:
            # LightningCLI reads sys.argv by itself, and warns if it is given arguments beside it.
            PreimageCLI(args=own if debug or args is not None else None)
    except Exception as error:
        if debug:
            raise
        print(f"error: {explain(error)} (--debug shows where)", file=sys.stderr)
        raise SystemExit(1) from error
    finally:
        gc.unfreeze()  # triton's bindings report as leaked what is still frozen at the exit


if __name__ == "__main__":
    main()
