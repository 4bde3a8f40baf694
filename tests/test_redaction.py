import pytest

from response_tuning.redaction import MASK, is_key, redacted


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("http://me:pw@host/v1 failed", f"http://{MASK}@host/v1 failed"),
        ("GET /v1?key=abc123&n=1", f"GET /v1?key={MASK}&n=1"),
        ("/v1?a=1&access_token=abc", f"/v1?a=1&access_token={MASK}"),
        ("bad key sk-proj-abc_DEF-123 ends", f"bad key {MASK} ends"),
        ("gsk_abcdefghijkl0123 hf_abcdefghijkl", f"{MASK} {MASK}"),
        ("AIzaSyA1234567890abcdefghi", MASK),
        ("Bearer abc.def-ghi012", f"Bearer={MASK}"),
        ('{"Authorization": "Bearer abcdefgh"}', f'{{"Authorization={MASK}"}}'),
        ("api_key: hunter2", f"api_key={MASK}"),
        ("x-api-key=hunter2;", f"x-api-key={MASK};"),
        ("api_key: nothing", f"api_key={MASK}"),
        ("api_key: the-key", f"api_key={MASK}"),
        ("api_key=set.up is wrong", f"api_key={MASK} is wrong"),
        ("api_key: a1b2c3 is invalid", f"api_key={MASK} is invalid"),
        ("api_key: notasecret", f"api_key={MASK}"),
        ("'api_key': ['hunter2']", f"'api_key={MASK}']"),
        (r"{\"api_key\": \"hunter2\"}", rf'{{\"api_key={MASK}"}}'),
        ("Authorization: Bearer x", f"Authorization={MASK}"),
        ("Authorization: Token hunter2", f"Authorization={MASK}"),
        ("Authorization: Basic bWU6cHc=", f"Authorization={MASK}"),
        ("Incorrect API key provided: hunter2. Find", f"Incorrect API key provided={MASK} Find"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, without: str) -> None:
    assert redacted(text) == without


@pytest.mark.parametrize(
    "text",
    [
        "https://api.openai.com/v1: Error code: 400 - no such model",
        "name another with --api-key-env, such as --api-key-env OPENAI_API_KEY",
        "the api_key_env is not set",
        "api_key: field required",
        "api_key: The api_key client option must be set",
        "api_key: Input should be a valid string",
        "api_key: missing.",
        '{"api_key": null, "n": 1}',
        '{"api_key": ["field required"]}',
        "x-api-key: header required",
        "Authorization: Bearer is missing",
        "Authorization: required",
        "OpenAI(api_key=None)",
        "sk-learn, risk-free, a@b.org, tokens=5, monkey=1, keyboard",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert redacted(text) == text
    assert not is_key(text)


def test_a_secret_that_is_known_is_taken_out_wherever_it_stands() -> None:
    assert redacted("said hunter2hunter2!", "hunter2") == f"said {MASK}{MASK}!"
    assert redacted("said abcd", "", "abc", "abcd") == f"said {MASK}"
