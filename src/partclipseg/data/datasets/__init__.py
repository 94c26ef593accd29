"""The data sets, one file each. `registry.DATASETS` lists them, and `open_dataset` opens one."""

from partclipseg.data.datasets.registry import DATASETS, dataset_spec, open_dataset
from partclipseg.data.datasets.spec import DatasetSpec, OwnOptions, Split

__all__ = ["DATASETS", "DatasetSpec", "OwnOptions", "Split", "dataset_spec", "open_dataset"]
