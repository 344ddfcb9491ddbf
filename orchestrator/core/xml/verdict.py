"""What an audit of libvirt XML finds: values only, with their one-line and their JSON form.

How they are found is in `audit.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from orchestrator.core.cpulist import format_cpulist
from orchestrator.core.xml.cpuset import plain


class Kind(StrEnum):
    """The answer of an audit, in one word."""

    CONFINED = "confined"  # no thread may run on a reserved core
    EXPOSED = "exposed"  # at least one thread may
    FOREIGN = "foreign"  # another hypervisor's domain: libvirt's QEMU driver does not place its threads
    NOT_A_DOMAIN = "not-a-domain"  # well-formed XML that describes no domain
    INVALID = "invalid"  # not XML, or not what libvirt would accept


@dataclass(frozen=True, slots=True)
class Exposure:
    """Threads that may run on reserved cores, and the element that lets them.

    `thread` names one thread or several that share the cause (``vCPU 2``, ``vCPUs 4-7``, ``emulator``,
    ``I/O thread 1``); `cores` are the reserved ones among those it may use; `element` is a path below
    <domain>. Where `missing` is true, that element is not there and its absence is the cause; `line` is
    then the line of <domain>. `reason` is one line that also says what would confine the thread.
    """

    thread: str
    cores: tuple[int, ...]
    element: str
    line: int | None
    missing: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit says about one file.

    `name` and `type` are the domain's, empty where there is none (the first one's, where the file wraps
    several). `reason` and `line` say why a file is foreign, not a domain, or invalid. `cautions` are
    things that the XML alone cannot settle; they leave the kind as it is.
    """

    kind: Kind
    name: str = ""
    type: str = ""
    exposures: tuple[Exposure, ...] = ()
    reason: str = ""
    line: int | None = None
    cautions: tuple[str, ...] = ()

    @property
    def could_run_on_reserved(self) -> bool | None:
        """Whether some thread could run on a reserved core; None where that cannot be told."""
        return {Kind.CONFINED: False, Kind.EXPOSED: True}.get(self.kind)

    @property
    def summary(self) -> str:
        """The verdict in one line, without the file's name."""
        subject = f"{plain(self.name) or 'unnamed'} ({plain(self.type)}): " if self.type else ""
        if self.kind is Kind.CONFINED:
            text = "no thread may run on a reserved core"
        elif self.kind is Kind.EXPOSED:
            text = self._threads()
        else:
            text = self.reason
        return f"{subject}{self.kind}: {text}"

    def _threads(self) -> str:
        """Name the first few exposed threads and all the reserved cores that any of them may use."""
        names = tuple(dict.fromkeys(exposure.thread for exposure in self.exposures))
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        cores = format_cpulist(core for exposure in self.exposures for core in exposure.cores)
        return f"{', '.join(names[:6])}{more} may run on reserved core{'' if cores.isdigit() else 's'} {cores}"


def describe(verdict: Verdict) -> dict[str, object]:
    """Return the verdict as plain values for JSON: its fields, `could_run_on_reserved` and `summary`."""
    return {
        **asdict(verdict),
        "kind": verdict.kind.value,
        "could_run_on_reserved": verdict.could_run_on_reserved,
        "summary": verdict.summary,
    }
