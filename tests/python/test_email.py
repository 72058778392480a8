"""What an e-mail is looked up by: tests/emails.json, here and in another IDNA; laws for any e-mail."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import counterfoil
import idna
import pytest
from counterfoil import AccountsStorage
from hypothesis import example, given, settings
from hypothesis import strategies as st

FILE = json.loads((Path(__file__).resolve().parents[1] / "emails.json").read_text())


def joined(parts: Any) -> Any:
    if parts is None or isinstance(parts, str):
        return parts
    return "".join(part if isinstance(part, str) else part["repeat"][0] * part["repeat"][1] for part in parts)


VECTORS = [
    (group["name"], joined(email["given"]), joined(email.get("key")), email.get("otherwise"))
    for group in FILE["groups"]
    for email in group["emails"]
]


class Tables:
    """Says what it is asked for."""

    key: str | None

    def create_user(self, *, email: str, email_key: str, **rest: Any) -> Any:
        self.key = email_key
        return SimpleNamespace(id="1", email=email)

    def find_user_by_email(self, email_key: str) -> None:
        self.key = email_key


TABLES = Tables()
HOOKED = AccountsStorage(TABLES)


def key_of(email: str) -> str | None:
    """What a hook is given, None where it is not asked: the same for who is made and for who is looked up."""
    TABLES.key = None
    HOOKED.find_user_by_email(email)
    found = TABLES.key
    TABLES.key = None
    try:
        HOOKED.create_user(email=email, user_info={})
    except counterfoil.InvalidError as error:
        assert (error.outcome, TABLES.key, found) == ("not_applied", None, None), email
        assert len(email.strip()) < 5 or email.strip() not in str(error)
    else:
        assert TABLES.key is not None, email
    assert TABLES.key == found, email
    return found


def test_every_vector() -> None:
    for name, email, key, _ in VECTORS:
        assert key_of(email) == key, (name, email)
    assert len(VECTORS) >= 120
    assert sum(key is None for _, _, key, _ in VECTORS) >= 50


def a_labels(domain: str) -> str | None:
    try:
        return idna.encode(domain, uts46=True, transitional=False).decode()
    except idna.IDNAError:
        return None


def test_vectors_are_right() -> None:
    """Python's idna, with the tables of another year."""
    compared = 0
    for name, email, key, otherwise in VECTORS:
        local, at, domain = email.strip(" \t\r\n").rpartition("@")
        if not at or domain.isascii():
            continue
        theirs = a_labels(domain)
        if otherwise:
            assert theirs is None, (name, email)
        elif theirs is None or len(f"{local}@{theirs}".encode()) > 320:
            assert key is None, (name, email)
        else:
            assert key is not None, (name, email)
            assert key.rpartition("@")[2] == theirs, (name, email)
            compared += 1
    assert compared >= 45


def test_a_domain_in_either_form_is_one_person() -> None:
    with counterfoil.open("memory:") as store:
        accounts = AccountsStorage(store)
        ann = accounts.create_user(email="Ann@Bücher.de", user_info={})
        assert ann.email == "Ann@Bücher.de"
        for email in ("ann@xn--bcher-kva.de", "ANN@XN--BCHER-KVA.DE", "ann@bu\u0308cher.de", "ann@bücher。de"):
            found = accounts.find_user_by_email(email)
            assert found is not None, email
            assert (found.id, found.email) == (ann.id, "Ann@Bücher.de")
            with pytest.raises(counterfoil.ExistsError) as caught:
                accounts.create_user(email=email, user_info={})
            assert caught.value.existing.id == ann.id
        assert accounts.find_user_by_email("ann@bucher.de") is None
        for email in ("ann@b☃cher.de", "ann@x.org\u00a0"):
            assert accounts.find_user_by_email(email) is None
            with pytest.raises(counterfoil.InvalidError, match=r"IDNA") as refused:
                accounts.update_user(ann.id, email=email)
            assert "cher" not in str(refused.value)
            still = accounts.find_user_by_id(ann.id)
            assert still is not None
            assert still.email == "Ann@Bücher.de"


GOOD = "aZ\u00df\u00fc\u0130\u0131\u017f\u03c2\u212a\uff41\u1e9e\u6f22\ud55c"
BAD = "K0-.@x_ \u03c3\u3002\uff20\ufb01\u1e9b\u0307\u0308\u00ad\u200d\u05d0\u0660\u0915\u094d\U0001f4a9"
TEXTS = st.text(st.sampled_from(GOOD + BAD), max_size=12) | st.text(max_size=12)
NAMES = st.lists(st.text(st.sampled_from(GOOD), min_size=1, max_size=6), min_size=1, max_size=4).map(".".join)
EMAILS = st.builds("{}@{}".format, TEXTS, TEXTS | NAMES) | TEXTS
thorough = settings(max_examples=1500, deadline=None, print_blob=True)


@thorough
@given(EMAILS)
@example("\u00fc@x\uff20y")
def test_normalising_again_changes_nothing(email: str) -> None:
    key = key_of(email)
    if key is not None:
        assert key_of(key) == key


@thorough
@given(EMAILS)
def test_only_domains_that_are_not_ascii_are_more_than_made_small(email: str) -> None:
    key = key_of(email)
    plain = email.strip(" \t\n\r\f\v")
    local, at, domain = plain.rpartition("@")
    if at and not domain.isascii():
        if key is not None:
            mine, _, theirs = key.rpartition("@")
            assert mine == small(local)
            assert theirs.isascii()
            assert a_labels(domain) in (None, theirs)  # two that both take it say the same
    elif plain and plain.isprintable():
        assert key == small(plain)


def small(text: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


@settings(thorough, max_examples=400)
@given(EMAILS)
def test_who_is_made_is_found(email: str) -> None:
    key = key_of(email)
    with counterfoil.open("memory:") as store:
        accounts = AccountsStorage(store)
        if key is None:
            assert accounts.find_user_by_email(email) is None
            return
        made = accounts.create_user(email=email, user_info={})
        assert made.email == email
        for each in (email, key, email + " ", key.upper() if key.isascii() else key):
            found = accounts.find_user_by_email(each)
            assert found is not None, each
            assert found.id == made.id
        with pytest.raises(counterfoil.ExistsError):
            accounts.create_user(email=key, user_info={})
