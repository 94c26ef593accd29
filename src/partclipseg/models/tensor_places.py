"""Find the tensors of a model in released files that other code wrote, and copy them from there."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from re import Pattern
from typing import NamedTuple

import torch
from torch import Tensor, nn

from partclipseg.models.reading import check_complete

Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Regular expressions of our names and their replacements, as `re.sub` takes them."""

_PROJECTION = re.compile(r"\.([qkv])_proj\.|\.attention\.attention\.([qkv])\w*\.")
"""Projection of queries, keys or values; the longer form is that of DINOv2 in earlier versions of transformers."""


class TensorPlace(NamedTuple):
    """Place of one of our tensors in a released file."""

    name: str
    """Its name there, as far as the method's module writes it out."""
    third: int | None
    """Index of the third of the rows, for tensors that stack queries, keys and values."""
    transposed: bool

    def of(self, tensor: Tensor) -> Tensor:
        """Return the part of the foreign tensor that is ours."""
        if self.third is not None and len(tensor) % 3 == 0:
            tensor = tensor.chunk(3)[self.third]
        return tensor.T if self.transposed else tensor

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the foreign tensor for our tensor of shape `ours`."""
        if self.third is not None:
            return (3 * ours[0], *ours[1:])
        return ours[::-1] if self.transposed else ours


def place_by_rules(name: str, rules: Rules, transposed: Collection[str] = ()) -> TensorPlace:
    """Return the place of our tensor `name`, to which every one of the `rules` is applied, in their order.

    Projections of queries, keys and values are thirds of one tensor there. `transposed` are our names of tensors that
    the other code has transposed.
    """
    letter = _PROJECTION.search(name)
    is_transposed = name in transposed
    for ours, theirs in rules:
        name = re.sub(ours, theirs, name)
    return TensorPlace(name, "qkv".index(letter[1] or letter[2]) if letter else None, is_transposed)


class Fit(NamedTuple):
    """Tensors of a released file and of a model that do not fit each other, by their names in the file."""

    missing: list[str]
    unknown: list[str]
    misshapen: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    """Name, shape in the file, shape that the model needs."""

    def check(self, origin: str) -> None:
        """Raise `PartCLIPSegError` that counts the tensors that do not fit and names the first, if there are any."""
        check_complete(origin, self.missing, self.unknown, self.misshapen)


@torch.no_grad()
def copy_tensors(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    place_of: Callable[[str], TensorPlace],
    optional: Pattern[str],
    unused: Pattern[str],
    prefix: str = "",
) -> Fit:
    """Copy the tensors of a released file into those of a model that they fit; the others stay as they are.

    Args:
        model: the model to fill.
        tensors: the file's tensors by name.
        place_of: function from the name of one of the model's tensors to its place in the file.
        optional: names of tensors of the model that a file may lack.
        unused: names of tensors of a file that have no effect.
        prefix: copy only into tensors whose name begins with it.
    """
    missing, misshapen, used = [], [], set()
    for name, target in model.state_dict().items():
        if not name.startswith(prefix):
            continue
        place = place_of(name)
        used.add(place.name)
        if place.name not in tensors:
            if not optional.fullmatch(name) and place.name not in missing:
                missing.append(place.name)
            continue
        tensor = place.of(tensors[place.name])
        if tensor.shape != target.shape:
            misshapen.append((place.name, tuple(tensors[place.name].shape), place.shape(tuple(target.shape))))
            continue
        target.copy_(tensor)
    unknown = sorted(name for name in tensors if name not in used and not unused.fullmatch(name))
    return Fit(missing, unknown, misshapen)
