"""Users who ask for much at once, with real guests: no quota is passed at any moment, and each has his share of turns.

What is counted is read from /proc, and from the events: nothing here shares the daemon's books.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.lab.inside.looking import ROOT, command, emulators, eventually, heartbeats, says
from tests.lab.inside.observer import guest_of
from tests.lab.inside.servers import SOCKET, Servers, events
from tests.lab.inside.turns import turns
from tests.users import ALICE, Answer, Asking, Request, ask, starting

GUEST = """
name = "{name}"
architecture = "aarch64"
vcpus = 1
memory = "32 MiB"
mode = "{mode}"
[boot]
payload = "heartbeat-aarch64.elf"
"""

USERS = tuple(range(ALICE, ALICE + 8))
REQUESTS = 25
"""How many starts each of them asks for, all at once."""

EACH, EACH_EXCLUSIVE, ALL_EXCLUSIVE, ALL = 2, 1, 2, 5
TIGHT = f"""
extends = "{ROOT}/policies/lab.toml"
[everyone]
guests = {EACH}
exclusive_cores = {EACH_EXCLUSIVE}
[total]
guests = {ALL + 1}
exclusive_cores = {ALL_EXCLUSIVE}
memory = "{32 * ALL} MiB"
"""

HEAVY, FEW, MANY = USERS[:3]
NAMES = {"heavy": HEAVY, "few": FEW, "many": MANY}
AT_ONCE = 12
"""How many of the hundred guests of one user run here: more cannot be carried by a host that is emulated twice."""

SHARES = f"""
extends = "{ROOT}/policies/lab.toml"
[rotation]
slice = "500 ms"
minimum_run = "250 ms"
[quotas]
over = "queue"
[user.heavy]
weight = 200
[user.many]
guests = {AT_ONCE}
"""
MEASURED = 120.0
"""Seconds of turns that are compared: a slice more or less is a percent of what one core does meanwhile."""


@pytest.fixture
def home() -> Path:
    """Return a directory in which every user can read what guests are made of."""
    path = Path("/tmp/many")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o755)
    shutil.copy(ROOT / "domains/build/heartbeat-aarch64.elf", path)
    return path


@pytest.fixture
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Servers]:
    policy = tmp_path / "policy.toml"
    policy.write_text(request.param)
    made = Servers(tmp_path, "--policy", str(policy))
    try:
        yield made
    finally:
        for pid in emulators():  # one by one it takes minutes
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        made.clear()


@pytest.fixture
def users() -> Iterator[None]:
    """Have users whom a policy can name: it takes no numbers for them."""
    for name, uid in NAMES.items():
        subprocess.run(["useradd", "--uid", str(uid), "--no-create-home", name], check=True, capture_output=True)
    yield
    for name in NAMES:
        subprocess.run(["userdel", "--force", name], check=True, capture_output=True)


class Census:
    """Counts the QEMUs that carry a guest, again and again, by the names of the guests; keeps the most of each."""

    def __init__(self) -> None:
        self.looks = 0
        self.most: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Census:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        os.sched_setaffinity(threading.get_native_id(), {1})
        while not self._stop.wait(0.05):
            alive = [name for pid in emulators() if (name := guest_of(pid))]
            now = Counter({"all": len(alive), "exclusive": sum("-x-" in name for name in alive)})
            for name in alive:
                user, kind, _ = name.split("-")
                now[user] += 1
                now[f"{user} {kind}"] += 1
            self.looks += 1
            self.most |= now


@pytest.mark.parametrize("servers", [TIGHT], indirect=True)
def test_two_hundred_starts_of_eight_users_at_once_exceed_no_limit(servers: Servers, home: Path) -> None:
    servers.start()
    with Census() as census:
        asking = [ask(uid, SOCKET, wanted(uid, home), limit=400) for uid in USERS]
        answers = [answer for each in asking for answer in each.answers(500)]
        eventually(lambda: census.most["all"] == ALL, "what can be had is had")
    assert len(answers) == 200
    # A host this slow does not open everybody's files in time, and says so.
    late = [answer for answer in answers if answer.status == 503 and "within 10 s" in answer.body["lines"][0]]
    counts = Counter(answer.status for answer in answers if answer not in late)
    assert counts == {200: ALL, 409: 200 - ALL - len(late)}, odd(answers)
    assert len(late) < 100
    for answer in answers:
        if answer.status == 409:
            (line,) = answer.body["lines"]
            _, _, rules = line.removeprefix("nothing was started: ").partition(": ")
            assert rules
            assert all(": wanted " in rule and ", available " in rule for rule in rules.split("; ")), line
    says(
        f"200 starts of 8 users at once: {ALL} guests, {counts[409]} refused by quotas, {len(late)} too slow; "
        f"all QEMUs counted {census.looks} times"
    )
    assert census.looks > 10
    for name, most in census.most.items():
        limit = {"all": ALL, "exclusive": ALL_EXCLUSIVE}.get(name, EACH_EXCLUSIVE if name.endswith(" x") else EACH)
        assert most <= limit, (name, census.most)
    assert len([pid for pid in emulators() if guest_of(pid)]) == ALL


def wanted(uid: int, home: Path) -> list[Request]:
    """Return a user's requests, of which every other one is for an exclusive guest."""
    kinds = [("x", "exclusive"), ("s", "shared")]
    named = [(f"u{uid - ALICE}-{kind}-{n}", mode) for n in range(REQUESTS) for kind, mode in [kinds[n % 2]]]
    return [starting(GUEST.format(name=name, mode=mode), home) for name, mode in named]


