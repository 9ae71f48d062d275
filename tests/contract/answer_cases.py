"""Replies with answers, or nearly: envelopes, finish reasons, wrappings."""

from __future__ import annotations

from tests.contract.reply_case import (
    COST,
    FINE,
    FULL,
    FULL_COST,
    MISSING,
    SCHEMA,
    ZERO,
    Case,
    Reply,
    chat,
    choice,
    dead,
)

ENVELOPES = (
    dead(
        "no choices, usage there",
        chat(usage=FULL, choices=[]),
        posted=FULL_COST,
        code="empty_reply",
    ),
    dead("choices of null, usage there", chat(choices=None), code="empty_reply"),
    dead(
        "no choices, no usage",
        chat(choices=[], usage=None),
        posted=None,
        attempts=2,
        code="invalid_response",
    ),
    dead(
        "filtered, no message",
        chat(
            {"index": 0, "finish_reason": "content_filter"},
            usage={"prompt_tokens": 11, "completion_tokens": 0, "total_tokens": 11},
        ),
        posted=11_000,
        code="content_filtered",
    ),
    dead(
        "cut, no message",
        chat({"index": 0, "finish_reason": "length"}, usage=FULL),
        posted=FULL_COST,
        code="output_truncated",
    ),
    dead(
        "filtered, no usage",
        chat(choice(None, "content_filter"), usage=None),
        posted=None,
        code="content_filtered",
        anomalies=MISSING,
        usage_is_known=False,
    ),
    dead("no text", chat(choice("")), posted=2 * COST, attempts=2, code="empty_reply"),
    dead(
        "an event stream that was not requested",
        Reply(
            raw=b'data: {"choices":[{"delta":{"content":"fine"}}]}\n\ndata: [DONE]\n\n',
            headers={"Content-Type": "text/event-stream"},
        ),
        posted=None,
        code="invalid_response",
        says="stream",
    ),
    dead(
        "an event stream that does not say so",
        Reply(raw=b"\n: hello\n\ndata: {}\n\n"),
        posted=None,
        code="invalid_response",
    ),
    dead(
        "a stream of lines",
        Reply(
            raw=b'{"a": 1}\n{"a": 2}\n',
            headers={"Content-Type": "application/x-ndjson; charset=utf-8"},
        ),
        posted=None,
        code="invalid_response",
    ),
    dead(
        "a page",
        Reply(raw=b"<html>Sign in</html>"),
        posted=None,
        attempts=2,
        code="invalid_response",
    ),
    dead("nothing", Reply(raw=b""), posted=None, attempts=2, code="invalid_response"),
    dead(
        "half of the JSON",
        Reply(raw=FINE.data[:-9]),
        posted=None,
        attempts=2,
        code="invalid_response",
    ),
    dead("a number", Reply(7), posted=None, attempts=2, code="invalid_response"),
    Case("a byte order mark", (Reply(raw=b"\xef\xbb\xbf" + FINE.data),)),
    Case("line ends that kept the connection alive", (Reply(raw=b"\n\n  \r\n" + FINE.data),)),
    Case(
        "JSON that says it is a stream",
        (Reply(FINE.body, headers={"Content-Type": "text/event-stream"}),),
    ),
    Case("an answer in parts", (chat(choice([{"type": "text", "text": "fi"}, {"text": "ne"}])),)),
    dead(
        "a refusal in parts",
        chat(choice([{"type": "refusal", "refusal": "I will not"}])),
        code="refused_by_model",
    ),
    Case("an empty refusal", (chat(choice(message={"refusal": ""})),)),
    Case("a blank refusal", (chat(choice(message={"refusal": " \n"})),)),
    dead("a refusal", chat(choice("", message={"refusal": "no"})), code="refused_by_model"),
    Case("reasoning beside the answer", (chat(choice(message={"reasoning_content": "hm"})),)),
)

