"""What keeps a journal beside its chain: the key that signs, the append-only flag, rotation, the reserve, the heads."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.heads import decode_head, encode_head, parse_head, read_heads, sign_head
from orchestrator.core.journal import START, Head, decode, verify
from orchestrator.errors import HostError, UsageError
from orchestrator.host.file_flags import is_append_only, set_append_only
from orchestrator.host.journal_file import JournalFile, segments
from orchestrator.host.journal_heads import OTHER_OWNER, READERS, HeadsFile, tell_syslog
from orchestrator.host.signing import SigningKey, is_signed
from tests.contract.small_disk import small_disk

RFC_8032 = [  # secret, public, text, signature: section 7.1, tests 1 and 3
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("secret", "public", "text", "signature"), RFC_8032)
def test_signatures_are_those_of_the_standard(
    secret: str, public: str, text: str, signature: str, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes.fromhex(secret))
    key = SigningKey(path)
    said, signed = bytes.fromhex(text), bytes.fromhex(signature)
    assert (key.public.hex(), key.sign(said)) == (public, signed)
    assert is_signed(key.public, said, signed)
    assert not is_signed(key.public, said + b"x", signed)
    assert not is_signed(key.public, said, bytes(64))
    assert not is_signed(b"short", said, signed)


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    key = SigningKey(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert SigningKey(tmp_path / "key").public == key.public
    (tmp_path / "key").write_bytes(b"half")
    with pytest.raises(HostError, match="not a key: 4 bytes, not 32"):
        SigningKey(tmp_path / "key")
    with pytest.raises(HostError, match="the journal's key cannot be made: No such file or directory"):
        SigningKey(tmp_path / "none" / "key")


def test_a_signed_head_is_read_back_and_a_changed_one_is_not(tmp_path: Path) -> None:
    key = SigningKey(tmp_path / "key")
    signed = sign_head("journal", Head(3, "a" * 64), 7, key.public.hex(), key.sign)
    line = encode_head(signed)
    assert decode_head(line, is_signed) == signed
    changed = (
        line.replace(b'"seq":3', b'"seq":4'),
        line[:40] + b"\n",
        line.replace(b'"at":7', b'"at": 7'),
        b"[]",
        b"\xff",
    )
    heads, wrong = read_heads([line, *changed], is_signed)
    assert (heads, len(wrong)) == ([signed], len(changed))
    assert wrong[0] == "line 2: its signature is not that of what it says"


def test_a_head_is_given_by_its_hash_with_or_without_its_number() -> None:
    digits = "0aF" + "1" * 61
    assert parse_head(f"12:{digits}") == (Head(12, digits.lower()), "")
    assert parse_head(f" {digits}\n") == (None, digits.lower())
    for wrong in ("", "12", digits[1:], f"x:{digits}", f"-1:{digits}", "g" * 64):
        with pytest.raises(UsageError, match="is no head"):
            parse_head(wrong)


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[Path]:
    """A folder in which files may be append-only; in the end none is any more."""
    probe = os.open(tmp_path / "probe", os.O_RDWR | os.O_CREAT)
    why = set_append_only(probe, True) or set_append_only(probe, False)
    os.close(probe)
    if why:
        pytest.skip(f"no append-only flag for us on this file system: {why}")
    (tmp_path / "state").mkdir()
    yield tmp_path / "state"
    for path in (tmp_path / "state").iterdir():
        with path.open("rb") as file:
            set_append_only(file.fileno(), False)


def append(journal: JournalFile, count: int) -> Head:
    for number in range(count):
        journal.append("start", {"number": number, "text": "x" * 500}, number)
    return journal.head


def whole(path: Path, head: Head) -> bool:
    lines = [line for each in segments(path) for line in each.read_bytes().splitlines(keepends=True)]
    return verify(lines, head).damage is None


def test_a_protected_journal_takes_appends_alone_and_rotates_just_the_same(protected: Path) -> None:
    path = protected / "journal.jsonl"
    journal = JournalFile(path, set_append_only, rotate_at=2000)
    head = append(journal, 8)
    assert len(segments(path)) > 2
    for each in segments(path):
        with each.open("rb") as file:
            assert is_append_only(file.fileno())
        with pytest.raises(PermissionError):
            each.unlink()
        with pytest.raises(PermissionError):
            os.truncate(each, 0)
        with pytest.raises(PermissionError):
            each.open("r+b")
    journal.close()
    with path.open("ab") as file:
        file.write(b"torn")
    again = JournalFile(path, set_append_only)
    assert again.head == head
    assert len(again.notes) == 1
    again.close()
    assert whole(path, head)


def test_rotation_keeps_the_chain_and_is_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for _ in range(3):
        journal = JournalFile(path, rotate_at=1500)
        before = journal.head
        head = append(journal, 3)
        assert head.seq == before.seq + 3
        journal.close()
    files = segments(path)
    assert len(files) > 3
    assert [each.name.rpartition(".")[2] for each in files[:-1]] == [
        f"{decode(each.read_bytes().splitlines()[-1]).seq:012}" for each in files[:-1]
    ]
    assert whole(path, head)
    files[-1].unlink()  # as a crash leaves it just after the file before was set aside
    journal = JournalFile(path, rotate_at=1500)
    assert journal.head == decode(files[-2].read_bytes().splitlines()[-1]).head != START
    journal.close()
    assert not whole(path, head)


def test_a_disk_that_is_full_takes_what_was_reserved(tmp_path: Path) -> None:
    with small_disk("tmpfs", tmp_path) as disk:
        plain, kept = JournalFile(disk.path / "plain"), JournalFile(disk.path / "kept", reserve=200_000)
        with disk.full():
            with pytest.raises(HostError, match="No space left"):
                append(plain, 40)
            head = append(kept, 200)
            assert kept.refill() == "No space left on device"
        assert kept.refill() == ""
        for journal in (plain, kept):
            journal.close()
        assert whole(disk.path / "kept", head)


def test_heads_are_anothers_and_a_torn_one_is_taken_back(tmp_path: Path) -> None:
    with small_disk("tmpfs", tmp_path) as disk:
        heads = HeadsFile(disk.path / "log" / "heads", set_append_only)
        heads.append(b"one\n")
        with disk.full(), pytest.raises(HostError, match="a head of the journal is not kept: No space left"):
            heads.append(b"x" * 8000)
        heads.append(b"two\n")
        heads.close()
        path = disk.path / "log" / "heads"
        assert path.read_bytes() == b"one\ntwo\n"
        assert heads.notes == ()
        assert path.stat().st_uid == pwd.getpwnam(OTHER_OWNER).pw_uid
        assert path.stat().st_gid == grp.getgrnam(READERS).gr_gid
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        with path.open("rb") as file:
            set_append_only(file.fileno(), False)


def test_the_systems_log_is_told_and_never_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    assert not tell_syslog("nobody listens", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(path)
        taken = sum(tell_syslog("journal head", path) for _ in range(1000))
        assert 0 < taken < 1000
        assert log.recv(200) == f"<85>orchestrator[{os.getpid()}]: journal head".encode()
