"""Users at the daemon's socket, each as whom the kernel says he is: what they cannot name, reach, or say."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from orchestrator.core.limits import Everyone, Limits
from orchestrator.core.model import GIB, MIB, Size
from orchestrator.core.policy import AcceleratorWish, HypervisorPolicy, Policy
from tests.functional.served import ReadingHypervisor, Served, served
from tests.users import ALICE, BOB, Answer, Request, ask, one, starting

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users, and mount")

RULES = Policy(hypervisor=HypervisorPolicy(accelerator=AcceleratorWish.TCG))
THREADS = ThreadPoolExecutor(16)
T = TypeVar("T")
SECRET = b"the secret of another\n"
HEAD = 'name = "{name}"\narchitecture = "x86_64"\nvcpus = 1\nmemory = "64 MiB"\n'


def run(story: Callable[[Served], Awaitable[None]], policy: Policy = RULES) -> None:
    async def whole() -> None:
        async with served(policy) as daemon:
            await story(daemon)
            assert daemon.log == []

    asyncio.run(whole())


async def asked(daemon: Served, uid: int, *request: Any) -> Answer:
    return await waited(one, uid, daemon.socket, *request)


async def all_asked(daemon: Served, uid: int, requests: list[Request]) -> list[Answer]:
    return await waited(lambda: ask(uid, daemon.socket, requests).answers(180))


async def waited(act: Callable[..., T], *arguments: Any) -> T:
    """Wait for something in a thread of the test's own: the daemon, which is in this process too, needs its threads."""
    return await asyncio.get_running_loop().run_in_executor(THREADS, act, *arguments)


def guest(name: str = "web", payload: object = "mine", more: str = "") -> str:
    return HEAD.format(name=name) + f"mode = 'exclusive'\n[boot]\npayload = {json.dumps(str(payload))}\n{more}"


def home_of(daemon: Served, uid: int, **files: bytes) -> Path:
    """Make a user's directory, with files that are his alone."""
    home = daemon.root / str(uid)
    home.mkdir(mode=0o700, exist_ok=True)
    os.chown(home, uid, uid)
    for name, text in {"mine": b"a payload", **files}.items():
        path = home / name
        path.write_bytes(text)
        path.chmod(0o600)
        os.chown(path, uid, uid)
    return home


NAMED = {
    "payload": '[boot]\npayload = "{}"\n',
    "kernel": '[boot]\nkernel = "{}"\n',
    "initrd": '[boot]\nkernel = "mine"\ninitrd = "{}"\n',
    "firmware": '[boot]\nfirmware = "{}"\n',
    "disk": '[boot]\npayload = "mine"\n[[disk]]\npath = "{}"\nformat = "raw"\n',
    "read-only disk": '[boot]\npayload = "mine"\n[[disk]]\npath = "{}"\nformat = "raw"\nreadonly = true\n',
    "overlaid disk": '[boot]\npayload = "mine"\n[[disk]]\npath = "{}"\nformat = "raw"\noverlay = true\n',
}


def test_nobody_names_what_he_cannot_read() -> None:
    async def story(daemon: Served) -> None:
        bobs = home_of(daemon, BOB, secret=SECRET)
        home = home_of(daemon, ALICE)
        (home / "link").symlink_to(bobs / "secret")
        (home / "links").symlink_to(bobs)
        (daemon.root / "shadow").symlink_to("/etc/shadow")
        wrong = ["/etc/shadow", f"{bobs}/secret", "link", "links/secret", f"{daemon.root}/shadow"]
        requests = [
            starting(HEAD.format(name="web") + table.format(path), home) for table in NAMED.values() for path in wrong
        ]
        requests += [starting(guest(payload="shadow"), f"{home}/../../../etc")]
        answers = await all_asked(daemon, ALICE, requests[:24])
        answers += await all_asked(daemon, ALICE, requests[24:])
        for request, answer in zip(requests, answers, strict=True):
            assert answer.status == 400, (request, answer)
            assert "Permission denied" in " ".join(answer.body["lines"]), (request, answer)
        dotted = await asked(daemon, ALICE, *starting(guest(payload="../4000002/secret"), home))
        assert "may not hold '..'" in dotted.body["lines"][0]
        assert daemon.hypervisor.read == {}

    run(story)


def test_what_a_user_may_read_he_may_name_and_it_is_what_is_read() -> None:
    async def story(daemon: Served) -> None:
        home = home_of(daemon, ALICE, disk=bytes(1024))
        disks = "[[disk]]\npath = 'disk'\nformat = 'raw'\n"
        started = await asked(daemon, ALICE, *starting(guest(more=disks), home))
        assert started.status == 200, started
        directory = daemon.root / "guests" / "web"
        assert daemon.hypervisor.read == {
            "web": {f"{directory}/pin.boot.payload": b"a payload", f"{directory}/pin.disk.0.path": bytes(1024)}
        }
        assert (await asked(daemon, ALICE, "POST", "/v1/guests/web/stop")).status == 200
        assert not list(directory.glob("pin.*"))

    run(story)


