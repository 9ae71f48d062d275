"""Replies with errors, and what each means for the call and its bill."""

from __future__ import annotations

from tests.contract.reply_case import (
    COST,
    FINE,
    SLOW_DOWN,
    USAGE,
    Case,
    Reply,
    chat,
    dead,
    unpaid,
)

ERRORS = (
    unpaid("402 in a 200", {"code": 402, "message": "no credit"}, "insufficient_quota"),
    unpaid("402 in a 200, as text", {"code": "402", "message": "no"}, "insufficient_quota"),
    unpaid("401 in a 200", {"code": 401, "message": "who"}, "authentication_failed"),
    unpaid(
        "400 in a 200",
        {"code": 400, "message": "bad"},
        "bad_request",
        says="the request is not accepted",
    ),
    unpaid("quota in a 200, in words", {"code": "insufficient_quota"}, "insufficient_quota"),
    unpaid("a type only", {"type": "invalid_request_error", "message": "no"}, "bad_request"),
    unpaid("a code in camel case", {"code": "InvalidApiKey"}, "authentication_failed"),
    unpaid("a code in words", {"code": "Insufficient Balance"}, "insufficient_quota"),
    unpaid("a status in http_status", {"code": "x", "http_status": 403}, "permission_denied"),
    unpaid("Google's status", {"code": 0, "status": "INVALID_ARGUMENT"}, "bad_request"),
    unpaid("an error in a list", [{"code": 404, "message": "no such model"}], "not_found"),
    unpaid("an error in an error", {"error": {"code": 403}}, "permission_denied"),
    dead(
        "a list with an error",
        Reply([{"error": {"code": 403}}]),
        posted=0,
        code="permission_denied",
    ),
    dead(
        "the body is the error",
        Reply({"object": "error", "code": 404, "message": "no such model"}),
        posted=0,
        code="not_found",
    ),
    Case("429 in a 200", (SLOW_DOWN, FINE), attempts=2),
    Case(
        "429 in a 200, in words",
        (Reply({"error": {"code": "rate_limit_exceeded"}}), FINE),
        attempts=2,
    ),
    Case(
        "429 beside a text for an error", (Reply({"error": "slow", "code": 429}), FINE), attempts=2
    ),
    dead(
        "502 in a 200",
        Reply({"error": {"code": 502, "message": "upstream"}}),
        posted=None,
        attempts=2,
        code="server_error",
    ),
    Case(
        "502 in a 200, free at this provider",
        (Reply({"error": {"code": 502, "message": "upstream"}}), FINE),
        attempts=2,
        entry={"server_errors": "unbilled"},
    ),
    dead(
        "an error that names nothing",
        Reply({"error": "something went wrong"}),
        posted=None,
        attempts=2,
        code="invalid_response",
    ),
    Case(
        "an error with usage, then fine",
        (Reply({"error": {"code": 502}, "usage": USAGE}), FINE),
        posted=2 * COST,
        attempts=2,
    ),
    dead(
        "402 with usage",
        Reply({"error": {"code": 402}, "usage": USAGE}),
        code="insufficient_quota",
    ),
    dead(
        "429 beside a text without usage",
        chat(usage=None, error={"code": 429}),
        posted=None,
        attempts=2,
        code="rate_limited",
    ),
    dead(
        "an error beside an answer",
        chat(error={"code": 500, "message": "half of it"}),
        posted=2 * COST,
        attempts=2,
        code="server_error",
    ),
    *(
        Case(f"429 in a 200: {error}", (Reply({"error": error}), FINE), attempts=2)
        for error in (
            {"code": "429 Too Many Requests"},
            {"code": " HTTP 429"},
            {"statusCode": 429, "message": "Rate limit is exceeded."},
            {"type": "rate_limited", "code": "1300"},
            {"code": "RateLimitReached"},
            {"code": "ThrottlingException"},
            {"type": "rate_limit_reached_error"},
        )
    ),
    dead(
        "402 in a 200, the body is the error",
        Reply({"statusCode": 402, "message": "no credit"}),
        posted=0,
        code="insufficient_quota",
    ),
    unpaid(
        "no code, digits alone", {"code": "4022", "type": "billing_error"}, "insufficient_quota"
    ),
    Case(
        "407 of a proxy, then fine",
        (Reply(None, 407), FINE),
        attempts=2,
    ),
    Case("an error that says there is none", (chat(error={"code": 0, "message": ""}),)),
    Case("an error of null", (chat(error=None),)),
    dead(
        "429 that can never fit",
        Reply(
            {
                "error": {
                    "message": "Request too large for m1: limit 6000 tokens per minute, requested 9000",
                    "type": "tokens",
                    "code": "rate_limit_exceeded",
                }
            },
            429,
            {"Retry-After": "1"},
        ),
        posted=0,
        code="request_too_large",
        says="the request alone exceeds a limit",
    ),
    dead(
        "429 that can never fit, by its numbers",
        Reply(
            {
                "error": {
                    "message": "Rate limit reached on tokens per min (TPM): Limit 10,000, Used 0, Requested 12,345.",
                    "code": "rate_limit_exceeded",
                }
            },
            429,
        ),
        posted=0,
        code="request_too_large",
    ),
    dead(
        "429 that can never fit, in a 200",
        Reply({"error": {"code": 429, "message": "Request too large for m1"}}),
        posted=0,
        code="request_too_large",
    ),
    dead(
        "429 that can never fit, its numbers in another order",
        Reply(
            {"error": {"message": "Requested 9000 tokens, the limit is 6000 tokens per minute"}},
            429,
        ),
        posted=0,
        code="request_too_large",
    ),
    dead(
        "429 that can never fit, tokens by its type",
        Reply({"error": {"message": "Limit 6000, requested 9000", "type": "tokens"}}, 429),
        posted=0,
        code="request_too_large",
    ),
    Case(
        "429 about requests per minute",
        (
            Reply(
                {"error": {"message": "Rate limit: 60 requests per minute. You requested 120."}},
                429,
            ),
            FINE,
        ),
        attempts=2,
    ),
    Case(
        "429 that fits later",
        (
            Reply(
                {
                    "error": {
                        "message": "Rate limit reached on tokens per min (TPM): Limit 10000, Used 9000, Requested 2000",
                        "code": "rate_limit_exceeded",
                    }
                },
                429,
            ),
            FINE,
        ),
        attempts=2,
    ),
)
