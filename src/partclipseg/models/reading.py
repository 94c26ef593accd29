"""Read a model's files: complete, undamaged and finite, or a `PartCLIPSegError` with one sentence and the remedy.

Nothing here knows a model's class: the functions take paths, tensors and a module.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from safetensors import safe_open
from torch import Tensor, nn
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from partclipseg.counts import count_of
from partclipseg.errors import PartCLIPSegError, first_line
from partclipseg.files import is_directory, is_file
from partclipseg.json_file import distinct_keys
from partclipseg.models.hub import WEIGHTS

_LAYOUTS = tuple(f"{name}{index}" for name in WEIGHTS for index in ("", ".index.json"))
"""Names of weight files in the order in which transformers looks for them."""

_COUNTERS = ("position_ids", "num_batches_tracked")
"""Ends of the names of whole numbers that stand in files and change no prediction."""

_DEPTHS = re.compile("layers|blocks|depth|stages", re.IGNORECASE)
"""Entries of configurations that say how many layers a model has."""

_MOST_LAYERS = 1000

_FLOATS = {"F64", "F32", "F16", "BF16"}

_MAX_JSON_BYTES = 64 * 2**20

_PARALLEL = "module."

_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c", b"Rar!")
"""First bytes of packed files, but for ZIP, which PyTorch's own files are."""

_LISTED = 10
"""Maximum number of tensors that a message names."""

_REMEDY = "copy or download it again"


