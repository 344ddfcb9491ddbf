"""Wall-clock times as people plan with them: cron expressions and single moments, in the host's local time.

Nothing here asks what time it is. Times are naive `datetime` values, as a clock on the wall shows them, so a day on
which the clocks are changed has no hour too many: an interval that begins in the hour that is left out begins when
the clock has passed it, and one in the hour that comes twice begins at the first of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Self

from cronsim import CronSim, CronSimError

_FIELDS = 5  # cronsim takes seconds too, crontab does not
_MOMENT = "%Y-%m-%d %H:%M"
_SECOND = timedelta(seconds=1)


class Cron(str):
    """A cron expression of five fields: minute, hour, day of month, month, day of week (``"0 22 * * 1-5"``)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an expression; ValueError says what is wrong and what would work."""
        fields = text.split()
        if len(fields) != _FIELDS:
            raise ValueError(
                f"{text[:40]!r} is no cron expression; write minute, hour, day of month, month and day of week, "
                "like '0 22 * * 1-5'"
            )
        try:
            found = next(CronSim(" ".join(fields).upper(), datetime(2000, 1, 1)), None)
        except CronSimError as error:
            raise ValueError(f"{text[:40]!r} is no cron expression: {str(error).lower()}") from None
        if found is None:
            raise ValueError(f"{text[:40]!r} never comes; there is no such day")
        return cls(" ".join(fields))

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the times that come after `moment`, in order. Each takes time with the days in between."""
        return CronSim(self.upper(), moment)

    def last(self, moment: datetime) -> datetime | None:
        """Return the last time that is not after `moment`."""
        # cronsim looks strictly before what it is given, to the second.
        return next(CronSim(self.upper(), moment.replace(microsecond=0) + _SECOND, reverse=True), None)


class Moment(str):
    """A single moment, written ``"2026-12-24 18:00"``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a moment; ValueError says what is wrong and what would work."""
        try:
            return cls(datetime.strptime(text.strip(), _MOMENT).strftime(_MOMENT))
        except ValueError:
            raise ValueError(f"{text[:40]!r} is no moment; write a day and a time, like '2026-12-24 18:00'") from None

    @property
    def when(self) -> datetime:
        """The moment as a value to count with."""
        return datetime.strptime(self, _MOMENT)
