"""The date of a run, which `${date:%Y-%m-%d}` writes into a job: one that a retry after midnight can be given again."""

import os
import re
from datetime import UTC, datetime

from omegaconf import OmegaConf

from rendermill.manifests.errors import UserError

DATE_VARIABLE = "RENDERMILL_DATE"
_DIRECTIVES = "aAbBcdfGHIjmMpSuUVwWxXyYzZ%"


def find_date(given: str | None) -> datetime:
    """The date in UTC: the one given, else that of `RENDERMILL_DATE`, else now.

    Args:
        given: ISO 8601; without an offset it is in UTC.

    Raises:
        UserError: it is no such date.
    """
    place, text = ("--date", given) if given else (DATE_VARIABLE, os.environ.get(DATE_VARIABLE))
    if not text:
        return datetime.now(UTC)
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"{place}: {text!r} is no date; write 2026-11-24 or 2026-11-24T02:00:00+01:00") from error
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def register_date(date: datetime) -> None:
    """Make `${date:FORMAT}` write this date."""

    def write(*formats: str) -> str:
        text = str(formats[0]) if len(formats) == 1 else ""
        directives = re.findall("%(.?)", text)
        if not directives or not set(directives) <= set(_DIRECTIVES):
            raise ValueError(
                "should be ${date:FORMAT}, with a format of strftime's such as %Y-%m-%d, in quotes if it has commas"
            )
        return date.strftime(text)

    OmegaConf.register_resolver("date", write, replace=True)
