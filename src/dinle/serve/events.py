"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): one JSON object a ``data:`` line."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi.responses import StreamingResponse

from dinle.serve.errors import ClientGoneError, ErrorBody, make_error_body
from dinle.serve.service import wait_until_gone

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, MutableMapping

    from starlette.requests import Request

# nginx holds an answer back until a buffer is full; a stream is for now, and nobody's but the asker's.
STREAM_HEADERS = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}


def write_event(data: dict[str, Any]) -> str:
    """One event; Turkish letters stay as they are."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def answer_events(request: Request, events: AsyncGenerator[str, None]) -> StreamingResponse:
    """The answer that sends these events. What fails before the first of them is raised, and has a status of its own.

    Raises:
        ClientGoneError: the client left before the first event.
    """
    first = await wait_for_first(request, events)
    return StreamingResponse(
        chain_events(request.scope, first, events), media_type="text/event-stream", headers=STREAM_HEADERS
    )


async def wait_for_first(request: Request, events: AsyncGenerator[str, None]) -> str:
    """The first event.

    Raises:
        ClientGoneError: the client left before it came.
    """
    first = asyncio.ensure_future(anext(events))
    gone = asyncio.ensure_future(wait_until_gone(request))
    try:
        await asyncio.wait({first, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            raise ClientGoneError
        return first.result()
    finally:
        gone.cancel()
        first.cancel()


async def chain_events(
    scope: MutableMapping[str, Any], first: str, events: AsyncGenerator[str, None]
) -> AsyncGenerator[str, None]:
    """The first event and the others; an error among the others becomes an event, as the status has been sent.

    It has the form of the request's other errors, the service's own with ``"type": "error"`` besides.
    """
    try:
        async with aclosing(events):
            yield first
            async for event in events:
                yield event
    except Exception as error:  # noqa: BLE001 - told to the client, in the only place left
        _, body = make_error_body(scope, error)
        kind = {"type": "error"} if isinstance(body, ErrorBody) else {}
        yield write_event(kind | body.model_dump())
