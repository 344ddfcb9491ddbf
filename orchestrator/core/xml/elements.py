"""Small helpers to build elements without ceremony."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lxml import etree

Element = Any  # lxml is untyped; this is what its factories return


def element(tag: str, *children: Element, text: str | None = None, **attributes: str | int | None) -> Element:
    """Build an element; attributes that are None are left out."""
    node = etree.Element(tag)
    for key, value in attributes.items():
        if value is not None:
            node.set(key, str(value))
    node.text = text
    node.extend(children)
    return node


def cpuset(cores: Iterable[int]) -> str:
    """Write cores as libvirt's ``cpuset`` attribute, one by one: nothing to misread in a range."""
    return ",".join(map(str, sorted(cores)))
