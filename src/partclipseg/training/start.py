"""Build the model that a recipe starts from."""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerBase

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.state import model_digest
from partclipseg.files import is_directory, is_file
from partclipseg.models.compiled import compile_layers
from partclipseg.models.fetch import find_model
from partclipseg.models.interface import PartModel
from partclipseg.models.registry import family
from partclipseg.training.recipe import Recipe
from partclipseg.training.retention import WordRetention
from partclipseg.training.words import Tokens


def find_start(recipe: Recipe) -> str:
    """Return the directory or hub name of the recipe's start; a name that ``partclipseg models`` lists is fetched.

    Found anew in each run, so that a run can be continued in another installation. Raises `PartCLIPSegError` where
    the model cannot be had.
    """
    return str(find_model(recipe.start))


def model_files(recipe: Recipe) -> dict[str, str]:
    """Compute the digest of each model that the recipe names by a path that is there, by the name of its setting."""
    named = {"start": recipe.start}
    named |= {f"settings.{name}": getattr(recipe.settings, name, "") for name in ("guidance", "maskformer")}
    return {name: model_digest(path) for name, path in named.items() if is_file(path) or is_directory(path)}


def build_model(recipe: Recipe) -> PartModel:
    """Build the recipe's start model in float32 on the CPU; all weights but the trained ones are frozen.

    New layers come from torch's global generator. Raises `PartCLIPSegError` where the start cannot be loaded, and
    `UsageError` for an image size that it does not take.
    """
    model = family(recipe.method).from_start(find_start(recipe), recipe.settings)
    if recipe.image_size is not None:
        model.config.image_size = recipe.image_size
        if model.image_shape != (recipe.image_size, recipe.image_size):
            height, width = model.image_shape
            raise UsageError(f"{recipe.start} takes photos of {height}x{width} pixels only: leave image_size out")
    model.trained_parameters(recipe.settings)
    model.recompute(recipe.recompute)
    return model


def word_retention(
    recipe: Recipe, model: PartModel, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> WordRetention:
    """Build the recipe's word retention for `model`, with its start model as the teacher.

    Raises `PartCLIPSegError` if the start is not a CLIPSeg.
    """
    start, words = find_start(recipe), recipe.retention.words
    teacher = family(recipe.method).word_teacher(start)
    if teacher is None:
        raise PartCLIPSegError(
            f"{recipe.start} is no CLIPSeg, whose maps word retention could keep: start from one, "
            "or set --retention.weight 0"
        )
    teacher.to(device)
    if recipe.compile:
        compile_layers(teacher)
    read = [Tokens.of(prompts, tokenizer, device) for prompts in (words, model.word_prompts(words))]
    return WordRetention(teacher, read[0], recipe.retention.words_per_step, prompts=read[1])


def check_compiled(device: torch.device) -> None:
    """Raise `UsageError` where layers are to be compiled on a CPU: a compiled step takes longer there."""
    if device.type == "cpu":
        raise UsageError("compiling pays on a GPU only: leave --compile out")


def compile_on(device: torch.device, model: PartModel) -> None:
    """Compile the layers for training; raises `UsageError` on a CPU."""
    check_compiled(device)
    # If another model of this process had another grid, the compiler makes the grid symbolic and fails at its gradients
    # (PyTorch 2.13).
    torch.compiler.reset()
    compile_layers(model)
