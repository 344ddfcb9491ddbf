"""What a header says of a disk image agrees with what qemu-img says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from orchestrator.core.model import DiskFormat
from orchestrator.errors import HostError
from orchestrator.host.images import bases, virtual_size


@pytest.mark.parametrize("form", list(DiskFormat))
@pytest.mark.parametrize("size", ["1M", "3G", "513K"])
def test_the_size_is_what_qemu_says(tmp_path: Path, form: DiskFormat, size: str) -> None:
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", form, str(image), size], check=True)
    told = subprocess.run(
        ["qemu-img", "info", "--output=json", "-f", form, str(image)], check=True, capture_output=True, text=True
    ).stdout
    assert virtual_size(str(image), form) == json.loads(told)["virtual-size"]


def test_what_is_no_image_is_told(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello")
    with pytest.raises(HostError, match="is no qcow2 image; its disk's format may be raw"):
        virtual_size(str(text), DiskFormat.QCOW2)
    with pytest.raises(HostError, match="cannot be read: No such file"):
        virtual_size(str(tmp_path / "none"), DiskFormat.RAW)


def test_what_an_image_is_based_on_is_found_down_to_the_last_of_them(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    raw, middle, top = tmp_path / "raw", tmp_path / "inner" / "middle", tmp_path / "top"
    raw.write_bytes(bytes(1 << 20))
    make = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*make, "-F", "raw", "-b", "../raw", str(middle)], check=True)
    subprocess.run([*make, "-F", "qcow2", "-b", str(middle), str(top)], check=True)
    assert bases(str(top)) == [str(middle), str(raw)]
    assert bases(str(raw)) == bases(str(tmp_path / "none")) == []
    subprocess.run([*make, "-u", "-F", "qcow2", "-b", f"{tmp_path}/inner/../top", str(top), "1M"], check=True)
    assert set(bases(str(top))) == {str(top)}, "and who is based on himself keeps nobody for ever"
