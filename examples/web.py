"""
A web service that answers when the call has ended, without blocking its event loop.

    uvicorn examples.web:app
    curl --json '{"org": "acme", "text": "A long text"}' http://127.0.0.1:8000/summaries

Somebody waits, so the calls are interactive: they are sent first. A request that comes twice is paid once. In
production the organisation comes from a login, and the second route looks whether the call is the login's own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

import callgate
from callgate import Client, LLMRequest, Priority

PATIENCE_S = 20.0
STATUS: dict[type[callgate.CallgateError], int] = {
    callgate.InvalidRequest: 422,  # a gate refused it, nothing was stored
    callgate.BudgetRefused: 402,
    callgate.CallNotFound: 404,
    callgate.OrganisationBusy: 429,
    callgate.OrganisationFrozen: 403,
    callgate.Unavailable: 503,  # ask again: identical calls are one call
    callgate.WaitTimeout: 504,  # the call goes on: GET /summaries/TASK_ID
    callgate.CallgateError: 502,  # it ended without an answer
}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with Client.from_env() as app.state.client:
        yield


app = FastAPI(lifespan=lifespan)


class Text(BaseModel):
    org: str
    text: str


@app.post("/summaries")
async def summarise(body: Text, request: Request) -> dict[str, str]:
    call = LLMRequest(
        org_id=body.org,
        call_type="summary",
        provider="openai",
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": f"Summarise in one sentence:\n\n{body.text}"}],
        max_output_tokens=100,
    )
    handle = await request.app.state.client.asubmit(call, priority=Priority.INTERACTIVE)
    result = await handle.aget(timeout=PATIENCE_S)  # or `await handle`, without a timeout
    return {"id": handle.task_id, "summary": result.text}


@app.get("/summaries/{task_id}")
async def look_up(task_id: str, request: Request) -> dict[str, str]:
    result = await request.app.state.client.handle(task_id).aget(timeout=0)
    return {"id": task_id, "summary": result.text}


@app.exception_handler(callgate.CallgateError)
async def refuse(_request: Request, error: callgate.CallgateError) -> JSONResponse:
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    return JSONResponse({"code": error.code, "message": str(error)}, status_code=status)
