"""A small run as a process of its own: ``python run_squares.py START OUTPUT [field=value …]``."""

import atexit
import sys
from pathlib import Path

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from conftest import recipe_from, training_data
from partclipseg.training.loop import run_training

if __name__ == "__main__":
    torch.set_num_threads(1)
    # The first to be registered is the last to be called.
    atexit.register(lambda: sys.stdout.write("left connected\n" if torch.distributed.is_initialized() else "parted\n"))
    start, output, *changes = sys.argv[1:]
    recipe = recipe_from(start, **{name: yaml.safe_load(value) for name, value in (c.split("=") for c in changes)})
    result = run_training(recipe, training_data(), output)
    sys.exit(0 if result.finished else 143)