ENDINGS = (
    *(
        dead(
            f"broken off: {ending}",
            chat(choice("The first half of", ending)),
            posted=2 * COST,
            attempts=2,
            code="broken_off",
        )
        for ending in ("error", "abort", "ERROR", "insufficient_system_resource", "network_error")
    ),
    *(
        dead(
            f"unknown: {ending}",
            chat(choice("All of it?", ending)),
            code="unknown_ending",
            says=said,
        )
        for ending, said in (
            ("eos", "`eos`"),
            ("end_turn", "`end_turn`"),
            ("tool_calls", "`tool_calls`"),
            ("function_call", "`function_call`"),
            ("max_tokens", "`max_tokens`"),
            (None, "`null`"),
            ("", "`null`"),
            (7, "`null`"),
            ("The patient, born 1970", "another finish reason"),
            ("tneitap_eht", "another finish reason"),
        )
    ),
    *(
        Case(
            f"declared good: {ending}",
            (chat(choice("fine", ending)),),
            entry={"good_endings": [good]},
        )
        for ending, good in (("eos", "eos"), ("END_TURN", "end_turn"), (None, "null"))
    ),
    Case("stop in capitals", (chat(choice("fine", "STOP")),)),
    Case(
        "broken off, then fine",
        (
            chat(
                choice(
                    "The first half of",
                    "error",
                    error={"code": 502, "message": "upstream went away"},
                )
            ),
            FINE,
        ),
        posted=2 * COST,
        attempts=2,
    ),
    dead(
        "reasoning used up the bound",
        chat(
            choice("", "length"),
            usage={**FULL, "completion_tokens_details": {"reasoning_tokens": 100}},
        ),
        posted=FULL_COST,
        code="output_truncated",
        says="reasoning used it up",
    ),
    dead(
        "reasoning used up the bound, content null",
        chat(choice(None, "length"), usage=FULL),
        posted=FULL_COST,
        code="output_truncated",
    ),
    Case(
        "text that reached its bound",
        (chat(choice("fine", "length"), usage=FULL),),
        posted=FULL_COST,
    ),
    dead(
        "reasoning used up the bound, content blank",
        chat(choice(" \n", "length"), usage=FULL),
        posted=FULL_COST,
        code="output_truncated",
    ),
    *(
        dead(
            f"reasoning used up the bound, and {counts} is said of it",
            chat(
                choice("", "length"),
                usage=dict(zip(("prompt_tokens", "completion_tokens"), counts, strict=True)),
            ),
            posted=None,
            code="output_truncated",
            anomalies=ZERO,
            usage_is_known=False,
        )
        for counts in ((0, 0), (11, 0))
    ),
    dead(
        "JSON that reached its bound",
        chat(choice('{"a": 1', "length"), usage=FULL),
        posted=FULL_COST,
        code="output_truncated",
        request={"response_schema": SCHEMA},
    ),
    Case(
        "two choices, in another order",
        (chat(choice("two", index=1), choice("one", index=0)),),
        texts=("one", "two"),
        request={"n": 2},
    ),
    Case(
        "two choices of one number",
        (chat(choice("one"), choice("two")),),
        texts=("one", "two"),
        request={"n": 2},
    ),
    *(
        dead(
            f"two choices, {which} one {ending}",
            chat(*[choice("half", e, index=i) for i, e in enumerate(endings)]),
            code=code,
            posted=times * COST,
            attempts=times,
            request={"n": 2},
        )
        for ending, code, times in (
            ("content_filter", "content_filtered", 1),
            ("error", "broken_off", 2),
            ("odd", "unknown_ending", 1),
        )
        for which, endings in (("first", (ending, "stop")), ("second", ("stop", ending)))
    ),
    dead(
        "two choices, the second refused",
        chat(choice("one"), choice(None, index=1, message={"refusal": "no"})),
        code="refused_by_model",
        request={"n": 2},
    ),
    dead(
        "two choices, the second empty",
        chat(choice("one"), choice("", index=1)),
        posted=2 * COST,
        attempts=2,
        code="empty_reply",
        request={"n": 2},
    ),
    dead(
        "two choices, the second empty at its bound",
        chat(choice("one"), choice("", "length", index=1)),
        code="output_truncated",
        request={"n": 2},
    ),
    Case(
        "one choice of two",
        (chat(choice("one")),),
        texts=("one",),
        anomalies=("choices_missing",),
        request={"n": 2},
    ),
)

WRAPPED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("a fence", '```json\n{"a": 1}\n```', ("fence",)),
    ("a fence without a language", ' \n```\n{"a": 1}\n``` \n', ("fence",)),
    ("a fence in one line", '```json {"a": 1} ```', ("fence",)),
    ("a fence without any space", '```{"a": 1}```', ("fence",)),
    ("a fence of tildes", '~~~~JSON\r\n{"a": 1}\r\n~~~~', ("fence",)),
    ("a think block", '<think>\nIs {"a": 2} right?\n</think>\n\n{"a": 1}', ("think",)),
    ("the end of a think block", 'Hm.\n</think>{"a": 1}', ("think",)),
    ("a think block and a fence", '<think>hm</think>\n```json\n{"a": 1}\n```', ("think", "fence")),
)
UNWRAPPED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("a fence, not declared", '```json\n{"a": 1}\n```', ()),
    ("a think block, not declared", '<think>hm</think>{"a": 1}', ("fence",)),
    ("a fence that does not end", '```json\n{"a": 1}', ("fence",)),
    ("a fence after words", 'Here:\n```json\n{"a": 1}\n```', ("fence",)),
    ("thoughts that do not end", "<think>hm", ("think", "fence")),
    ("a fence alone", "```", ("fence",)),
)
WRAPPINGS = (
    Case(
        "a fence around the end of a think block",
        (chat(choice('```json\n{"a": "</think>"}\n```')),),
        texts=('{"a": "</think>"}',),
        request={"response_schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
        entry={"unwraps": ["think", "fence"]},
    ),
    *(
        Case(
            name,
            (chat(choice(text)),),
            texts=('{"a": 1}',),
            request={"response_schema": SCHEMA},
            entry={"unwraps": unwraps},
        )
        for name, text, unwraps in WRAPPED
    ),
    *(
        dead(
            name,
            chat(choice(text)),
            posted=2 * COST,
            attempts=2,
            code="invalid_output",
            request={"response_schema": SCHEMA},
            entry={"unwraps": unwraps},
        )
        for name, text, unwraps in UNWRAPPED
    ),
    Case(
        "free text keeps its fence",
        (chat(choice("```\nfine\n```")),),
        texts=("```\nfine\n```",),
        entry={"unwraps": ["fence"]},
    ),
)
