"""<vcpu>, <iothreads>, <cputune>, <cpu> and <clock>: processors, where they run, and time."""

from __future__ import annotations

from orchestrator.core.model import GuestClock
from orchestrator.core.xml.domain import Accelerator, Domain
from orchestrator.core.xml.elements import Element, cpuset, element

_TRACK = {GuestClock.STOPS: "guest", GuestClock.FOLLOWS: "wall"}


def vcpu_elements(domain: Domain) -> list[Element]:
    """Return <vcpu> (its cpuset is what any thread without a pin of its own gets) and <iothreads>."""
    spec = domain.spec
    vcpu = element("vcpu", text=str(spec.most_vcpus), placement="static", cpuset=cpuset(domain.placement.held))
    if spec.max_vcpus is not None:
        vcpu.set("current", str(spec.vcpus))
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
    """Return <clock>: UTC, and whether the hardware clock (RTC) stops or follows while the guest stands still.

    Of a guest that waits for its turn, or is paused, QEMU stops the virtual clock, and with it whatever counts time
    for the guest's kernel: time-stamp counter, kvmclock, local timers, ARM's generic timer. So Linux's CLOCK_MONOTONIC
    and CLOCK_REALTIME stand still in either case. The RTC alone has a choice: ``track="guest"`` is QEMU's ``-rtc
    clock=vm`` and stops with them, so a guest cannot tell that it has waited; ``track="wall"`` is ``clock=host``, on a
    PC (MC146818) as on ARM's virt (PL031), and is right at any time, so a guest that wants to follow has something to
    set its clock by, as ``hwclock --hctosys`` does.

    Measured under TCG. Under KVM, QEMU saves kvmclock and ARM's virtual counter over a stop by its documentation
    (commit 00f4d64; ``kvm-no-adjvtime`` is off). A time-stamp counter that goes on there does not matter: libvirt's
    host-passthrough does not call it invariant, so Linux takes kvmclock.

    A PC's tick timers are delayed rather than replayed after a pause, and it has no HPET: the guest waits often, and
    catching up on lost ticks would spend its turn on them.
    """
    track = _TRACK[domain.spec.clock]
    if not domain.traits.is_x86:
        return element("clock", element("timer", name="rtc", track=track), offset="utc")
    return element(
        "clock",
        element("timer", name="rtc", track=track, tickpolicy="delay"),
        element("timer", name="pit", tickpolicy="delay"),
        element("timer", name="hpet", present="no"),
        offset="utc",
    )
