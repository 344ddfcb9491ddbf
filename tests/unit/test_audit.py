from __future__ import annotations

import json

import pytest

from orchestrator.core.xml.audit import audit
from orchestrator.core.xml.verdict import Exposure, Kind, Verdict, describe

PINS = (
    "<cputune><vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='3'/>"
    "<emulatorpin cpuset='2-3'/><iothreadpin iothread='1' cpuset='3'/></cputune>"
)
PINNED = f"<vcpu>2</vcpu><iothreads>1</iothreads>{PINS}"


def judge(inside: str, kind: str = "kvm", reserved: frozenset[int] = frozenset({0, 1})) -> Verdict:
    return audit(f"<domain type='{kind}'>\n<name>vm</name>\n{inside}\n</domain>".encode(), reserved)


def threads(verdict: Verdict) -> dict[str, tuple[int, ...]]:
    return {exposure.thread: exposure.cores for exposure in verdict.exposures}


def only(verdict: Verdict) -> Exposure:
    (exposure,) = verdict.exposures
    return exposure


def commandline(*values: str) -> str:
    arguments = "".join(f"<q:arg value='{value}'/>" for value in values)
    return (
        f"<vcpu cpuset='4'>1</vcpu>"
        f"<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>{arguments}</q:commandline>"
    )


def test_no_cputune_at_all_exposes_every_thread() -> None:
    verdict = judge("<vcpu>4</vcpu><iothreads>2</iothreads>")
    assert verdict.kind is Kind.EXPOSED
    assert verdict.could_run_on_reserved is True
    assert threads(verdict) == {"vCPUs 0-3": (0, 1), "emulator": (0, 1), "I/O threads 1-2": (0, 1)}
    assert [(one.element, one.missing, one.line) for one in verdict.exposures] == [
        ("cputune/vcpupin", True, 1),
        ("cputune/emulatorpin", True, 1),
        ("cputune/iothreadpin", True, 1),
    ]
    assert "<emulatorpin>" in verdict.exposures[1].reason


def test_everything_pinned_to_pool_cores_is_confined() -> None:
    verdict = judge(PINNED)
    assert (verdict.kind, verdict.could_run_on_reserved, verdict.exposures) == (Kind.CONFINED, False, ())
    assert verdict.summary == "vm (kvm): confined: no thread may run on a reserved core"


def test_a_missing_vcpu_element_means_one_vcpu() -> None:
    assert threads(judge("")) == {"vCPU 0": (0, 1), "emulator": (0, 1)}


@pytest.mark.parametrize(("cpuset", "cores"), [("0-7,^3", (0, 1)), ("0-7,^0", (1,)), ("0-3,^0,^1", None)])
def test_vcpu_cpuset_counts_its_exclusions_and_holds_for_all_threads(
    cpuset: str, cores: tuple[int, ...] | None
) -> None:
    verdict = judge(f"<vcpu cpuset='{cpuset}'>2</vcpu><iothreads>1</iothreads>")
    if cores is None:
        assert verdict.kind is Kind.CONFINED
        return
    assert threads(verdict) == dict.fromkeys(("vCPUs 0-1", "emulator", "I/O thread 1"), cores)
    assert {(one.element, one.missing, one.line) for one in verdict.exposures} == {("vcpu/@cpuset", False, 3)}


def test_vcpupin_alone_leaves_the_emulator() -> None:
    exposure = only(judge("<vcpu>1</vcpu><cputune><vcpupin vcpu='0' cpuset='2'/></cputune>"))
    assert (exposure.thread, exposure.element, exposure.missing) == ("emulator", "cputune/emulatorpin", True)


def test_an_iothread_without_a_pin_is_named_by_its_id() -> None:
    inside = PINNED.replace("<iothreads>1</iothreads>", "<iothreads>3</iothreads>")
    assert threads(judge(inside)) == {"I/O threads 2-3": (0, 1)}


def test_a_pin_of_its_own_wins_over_the_default_both_ways() -> None:
    wide = "<vcpu cpuset='0-3'>2</vcpu><iothreads>1</iothreads>" + PINS
    assert judge(wide).kind is Kind.CONFINED
    narrow = "<vcpu cpuset='2-3'>2</vcpu><cputune><vcpupin vcpu='1' cpuset='1-2'/></cputune>"
    exposure = only(judge(narrow))
    assert exposure == Exposure(
        thread="vCPU 1",
        cores=(1,),
        element="cputune/vcpupin[@vcpu='1']",
        line=3,
        missing=False,
        reason="its vcpupin has cpuset='1-2', which allows core 1",
    )


