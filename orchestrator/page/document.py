"""The page: what is to be seen at a glance, then cores, waits and fairness, guests, quotas and incidents."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.chronicle import Incident
from orchestrator.core.durations import about
from orchestrator.core.report import GuestLine, Part, QuotaLine, Report
from orchestrator.page.curves import bars, line, spark
from orchestrator.page.gantt import CLOSE_UP, MOST_BARS, Lanes
from orchestrator.page.style import SCRIPT, STYLE
from orchestrator.page.words import (
    LOOKS,
    amount,
    day_and_time,
    pattern_definitions,
    percent,
    sample,
    table,
    tag,
    text,
    when,
)

MOST_INCIDENTS = 500
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def render(report: Report, host: str) -> str:
    """Return the page. `host` is what the machine is called. Growth: what is in the report; bars are bounded."""
    looks = {guest.name: place % LOOKS for place, guest in enumerate(sorted(report.guests, key=_by_name))}
    title = f"{host}: {day_and_time(report.begin)} and {about(report.end - report.begin)} on"
    body = "".join(
        (
            tag("a", "To the guests", href="#guests", class_="skip"),
            tag("svg", pattern_definitions(), width=0, height=0, aria_hidden="true", style="position:absolute"),
            tag("header", tag("h1", text(f"Cores of {host}")) + tag("p", text(_subtitle(report)))),
            tag("div", "".join(_tiles(report)), class_="tiles"),
            _section("cores", "Who held which core when", _cores(report, looks)),
            tag("div", _waits(report) + _fairness(report), class_="two"),
            _section("guests", "Guests, who waited longest first", _guests(report, looks)),
            _section("quotas", "Quotas", _quotas(report)),
            _section("incidents", "Incidents", _incidents(report.incidents)),
        )
    )
    head = "".join(
        (
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            tag("title", text(title)),
            tag("style", STYLE),
        )
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}{tag("script", SCRIPT)}</body></html>\n'


def _by_name(guest: GuestLine) -> tuple[str, str]:
    return guest.owner, guest.name


def _section(name: str, title: str, content: str) -> str:
    return tag("section", tag("h2", text(title), tabindex=-1) + content, id=name, class_="long")


def _subtitle(report: Report) -> str:
    said = f"{day_and_time(report.begin)} to {day_and_time(report.end)}, {about(report.end - report.begin)}."
    if report.lost:
        said += f" {report.lost} records could not be kept, so something is missing here."
    if report.unread:
        said += f" {report.unread} records could not be read."
    return said


def _tiles(report: Report) -> Iterator[str]:
    longest = report.longest
    if longest is None:
        yield _tile("nobody", "waited for a turn")
    else:
        worst = max(guest.nearest for guest in report.guests)
        said = f"{longest.name} waited longest: once, until {when(longest.longest_at)} UTC"
        yield _tile(about(longest.longest), said)
        yield _tile(percent(worst), "of its bound is the most that any wait took", warn=worst > 1)
    if report.cores:
        held = sum(core.held for core in report.cores) / len(report.cores)
        count = f"{len(report.cores)} cores" if len(report.cores) > 1 else "the one core"
        yield _tile(percent(held), f"of the time of {count} there was a holder")
    if report.fairness is not None:
        yield _tile(f"{report.fairness:.3f}", "fairness among shared guests (Jain's index; 1: all got the same part)")
    troubles = sum(each.is_trouble for each in report.incidents)
    yield _tile(str(troubles), "troubles and warnings; all are below", warn=troubles > 0)


def _tile(figure: str, said: str, *, warn: bool = False) -> str:
    return tag("div", tag("b", text(figure)) + tag("span", text(said)), class_="tile warn" if warn else "tile")


def _cores(report: Report, looks: dict[str, int]) -> str:
    if not report.turns:
        return tag("p", "Nobody held a core.")
    cores = [each.core for each in report.cores]
    count = sum(len(turn.cores) for turn in report.turns)
    lanes = Lanes(cores, report.begin, report.end, looks)
    drawn = (lanes.turns if count <= MOST_BARS else lanes.columns)(report.turns, "Who held which core when")
    if count > MOST_BARS:
        last = report.turns[-max(1, CLOSE_UP * len(report.turns) // count) :]
        begin = last[0].begin
        there = [turn for turn in report.turns if turn.end > begin]
        cut = [turn._replace(begin=max(begin, turn.begin)) for turn in there]
        drawn += tag("p", text(f"Every turn of the last {about(report.end - begin)}, from {when(begin)} UTC:"))
        drawn += Lanes(cores, begin, report.end, looks).turns(cut, "The last turns, one by one")
    said = "Time goes to the right, a lane is a core, exclusive guests are outlined. Choose a guest to see it alone. "
    keys = tag(
        "span", "Keys: g to the guests, arrows to the next one, Escape for all, c w q i to sections.", class_="keys"
    )
    rows = ((text(each.core), percent(each.held), text(f"{each.turns:,}"), text(each.guests)) for each in report.cores)
    used = table("How much each core was used", ("Core", "Held", "Turns", "Guests"), rows, frozenset((1, 2, 3)))
    return _legend(report, looks) + drawn + tag("p", text(said) + keys) + used


def _legend(report: Report, looks: dict[str, int]) -> str:
    entries = (
        tag(
            "li",
            tag(
                "button",
                sample(looks[guest.name]) + text(f"{guest.name} · {guest.owner}" if guest.owner else guest.name),
                type="button",
                data_of=str(looks[guest.name]),
                aria_pressed="false",
            ),
        )
        for guest in sorted(report.guests, key=_by_name)
    )
    return tag("ul", "".join(entries), class_="legend", aria_label="Guests")


def _waits(report: Report) -> str:
    most = max((part.longest for part in report.parts), default=0)
    values = [
        (
            part.longest / most if most else 0.0,
            part.mean / most if most else 0.0,
            f"from {when(part.begin)}: {part.waits} waits, mean {about(part.mean)}, longest {about(part.longest)}, "
            f"{percent(part.nearest)} of its bound at most",
        )
        for part in report.parts
    ]
    title = "Waits over time"
    drawn = bars(title, report.end - report.begin, values, about(most))
    return tag(
        "section", tag("h2", title) + drawn + tag("p", "Longest wait of each part of the time; darker: the mean.")
    )


def _fairness(report: Report) -> str:
    title, parts = "Fairness over time", report.parts
    said = [f"from {when(part.begin)}: {_index(part)}" for part in parts]
    drawn = line(title, report.end - report.begin, [part.fairness for part in parts], said)
    length = about((report.end - report.begin) // max(1, len(parts)))
    note = f"Jain's index of what shared guests got of their due, in each {length}; no turn within one counts as 0."
    return tag("section", tag("h2", title) + drawn + tag("p", text(note)))


def _index(part: Part) -> str:
    return "not known" if part.fairness is None else f"{part.fairness:.3f}"


def _guests(report: Report, looks: dict[str, int]) -> str:
    if not report.guests:
        return tag("p", "There were no guests.")
    most = max(guest.longest for guest in report.guests) or 1
    columns = ("Guest", "Owner", "Architecture", "Mode", "Turns", "Core time", "Of its due", "Waits", "Mean wait")
    rows = (
        (
            sample(looks[guest.name]) + text(guest.name),
            text(guest.owner or "-"),
            text(guest.architecture or "-"),
            "shared" if guest.shared else "exclusive",
            text(f"{guest.turns:,}"),
            about(guest.ran),
            percent(guest.ran / guest.due) if guest.due and guest.shared else "-",
            text(f"{guest.waits:,}"),
            about(guest.mean) if guest.waits else "-",
            _length_bar(guest, most) if guest.waits else "-",
            percent(guest.nearest) if guest.waits else "-",
        )
        for guest in report.guests
    )
    return table(
        "Waits are those that ended within the time; the bound is the longest that each could have been",
        (*columns, "Longest wait", "Of its bound"),
        rows,
        frozenset(range(4, 11)),
    )


def _length_bar(guest: GuestLine, most: int) -> str:
    width = f"width:{max(1.0, 110 * guest.longest / most):.0f}px"
    bar = tag("span", class_="bar warn" if guest.nearest > 1 else "bar", style=width)
    return bar + text(about(guest.longest))


def _quotas(report: Report) -> str:
    if not report.quotas:
        return tag("p", "The policy sets no quota, or it was not written down what was used.")
    rows = (
        (
            text(each.party),
            text(each.rule),
            text(f"{amount(each.used, each.unit)} of {amount(each.limit, each.unit)}"),
            _quota_bar(each),
            text(amount(each.most, each.unit)),
            spark([had / each.limit if each.limit else 0.0 for _, had in each.course]),
        )
        for each in report.quotas
    )
    columns = ("Whose", "Rule", "Used at the end", "Part", "The most", "Over time")
    return table("What was used of each limit", columns, rows, frozenset((2, 3, 4)))


def _quota_bar(line: QuotaLine) -> str:
    part = line.used / line.limit if line.limit else 0.0
    bar = tag("span", class_="bar warn" if part >= 1 else "bar", style=f"width:{max(1.0, 110 * min(1.0, part)):.0f}px")
    return bar + percent(part)


def _incidents(incidents: tuple[Incident, ...]) -> str:
    if not incidents:
        return tag("p", "Nothing happened beside turns.")
    shown = incidents[-MOST_INCIDENTS:]
    rows = (
        (
            tag("time", when(each.at), title=day_and_time(each.at)),
            text(each.what),
            text(each.guest or "-"),
            text(each.owner or "-"),
            text(each.why or "-"),
            text(each.source),
        )
        for each in shown
    )
    left = f", the last {MOST_INCIDENTS} of {len(incidents)}" if len(incidents) > len(shown) else ""
    columns = ("When (UTC)", "What", "Guest", "Who", "Why", "From")
    return table(f"From the event log and the journal{left}", columns, rows)
