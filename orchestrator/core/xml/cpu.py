"""<vcpu>, <iothreads>, <cputune>, <cpu> and <clock>: processors, where they run, and time."""

from __future__ import annotations

from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.core.xml.elements import Element, cpuset, element


def vcpu_elements(domain: Domain) -> list[Element]:
    """Return <vcpu> (its cpuset is what any thread without a pin of its own gets) and <iothreads>."""
    spec = domain.spec
    vcpu = element("vcpu", text=str(spec.vcpus), placement="static", cpuset=cpuset(domain.placement.held))
    return [vcpu, element("iothreads", text=str(spec.iothreads))] if spec.iothreads else [vcpu]


def cputune_element(domain: Domain) -> Element:
    """Return <cputune>: one pin for each vCPU, one for the emulator threads, one for each I/O thread."""
    placement = domain.placement
    emulator = cpuset(placement.emulator)
    return element(
        "cputune",
        *(element("vcpupin", vcpu=index, cpuset=core) for index, core in enumerate(placement.vcpus)),
        element("emulatorpin", cpuset=emulator),
        *(element("iothreadpin", iothread=i, cpuset=emulator) for i in range(1, domain.spec.iothreads + 1)),
    )


def cpu_element(domain: Domain) -> Element:
    """Return <cpu>: the host's own model under KVM, one that every QEMU of this architecture has under TCG."""
    if domain.accelerator is Accelerator.KVM:
        return element("cpu", mode="host-passthrough", check="none")
    model = element("model", text=domain.traits.tcg_cpu, fallback="forbid")
    return element("cpu", model, mode="custom", match="exact", check="none")


def clock_element(domain: Domain) -> Element:
    """Return <clock>: UTC; a PC's tick timers are delayed rather than replayed after a pause, and it has no HPET.

    The guest waits for its turn often: catching up on lost ticks would spend its slice on them.
    """
    if not domain.traits.is_x86:
        return element("clock", offset="utc")
    return element(
        "clock",
        element("timer", name="rtc", tickpolicy="delay"),
        element("timer", name="pit", tickpolicy="delay"),
        element("timer", name="hpet", present="no"),
        offset="utc",
    )