def odd(answers: list[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.status not in (200, 409)]


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("servers", [SHARES], indirect=True)
def test_shares_go_by_users_weights_and_not_by_how_many_guests_they_submit(servers: Servers, home: Path) -> None:
    """One has twice the others' weight; one submits a hundred guests, of which twelve run and the others wait."""
    serve = servers.start()
    running: list[str] = []
    # The lab has two cores for all of it: those that start have them, some at a time, and the others stand still.
    for user, number, count in (("heavy", 0, 2), ("few", 0, 2), *(("many", wave, 4) for wave in range(AT_ONCE // 4))):
        (answer,) = submit(user, home, [number], count).answers(400)
        assert answer.status == 200, answer
        running += [f"{user}{number}-{n + 1}" for n in range(count)]
        assert command("pause", *running[-count:]).code == 0
    left = 100 - AT_ONCE
    waiting = submit("many", home, range(AT_ONCE // 4, AT_ONCE // 4 + 4), left // 4)
    try:
        eventually(lambda: len(queued()) == left, "all others wait for room", serve.process)
        assert command("resume", *running).code == 0
        eventually(lambda: all(map(heartbeats, running)), "all beat", serve.process)
        began, before = time.time(), cpu_seconds()
        time.sleep(MEASURED)
        ended, after = time.time(), cpu_seconds()
        assert set(after) == set(before) == set(running)
    finally:
        waiting.process.kill()
        waiting.process.communicate()
    had: defaultdict[str, float] = defaultdict(float)
    for turn in turns(events(), began, ended):
        had[user_of(turn.guest)] += turn.ended - turn.began
    used: defaultdict[str, float] = defaultdict(float)
    for guest, seconds in after.items():
        used[user_of(guest)] += seconds - before[guest]
    says(
        *(
            f"{user}: {had[user]:.1f} core seconds by the events, {used[user]:.1f} by the kernel"
            for user in ("heavy", "few", "many")
        )
    )
    # The kernel counts what QEMU does about a turn beside what the guest does in it, too.
    for counted, off in ((had, 0.03), (used, 0.05)):
        assert counted["heavy"] == pytest.approx(counted["few"] + counted["many"], rel=off)
        assert counted["heavy"] == pytest.approx(2 * counted["few"], rel=off)
        assert counted["many"] <= counted["few"] * (1 + off)


def submit(user: str, home: Path, numbers: Iterable[int], count: int) -> Asking:
    """Have a user ask for so many guests by each of several definitions, at once."""
    texts = [GUEST.format(name=f"{user}{number}", mode="shared") for number in numbers]
    return ask(NAMES[user], SOCKET, [starting(text, home, count) for text in texts], limit=800)


def queued() -> set[str]:
    """Return the guests of whom it was told that they wait for room."""
    return {event["guest"] for event in events() if event["what"] == "queued"}


def user_of(guest: str) -> str:
    return guest.partition("-")[0].rstrip("0123456789")


def cpu_seconds() -> Mapping[str, float]:
    """Return what the kernel has counted for all threads of each guest; see schedstat in proc(5)."""
    found = {}
    for pid in emulators():
        if name := guest_of(pid):
            tasks = Path(f"/proc/{pid}/task").iterdir()
            found[name] = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    return found
