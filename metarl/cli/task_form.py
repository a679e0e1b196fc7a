"""The options of a family as the command line shows them: under the names that users set."""

import dataclasses
from typing import Any

from metarl.field_types import option_name


def task_form(family: Any) -> Any:
    """The family, or a dataclass of its options if some field has another name than its option."""
    fields = dataclasses.fields(family)
    if all(option_name(field) == field.name for field in fields):
        return family
    made = dataclasses.make_dataclass(
        type(family).__name__,
        [
            (
                option_name(field),
                field.type,
                dataclasses.field(default=getattr(family, field.name), metadata=field.metadata),
            )
            for field in fields
        ],
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = type(family).__doc__
    return made()