def test_the_reserved_cores_are_an_argument() -> None:
    assert threads(judge(PINNED, reserved=frozenset({0, 1, 3}))) == {
        "vCPU 1": (3,),
        "emulator": (3,),
        "I/O thread 1": (3,),
    }
    assert judge("", reserved=frozenset()).kind is Kind.CONFINED


def test_vcpus_that_can_be_plugged_in_count_and_are_said_to_be_offline() -> None:
    exposure = only(judge("<vcpu current='1'>3</vcpu><cputune><vcpupin vcpu='0' cpuset='2'/></cputune>", "xen"))
    assert exposure.thread == "vCPUs 1-2"
    assert exposure.reason.endswith("(offline at start, but it can be plugged in)")
    listed = "<vcpus><vcpu id='0' enabled='yes'/><vcpu id='2' enabled='yes'/></vcpus>"
    verdict = judge(f"<vcpu current='1' cpuset='1'>4</vcpu>{listed}")
    assert [one.thread for one in verdict.exposures] == ["vCPUs 0,2", "vCPUs 1,3", "emulator"]


@pytest.mark.parametrize(
    ("inside", "ids"),
    [
        ("<iothreads>2</iothreads>", "s 1-2"),
        ("<iothreads>0</iothreads>", None),
        ("<iothreads/>", None),
        ("<iothreadids><iothread id='7'/></iothreadids>", " 7"),
        ("<iothreads>3</iothreads><iothreadids><iothread id='2'/></iothreadids>", "s 1-3"),
        ("<iothreads>3</iothreads><iothreadids><iothread id='9'/></iothreadids>", "s 1-2,9"),
        (
            "<iothreads>1</iothreads><iothreadids><iothread id='4'/><iothread id='6'/></iothreadids>",
            "s 4,6",
        ),
    ],
)
def test_iothread_ids_are_completed_as_libvirt_does(inside: str, ids: str | None) -> None:
    pins = "<cputune><vcpupin vcpu='0' cpuset='2'/><emulatorpin cpuset='2'/></cputune>"
    found = threads(judge(inside + pins))
    assert found == ({} if ids is None else {f"I/O thread{ids}": (0, 1)})


@pytest.mark.parametrize("mode", ["strict", "preferred", "interleave", "restrictive"])
def test_numatune_confines_no_thread_and_exposes_none(mode: str) -> None:
    numatune = f"<numatune><memory mode='{mode}' nodeset='1'/></numatune>"
    assert judge(PINNED + numatune).kind is Kind.CONFINED
    assert threads(judge(numatune)) == {"vCPU 0": (0, 1), "emulator": (0, 1)}


def test_automatic_placement_ignores_the_cpuset_but_not_the_pins() -> None:
    verdict = judge("<vcpu placement='auto' cpuset='nonsense'>1</vcpu>")
    assert threads(verdict) == {"vCPU 0": (0, 1), "emulator": (0, 1)}
    assert {one.element for one in verdict.exposures} == {"vcpu/@placement"}
    assert "numad" in verdict.exposures[0].reason
    assert judge(PINNED.replace("<vcpu>", "<vcpu placement='auto'>")).kind is Kind.CONFINED


def test_automatic_memory_placement_places_the_threads_where_nothing_is_pinned() -> None:
    auto = "<numatune><memory placement='auto'/></numatune>"
    verdict = judge(auto)
    assert {one.element for one in verdict.exposures} == {"numatune/memory/@placement"}
    assert judge(f"<vcpu cpuset='2'>1</vcpu>{auto}").kind is Kind.CONFINED
    half = judge(f"<cputune><vcpupin vcpu='0' cpuset='2'/></cputune>{auto}")
    assert only(half).element == "cputune/emulatorpin"  # one pin, and libvirt no longer asks numad


@pytest.mark.parametrize(("cpuset", "kind"), [("2-5", Kind.CONFINED), ("0-5", Kind.EXPOSED)])
def test_a_live_status_file_tells_what_numad_chose(cpuset: str, kind: Kind) -> None:
    inner = "<domain type='kvm'><name>vm</name><vcpu placement='auto'>1</vcpu></domain>"
    verdict = audit(f"<domstatus><numad nodeset='0' cpuset='{cpuset}'/>{inner}</domstatus>".encode())
    assert verdict.kind is kind
    assert {one.element for one in verdict.exposures} <= {"domain/vcpu/@placement"}


