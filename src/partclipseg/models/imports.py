"""Says what to do where an installed torchvision, which this package does not need, breaks transformers."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from partclipseg.errors import PartCLIPSegError, first_line


@contextmanager
def fitting_torchvision() -> Iterator[None]:
    """Raise `PartCLIPSegError` if an import within the block fails since the installed torchvision does not fit torch.

    transformers imports torchvision wherever it is installed, and then no model can be imported.
    """
    try:
        yield
    except Exception as error:
        try:
            if importlib.util.find_spec("torchvision"):
                importlib.import_module("torchvision")
        except Exception as reason:
            raise PartCLIPSegError(
                f"the installed torchvision does not fit torch {torch.__version__} ({first_line(reason)[:200]}): "
                "install the one that belongs to this torch, or remove it by `pip uninstall torchvision`, since it is "
                "not needed"
            ) from error
        raise
