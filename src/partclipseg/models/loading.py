"""Load a model's directory; its type, its configuration and every tensor are checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.directory import read_config, stated_type
from partclipseg.models.hub import HUB_OPTIONS
from partclipseg.models.names import quoted_name
from partclipseg.models.reading import load_complete


def load_pretrained(cls: Any, name: Any, load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Load a directory or hub name of class `cls` through `load`, a `from_pretrained` of transformers.

    Raises `PartCLIPSegError` for a model that is not there, of another type, incomplete or damaged.
    """
    hub_options = {key: kwargs.pop(key) for key in HUB_OPTIONS if key in kwargs}
    config = kwargs.pop("config", None) or saved_config(cls.config_class, name, **hub_options)
    with_info = kwargs.pop("output_loading_info", False)
    model = load_complete(load, lambda: cls(config), name, *args, config=config, **hub_options, **kwargs)
    return (model, {}) if with_info else model


def saved_config(config_class: Any, name: Any, **hub_options: Any) -> Any:
    """Read the configuration of a directory or hub name.

    Raises `PartCLIPSegError` if it is of another type or unsound.
    """
    values = read_config(name, **hub_options)
    kind, expected = values.get("model_type"), config_class.model_type
    if kind != expected:
        raise PartCLIPSegError(
            f"{name} holds {stated_type(kind)}, not {quoted_name(expected)}: give a directory of that type, as "
            "`partclipseg convert` or `train` writes it"
        )
    try:
        return config_class.from_values(values)
    except PartCLIPSegError as error:
        raise PartCLIPSegError(f"{name}: {error}; give the config.json that belongs to the weights") from None
