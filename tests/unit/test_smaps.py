"""What is read from /proc/PID/smaps: whose mappings, of which files, and how much of them is private."""

from __future__ import annotations

from orchestrator.core.smaps import Share, divided, shares

SMAPS = """\
7f0000000000-7f0004000000 r--s 00000000 fd:00 12 /store/blobs/public/aa
Size:              65536 kB
KernelPageSize:        4 kB
Rss:               65536 kB
Pss:                4096 kB
Pss_Dirty:             0 kB
Shared_Clean:      65536 kB
Shared_Dirty:          0 kB
Private_Clean:         0 kB
Private_Dirty:         0 kB
VmFlags: rd sh mr mw me ms
7f0004000000-7f0008000000 rw-p 00000000 fd:00 13 /store/blobs/of-bob/b b (deleted)
Size:              65536 kB
Rss:                1024 kB
Pss:                 600 kB
Shared_Clean:        500 kB
Shared_Dirty:         24 kB
Private_Clean:       200 kB
Private_Dirty:       300 kB
7f0008000000-7f0008001000 rw-p 00000000 fd:00 13 /store/blobs/of-bob/b b
Size:                  4 kB
Rss:                   4 kB
Pss:                   4 kB
Private_Dirty:         4 kB
7f0009000000-7f0009001000 rw-p 00000000 00:00 0
Size:                  4 kB
7f000a000000-7f000a001000 rw-s 00000000 fd:00 99 /store-of-others/file
Size:                  4 kB
7ffc00000000-7ffc00001000 rw-p 00000000 00:00 0                          [stack]
Size:                  4 kB
"""
KIB = 1024


def test_mappings_of_one_file_are_added_up_and_others_left_out() -> None:
    assert shares(SMAPS, "/store") == [
        Share(
            file="/store/blobs/of-bob/b b",
            writable=False,
            mapped=65540 * KIB,
            resident=1028 * KIB,
            proportional=604 * KIB,
            shared=524 * KIB,
            private_clean=200 * KIB,
            private_dirty=304 * KIB,
        ),
        Share(
            file="/store/blobs/public/aa",
            writable=False,
            mapped=65536 * KIB,
            resident=65536 * KIB,
            proportional=4096 * KIB,
            shared=65536 * KIB,
            private_clean=0,
            private_dirty=0,
        ),
    ]


def test_only_a_shared_mapping_can_write_to_the_file() -> None:
    assert [share.writable for share in shares(SMAPS, "/store-of-others")] == [True]


def test_a_process_that_has_gone_maps_nothing() -> None:
    assert shares("", "/store") == []


HUGE = """7fb447e00000-7fb44be00000 r--s 00000000 00:29 1263466                    /dev/hugepages/x
Size:              65536 kB
Rss:                   0 kB
Pss:                   0 kB
Shared_Hugetlb:    {shared} kB
Private_Hugetlb:   {private} kB
"""


def test_huge_pages_are_counted_and_divided_by_those_who_map_them() -> None:
    (one,), (other,) = (
        shares(HUGE.format(shared=shared, private=private), "/dev/hugepages")
        for shared, private in ((65536, 0), (65536, 0))
    )
    assert (one.resident, one.shared, one.huge, one.private_clean, one.proportional) == (65536 * KIB,) * 3 + (0, 0)
    (alone,) = shares(HUGE.format(shared=0, private=65536), "/dev/hugepages")
    assert (alone.resident, alone.private_clean, alone.shared) == (65536 * KIB, 65536 * KIB, 0)
    plain = shares(SMAPS, "/store")
    found = divided([("a", one), ("b", other), ("c", plain[0])])
    assert [share.proportional for _, share in found] == [32768 * KIB, 32768 * KIB, plain[0].proportional]
