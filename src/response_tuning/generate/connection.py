"""An HTTP transport that reads each reply whole, on its own connection, in time and bounded size.

- A connection carries one request. Otherwise the bytes that a server or a proxy sends after its
  reply would be read as the reply to the next request.
- The time limit covers the whole exchange, from the first packet of the connection to the last byte
  of the reply, however slowly the bytes arrive.
- Redirects are not followed: prompts and keys go to the address the user gave, or nowhere.
- The environment's proxy is used for https only, where it sees nothing but the host's name.
"""

import asyncio
import ssl
import zlib
from urllib.request import getproxies, proxy_bypass

import httpx2
from openai import APIError

MAX_REPLY_BYTES = 32 * 2**20
"""A million tokens take about 4 MiB."""
_ENCODINGS = {"gzip", "x-gzip", "deflate"}
_TRANSPORT_HEADERS = ("content-encoding", "content-length", "transfer-encoding")


class WholeReplies(httpx2.BaseTransport):
    """Sends requests one by one; each thread needs its own, and all may share ``certificates``."""

    def __init__(self, seconds: float, proxy: str | None, certificates: ssl.SSLContext) -> None:
        self._seconds = seconds
        self._wire = httpx2.AsyncHTTPTransport(
            verify=certificates,
            proxy=proxy,
            trust_env=True,
            limits=httpx2.Limits(max_keepalive_connections=0),
        )
        # asyncio bounds the whole exchange wherever it hangs; a socket's timeout is per read.
        self._loop = asyncio.Runner()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the whole reply to a request.

        Raises:
            httpx2.TransportError: no reply, or not the whole reply, arrives in time.
            APIError: the reply is too large, or has an encoding that was not requested.
        """
        return self._loop.run(self._whole(request))

    def close(self) -> None:
        """Close the connection of the last request."""
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
            message = f"no whole reply within {self._seconds:g} s"
            raise httpx2.ReadTimeout(message, request=request) from error
        # The body is decoded and whole, so headers about its transfer would be wrong.
        headers = [(k, v) for k, v in reply.headers.multi_items() if k not in _TRANSPORT_HEADERS]
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
    raw = bytearray()
    async for part in reply.stream:
        raw += part
        if len(raw) > MAX_REPLY_BYTES:
            raise _too_large(request)
    encoding = reply.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return bytes(raw)
    if encoding not in _ENCODINGS:
        raise APIError(
            f"a reply in the encoding {encoding!r}, which was not requested", request, body=None
        )
    try:
        # 32 + 15: detect gzip or zlib. Bounded, because a small reply may expand to gigabytes.
        body = zlib.decompressobj(32 + zlib.MAX_WBITS).decompress(raw, MAX_REPLY_BYTES + 1)
    except zlib.error as error:
        raise httpx2.DecodingError(str(error), request=request) from error
    if len(body) > MAX_REPLY_BYTES:
        raise _too_large(request)
    return body


def _too_large(request: httpx2.Request) -> APIError:
    return APIError(f"a reply of more than {MAX_REPLY_BYTES // 2**20} MiB", request, body=None)