def test_a_file_that_is_swapped_between_check_and_use_is_not_read() -> None:
    async def story(daemon: Served) -> None:
        bobs, home = home_of(daemon, BOB, secret=SECRET), home_of(daemon, ALICE)

        def swap() -> None:
            (home / "mine").unlink()
            (home / "mine").symlink_to(bobs / "secret")

        # Once it has been checked: it is opened anew, with the user's rights.
        read = daemon.definitions.read

        async def read_and_swap(*arguments: Any) -> Any:
            wanted = await read(*arguments)
            swap()
            return wanted

        daemon.definitions.read = read_and_swap  # type: ignore[method-assign, assignment]
        late = await asked(daemon, ALICE, *starting(guest(), home))
        assert (late.status, late.body["error"]) == (502, "failed")
        assert late.body["lines"] == [f"web: {home}/mine cannot be read by 4000001: Permission denied"]
        assert daemon.hypervisor.read == {}
        # Once it has been opened: what was opened is read.
        daemon.definitions.read = read  # type: ignore[method-assign]
        (home / "mine").unlink()
        home_of(daemon, ALICE)
        daemon.hypervisor.look = lambda what, _: swap() if what == "before" else None
        assert (await asked(daemon, ALICE, *starting(guest(), home))).status == 200
        assert (home / "mine").read_bytes() == SECRET  # root sees what was swapped in
        assert list(daemon.hypervisor.read["web"].values()) == [b"a payload"]

    run(story)


ODD = ("a,b=/etc/shadow", "x.elf,format=qcow2", "a b'c\"d", "<source file='/etc/shadow'/>", "&amp;]]>", "é\u2028%s")


@pytest.mark.parametrize("odd", ODD)
def test_a_path_is_a_path_whatever_it_looks_like(odd: str) -> None:
    name = odd.replace("/", "\u2215")

    async def story(daemon: Served) -> None:
        home = home_of(daemon, ALICE, **{name: b"odd"})
        disk = f"[[disk]]\npath = {json.dumps(name)}\nformat = 'raw'\noverlay = true\n"
        started = await asked(daemon, ALICE, *starting(guest(payload=name, more=disk), home))
        assert started.status == 200, started
        read = daemon.hypervisor.read["web"]
        assert {path.rpartition("/")[2] for path in read} == {
            "pin.boot.payload",
            "pin.disk.0.path",
            "vda.overlay.qcow2",
        }
        assert [text for path, text in read.items() if "pin." in path] == [b"odd"] * 2
        assert "/etc/shadow" not in daemon.hypervisor.xml["web"].partition("</metadata>")[2]

    run(story)


def test_what_is_no_name_or_no_path_is_refused_before_it_comes_anywhere() -> None:
    async def story(daemon: Served) -> None:
        home = home_of(daemon, ALICE)
        names = ["a,b=c", "a\nb", "<b/>", "../web", "a/b", "", "a" * 64, "--help", "a\x00b"]
        texts = [guest().replace('"web"', json.dumps(name)) for name in names]
        texts += [guest(payload=path) for path in ("a\nb", "a\x00b", "", "~bob/x", "\x1b[2J")]
        texts += [guest(more='[network]\ntype = "bridge"\nname = "br0,script=/tmp/x"\n')]
        texts += [HEAD.format(name="web") + '[boot]\nkernel = "mine"\ncmdline = "a\\nb"\n']
        answers = await all_asked(daemon, ALICE, [starting(text, home) for text in texts])
        assert {answer.status for answer in answers} == {400}, answers
        for directory in ("relative", "", "/a\x00b", "/a\nb"):
            answer = await asked(daemon, ALICE, *starting(guest(), directory))
            assert answer.status == 400, answer
        assert daemon.hypervisor.read == {}

    run(story)


# Two hundred at once.

USERS = [ALICE + number for number in range(8)]
EACH, EACH_EXCLUSIVE, ALL, MEMORY = 5, 2, 30, Size(1 * GIB)
TIGHT = replace(
    RULES,
    everyone=Everyone(guests=EACH, exclusive_cores=EACH_EXCLUSIVE),
    total=Limits(guests=ALL, memory=MEMORY),
)
REASON = re.compile(r"(.+): wanted (.+), available (.+) of (.+)")


class Observer:
    """Counts what lives at every start and end, by the domains alone."""

    def __init__(self) -> None:
        self.most_of_one = self.most_exclusive = self.most = self.most_memory = self.looks = 0

    def look(self, what: str, hypervisor: ReadingHypervisor) -> None:
        owners = hypervisor.owners
        exclusive = Counter(owner for name, owner in owners.items() if "-x-" in name)
        self.looks += what != "before"
        self.most_of_one = max(self.most_of_one, *Counter(owners.values()).values(), 0)
        self.most_exclusive = max(self.most_exclusive, *exclusive.values(), 0)
        self.most = max(self.most, len(owners))
        self.most_memory = max(self.most_memory, len(owners) * 64 * MIB)


