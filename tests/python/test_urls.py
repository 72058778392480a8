"""tests/urls.json, which every binding plays: what is opened without a server, what is refused, and that no sentence
shows a secret."""

import asyncio
import json
import traceback
from pathlib import Path
from typing import Any

import counterfoil
import counterfoil.aio
import pytest

FILE = json.loads((Path(__file__).resolve().parents[1] / "urls.json").read_text())
NEVER: list[str] = FILE["never"]
FILES = ("tls_ca=", "tls_cert=", "tls_key=")  # those that the good URLs name are not there


def joined(parts: Any) -> str:
    if isinstance(parts, str):
        return parts
    return "".join(part if isinstance(part, str) else part["repeat"][0] * part["repeat"][1] for part in parts)


VECTORS = [(joined(vector["url"]), vector) for vector in FILE["urls"]]


def check_refusal(url: str, vector: dict[str, Any], error: counterfoil.Error) -> None:
    expected = vector.get("error", "INVALID")
    assert (error.code, error.outcome) == (expected, "not_applied"), url
    assert isinstance(error, ValueError), url
    said = str(error)
    assert len(said) > 9, url
    for word in vector.get("words", [] if "error" in vector else ["tls_"]):
        assert word in said, url
    # What a log shows, too; the lines of source in it are this file's.
    shown = "".join(traceback.format_exception(error))
    for secret in NEVER:
        assert secret not in said, url
        assert secret not in repr(error), url
        assert secret not in shown, url


def opens(url: str, vector: dict[str, Any]) -> bool:
    return "says" in vector and not any(file in url for file in FILES)


def test_every_url_is_opened_or_refused_as_it_should() -> None:
    opened = refused = 0
    for url, vector in VECTORS:
        try:
            store = counterfoil.open(url)
        except counterfoil.Error as error:
            assert not opens(url, vector), f"{url}: {error}"
            check_refusal(url, vector, error)
            refused += 1
        else:
            with store:
                assert opens(url, vector), url
                assert not any(secret in repr(store) for secret in NEVER), url
            opened += 1
    assert opened >= 95
    assert refused >= 300


def test_the_same_when_awaited() -> None:
    async def main() -> None:
        for url, vector in VECTORS:
            try:
                store = await counterfoil.aio.open(url)
            except counterfoil.Error as error:
                assert not opens(url, vector), f"{url}: {error}"
                check_refusal(url, vector, error)
            else:
                assert opens(url, vector), url
                assert not any(secret in repr(store) for secret in NEVER), url
                await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("url", ["redis://h\0", "redis://h\ud800", "redis://annabel:hunter22@h\ud800"])
def test_text_that_is_no_url_in_any_language(url: str) -> None:
    with pytest.raises(counterfoil.InvalidError) as caught:
        counterfoil.open(url)
    assert not any(secret in "".join(traceback.format_exception(caught.value)) for secret in NEVER)
