"""What stands before Langfuse in the field: a gateway that asks for a header, limits bodies, speaks TLS; proxies."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
from aiohttp import web

_LOGIN = "<!DOCTYPE html><html><body>Sign in to continue</body></html>"


@dataclass(slots=True)
class Gateway:
    """A reverse proxy before `target`. What it refuses it answers with a page of its own."""

    target: str
    demands: Mapping[str, str] = field(default_factory=dict)
    refusal: int = 403
    largest_bytes: int | None = None
    url: str = ""
    paths: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.paths.append(f"{request.method} {request.path}")
        if any(request.headers.get(name) != value for name, value in self.demands.items()):
            return web.Response(status=self.refusal, text=_LOGIN, content_type="text/html")
        if self.largest_bytes is not None and len(body) > self.largest_bytes:
            page = "<html><h1>413 Request Entity Too Large</h1><hr>nginx</html>"
            return web.Response(status=413, text=page, content_type="text/html")
        async with httpx.AsyncClient(base_url=self.target, trust_env=False) as client:
            answer = await client.request(
                request.method,
                request.raw_path,
                content=body,
                headers=[
                    (name, value) for name, value in request.headers.items() if name not in self.demands
                ],
            )
        kept = {
            name: value for name, value in answer.headers.items() if name in ("content-type", "retry-after")
        }
        return web.Response(status=answer.status_code, body=answer.content, headers=kept)


@asynccontextmanager
async def gateway_to(
    target: str, *, tls: ssl.SSLContext | None = None, **how: object
) -> AsyncIterator[Gateway]:
    """A gateway for as long as the block lasts."""
    gateway = Gateway(target, **how)  # type: ignore[arg-type]
    application = web.Application(client_max_size=2**30)
    application.router.add_route("*", "/{path:.*}", gateway.handle)
    runner = web.AppRunner(application, auto_decompress=False, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    gateway.url = f"{'https' if tls else 'http'}://localhost:{runner.addresses[0][1]}"
    try:
        yield gateway
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class SeenProxy:
    """A proxy that notes where it was asked to go."""

    url: str = ""
    asked_for: list[str] = field(default_factory=list)


async def _join(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, first: bytes = b""
) -> None:
    onward_reader, onward_writer = await asyncio.open_connection(host, port)
    onward_writer.write(first)

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await source.read(65_536):
                target.write(chunk)
                await target.drain()
        target.close()

    await asyncio.gather(pump(reader, onward_writer), pump(onward_reader, writer))


@asynccontextmanager
async def socks_proxy() -> AsyncIterator[SeenProxy]:
    """A SOCKS5 proxy without a password."""
    seen = SeenProxy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        head = await reader.readexactly(4)
        if head[3] == 3:
            name = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            name = ".".join(str(byte) for byte in await reader.readexactly(4))
        port = int.from_bytes(await reader.readexactly(2))
        seen.asked_for.append(f"{name}:{port}")
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await _join(reader, writer, "127.0.0.1", port)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        seen.url = f"socks5://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield seen


@asynccontextmanager
async def closed_proxy() -> AsyncIterator[SeenProxy]:
    """A forward proxy that asks for a password, whatever it is asked."""
    seen = SeenProxy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.asked_for.append(head.split()[1])
        writer.write(
            b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=x\r\n"
            b"content-type: text/html\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>"
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        seen.url = f"http://someone:hidden@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield seen


@asynccontextmanager
async def http_proxy() -> AsyncIterator[SeenProxy]:
    """A forward proxy for plain http: the request names the whole URL."""
    seen = SeenProxy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode()
        method, url, version = line.split()
        parts = urlsplit(url)
        seen.asked_for.append(parts.netloc)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        first = f"{method} {path} {version}\r\n".encode()
        await _join(reader, writer, "127.0.0.1", parts.port or 80, first)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield seen
