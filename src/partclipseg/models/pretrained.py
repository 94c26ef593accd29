"""A model's directory in, for families whose configurations check themselves: type, configuration and every tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.directory import read_config
from partclipseg.models.names import quoted
from partclipseg.models.reading import load_complete

_HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only")


def load_pretrained(cls: Any, name: Any, load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Load a directory or hub name of class `cls` through `load`, a `from_pretrained` of transformers.

    Raises `PartCLIPSegError` for a model that is not there, of another type, incomplete or damaged.
    """
    hub_options = {key: kwargs.pop(key) for key in _HUB_OPTIONS if key in kwargs}
    config = kwargs.pop("config", None) or saved_config(cls.config_class, name, **hub_options)
    with_info = kwargs.pop("output_loading_info", False)
    model = load_complete(load, lambda: cls(config), name, *args, config=config, **hub_options, **kwargs)
    return (model, {}) if with_info else model


def saved_config(config_class: Any, name: Any, **hub_options: Any) -> Any:
    """The configuration in a directory or on the hub; raises `PartCLIPSegError` if it is of another type or unsound."""
    values = read_config(name, **hub_options)
    kind, expected = values.get("model_type"), config_class.model_type
    if kind != expected:
        what = f"a model of type {quoted(kind)}" if isinstance(kind, str) else "a config.json without a model_type"
        raise PartCLIPSegError(
            f"{name} holds {what}, not {quoted(expected)}: give a directory of that type, as `partclipseg convert` or "
            "`train` writes it"
        )
    try:
        return config_class.from_values(values)
    except PartCLIPSegError as error:
        raise PartCLIPSegError(f"{name}: {error}; give the config.json that belongs to the weights") from None
