"""How a reply comes over the wire: on a connection of its own, whole, in time and of bounded size.

- A connection carries one request. What a server or a proxy sends beyond its reply would otherwise
  be read as the reply to the next request.
- The seconds count from the first packet of the connection to the last byte of the reply, however
  slowly it drips.
- Redirects are not followed: prompts and keys go where the user said, or nowhere.
- The environment's proxy is used for https alone, where it sees nothing but the host's name.
"""

import asyncio
import zlib
from urllib.request import getproxies, proxy_bypass

import httpx2
from openai import APIError

LARGEST = 32 * 2**20
"""Bytes of a reply; a million tokens are about four."""
_ENCODINGS = {"gzip", "x-gzip", "deflate"}
_OF_THE_WIRE = ("content-encoding", "content-length", "transfer-encoding")


class WholeReplies(httpx2.BaseTransport):
    """Sends requests one by one; of one thread."""

    def __init__(self, seconds: float, proxy: str | None) -> None:
        self._seconds = seconds
        self._wire = httpx2.AsyncHTTPTransport(
            proxy=proxy, trust_env=True, limits=httpx2.Limits(max_keepalive_connections=0)
        )
        # A loop has what threads lack: a deadline for all of a reply, wherever that is stuck.
        self._loop = asyncio.Runner()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the reply to a request, read to its end.

        Raises:
            httpx2.TransportError: there is no reply, or not all of it, or not in time.
            APIError: it is too large, or packed in a way that was not asked for.
        """
        return self._loop.run(self._whole(request))

    def close(self) -> None:
        """Let go of what the last request used."""
        self._loop.run(self._wire.aclose())
        self._loop.close()

    async def _whole(self, request: httpx2.Request) -> httpx2.Response:
        try:
            async with asyncio.timeout(self._seconds):
                reply = await self._wire.handle_async_request(request)
                try:
                    body = await _read(reply, request)
                finally:
                    await reply.aclose()
        except TimeoutError as error:
            said = f"no whole reply within {self._seconds:g} s"
            raise httpx2.ReadTimeout(said, request=request) from error
        headers = [(k, v) for k, v in reply.headers.multi_items() if k not in _OF_THE_WIRE]
        return httpx2.Response(reply.status_code, headers=headers, content=body, request=request)


def proxy_for(address: str) -> str | None:
    """Return the proxy that the environment names for an https address."""
    url = httpx2.URL(address)
    if url.scheme != "https" or proxy_bypass(url.host):
        return None
    proxies = getproxies()
    return proxies.get("https") or proxies.get("all")


async def _read(reply: httpx2.Response, request: httpx2.Request) -> bytes:
    assert isinstance(reply.stream, httpx2.AsyncByteStream)
    packed = bytearray()
    async for part in reply.stream:
        packed += part
        if len(packed) > LARGEST:
            raise _too_large(request)
    encoding = reply.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return bytes(packed)
    if encoding not in _ENCODINGS:
        raise APIError(
            f"a reply packed as {encoding!r}, which was not asked for", request, body=None
        )
    try:
        # 32 + 15: gzip or zlib, whichever it is. A small reply may unpack into a huge one.
        body = zlib.decompressobj(32 + zlib.MAX_WBITS).decompress(packed, LARGEST + 1)
    except zlib.error as error:
        raise httpx2.DecodingError(str(error), request=request) from error
    if len(body) > LARGEST:
        raise _too_large(request)
    return body


def _too_large(request: httpx2.Request) -> APIError:
    return APIError(f"a reply of more than {LARGEST // 2**20} MiB", request, body=None)