def test_two_hundred_starts_of_eight_users_at_once_exceed_no_limit_and_each_is_answered() -> None:
    observer = Observer()

    async def story(daemon: Served) -> None:
        daemon.hypervisor.look = observer.look
        asking = []
        for uid in USERS:
            home = home_of(daemon, uid)
            names = [f"g{uid % 100}-{'x' if number % 2 else 's'}-{number}" for number in range(25)]
            shared = [guest(name).replace("exclusive", "exclusive" if "-x-" in name else "shared") for name in names]
            asking.append(ask(uid, daemon.socket, [starting(text, home) for text in shared]))
        answers = await asyncio.gather(*(waited(each.answers, 240) for each in asking))
        counts = Counter(answer.status for user in answers for answer in user)
        assert counts.total() == 200
        assert set(counts) == {200, 409}, [
            answer for user in answers for answer in user if answer.status not in (200, 409)
        ]
        assert counts[200] == len(daemon.hypervisor.owners)
        # Memory allows sixteen; no limit is passed at any moment, and what can be had is had.
        assert (observer.most_memory, observer.most) == (MEMORY, MEMORY // (64 * MIB))
        assert observer.most_of_one <= EACH
        assert observer.most_exclusive <= EACH_EXCLUSIVE
        assert observer.looks >= counts[200]
        for user in answers:
            for answer in user:
                if answer.status == 409:
                    check_refusal(answer)

    run(story, TIGHT)


def check_refusal(answer: Answer) -> None:
    assert answer.body["error"] == "refused"
    (line,) = answer.body["lines"]
    _, _, reasons = line.removeprefix("nothing was started: ").partition(": ")
    rules = [REASON.fullmatch(reason) for reason in reasons.split("; ")]
    assert all(rules), line
    known = r"(guests|exclusive cores|memory) of (\d+|all|everybody)"
    assert all(rule is not None and re.match(known, rule[1]) for rule in rules), line


DISK = "[[disk]]\npath = 'disk'\nformat = 'raw'\n"
IMAGE = "[[disk]]\npath = 'disk'\nformat = 'qcow2'\noverlay = true\n"


@pytest.mark.parametrize(
    "disk", [DISK, f"{DISK}overlay = true\n", IMAGE], ids=["raw", "overlaid raw", "overlaid qcow2"]
)
@pytest.mark.parametrize(
    "when", ["another file, once it is counted", "longer, once it is counted", "longer, once it is open"]
)
def test_a_disk_that_grows_between_its_being_counted_and_its_being_opened_gets_nobody_past_his_quota(
    when: str, disk: str
) -> None:
    limits, content = replace(RULES, everyone=Everyone(disk=Size(2 * MIB))), _image if "qcow2" in disk else bytes

    async def story(daemon: Served) -> None:
        home = home_of(daemon, ALICE, disk=content(2 * MIB))
        read = daemon.definitions.read

        def grow() -> None:
            if when.startswith("another"):
                (home / "disk").unlink()
                home_of(daemon, ALICE, disk=content(64 * MIB))
            else:
                (home / "disk").write_bytes(content(64 * MIB))

        async def read_and_grow(*arguments: Any) -> Any:
            wanted = await read(*arguments)
            grow()
            return wanted

        if when.endswith("counted"):
            daemon.definitions.read = read_and_grow  # type: ignore[method-assign, assignment]
        else:
            daemon.hypervisor.look = lambda what, _: grow() if what == "before" else None
        late = await asked(daemon, ALICE, *starting(guest(more=disk), home))
        if when.endswith("open") and "overlay" in disk:  # which is as large as what was counted, and stays so
            assert late.status == 200, late
            return
        assert (late.status, late.body["error"]) == (502, "failed")
        assert late.body["lines"][0].startswith("web: stopped, its disks have 64 MiB now, and it was let in with 2 MiB")
        assert daemon.host.domains == {}
        daemon.definitions.read = read  # type: ignore[method-assign]
        refused = await asked(daemon, ALICE, *starting(guest(more=disk), home))
        assert "disk of 4000001: wanted 64 MiB, available 2 MiB of 2 MiB" in refused.body["lines"][0]

    run(story, limits)


def _image(size: int) -> bytes:
    """Return the header of a qcow2 image of this size, which is all that is looked at here."""
    fields = [(0x514649FB, 4), (3, 4), (0, 8), (0, 4), (16, 4), (size, 8)]
    return b"".join(value.to_bytes(width, "big") for value, width in fields).ljust(104, b"\0")


def test_a_disk_counts_as_what_the_user_has_opened_also_after_a_restart() -> None:
    limits = replace(RULES, everyone=Everyone(disk=Size(3 * MIB)))
    disk = "[[disk]]\npath = 'disk'\nformat = 'raw'\noverlay = true\n"

    async def story(daemon: Served) -> None:
        home = home_of(daemon, ALICE, disk=bytes(2 * MIB))
        assert (await asked(daemon, ALICE, *starting(guest(more=disk), home))).status == 200
        assert (await asked(daemon, ALICE, "POST", "/v1/guests/web/restart")).status == 200
        refused = await asked(daemon, ALICE, *starting(guest("second", more=disk), home))
        assert refused.body["lines"] == [
            "nothing was started: second: disk of 4000001: wanted 2 MiB, available 1 MiB of 3 MiB"
        ]

    run(story, limits)
