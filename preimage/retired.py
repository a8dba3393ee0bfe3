"""What runs and checkpoints of earlier versions call otherwise, in the words of this one."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

#: Arguments of `Classifier` that are now those of `SemiSupervisedClassifier`.
_SEMI_SUPERVISED = ("vat", "auxiliary_decoder", "reconstruction_weight")


def renewed(class_path: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class path and arguments of a model as this version has them."""
    arguments = {key: _with_size(value) if key == "decoder" else value for key, value in arguments.items()}
    if class_path.rpartition(".")[2] != "Classifier" or "vat" not in arguments:
        return class_path, dict(arguments)
    if arguments["vat"] is not None:
        return class_path.replace("Classifier", "SemiSupervisedClassifier"), dict(arguments)
    return class_path, {key: value for key, value in arguments.items() if key not in _SEMI_SUPERVISED}


def _with_size(decoder: Any) -> Any:
    """A `FaceDecoder` of a run, whose arguments are all there, with the size that all had before it was one of them."""
    given = decoder.get("init_args") if isinstance(decoder, dict) else None
    if not isinstance(given, dict) or not str(decoder.get("class_path")).endswith("FaceDecoder"):
        return decoder
    whole = {"latent_dim", "width", "output_activation"} <= set(given)
    return decoder | {"init_args": {"image_size": 256} | given} if whole else decoder


def renewed_config(config: Any) -> Any:
    """What a `config.yaml` holds, as this version has it: itself, if nothing in it is of an earlier one."""
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("init_args"), dict):
        return config
    class_path, arguments = renewed(str(model.get("class_path")), model["init_args"])
    if arguments == model["init_args"] and class_path == model.get("class_path"):
        return config
    return config | {"model": model | {"class_path": class_path, "init_args": arguments}}


def renewed_text(text: str) -> str:
    """The same for YAML or a flag, which stays as it is to the letter if nothing in it is of an earlier version."""
    text = re.sub(r"\bcallbacks\.((Wandb|TensorBoard)?RunLogger)\b", r"preimage.loggers.\1", text)
    if not re.search("vat:|FaceDecoder", text):
        return text
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # the parser says what is wrong with it
    new = renewed_config(config)
    return text if new is config else yaml.safe_dump(new, sort_keys=False)
