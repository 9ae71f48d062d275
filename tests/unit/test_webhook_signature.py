"""Signatures are those of Standard Webhooks."""

from __future__ import annotations

import base64

import pytest

from callgate.domain.webhook_signature import secret_bytes, signed_headers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - public
"""Of the vector that the reference libraries of Standard Webhooks test with."""


def test_the_vector_of_the_reference_libraries_is_met() -> None:
    headers = signed_headers(
        [secret_bytes(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_key_makes_a_signature() -> None:
    one, two = secret_bytes(SECRET), bytes(range(24))

    def signature(*keys: bytes) -> str:
        return signed_headers(keys, "msg_1", 1614265330, b"{}")["webhook-signature"]

    assert signature(one, two) == f"{signature(one)} {signature(two)}"
    assert signature(one) != signature(two)


@pytest.mark.parametrize("size", [24, 64])
def test_keys_have_24_to_64_bytes(size: int) -> None:
    key = bytes(range(size))

    assert secret_bytes("whsec_" + base64.b64encode(key).decode()) == key


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_not base64, and secret",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
    ],
)
def test_what_is_no_secret_is_refused_without_being_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match="must be whsec_ and 24 to 64") as raised:
        secret_bytes(secret)

    assert secret[6:] == "" or secret[6:] not in str(raised.value)
