"""The yardstick: the least that a Python proxy can do. ``python -m bench.bare_proxy``."""

import sys
from collections.abc import MutableMapping
from typing import Any

import aiohttp
import uvicorn


class Proxy:
    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            self.client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.client.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        head = {"Content-Type": "application/json"}
        url = sys.argv[2] + scope["path"]
        async with self.client.request(scope["method"], url, data=body, headers=head) as got:
            keep = (b"content-type", b"content-length")
            headers = [(k.lower(), v) for k, v in got.raw_headers if k.lower() in keep]
            await send({"type": "http.response.start", "status": got.status, "headers": headers})
            async for data in got.content.iter_any():
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":  # python -m bench.bare_proxy PORT http://127.0.0.1:UPSTREAM
    lean: dict[str, Any] = {"log_level": "error", "access_log": False, "proxy_headers": False}
    uvicorn.run(Proxy(), port=int(sys.argv[1]), loop="uvloop", http="httptools", **lean)
