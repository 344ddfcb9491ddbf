"""The command line. Nothing here needs a pool core; that guests run is shown in tests/lab."""

from __future__ import annotations

import subprocess

import pytest

from tests.functional.program import GUEST, PROGRAM, Program


def test_a_host_without_a_pool_is_told_so_in_one_line_that_names_the_lab(program: Program) -> None:
    outcome = program("run", "guest.toml", "--policy", "none.toml")
    assert (outcome.code, outcome.out) == (4, "")
    (line,) = outcome.lines
    assert line.startswith("this host has no pool core: guests need cores beside 0 (scheduler) and 1 (service)")
    assert line.endswith("`orchestrator lab run -- COMMAND` gives you a host with six")
    assert program.started() == set()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["logs", "ghost"], "ghost: no serial log; `orchestrator ps` lists the guests that run"),
        (["console", "ghost"], "ghost: no serial port to attach to; `orchestrator ps` lists the guests that run"),
        (["stop", "ghost"], "stop: no guest is called ghost; `orchestrator ps` lists them"),
        (["stop", "b", "a"], "stop: no guest is called a, b; `orchestrator ps` lists them"),
        (["stop"], "stop: name guests, or give --all; `orchestrator ps` lists them"),
        (["stop", "ghost", "--all"], "stop: name guests, or give --all; `orchestrator ps` lists them"),
        (["logs", "../guests/ghost"], "'../guests/ghost' is not a guest's name"),
        (["console", ".."], "'..' is not a guest's name"),
    ],
)
def test_a_guest_that_is_not_there(program: Program, arguments: list[str], told: str) -> None:
    outcome = program(*arguments)
    assert (outcome.code, outcome.out, outcome.lines) == (2, "", [told])


def test_where_nothing_runs_there_is_nothing_to_show_or_stop(program: Program) -> None:
    outcome = program("ps")
    assert (outcome.code, len(outcome.out.splitlines())) == (0, 1)
    assert program.json("ps") == {"guests": []}
    assert program.json("stop", "--all") == {"stopped": []}
    assert program.json("audit", "pins") == {"guests": []}


def test_cores_are_told_with_their_roles(program: Program) -> None:
    cores = program.json("cores")["cores"]
    assert [(core["id"], core["role"], core["holder"]) for core in cores[:2]] == [
        (0, "scheduler", None),
        (1, "service", None),
    ]
    reserved = program.json("cores", "--policy", "none.toml")["cores"]
    assert "pool" not in {core["role"] for core in reserved}


def test_the_topology_is_told_of_this_host_and_of_a_copy(program: Program) -> None:
    told = program.json("host", "topology")
    assert [cpu["id"] for cpu in told["cpus"]] == sorted(cpu["id"] for cpu in told["cpus"])
    for name in ("cpu", "node"):
        (program.directory / "sys" / name).mkdir(parents=True)
    program.write("sys/cpu/online", "0-5\n")
    copy = program.json("host", "topology", "--sysfs", "sys")
    assert [(cpu["id"], cpu["role"]) for cpu in copy["cpus"]][1:4] == [(1, "service"), (2, "pool"), (3, "pool")]
    assert copy["pool"] == [2, 3, 4, 5]
    wrong = program("host", "topology", "--sysfs", "nowhere")
    assert (wrong.code, len(wrong.lines)) == (2, 1)


def test_the_doctor_names_what_is_missing_and_the_command_that_mends_it(program: Program) -> None:
    findings = program.json("doctor", "--policy", "none.toml", code=4)["findings"]
    assert {finding["level"] for finding in findings} <= {"ok", "note", "missing"}
    by_name = {finding["name"]: finding for finding in findings}
    assert by_name["cores"]["level"] == "missing"
    assert by_name["cores"]["mend"] == "orchestrator lab run -- COMMAND"
    assert {"KVM", "libvirt", "cgroups", "isolation", "huge pages", "memory", "EFI firmware"} <= set(by_name)
    assert sum(name.startswith("QEMU for ") for name in by_name) == 4
    assert all(finding["mend"] for finding in findings if finding["level"] == "missing")


