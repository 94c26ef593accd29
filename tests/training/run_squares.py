"""A small run as a process of its own: ``python run_squares.py START OUTPUT [field=value …]``."""

import sys
from pathlib import Path

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from conftest import Squares, tiny_recipe
from partclipseg.training.data import TrainingData
from partclipseg.training.loop import train

if __name__ == "__main__":
    torch.set_num_threads(1)
    start, output, *changes = sys.argv[1:]
    recipe = tiny_recipe(start, **{name: yaml.safe_load(value) for name, value in (c.split("=") for c in changes)})
    result = train(recipe, TrainingData.split(Squares(), held_out=2, seed=0), output)
    sys.exit(0 if result.finished else 143)
