"""`bench all`: every measurement of one run with the machine's description, ratios to rivals, and to another run.

A figure says which way is better and what it is compared with, if anything ran beside it. Ratios are ours to theirs
where less is better, and theirs to ours where more is, so below 1 is always in our favour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.bench.idle import COUNTS
from orchestrator.core.durations import Duration

FORM = 1
"""Of the file with results; it is only ever added to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured: hand-overs each way, `seconds` at each of `slices` with `crowd` guests, and starts.

    `counts` are the numbers of guests beside which the scheduler idles; of the largest guest `linux_rounds` starts.
    """

    handovers: int = 100
    seconds: float = 8.0
    slices: tuple[Duration, ...] = tuple(Duration.parse(f"{length} ms") for length in (10, 20, 50, 100, 200, 500, 1000))
    crowd: int = 20
    starts: int = 3
    linux_rounds: int = 1
    clones: int = 4
    counts: tuple[int, ...] = COUNTS
    idle: float = 10.0
    computing: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement by its name, in its unit; `more` says that more is better. `rival` did the same in `theirs`."""

    name: str
    value: float
    unit: str
    more: bool = False
    rival: str = ""
    theirs: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return how we stand to the rival; below 1 is in our favour."""
        return None if self.theirs is None else _ratio(self.value, self.theirs, more=self.more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What one run has measured; `skipped` says why what is not there is not."""

    machine: Mapping[str, Any]
    seconds: float
    figures: tuple[Figure, ...]
    skipped: tuple[str, ...] = ()


def to_json(results: Results) -> dict[str, Any]:
    """Return results as JSON's types."""
    figures = [{**asdict(figure), "ratio": figure.ratio} for figure in results.figures]
    return {
        "form": FORM,
        "machine": dict(results.machine),
        "seconds": results.seconds,
        "figures": figures,
        "skipped": list(results.skipped),
    }


def from_json(value: Any) -> Results:
    """Read results back. Raises ValueError if they are none."""
    try:
        if value["form"] != FORM:
            raise ValueError(f"its form is {value['form']!r}, and {FORM} is known")
        figures = tuple(
            Figure(
                name=str(each["name"]),
                value=float(each["value"]),
                unit=str(each["unit"]),
                more=bool(each["more"]),
                rival=str(each["rival"]),
                theirs=None if each["theirs"] is None else float(each["theirs"]),
            )
            for each in value["figures"]
        )
        return Results(machine=dict(value["machine"]), seconds=float(value["seconds"]), figures=figures)
    except (KeyError, TypeError) as error:
        raise ValueError(f"it has no results of `bench all`: {error!r}") from None


def compared(results: Results, baseline: Results | None) -> Iterator[tuple[Figure, float | None]]:
    """Yield each figure, and how it stands to the baseline's; above 1 it has become worse."""
    before = {} if baseline is None else {figure.name: figure for figure in baseline.figures}
    for figure in results.figures:
        other = before.get(figure.name)
        same = other is not None and other.unit == figure.unit
        yield figure, _ratio(figure.value, other.value, more=figure.more) if same and other is not None else None


def _ratio(ours: float, theirs: float, *, more: bool) -> float | None:
    above, below = (theirs, ours) if more else (ours, theirs)
    return above / below if below else None
