"""The archive against one that busybox wrote."""

from __future__ import annotations

from pathlib import Path

from vmm_ras.lab import cpio

TREE = (Path(__file__).parents[2] / "fixtures" / "lab" / "tree.cpio").read_bytes()
NODES = [cpio.directory("bin"), cpio.program("bin/hello", b"hello\n"), cpio.plain_file("note", b"abc")]
FIELDS = ["ino", "mode", "uid", "gid", "nlink", "mtime", "size", "major", "minor", "rmajor", "rminor", "name", "check"]
OF_THE_HOST = {"ino", "mtime", "major", "minor"}


def entries(data):
    """(fields, name, content) of every entry, read as the format's text says: 13 fields of 8 hexadecimal digits."""
    at = 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        values = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        fields = dict(zip(FIELDS, values, strict=True))
        name = data[at + 110 : at + 110 + fields["name"]]
        assert name.endswith(b"\0")
        at += (110 + fields["name"] + 3) & ~3
        yield fields, name[:-1].decode(), data[at : at + fields["size"]]
        at += (fields["size"] + 3) & ~3
        if name == b"TRAILER!!!\0":
            return


def test_it_is_busyboxs_archive_but_for_what_its_host_added():
    ours, theirs = list(entries(cpio.archive(NODES))), list(entries(TREE))
    assert len(ours) == len(theirs) == 4
    for (a, *rest), (b, *expected) in zip(ours, theirs, strict=True):
        assert rest == expected
        assert {k: v for k, v in a.items() if k not in OF_THE_HOST} == {
            k: v for k, v in b.items() if k not in OF_THE_HOST
        }  # fmt: skip
    assert len(cpio.archive(NODES)) == len(TREE)


def test_every_file_has_a_number_of_its_own():
    """Linux takes equal numbers for hard links."""
    assert len({fields["ino"] for fields, *_ in entries(cpio.archive(NODES))}) == 4


def test_a_device():
    fields, name, content = next(entries(cpio.archive([cpio.console()])))
    assert (name, content, fields["mode"], fields["rmajor"], fields["rminor"]) == ("dev/console", b"", 0o20600, 5, 1)
