"""What runs and checkpoints of earlier versions call otherwise, in the words of this one."""

from collections.abc import Mapping
from typing import Any

import yaml

#: Arguments of `Classifier` that are now those of `SemiSupervisedClassifier`.
SEMI_SUPERVISED = ("vat", "auxiliary_decoder", "reconstruction_weight")


def renewed(class_path: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class path and arguments of a model as this version has them.

    Args:
        class_path: As an earlier version wrote it, or this one.
        arguments: Arguments of the class.
    """
    if class_path.rpartition(".")[2] != "Classifier" or "vat" not in arguments:
        return class_path, dict(arguments)
    if arguments["vat"] is not None:
        return class_path.replace("Classifier", "SemiSupervisedClassifier"), dict(arguments)
    return class_path, {key: value for key, value in arguments.items() if key not in SEMI_SUPERVISED}


def renewed_config(text: str) -> str:
    """A configuration as this version has it: itself, to the letter, if nothing in it is of an earlier one.

    Args:
        text: The configuration, as YAML.
    """
    if "vat:" not in text:
        return text
    try:
        config = yaml.safe_load(text)
        model = config["model"]
        class_path, arguments = renewed(model["class_path"], model["init_args"])
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return text  # the parser says what is wrong with it
    if (class_path, arguments) == (model["class_path"], model["init_args"]):
        return text
    config["model"] = model | {"class_path": class_path, "init_args": arguments}
    return yaml.safe_dump(config, sort_keys=False)
