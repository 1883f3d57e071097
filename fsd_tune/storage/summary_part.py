"""The base class of the mappings in a search's summary."""

from typing import Any

from pydantic import ConfigDict, model_serializer

from fsd_tune.storage.records import Record


class SummaryPart(Record):
    """A mapping of the summary.

    Each key may be missing, because a search writes its summary step by step. Keys that this version does not know are
    preserved. A part without written keys is false, so `if summary.memory:` tests for it. The file has `null` for it.
    """

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    def __bool__(self) -> bool:
        """Return whether anything was written to this part."""
        return bool(self.model_fields_set)

    @model_serializer
    def as_json(self) -> dict[str, Any] | None:
        """Return the JSON value of this part: the keys that were written, or None if there are none."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        fields |= self.model_extra or {}
        return {name: _as_json(value) for name, value in fields.items()} or None


def _as_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    if isinstance(value, SummaryPart):
        return value.as_json()
    return value.model_dump(exclude_unset=True) if isinstance(value, Record) else value
