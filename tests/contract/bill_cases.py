"""Replies with usages and service tiers, and the cost that is posted for each."""

from __future__ import annotations

from tests.contract.reply_case import (
    CONTRADICTORY,
    COST,
    IMPLAUSIBLE,
    MISSING,
    USAGE,
    ZERO,
    Case,
    chat,
    choice,
    dead,
    openai_usage,
    with_usage,
)

USAGES = (
    with_usage("cached at the top", openai_usage(1000, 10, 1010, cached_tokens=900), 210_000),
    with_usage(
        "cached by DeepSeek",
        openai_usage(1000, 10, 1010, prompt_cache_hit_tokens=900, prompt_cache_miss_tokens=100),
        210_000,
    ),
    with_usage(
        "Anthropic's names",
        {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 900},
        210_000,
    ),
    with_usage(
        "Anthropic's names beside OpenAI's",
        openai_usage(
            1000,
            10,
            1010,
            cache_read_input_tokens=900,
            prompt_tokens_details={"cached_tokens": 900},
        ),
        210_000,
    ),
    with_usage(
        "the names of Responses",
        {
            "input_tokens": 1000,
            "output_tokens": 10,
            "total_tokens": 1010,
            "input_tokens_details": {"cached_tokens": 900},
            "output_tokens_details": {"reasoning_tokens": 4},
        },
        210_000,
    ),
    with_usage(
        "Gemini's names",
        {
            "promptTokenCount": 11,
            "candidatesTokenCount": 7,
            "thoughtsTokenCount": 20,
            "totalTokenCount": 38,
        },
        11_000 + 27 * 2_000,
    ),
    with_usage(
        "Bedrock's names",
        {
            "inputTokens": 100,
            "outputTokens": 10,
            "totalTokens": 1010,
            "cacheReadInputTokens": 900,
        },
        210_000,
    ),
    with_usage(
        "names of two dialects, one filled in",
        {**USAGE, "input_tokens": 0, "output_tokens": 0, "input_tokens_details": None},
        COST,
    ),
    with_usage(
        "reasoning beside, as the total shows",
        openai_usage(100, 5, 190, completion_tokens_details={"reasoning_tokens": 85}),
        280_000,
    ),
    with_usage(
        "less reasoning beside, as the total shows",
        openai_usage(100, 50, 180, completion_tokens_details={"reasoning_tokens": 30}),
        260_000,
    ),
    with_usage(
        "reasoning beside, no total",
        openai_usage(100, 5, completion_tokens_details={"reasoning_tokens": 85}),
        280_000,
    ),
    with_usage(
        "reasoning beside, at the top", openai_usage(100, 5, 190, reasoning_tokens=85), 280_000
    ),
    with_usage(
        "reasoning within",
        openai_usage(100, 90, 190, completion_tokens_details={"reasoning_tokens": 85}),
        280_000,
    ),
    with_usage("numbers with a point", openai_usage(11.0, 7.0, 18.0), COST),
    with_usage("numbers in quotes", openai_usage("11", "7"), COST),
    with_usage("no total", openai_usage(11, 7), COST),
    with_usage("a total of 0", openai_usage(11, 7, 0), COST),
    with_usage(
        "details of null",
        {**USAGE, "prompt_tokens_details": None, "completion_tokens_details": {}},
        COST,
    ),
    with_usage("the output is missing", {"prompt_tokens": 11, "total_tokens": 18}, COST),
    with_usage("the input is missing", {"completion_tokens": 7, "total_tokens": 18}, COST),
    with_usage("no input, beside a total", openai_usage(0, 7, 18), COST),
    with_usage("zeros", openai_usage(0, 0, 0), None, *ZERO),
    with_usage("no output", openai_usage(11, 0, 11), None, *ZERO),
    with_usage("no usage", None, None, *MISSING),
    with_usage("an empty usage", {}, None, *MISSING),
    with_usage("a usage in words", "much", None, *MISSING),
    with_usage("a total only", {"total_tokens": 18}, None, *MISSING),
    with_usage("an input only", {"prompt_tokens": 11}, None, *MISSING),
    with_usage("half a token", {**USAGE, "completion_tokens": 7.5}, None, *IMPLAUSIBLE),
    with_usage("a negative count", {**USAGE, "prompt_tokens": -11}, None, *IMPLAUSIBLE),
    with_usage("a count that is true", {**USAGE, "prompt_tokens": True}, None, *IMPLAUSIBLE),
    with_usage("a count of NaN", {**USAGE, "prompt_tokens": float("nan")}, None, *IMPLAUSIBLE),
    with_usage("an infinite count", {**USAGE, "prompt_tokens": float("inf")}, None, *IMPLAUSIBLE),
    with_usage("a count over int4", openai_usage(2**31, 7), None, *IMPLAUSIBLE),
    with_usage("a count over int8", openai_usage(11, 2**63), None, *IMPLAUSIBLE),
    with_usage("a count of many digits", openai_usage("9" * 5000, 7), None, *IMPLAUSIBLE),
    with_usage("a million tokens for a few words", openai_usage(10**6, 7), None, *IMPLAUSIBLE),
    with_usage("more than the output's bound", openai_usage(11, 101), None, *IMPLAUSIBLE),
    with_usage("the output's bound", openai_usage(11, 100), 211_000),
    *(
        Case(
            f"{output} tokens in two choices",
            (chat(choice(), choice(index=1), usage=openai_usage(11, output)),),
            posted=posted,
            anomalies=anomalies,
            usage_is_known=posted is not None,
            request={"n": 2},
            texts=("fine", "fine"),
        )
        for output, posted, anomalies in ((200, 411_000, ()), (201, None, IMPLAUSIBLE))
    ),
    with_usage(
        "reasoning beside the output, together above what was allowed",
        openai_usage(11, 60, 116, completion_tokens_details={"reasoning_tokens": 45}),
        None,
        *IMPLAUSIBLE,
    ),
    with_usage(
        "reasoning within the output, together all that was allowed",
        openai_usage(11, 100, 111, completion_tokens_details={"reasoning_tokens": 95}),
        211_000,
    ),
    with_usage(
        "a total above the sum", openai_usage(11, 7, 99), 11_000 + 88 * 2_000, *CONTRADICTORY
    ),
    with_usage(
        "a total a little above the sum, and cached tokens",
        openai_usage(1000, 10, 1011, cached_tokens=900),
        1_000_000 + 90_000 + 22_000,
        *CONTRADICTORY,
    ),
    with_usage(
        "a total above the sum by more than what was cached",
        openai_usage(1000, 10, 1160, cached_tokens=100),
        900_000 + 10_000 + 320_000,
        *CONTRADICTORY,
        request={"max_output_tokens": 200},
    ),
    with_usage("a total below the sum", openai_usage(11, 7, 5), COST, *CONTRADICTORY),
    with_usage(
        "reasoning above the output, and the total denies it",
        openai_usage(100, 5, 105, completion_tokens_details={"reasoning_tokens": 85}),
        280_000,
        *CONTRADICTORY,
    ),
    with_usage(
        "more cached than read",
        openai_usage(11, 7, prompt_tokens_details={"cached_tokens": 12}),
        11_000 + 1_200 + 14_000,
        *CONTRADICTORY,
    ),
    with_usage("two names at odds", {**USAGE, "input_tokens": 12}, 12_000 + 14_000, *CONTRADICTORY),
    with_usage(
        "two counts of what was cached",
        openai_usage(1000, 10, cached_tokens=900, prompt_tokens_details={"cached_tokens": 0}),
        1_020_000,
        *CONTRADICTORY,
    ),
    *(
        Case(f"usage in {place}", (chat(usage=None, **fields),))
        for place, fields in (
            ("x_groq", {"x_groq": {"id": "r", "usage": USAGE}}),
            ("metadata", {"metadata": {"usage": USAGE}}),
            ("message", {"message": {"usage": USAGE}}),
            (
                "usageMetadata",
                {"usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 7}},
            ),
        )
    ),
    Case(
        "zeros at the top, usage elsewhere",
        (chat(usage=openai_usage(0, 0, 0), x_groq={"usage": USAGE}),),
    ),
    Case("usage in the choice", (chat(choice(usage=USAGE), usage=None),)),
    Case("usage in the choice's message", (chat(choice(message={"usage": USAGE}), usage=None),)),
    Case(
        "usage in one of two choices",
        (chat(choice("one", usage=USAGE), choice("two", index=1), usage=None),),
        posted=None,
        texts=("one", "two"),
        anomalies=MISSING,
        usage_is_known=False,
        request={"n": 2},
    ),
    dead(
        "zeros beside no text",
        chat(choice("", "content_filter"), usage=openai_usage(0, 0)),
        posted=0,
        code="content_filtered",
    ),
    Case(
        "zeros beside reasoning",
        (chat(choice(message={"reasoning_content": "hm"}), usage=openai_usage(11, 0)),),
        posted=None,
        anomalies=ZERO,
        usage_is_known=False,
    ),
)

TIERS = (
    *(
        Case(f"tier {tier}", (chat(service_tier=tier),))
        for tier in (None, "auto", "default", "Standard", "DEFAULT", "", 7)
    ),
    *(
        Case(
            f"a tier that was not requested: {tier}",
            (chat(service_tier=tier),),
            anomalies=("tier_unasked",),
        )
        for tier in ("on_demand", "scale", "batch", "performance")
    ),
    *(
        Case(
            f"a known tier without a price: {tier}",
            (chat(service_tier=tier),),
            posted=None,
            anomalies=("price_unknown",),
        )
        for tier in ("priority", "fast")
    ),
)
