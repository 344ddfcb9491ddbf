"""Manual pages from the command tree: one of the program, and one of each command. Texts only, of roff's man macros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PROGRAM = "orchestrator"

EXIT_CODES = (
    (0, "Done."),
    (1, "Failed, or an audit found something."),
    (2, "Wrong usage, or an invalid file."),
    (3, "Refused by a rule of this host."),
    (4, "This host cannot do it."),
    (5, "The outcome is unknown: look again before acting."),
)

ENVIRONMENT = (
    ("ORCHESTRATOR_SOCKET", "The daemon's socket."),
    ("ORCHESTRATOR_RUNTIME_DIR", "For sockets, logs and what runs; else /run/orchestrator, or the user's own."),
    ("ORCHESTRATOR_STATE_DIR", "For what must last; else /var/lib/orchestrator, or the user's own."),
    ("ORCHESTRATOR_TRACEBACK", "If set, a defect shows where it is."),
)


def pages(tree: Any, version: str) -> dict[str, str]:
    """Return each page's text by its file's name; `tree` is the program's command, as click describes it."""
    leaves = list(_leaves(tree, ()))
    named = {path: "-".join((PROGRAM, *path)) for path, _ in leaves}
    found = {f"{PROGRAM}.1": "\n".join(_program(tree, leaves, named, version)) + "\n"}
    for path, command in leaves:
        found[f"{named[path]}.1"] = "\n".join(_command(path, command, named, version)) + "\n"
    return found


def escaped(text: str) -> str:
    """Return a text that roff prints as it is, whatever it begins with."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
    return rf"\&{text}" if text.startswith(".") else text


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
    else:
        for name, each in below.items():
            yield from _leaves(each, (*path, name))


def _head(name: str, what: str, version: str) -> Iterator[str]:
    yield f'.TH {escaped(name.upper())} 1 "" "Orchestrator {escaped(version)}" "User Commands"'
    yield ".SH NAME"
    yield rf"{escaped(name)} \- {escaped(what)}"
    yield ".SH SYNOPSIS"


def _program(tree: Any, leaves: Any, named: Any, version: str) -> Iterator[str]:
    yield from _head(PROGRAM, _first(tree.help), version)
    yield rf".B {PROGRAM}"
    yield r".I COMMAND"
    yield r"[\fIOPTIONS\fR] [\fIARGUMENTS\fR]"
    yield ".SH COMMANDS"
    for path, command in leaves:
        yield ".TP"
        yield rf"\fB{escaped(named[path])}\fR(1)"
        yield escaped(_first(command.help))
    yield from _options(tree)
    yield from _tail([])


def _command(path: tuple[str, ...], command: Any, named: Any, version: str) -> Iterator[str]:
    words = " ".join((PROGRAM, *path))
    yield from _head(named[path], _first(command.help), version)
    yield rf".B {escaped(words)}"
    if _shown(command):
        yield r"[\fIOPTIONS\fR]"
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    for argument in arguments:
        name = escaped(argument.make_metavar(None) if argument.metavar is None else argument.metavar)
        yield rf"\fI{name}\fR" if argument.required else rf"[\fI{name}\fR]"
    yield ".SH DESCRIPTION"
    for paragraph in (command.help or "").strip().split("\n\n"):
        yield ".PP"
        yield escaped(" ".join(paragraph.split()))
    for argument in arguments:
        if argument.help:
            yield ".TP"
            yield rf"\fI{escaped(argument.metavar or argument.name)}\fR"
            yield escaped(argument.help)
    yield from _options(command)
    yield from _tail(sorted(name for other, name in named.items() if other[0] == path[0] and other != path))


def _shown(command: Any) -> list[Any]:
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    return [option for option in options if not option.hidden]


def _options(command: Any) -> Iterator[str]:
    options = _shown(command)
    if options:
        yield ".SH OPTIONS"
    for option in options:
        yield ".TP"
        names = ", ".join(rf"\fB{escaped(name)}\fR" for name in option.opts)
        wants = "" if option.is_flag else rf" \fI{escaped(option.metavar or option.name.upper())}\fR"
        yield names + wants
        yield escaped(" ".join(part for part in (option.help, _default(option)) if part) or "See DESCRIPTION.")


def _default(option: Any) -> str:
    told = isinstance(option.default, str | int | float) and not isinstance(option.default, bool)
    return f"Default: {option.default}." if told else ""


def _tail(related: list[str]) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_CODES:
        yield from (".TP", rf"\fB{code}\fR", escaped(meaning))
    yield ".SH ENVIRONMENT"
    for name, meaning in ENVIRONMENT:
        yield from (".TP", rf"\fB{name}\fR", escaped(meaning))
    if related:
        yield ".SH SEE ALSO"
        yield ",\n".join(rf".BR {escaped(name)} (1)" for name in related).replace(",\n", "\n")


def _first(text: str | None) -> str:
    """Return the first sentence of a command's help, without its end."""
    line = " ".join((text or "").strip().split("\n\n")[0].split())
    return line.split(". ")[0].removesuffix(".")
