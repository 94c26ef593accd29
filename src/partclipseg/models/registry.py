"""The families of models by name, and how a model is found and loaded."""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.models.directory import load_tokenizer, load_vocabulary, read_config
from partclipseg.models.interface import PartModel
from partclipseg.models.names import quoted

__all__ = [
    "BUILT_IN", "FAMILIES", "built_in_model", "family", "find_device", "find_dtype", "is_built_in",
    "load_model",
    "load_tokenizer", "load_vocabulary", "read_config",
]  # fmt: skip

FAMILIES = {
    "partclipseg": "partclipseg.models.partclipseg.model:PartCLIPSegModel",
    "clipseg-baseline": "partclipseg.models.clipseg.model:CLIPSegBaseline",
    "clipseg": "partclipseg.models.clipseg.plain:PlainCLIPSeg",
}
"""`model_type` of the configuration: where the family's class is."""

BUILT_IN = "partshapes"
"""Name of the built-in model, where no directory has it; it knows PartShapes, the rendered benchmark, only."""


def family(name: str) -> type[PartModel]:
    """The class of a family. Raises `PartCLIPSegError` for a name that is none."""
    if name not in FAMILIES:
        raise PartCLIPSegError(f"there is no family of models {name!r}: the families are {', '.join(FAMILIES)}")
    module, _, attribute = FAMILIES[name].partition(":")
    return getattr(import_module(module), attribute)


def load_model(name: str | Path, **kwargs: Any) -> Any:
    """Load the model in a directory or on the hub, of whichever family it is.

    A plain CLIPSeg is CLIPSeg without training; `PartCLIPSegModel.from_pretrained` takes it as a start. Keyword
    arguments go to `from_pretrained`.
    """
    kind = read_config(name).get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        what = f"a model of type {quoted(kind)}" if isinstance(kind, str) else "a config.json without a model_type"
        raise PartCLIPSegError(
            f"{name} holds {what}, not one of {', '.join(FAMILIES)}: give a directory that `partclipseg "
            "convert` or `train` wrote, or a CLIPSeg model"
        )
    return family(kind).from_pretrained(name, **kwargs)


def is_built_in(name_or_path: str | Path) -> bool:
    """Whether a name stands for the built-in model: `BUILT_IN`, unless there is a directory of that name."""
    return str(name_or_path) == BUILT_IN and not Path(BUILT_IN).exists()


def built_in_model() -> str:
    """Directory of the built-in model; raises `PartCLIPSegError` where this installation has none."""
    directory = Path(str(files("partclipseg"))) / "assets" / BUILT_IN
    if not (directory / "config.json").is_file():
        raise PartCLIPSegError("this installation has no built-in model: name a model's directory with --model")
    return str(directory)


def find_device(device: str | torch.device | None) -> torch.device:
    """The device to run on; None takes CUDA where there is one. Raises `UsageError` for one that is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # absent devices raise any of the three
        raise UsageError(f"there is no device {str(device)!r} here: use 'cpu' or leave the option out") from error
    return found


def find_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The number type of a name; for None bfloat16 if `device` is a GPU that has it, else float32.

    Raises `UsageError` for names other than float32, bfloat16 and float16.
    """
    if dtype is None:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    found = known.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise UsageError(f"unknown dtype {str(dtype)!r}: choose from {', '.join(known)}")
    return found
