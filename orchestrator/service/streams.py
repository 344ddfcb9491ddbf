"""Answers that go on: events, what a serial port prints, and a console. Each is as fast as its caller takes it."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import msgspec
from aiohttp import WSMsgType, web

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.ports import SerialText
from orchestrator.service.events import Event, Missed
from orchestrator.service.routes import BYTES, LINES

LOOK_EVERY = 0.25
"""Seconds between two looks at what a serial port has printed."""

PIECE = 256 * 1024
"""The most bytes that are read at once."""

_ALIVE = 30.0  # seconds between two signs of life of a console
_MOST_TYPED = 64 * 1024  # bytes of one message of a console's
_NEWLINE = b"\n"


async def events(
    request: web.Request, pieces: AsyncIterator[list[Event | Missed]], shown: Callable[[str], bool]
) -> web.StreamResponse:
    """Write events as lines of JSON; those whose owner's are `shown`, who raises when there shall be no more."""
    response = web.StreamResponse(headers={"Content-Type": LINES})
    await response.prepare(request)
    async for piece in pieces:
        try:
            lines = [
                msgspec.json.encode(each) + _NEWLINE
                for each in piece
                if not isinstance(each, Event) or shown(each.owner)
            ]
        except OrchestratorError:
            break
        if lines:
            await response.write(b"".join(lines))
        await asyncio.sleep(0)  # a reader with much to catch up on lets the scheduler in between
    await response.write_eof()
    return response


async def log(
    request: web.Request, read: Callable[[int, int], SerialText], start: int, goes_on: Callable[[], bool]
) -> web.StreamResponse:
    """Write what a serial port has printed from byte `start` on; `read` blocks, `goes_on` tells whether more comes."""
    text, end = await asyncio.to_thread(read, start, PIECE)
    follows = goes_on()
    headers = {"Content-Type": BYTES, "Orchestrator-End": str(end)}
    if not follows and len(text) < PIECE:
        return web.Response(body=text, headers=headers)
    response = web.StreamResponse(headers={"Content-Type": BYTES})
    await response.prepare(request)
    while True:
        if text:
            await response.write(text)
        if len(text) < PIECE:
            try:
                if not goes_on():
                    break
            except OrchestratorError:
                break
            await asyncio.sleep(LOOK_EVERY)
        text, end = await asyncio.to_thread(read, end, PIECE)
    await response.write_eof()
    return response


async def console(
    request: web.Request, attaching: AbstractAsyncContextManager[tuple[StreamReader, StreamWriter]]
) -> web.StreamResponse:
    """Carry bytes between a WebSocket and a serial port until either end hangs up."""
    socket = web.WebSocketResponse(heartbeat=_ALIVE, max_msg_size=_MOST_TYPED)
    async with attaching as (reader, writer):
        if not socket.can_prepare(request):
            raise UsageError("a console is a WebSocket: ask for it with `Upgrade: websocket`")
        await socket.prepare(request)
        ends = {asyncio.create_task(_print(reader, socket)), asyncio.create_task(_type(socket, writer))}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        await socket.close()
    return socket


async def _print(reader: StreamReader, socket: web.WebSocketResponse) -> None:
    while data := await reader.read(65536):
        await socket.send_bytes(data)


async def _type(socket: web.WebSocketResponse, writer: StreamWriter) -> None:
    async for message in socket:
        if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
            data = message.data
            writer.write(data.encode() if isinstance(data, str) else data)
            await writer.drain()