@contextmanager
def library_errors(message: str) -> Iterator[None]:
    """Raise any error of a library within the block as `PartCLIPSegError`: `message` and what the library said."""
    try:
        yield
    except (PartCLIPSegError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # tokenizers reports some damages by an error that is no Exception
        said = first_line(error)[:200] if isinstance(error, Exception) else ""
        raise PartCLIPSegError(f"{message} ({type(error).__name__}{f': {said}' if said else ''})") from error


def check_file(path: Path) -> None:
    """Raise `PartCLIPSegError` unless `path` is a file with content of its own.

    Refused are directories, empty files, and the web page or Git LFS pointer that a failed download leaves.
    """
    if is_directory(path):
        raise PartCLIPSegError(f"{path} is a directory: name a file")
    if not is_file(path):
        raise PartCLIPSegError(f"there is no file {path}: check the path")
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip().lower()
    except OSError as error:
        raise PartCLIPSegError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    if not start:
        raise PartCLIPSegError(f"{path} is empty, so not a readable file: {_REMEDY}")
    if start.startswith(b"version https://git-lfs"):
        raise PartCLIPSegError(f"{path} is a Git LFS pointer in place of the file: fetch the file by `git lfs pull`")
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise PartCLIPSegError(f"{path} is a web page in place of the file: download the file itself")


def read_json_table(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; raises `PartCLIPSegError` for anything else."""
    check_file(path)
    size = path.stat().st_size
    if size > _MAX_JSON_BYTES:
        raise PartCLIPSegError(f"{path} has {size / 2**20:,.0f} MiB, too much for such a file: {_REMEDY}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=distinct_keys)
    except RecursionError:
        raise PartCLIPSegError(f"{path} is nested too deeply: {_REMEDY}") from None
    except PartCLIPSegError as error:
        raise PartCLIPSegError(f"{path} {error}") from None
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise PartCLIPSegError(f"{path} is not valid JSON: {first_line(error)}; {_REMEDY}") from None
    if not isinstance(content, dict):
        raise PartCLIPSegError(f"{path} must hold a JSON object, not {type(content).__name__}: {_REMEDY}")
    return content


def count_stored_numbers(directory: Path) -> int:
    """Count the numbers of the weights in `directory`, from the files' headers.

    Raises `PartCLIPSegError` for a missing, cut or damaged file and for tensors that are not floating point.
    """
    tensors = {name: entry for path in _weight_files(directory) for name, entry in _stored(path).items()}
    kept = {name: entry for name, entry in tensors.items() if not name.endswith(_COUNTERS)}
    if wrong := [f"{name} ({kind})" for name, (_, kind) in kept.items() if kind not in _FLOATS]:
        raise PartCLIPSegError(
            f"{directory} has {_listed(wrong, 'tensor')} of a number type other than float16, bfloat16, float32 and "
            "float64: give weights that are not quantised"
        )
    return sum(count for count, _ in kept.values())


def check_number_of_weights(build: Callable[[], nn.Module], stored: int, origin: str) -> None:
    """Refuse a configuration that needs many more numbers than the weights hold, before memory is allocated.

    `build` makes the model; it is called with PyTorch's meta device, which takes no memory for tensors.
    """
    with torch.device("meta"), no_init_weights():
        asked = sum(parameter.numel() for parameter in build().parameters())
    if asked > 2 * stored + 1_000_000:
        raise PartCLIPSegError(
            f"{origin}: the configuration asks for {asked:,} numbers and the weights hold {stored:,}: give the "
            "configuration that belongs to the weights"
        )


def load_complete(
    load: Callable[..., Any], build: Callable[[], nn.Module], name: str | Path, *args: Any, **kwargs: Any
) -> Any:
    """Load a model by transformers' `load(name, …)`; every tensor must come from the files and be finite.

    Args:
        load: a `from_pretrained`.
        build: makes the same model with random weights, for its size.
        name: a directory, or a name on the hub.

    Raises `PartCLIPSegError` that lists missing, unexpected, mis-shaped and non-finite tensors.
    """
    if is_directory(name):
        check_number_of_weights(build, count_stored_numbers(Path(name)), str(name))
    with library_errors(f"the model in {name} cannot be loaded: {_REMEDY}"), without_bars():
        model, info = load(name, *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs)
    check_complete(
        str(name),
        missing=info["missing_keys"],
        unexpected=info["unexpected_keys"],
        misshapen=info["mismatched_keys"],
    )
    if messages := info.get("error_msgs"):
        raise PartCLIPSegError(f"the model in {name} cannot be loaded: {str(next(iter(messages)))[:200]}; {_REMEDY}")
    check_finite_weights(model, str(name))
    return model


def check_library_size(cls: Any, folder: str | Path, name: str | Path) -> None:
    """Refuse a directory of a model of transformers whose configuration needs many more numbers than its weights hold.

    `cls` is the model's class, `name` what to call it in messages. Raises `PartCLIPSegError`, also where configuration
    or weights are missing or damaged.
    """
    _check_depth(read_json_table(Path(folder) / "config.json"), name)
    with library_errors(f"the model in {name} cannot be loaded: {_REMEDY}"):
        config = cls.config_class.from_pretrained(folder)
        check_number_of_weights(lambda: cls(config), count_stored_numbers(Path(folder)), str(name))


def _check_depth(table: Any, name: str | Path) -> None:
    """Refuse a configuration with more layers than any model: each would take time even without its weights."""
    for key, value in table.items() if isinstance(table, dict) else ():
        if isinstance(value, dict):
            _check_depth(value, name)
        elif _DEPTHS.search(key):
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float) and abs(number) > _MOST_LAYERS:
                    raise PartCLIPSegError(
                        f"the config.json in {name} states a {key[:100]} of more than {_MOST_LAYERS:,}, which no model "
                        f"has: {_REMEDY}"
                    )


def load_library_model(cls: Any, folder: str | Path, name: str | Path, number_type: torch.dtype) -> Any:
    """Load a model by a class of transformers; the weights must be complete and finite, and may hold more tensors.

    Args:
        cls: class of transformers.
        folder: directory of the files, or a name on the hub.
        name: what to call the model in messages.
        number_type: number type of the weights.

    Raises `PartCLIPSegError` for files that are missing or damaged, for tensors that do not fit, and as
    `check_library_size`.
    """
    check_library_size(cls, folder, name)
    with library_errors(f"the model in {name} cannot be loaded: {_REMEDY}"), without_bars():
        model, info = cls.from_pretrained(
            folder, dtype=number_type, output_loading_info=True, ignore_mismatched_sizes=True
        )
    check_complete(str(name), info["missing_keys"], (), info["mismatched_keys"])
    check_finite_weights(model, str(name))
    return model


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide transformers' progress bars of loading and writing weights; those of downloads are shown."""
    if not transformers_logging.is_progress_bar_enabled():
        yield
        return
    downloads = not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    if downloads:
        enable_progress_bars()  # the line above turns them off too
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
        if not downloads:
            disable_progress_bars()


def check_complete(
    origin: str,
    missing: Iterable[str],
    unexpected: Iterable[str],
    misshapen: Iterable[tuple[str, Sequence[int], Sequence[int]]],
) -> None:
    """Raise `PartCLIPSegError` that counts the unfitting tensors and names the first, if there are any.

    `misshapen` are name, shape in the file, shape in the model. Position ids, a constant in old files of CLIPSeg, are
    never unexpected.
    """
    problems = [f"missing: {name}" for name in sorted(missing)]
    problems += [
        f"{name} has shape {tuple(found)}, expected {tuple(asked)}" for name, found, asked in sorted(misshapen)
    ]
    problems += [f"unknown: {name}" for name in sorted(unexpected) if not name.endswith("position_ids")]
    if problems:
        raise PartCLIPSegError(
            f"{origin} does not fit the model in {_listed(problems, 'tensor')}: give the weights and the configuration "
            "that belong together, or copy or download them again"
        )


@torch.no_grad()
def check_finite_weights(model: nn.Module, origin: str) -> None:
    """Raise `PartCLIPSegError` that names the tensors of `model` with NaN or infinity, if there are any."""
    if names := [name for name, tensor in model.state_dict().items() if not _is_finite(tensor)]:
        raise PartCLIPSegError(
            f"{origin} has NaN or infinity in {_listed(names, 'tensor')}: copy or download the weights again, or take "
            "those from before training diverged"
        )


def read_tensors(path: str | Path, device: str = "cpu") -> dict[str, Tensor]:
    """Read the table of tensors in a PyTorch file, ``{name: tensor}`` or ``{"model": {name: tensor}, …}``.

    With ``device="meta"`` shapes and types only. Where each name begins with ``module.``, as PyTorch's parallel
    training writes it, that is left out. A pickle that wants to run code is refused. Raises `PartCLIPSegError`.
    """
    path = Path(path)
    check_file(path)
    try:
        with library_errors(f"{path} is not a readable PyTorch checkpoint: {_REMEDY}"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what comes of it is said below
            content = torch.load(path, map_location=device, weights_only=True)
    except PartCLIPSegError as error:
        if other := _other_file(path):
            raise PartCLIPSegError(f"{path} is {other}") from error.__cause__
        if isinstance(error.__cause__, pickle.UnpicklingError):
            raise PartCLIPSegError(
                f"{path} is refused: it is damaged, or it holds more than tensors and reading it could run code. Copy "
                "or download it again, or ask its author for a file that has only weights"
            ) from error.__cause__
        raise
    tensors = content.get("model", content) if isinstance(content, dict) else None
    if (
        not tensors
        or not isinstance(tensors, Mapping)
        or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items())
    ):
        raise PartCLIPSegError(
            f"{path} is no released checkpoint: it has no table of tensors under 'model'; give the released file"
        )
    if wrong := [
        f"{name} ({tensor.dtype}, {tensor.layout})".replace("torch.", "")
        for name, tensor in tensors.items()
        if not name.endswith(_COUNTERS) and not (_kind(tensor) in _FLOATS and tensor.layout is torch.strided)
    ]:
        raise PartCLIPSegError(
            f"{path} has {_listed(wrong, 'tensor')} that are not dense floating point: give weights that are not "
            "quantised"
        )
    if all(name.startswith(_PARALLEL) for name in tensors):
        return {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _other_file(path: Path) -> str | None:
    """Describe a file that is no PyTorch checkpoint, with the remedy; None if it is none of those known here."""
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(_PACKED):
        return "packed: unpack it, and give the file in it"
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "a safetensors file, not a PyTorch one: give the released .pth file"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # no ZIP archive, or one whose damaged list raises various errors
        return None
    if any(name.endswith("data.pkl") for name in names):
        return None
    return "a ZIP archive and no PyTorch checkpoint: unpack it, and give the .pth file in it"


def without_prefixes(tensors: Mapping[str, Tensor], origin: str, *prefixes: str) -> dict[str, Tensor]:
    """Return tensors by their names without `prefixes` in front, each of which is taken away once, in order.

    Raises `PartCLIPSegError` where two names are then the same, since one of the tensors would be lost.
    """
    found: dict[str, Tensor] = {}
    named: dict[str, str] = {}
    for name, tensor in tensors.items():
        bare = name
        for prefix in prefixes:
            bare = bare.removeprefix(prefix)
        if bare in found:
            raise PartCLIPSegError(
                f"{origin} holds two models in one: {named[bare][:120]} and {name[:120]} are one tensor; give a file "
                "of one model"
            )
        found[bare], named[bare] = tensor, name
    return found


def _weight_files(directory: Path) -> list[Path]:
    found = next((directory / name for name in _LAYOUTS if is_file(directory / name)), None)
    if found is None:
        raise PartCLIPSegError(
            f"{directory} has no weights: put {_LAYOUTS[0]} beside config.json, as `partclipseg convert` and `train` "
            "write it"
        )
    if found.suffix != ".json":
        return [found]
    table = read_json_table(found).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise PartCLIPSegError(f"{found} has no weight_map, which names the file of each tensor: {_REMEDY}")
    for name in table.values():
        if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name or "\\" in name:
            raise PartCLIPSegError(f"{found} names {str(name)[:100]!r}, which is no file beside it: {_REMEDY}")
    return [directory / name for name in dict.fromkeys(table.values())]


def _stored(path: Path) -> dict[str, tuple[int, str]]:
    """Return count of numbers and number type of each tensor in a file, without reading the tensors."""
    if path.suffix != ".safetensors":
        return {name: (tensor.numel(), _kind(tensor)) for name, tensor in read_tensors(path, "meta").items()}
    check_file(path)
    with (
        library_errors(f"{path} is cut or damaged: {_REMEDY}"),
        safe_open(path, framework="pt") as file,
    ):
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (it is no dictionary)
        return {name: (_product(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


def _kind(tensor: Tensor) -> str:
    kinds = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    return kinds.get(tensor.dtype, str(tensor.dtype))


def _product(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor)  # one pass that takes no memory; NaN shows in both
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _listed(names: Sequence[str], noun: str) -> str:
    """Return ``2 tensors (a, b)``, with the first ten names."""
    shown = ", ".join(name[:120] for name in names[:_LISTED])
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{count_of(len(names), noun)} ({shown}{more})"
