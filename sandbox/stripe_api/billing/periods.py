"""When a billing period ends. Pure calendar arithmetic in UTC."""

import calendar
from datetime import UTC, datetime, timedelta
from typing import Literal

Interval = Literal["day", "week", "month", "year"]


def period_end(start: int, interval: Interval, count: int) -> int:
    """The Unix second `count` intervals after `start`; the 31st becomes a shorter month's last day."""
    moment = datetime.fromtimestamp(start, UTC)
    match interval:
        case "day":
            ending = moment + timedelta(days=count)
        case "week":
            ending = moment + timedelta(weeks=count)
        case "month":
            ending = _later_month(moment, count)
        case "year":
            ending = _later_month(moment, 12 * count)
    return int(ending.timestamp())


def next_end(anchor: int, after: int, interval: Interval, count: int) -> int:
    """The first whole number of periods from `anchor` that ends later than `after`, Unix seconds.

    Counted from the anchor each time, so that the 31st comes back after a shorter month.
    """
    periods = 1
    while (ending := period_end(anchor, interval, count * periods)) <= after:
        periods += 1
    return ending


def _later_month(moment: datetime, months: int) -> datetime:
    index = moment.year * 12 + moment.month - 1 + months
    year, month = index // 12, index % 12 + 1
    return moment.replace(year=year, month=month, day=min(moment.day, calendar.monthrange(year, month)[1]))
