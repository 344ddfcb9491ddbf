"""No path can end the place that it stands in: not an XML attribute or element, not a QEMU option."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from orchestrator.core.model import Disk, DiskFormat, KernelBoot
from orchestrator.core.xml.domain import Domain
from orchestrator.core.xml.elements import Element
from orchestrator.core.xml.monitor import QEMU_NAMESPACE
from orchestrator.core.xml.render import render
from tests.golden.cases import domain

ARGUMENTS = f"{{{QEMU_NAMESPACE}}}commandline/{{{QEMU_NAMESPACE}}}arg"
paths = st.lists(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
    | st.sampled_from([",", ",,", "server=off,", "&lt;", "<", ">", "&", '"', "'", "]]>", "/"])
).map(lambda parts: "/" + "".join(parts))


def at(path: str) -> Domain:
    guest = domain(
        boot=KernelBoot(kernel=path, initrd=path, cmdline=path), disks=(Disk(path=path, format=DiskFormat.RAW),)
    )
    return replace(guest, directory=path, emulator=path)


def arguments(guest: Domain) -> list[str]:
    """Return QEMU's extra arguments as libvirt reads them from the XML."""
    return [argument.get("value") for argument in etree.fromstring(render(guest)).findall(ARGUMENTS)]


def options(argument: str) -> dict[str, str]:
    """Split an argument as QEMU does: at commas, of which a doubled one stands for itself."""
    fields = re.findall(r"(?:[^,]|,,)+", argument)
    return {key: value for key, _, value in (field.replace(",,", ",").partition("=") for field in fields)}


@settings(deadline=None)
@given(paths)
@example("/run/x,server=off,path=/etc/passwd")
@example("/run/ends with commas,,,")
def test_a_comma_in_the_run_directory_adds_no_option_to_the_monitor(path: str) -> None:
    assert options(arguments(at(path))[3]) == {
        "socket": "",
        "id": "orchestrator-monitor",
        "path": f"{path}/monitor.sock",
        "server": "on",
        "wait": "off",
    }


@settings(deadline=None)
@given(paths)
@example("""/a<b>&"c"'d'</source><source file="/etc/shadow"/>""")
def test_paths_are_read_from_the_xml_as_they_were_given(path: str) -> None:
    root: Element = etree.fromstring(render(at(path)))
    assert [root.findtext(f"os/{tag}") for tag in ("kernel", "initrd", "cmdline")] == [path] * 3
    assert root.findtext("devices/emulator") == path
    assert [source.attrib for source in root.iter("source")] == [
        {"file": path},
        {"mode": "bind", "path": f"{path}/serial.sock"},
    ]
    assert [log.get("file") for log in root.iter("log")] == [f"{path}/serial.log"]


@settings(deadline=None)
@given(paths)
def test_no_path_changes_which_elements_and_arguments_there_are(path: str) -> None:
    plain, odd = at("/plain"), at(path)
    assert _shape(render(odd)) == _shape(render(plain))
    assert [text for text in arguments(odd) if not text.startswith("socket,")] == [
        text for text in arguments(plain) if not text.startswith("socket,")
    ]


def _shape(xml: str) -> list[tuple[str, list[str]]]:
    return [(node.tag, sorted(node.attrib)) for node in etree.fromstring(xml).iter()]
