"""Families of models by name; functions that find and load a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.models.directory import load_tokenizer, load_vocabulary, read_config, stated_type
from partclipseg.models.int8 import check_int8
from partclipseg.models.interface import PartModel
from partclipseg.models.number_types import NUMBER_TYPES
from partclipseg.models.reading import read_tensors
from partclipseg.models.released import BUILT_IN, BUILT_IN_DETECTOR, is_released
from partclipseg.vocabulary import Catalog, Vocabulary

__all__ = [
    "BUILT_IN", "BUILT_IN_DETECTOR", "FAMILIES", "FOREIGN", "REFUSED", "built_in_detector", "built_in_model", "family",
    "find_device", "find_dtype", "find_foreign", "is_built_in", "load_file", "load_model", "load_tokenizer",
    "load_vocabulary", "read_config",
]  # fmt: skip

FAMILIES = {
    "partclipseg": "partclipseg.models.partclipseg.model:PartCLIPSegModel",
    "clipseg-baseline": "partclipseg.models.clipseg.model:CLIPSegBaseline",
    "clipseg": "partclipseg.models.clipseg.plain:PlainCLIPSeg",
    "partcatseg": "partclipseg.models.partcatseg.model:PartCATSegModel",
    "catseg": "partclipseg.models.partcatseg.model:CATSegModel",
    "zsseg": "partclipseg.models.zsseg.model:ZSSegModel",
}
"""Import path of the family's class for each `model_type` of a configuration."""

FOREIGN = {
    "PartCLIPSeg": "partclipseg.models.partclipseg.foreign",
    "OV-PARTS' CLIPSeg": "partclipseg.models.clipseg.foreign",
    "OV-PARTS' ZSSeg+": "partclipseg.models.zsseg.foreign",
    "PartCATSeg, CAT-Seg or OV-PARTS' CAT-Seg": "partclipseg.models.partcatseg.foreign",
}
"""Methods with released files: the module that knows such a file by the names of its tensors (`knows`), its
configuration (`config_for`), its weights (`load_released`) and what is to be said of it (`REMARK`)."""

REFUSED = {
    "ZSSeg+'s prompts alone": r"prompt_learner\.",
    "MaskFormer, from which stage 1 of ZSSeg+ can start in training (--maskformer)":
        r"(module\.)?sem_seg_head\.(pixel_decoder|predictor\.query_embed)\.",
}
"""Methods without a family here that people have files of: the beginning of a name that only their tensors have."""


def family(name: str) -> type[PartModel]:
    """Return the class of a family. Raises `PartCLIPSegError` for an unknown name."""
    if name not in FAMILIES:
        raise PartCLIPSegError(f"there is no family of models {name!r}: the families are {', '.join(FAMILIES)}")
    return resolve_name(FAMILIES[name])


def load_model(name: str | Path, **kwargs: Any) -> PartModel:
    """Load the model in a directory, on the hub, or of a name that `partclipseg models` lists, of whichever family.

    A plain CLIPSeg is CLIPSeg without training; `PartCLIPSegModel.from_pretrained` takes it as a start. Keyword
    arguments go to the `from_pretrained` of transformers. The model is on the CPU, in evaluation mode, in the number
    type of its file.

    Raises:
        PartCLIPSegError: no model of that name can be found, fetched or loaded, or it is of no family that is known.
    """
    if is_released(name):
        from partclipseg.models.fetch import fetch  # which imports this module

        name = fetch(str(name))
    kind = read_config(name).get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise PartCLIPSegError(
            f"{name} holds {stated_type(kind)}, not one of {', '.join(FAMILIES)}: give a directory that `partclipseg "
            "convert` or `train` wrote, or a CLIPSeg model"
        )
    return family(kind).from_pretrained(name, **kwargs)


def find_foreign(
    path: str | Path, values: Mapping[str, Any] | None = None, vocabulary: Vocabulary | None = None
) -> tuple[Any, Any]:
    """Find the module of `FOREIGN` that knows a released file, and the file's configuration.

    Args:
        path: the file.
        values: those of a model of another size than the released ones.
        vocabulary: words that the model is meant for. Those of a catalogue tell the data set that it was trained on,
            which decides how some methods take photos.

    Raises `PartCLIPSegError` for a file that is unreadable, or of a method that is not here, which is named if it is
    one of `REFUSED`.
    """
    tensors = read_tensors(path, "meta")
    catalog = None if vocabulary is None else Catalog.of(vocabulary)
    for module in map(import_module, FOREIGN.values()):
        if module.knows(tensors):
            return module, module.config_for(values, tensors, str(path), catalog and catalog.name)
    for method, start in REFUSED.items():
        if any(re.match(start, name) for name in tensors):
            raise PartCLIPSegError(
                f"{path} is a checkpoint of {method}, a method that is not here: give one of {', '.join(FOREIGN)}"
            )
    raise PartCLIPSegError(
        f"{path} is no released file of a method that is known here: give one of {', '.join(FOREIGN)}"
    )


def load_file(path: str | Path, values: Mapping[str, Any] | None = None) -> PartModel:
    """Load the model in a released file of any method of `FOREIGN`, float32 on the CPU; arguments of `find_foreign`.

    Raises `PartCLIPSegError` for a file that is damaged, of another method, or does not fit.
    """
    module, config = find_foreign(path, values)
    return module.load_released(path, config)


def is_built_in(name_or_path: str | Path, built_in: str = BUILT_IN) -> bool:
    """Whether a name stands for a built-in model: it is `built_in`, unless there is a directory of that name."""
    return str(name_or_path) == built_in and not Path(built_in).exists()


def built_in_model() -> str:
    """Return the directory of the built-in model; raises `PartCLIPSegError` if this installation has none."""
    return _asset(BUILT_IN, "built-in model: name a model's directory with --model")


def built_in_detector() -> str:
    """Return the directory of the built-in detector; raises `PartCLIPSegError` if this installation has none."""
    return _asset(BUILT_IN_DETECTOR, "built-in detector: name a detector's directory with --instances")


def _asset(name: str, missing: str) -> str:
    directory = Path(str(files("partclipseg"))) / "assets" / name
    if not (directory / "config.json").is_file():
        raise PartCLIPSegError(f"this installation has no {missing}")
    return str(directory)


def find_device(device: str | torch.device | None) -> torch.device:
    """Return the device to run on; None takes CUDA, else Apple's MPS, else the CPU, whichever is there first.

    Raises `UsageError` for an absent device.
    """
    if device is None:
        available = (("cuda", torch.cuda), ("mps", torch.backends.mps))
        return torch.device(next((name for name, backend in available if backend.is_available()), "cpu"))
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # absent devices raise any of the three
        raise UsageError(f"there is no device {str(device)!r} here: use 'cpu' or leave the option out") from error
    return found


def find_dtype(
    dtype: str | torch.dtype | None, device: torch.device, names: Sequence[str] = NUMBER_TYPES
) -> torch.dtype:
    """Return the number type of a name; for None bfloat16 if `device` is a GPU that has it, else float32.

    Raises `UsageError` for a name that is not in `names`, and for int8 where `device` does not compute it.
    """
    if dtype is None:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in names:
        raise UsageError(f"unknown dtype {str(dtype)!r}: choose from {', '.join(names)}")
    if name == "int8":
        check_int8(device)
    return getattr(torch, name)
