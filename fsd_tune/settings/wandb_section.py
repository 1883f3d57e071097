"""The section `wandb` of a settings file."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fsd_tune.settings.fields import Accepted, Section, read_text

_TAGS = "a list of text such as [baseline, rte]"
# W&B refuses other names when the run begins.
_WANDB_NAME = re.compile(r"[^/\\#?%:]{1,128}")
_WANDB_NAMES = "a name of at most 128 characters without / \\ # ? % : and line ends"


def _read_mode(value: Any) -> Any:
    return "off" if value is False else value


def _read_tags(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or any(not isinstance(tag, str) or not tag.strip() for tag in value):
        raise ValueError(f"must be {_TAGS}")
    if any(len(tag) > 64 or not tag.isprintable() for tag in value):
        raise ValueError("must be tags of at most 64 characters, without line ends, as W&B accepts them")
    return tuple(value)


def _read_wandb_name(value: Any) -> str:
    name = read_text(value)
    if not _WANDB_NAME.fullmatch(name) or not name.isprintable():
        separate = "; `entity` and `project` are separate settings" if "/" in name else ""
        raise ValueError(f"must be {_WANDB_NAMES}{separate}")
    return name


WandbName = Annotated[str, BeforeValidator(_read_wandb_name), Accepted(_WANDB_NAMES)]


class Wandb(Section):
    """Tracking with Weights & Biases."""

    mode: Annotated[Literal["off", "offline", "online"], BeforeValidator(_read_mode)] = Field(
        default="off", description="off, offline (files to sync later) or online"
    )
    project: WandbName = Field(default="fsd_tune", description="project of the runs")
    entity: WandbName | None = Field(default=None, description="user or team; null: the default of the account")
    tags: Annotated[tuple[str, ...], BeforeValidator(_read_tags), Accepted(_TAGS)] = Field(
        default=(), description="tags of the runs"
    )