@pytest.mark.parametrize("kind", ["xen", "lxc", "vz", "bhyve", "vmware", "test", "hyperv", "no-such-thing"])
def test_other_hypervisors_are_not_vouched_for(kind: str) -> None:
    verdict = judge(PINNED, kind)
    assert (verdict.kind, verdict.could_run_on_reserved) == (Kind.FOREIGN, None)
    assert verdict.exposures == ()
    assert f"'{kind}'" in verdict.reason
    assert threads(judge("<vcpu cpuset='1-2'>2</vcpu>", kind)) == {"vCPUs 0-1": (1,)}


@pytest.mark.parametrize("kind", ["qemu", "kvm", "kqemu", "hvf"])
def test_the_qemu_drivers_types_are_judged(kind: str) -> None:
    assert judge(PINNED, kind).kind is Kind.CONFINED


@pytest.mark.parametrize(
    ("value", "cores"),
    [
        ("thread-context,id=t,cpu-affinity=0-3", (0, 1)),
        ("thread-context,id=t,cpu-affinity=5,cpu-affinity=1", (1,)),
        ("id=t,qom-type=thread-context,cpu-affinity=1", (1,)),
        ("thread-context,id=t,node-affinity=1", (0, 1)),
        ("thread-context,id=t,cpu-affinity=0x5", (0, 1)),  # read as the worst where it is not plain
        ('{"qom-type": "thread-context", "id": "t", "cpu-affinity": [0, 4]}', (0,)),
        ('{"qom-type": "thread-context", "id": "t", "node-affinity": [2]}', (0, 1)),
        ('{"qom-type": "thread-context", "cpu-affinity": [', (0, 1)),
        ('{"a": ' + "[" * 5000, ()),
        ("thread-context,id=t,cpu-affinity=4-6", ()),
        ("thread-context,id=t", ()),
        ("iothread,id=t", ()),
        ("memory-backend-ram,id=cpu-affinity,size=1M", ()),
    ],
)
def test_a_thread_context_leaves_the_emulators_cores(value: str, cores: tuple[int, ...]) -> None:
    verdict = judge(commandline("-object", value))
    assert threads(verdict) == ({"thread-context": cores} if cores else {})
    assert all(one.element == "qemu:commandline/qemu:arg[2]" for one in verdict.exposures)


def test_only_an_object_is_read_as_one() -> None:
    assert judge(commandline("-name", "thread-context,cpu-affinity=0", "-object")).kind is Kind.CONFINED


def test_what_the_xml_cannot_settle_is_said() -> None:
    nodes = "<numatune><memory mode='strict' nodeset='0'/></numatune>"
    huge = "<memoryBacking><hugepages/></memoryBacking>"
    eager = "<memoryBacking><allocation mode='immediate'/></memoryBacking>"
    for backing in (huge, eager):
        verdict = judge(PINNED + nodes + backing)
        assert verdict.kind is Kind.CONFINED
        assert "preallocated" in verdict.cautions[0]
    assert judge(PINNED + nodes.replace("strict", "restrictive") + huge).cautions == ()
    assert judge(PINNED + nodes).cautions == judge(PINNED + huge).cautions == ()
    assert "-readconfig" in judge(commandline("-readconfig", "/etc/extra.cfg")).cautions[0]


def test_the_json_form_is_plain_and_complete() -> None:
    described = describe(judge("<vcpu>1</vcpu>"))
    assert json.loads(json.dumps(described)) == {
        "kind": "exposed",
        "could_run_on_reserved": True,
        "name": "vm",
        "type": "kvm",
        "exposures": [
            {
                "thread": thread,
                "cores": [0, 1],
                "element": f"cputune/{tag}",
                "line": 1,
                "missing": True,
                "reason": f"no {tag} and no vcpu/@cpuset, so every host core is allowed; <{tag}> would confine it",
            }
            for thread, tag in (("vCPU 0", "vcpupin"), ("emulator", "emulatorpin"))
        ],
        "reason": "",
        "line": None,
        "cautions": [],
        "summary": "vm (kvm): exposed: vCPU 0, emulator may run on reserved cores 0-1",
    }


def test_a_long_list_of_threads_is_cut_in_the_summary_only() -> None:
    pins = "".join(f"<vcpupin vcpu='{cpu}' cpuset='1'/>" for cpu in range(9))
    verdict = judge(f"<vcpu cpuset='2'>9</vcpu><cputune>{pins}</cputune>")
    assert len(verdict.exposures) == 9
    assert verdict.summary.endswith("vCPU 5 and 3 more may run on reserved core 1")
