"""The date of a run, which `${date:%Y-%m-%d}` writes into a job. A retry after midnight can be given the first date."""

import os
import re
from datetime import UTC, datetime

from omegaconf import OmegaConf

from rendermill.jobs.config.interpolations import ResolverError
from rendermill.manifests.errors import UserError

DATE_VARIABLE = "RENDERMILL_DATE"
_DIRECTIVES = "aAbBcdfGHIjmMpSuUVwWxXyYzZ%"


def find_date(given: str | None) -> datetime:
    """Return a date in UTC: the given one, or else that of `RENDERMILL_DATE`, or else now.

    Args:
        given: ISO 8601; a date without an offset is in UTC.

    Raises:
        UserError: It is not a date.
    """
    place, text = ("--date", given) if given else (DATE_VARIABLE, os.environ.get(DATE_VARIABLE))
    if not text:
        return datetime.now(UTC)
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        problem = f"{text!r} is no date; write 2026-11-24 or 2026-11-24T02:00:00+01:00"
        raise UserError(problem, place=place) from error
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def register_date(date: datetime) -> None:
    """Make `${date:FORMAT}` write this date."""

    def write(*formats: str) -> str:
        text = str(formats[0]) if len(formats) == 1 else ""
        directives = re.findall("%(.?)", text)
        if not directives or not set(directives) <= set(_DIRECTIVES):
            raise ResolverError(
                "should be ${date:FORMAT}, with a format of strftime's such as %Y-%m-%d, in quotes if it has commas"
            )
        return date.strftime(text)

    OmegaConf.register_resolver("date", write, replace=True)