def test_a_definition_becomes_xml_that_passes_the_audit(program: Program) -> None:
    told = program.json("xml", "guest.toml", "--cores", "3")
    assert (told["name"], told["cores"]) == ("beat", [3])
    plain = program("xml", "guest.toml", "--cores", "3")
    assert (plain.code, plain.out) == (0, told["xml"])
    program.write("beat.xml", plain.out)
    (verdict,) = program.json("audit", "xml", "beat.xml")["files"]
    assert verdict["kind"] == "confined"


@pytest.mark.parametrize("cores", ["0", "1", "0-1"])
def test_a_reserved_core_is_refused_by_name(program: Program, cores: str) -> None:
    definition = program.write("two.toml", GUEST.replace("vcpus = 1", "vcpus = 2")) if "-" in cores else "guest.toml"
    outcome = program("xml", definition, "--cores", cores)
    assert (outcome.code, outcome.out, len(outcome.lines)) == (3, "", 1)
    assert outcome.err.startswith(f"not for guests: core {cores[0]} (")


def test_the_audit_tells_by_its_exit_code(program: Program) -> None:
    program.write("open.xml", "<domain type='kvm'><name>x</name><vcpu>1</vcpu></domain>")
    program.write("no.xml", "no XML")
    assert program.json("audit", "xml", "open.xml", code=1)["files"][0]["kind"] == "exposed"
    assert program.json("audit", "xml", "open.xml", "no.xml", code=2)["files"][1]["kind"] == "invalid"
    assert program.json("audit", "xml", "gone.xml", code=2)["files"][0]["reason"].startswith("cannot be read")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["nonsense"],
        ["run", "guest.toml", "--count", "0"],
        ["run", "guest.toml", "--for", "3 moons"],
        ["run", "guest.toml", "--heartbeats", "-1"],
        ["lab", "run", "--cpus", "4"],
        ["lab", "run", "--topology", "sockets=none", "--", "true"],
        ["ps", "--colour"],
    ],
)
def test_wrong_usage_ends_with_2(program: Program, arguments: list[str]) -> None:
    outcome = program(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err
    assert program.started() == set()


def test_a_libvirt_that_is_not_there_is_the_hosts_fault(program: Program) -> None:
    outcome = program("ps", "--connect", "qemu+unix:///system?socket=/nowhere")
    assert (outcome.code, len(outcome.lines)) == (4, 1)
    assert outcome.err.startswith("libvirt cannot be reached at qemu+unix:///system?socket=/nowhere: ")


def test_a_run_directory_that_is_somebody_elses_is_refused(program: Program) -> None:
    (program.directory / "r").mkdir(mode=0o700)
    (program.directory / "r").chmod(0o777)
    outcome = program("ps")
    assert (outcome.code, len(outcome.lines)) == (4, 1)
    assert "others may write to it" in outcome.err


def test_a_reader_that_has_seen_enough_is_no_error(program: Program) -> None:
    command = f"{PROGRAM} host topology --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, cwd=program.directory)
    assert (done.stdout, done.stderr) == ("{", "")


@pytest.mark.parametrize(
    ("words", "offered"),
    [("orchestrator ", "cores"), ("orchestrator audit ", "pins"), ("orchestrator run --he", "--heartbeats")],
)
def test_the_shell_completes(program: Program, words: str, offered: str) -> None:
    outcome = program(
        _ORCHESTRATOR_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1)
    )
    assert offered in outcome.out.split()
    assert outcome.err == ""


def test_a_shell_gets_its_completion_script(program: Program) -> None:
    outcome = program(_ORCHESTRATOR_COMPLETE="source_bash")
    assert "complete -o default -F _orchestrator_completion orchestrator" in outcome.out


def test_the_version_is_told(program: Program) -> None:
    outcome = program("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("orchestrator ")
