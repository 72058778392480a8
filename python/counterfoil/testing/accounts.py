"""The rules of users and their social accounts: Cross Auth's AccountsStorage, and `counterfoil.AccountsStorage` over a
store or over hooks, of which more is asked."""

from datetime import UTC, datetime, timedelta
from typing import Any

from .keyed import broken
from .rules import rule
from .trial import Ask, Got, NotApplicable, Trial

CROSS = "Cross Auth 0.22.2, cross_auth/_storage.py, AccountsStorage"
FLOW = "Cross Auth 0.22.2, cross_auth/_auth_flow.py"
OURS = "counterfoil.AccountsStorage, its docstring"
SQLMODEL = "Cross Auth 0.22.2, cross_auth/storage/sqlmodel.py"

METHODS = (
    "find_user_by_email", "find_user_by_id", "find_social_account", "find_social_account_by_id", "list_social_accounts",
    "create_user", "create_social_account", "update_social_account", "delete_social_account",
)  # fmt: skip
AT = datetime(2031, 5, 17, 8, 30, 15, 123456, tzinfo=UTC)
NOBODY = ("0", "999999999", "nonsense", "9" * 40, "")


def ours(t: Trial) -> None:
    if not t.is_ours:
        raise NotApplicable("this is a rule of counterfoil.AccountsStorage, and it is another's")


def address(t: Trial) -> str:
    return f"{t.key('mail')}@example.org"


def add_user(t: Trial, email: str | None = None) -> Any:
    return t.ask(adding_user(email or address(t)))


def adding_user(email: str, of: Any = None) -> Ask:
    return Ask("create_user", (), {"user_info": {"name": "Ann"}, "email": email, "email_verified": True}, of)


def fields(**more: Any) -> dict[str, Any]:
    return {
        "access_token": "access", "refresh_token": "refresh", "access_token_expires_at": AT,
        "refresh_token_expires_at": AT + timedelta(days=30), "scope": "user email", "user_info": {"login": "ann"},
        "provider_email": "Ann@example.org", "provider_email_verified": True, **more,
    }  # fmt: skip


def adding(user: Any, id: str, of: Any = None, **more: Any) -> Ask:
    named = {"user_id": user.id, "provider": "cfkit", "provider_user_id": id, "is_login_method": True, **fields(**more)}
    return Ask("create_social_account", (), named, of)


def add(t: Trial, user: Any, id: str, **more: Any) -> Any:
    return t.ask(adding(user, id, **more))


def find(t: Trial, id: str) -> Any:
    return t.call("find_social_account", provider="cfkit", provider_user_id=id)


def is_it(given: Any, wanted: dict[str, Any]) -> list[str]:
    """The fields that are not as wanted. user_info need not be kept by everybody."""
    return [name for name, value in wanted.items() if name != "user_info" and getattr(given, name, ...) != value]


def places(t: Trial) -> list[Any]:
    """The storage, and another one that has the same data."""
    if t.known.get("shares") is False:
        return [t.thing]
    twin = t.twin()
    if twin is not None:
        user = add_user(t)
        t.known["shares"] = t.ask(Ask("find_user_by_id", (user.id,), of=twin)) is not None
    else:
        t.known["shares"] = False
    return [t.thing, twin] if t.known["shares"] else [t.thing]


def winners(got: list[Got]) -> list[Any]:
    return [each.value for each in got if each.error is None]


@rule(
    "shape.methods",
    "It has the methods of an AccountsStorage.",
    "A login would end in a server error.",
    accounts=CROSS,
)
def shape(t: Trial) -> None:
    missing = [name for name in METHODS if not t.has(name)]
    t.expect(not missing, f"it has no method {', '.join(missing)}")


# --------------------------------------------------------------------------------------------------------------- users


@rule(
    "user.round_trip",
    "create_user gives the user, and find_user_by_email and find_user_by_id find it, with what was said.",
    "Who has signed up could not log in.",
    accounts=CROSS + ", User",
)
def user_round_trip(t: Trial) -> None:
    email = address(t)
    made = add_user(t, email)
    t.expect(made is not None and getattr(made, "id", None) is not None, "create_user gave no user with an id")
    for name, found in (
        ("find_user_by_email", t.call("find_user_by_email", email)),
        ("find_user_by_id", t.call("find_user_by_id", made.id)),
        ("find_user_by_id, with the id as text,", t.call("find_user_by_id", str(made.id))),
    ):
        t.expect(found is not None, f"{name} found nobody")
        t.expect(found.id == made.id, f"{name} found another user")
        wrong = is_it(found, {"email": email, "email_verified": True, "has_usable_password": False})
        t.expect(not wrong, f"{name} found the user with another {', '.join(wrong)}")


@rule(
    "user.miss",
    "A user who is not there is None, whatever the id looks like.",
    "Ids come out of cookies and tokens: an old or a made-up one would be a server error.",
    accounts=CROSS + ".find_user_by_id -> User | None; " + SQLMODEL + ": ids that cannot match are None",
)
def user_miss(t: Trial) -> None:
    t.expect(t.call("find_user_by_email", address(t)) is None, "an address that nobody has found a user")
    for id in NOBODY:
        t.expect(t.call("find_user_by_id", id) is None, "an id that nobody has found a user")


@rule(
    "user.email_unique",
    "A second user with an address that somebody has is refused.",
    "Who makes a second user with an address may become the first, or each be the other by turns.",
    accounts=FLOW + ", resolve_or_create_user: it looks, then creates; only the storage can refuse",
)
def email_unique(t: Trial) -> None:
    email = address(t)
    add_user(t, email)
    t.refused(Exception, adding_user(email), "a second create_user with the same address")
    if t.is_ours and t.has("update_user"):
        other = add_user(t)
        change = Ask("update_user", (other.id,), {"email": email})
        t.refused(Exception, change, "update_user to an address that somebody else has")


@rule(
    "user.email_one_winner",
    "Of any number of create_user with one address at once exactly one succeeds.",
    "To look first and then to write is two steps: two requests make two users. A UNIQUE constraint makes it one.",
    accounts=FLOW + ", resolve_or_create_user; its routes run in a pool of threads",
)
def email_winner(t: Trial) -> None:
    where = places(t)
    for number in t.rounds():
        email = address(t)
        asks = [adding_user(email, where[each % len(where)]) for each in range(t.settings.contenders)]
        won = len(winners(t.race(asks)))
        t.expect(won == 1, f"{won} of {len(asks)} create_user with one address succeeded, in try {number + 1}")


@rule(
    "user.email_normalised",
    "Addresses that differ in ASCII case, or in the space around them, are one; what was given is kept.",
    "One person would have two users.",
    accounts=OURS,
)
def email_normalised(t: Trial) -> None:
    ours(t)
    email = f"  {t.key('Mail')}@Example.ORG"
    made = add_user(t, email)
    found = t.call("find_user_by_email", email.strip().lower())
    t.expect(found is not None and found.id == made.id, "the address in small letters found nobody")
    t.expect(found.email == email, "the address was not kept as it was given")
    found = t.call("find_user_by_email", email.upper())
    t.expect(found is not None and found.id == made.id, "the address in capital letters found nobody")


@rule(
    "user.nothing_said",
    "Users without an address can be made, more than one, and nobody is found by none.",
    "Some providers tell none: the second such user could not sign up, or be the first.",
    accounts=OURS + "; " + CROSS + ", User.email: nullable",
)
def nothing_said(t: Trial) -> None:
    ours(t)
    one, two = (t.call("create_user", user_info={"n": 1}, email=None, email_verified=False) for _ in range(2))
    t.expect(one.id != two.id, "two users without an address were one")
    t.expect(one.email is None, "a user without an address has one")


@rule(
    "user.update",
    "update_user changes what is named, None takes a value away, the rest stays; a user who is not there is refused.",
    "A new password would cost the address.",
    accounts=OURS,
)
def user_update(t: Trial) -> None:
    ours(t)
    t.needs("update_user")
    email = address(t)
    user = add_user(t, email)
    t.call("update_user", user.id, hashed_password="hash")
    wrong = is_it(t.call("find_user_by_id", user.id), {"email": email, "hashed_password": "hash"})
    t.expect(not wrong, f"update_user of the password gave another {', '.join(wrong)}")
    t.call("update_user", user.id, hashed_password=None, email_verified=False)
    wanted = {"email": email, "hashed_password": None, "email_verified": False}
    wrong = is_it(t.call("find_user_by_id", user.id), wanted)
    t.expect(not wrong, f"update_user without the password left another {', '.join(wrong)}")
    t.refused(ValueError, Ask("update_user", ("999999999",), {"hashed_password": "x"}), "update_user of nobody")


@rule(
    "user.delete",
    "delete_user says whether there was one, and takes the social accounts along; its address is free then.",
    "A login by one of them would be of nobody.",
    accounts=OURS + ", delete_user",
)
def user_delete(t: Trial) -> None:
    ours(t)
    t.needs("delete_user")
    email, id = address(t), t.key()
    user = add_user(t, email)
    add(t, user, id)
    t.expect(t.call("delete_user", user.id) is True, "delete_user of a user did not say True")
    t.expect(t.call("find_user_by_id", user.id) is None, "the user was still found")
    t.expect(find(t, id) is None, "a social account of the user was still found")
    t.expect(t.call("delete_user", user.id) is False, "delete_user of nobody did not say False")
    add_user(t, email)


# ----------------------------------------------------------------------------------------------------- social accounts


@rule(
    "account.round_trip",
    "create_social_account gives the account, and both finds give it, with every field; instants are aware.",
    "Tokens would be lost, or their end be compared wrongly.",
    accounts=CROSS + ", SocialAccount",
)
def account_round_trip(t: Trial) -> None:
    id = t.key()
    user = add_user(t)
    made = add(t, user, id, is_login_method=False)
    wanted = {"provider": "cfkit", "provider_user_id": id, **fields(), "is_login_method": False}
    for name, found in (
        ("create_social_account", made), ("find_social_account", find(t, id)),
        ("find_social_account_by_id", t.call("find_social_account_by_id", made.id)),
    ):  # fmt: skip
        t.expect(found is not None, f"{name} gave none")
        wrong = is_it(found, {"id": made.id, **wanted})
        t.expect(not wrong, f"{name} gave another {', '.join(wrong)}")


@rule(
    "account.miss",
    "A social account that is not there is None, whatever the id looks like.",
    "Ids come out of requests: a made-up one would be a server error.",
    accounts=CROSS + "; " + SQLMODEL + ": ids that cannot match are None",
)
def account_miss(t: Trial) -> None:
    t.expect(find(t, t.key()) is None, "an account that nobody has was found")
    for id in NOBODY:
        t.expect(t.call("find_social_account_by_id", id) is None, "an id that no account has found one")


@rule(
    "account.tokens",
    "Tokens come back letter by letter, also when they have 8,000 of them, and None is None.",
    "One letter less, and no request with them succeeds.",
    accounts=CROSS + ", SocialAccount.access_token",
)
def account_tokens(t: Trial) -> None:
    user = add_user(t)
    for token in ("t" * 7990 + "/+=.-_~é日💶", "", None):
        id = t.key()
        add(t, user, id, access_token=token, refresh_token=token)
        found = find(t, id)
        t.expect((found.access_token, found.refresh_token) == (token, token), "a token came back changed")


@rule(
    "account.exact_names",
    "provider and provider_user_id are compared letter by letter.",
    "A collation that folds case logs one user in as another.",
    accounts=CROSS + ".find_social_account; OpenID Connect Core 1.0, section 2: sub is case-sensitive",
)
def account_exact(t: Trial) -> None:
    id = t.key("aB")
    user = add_user(t)
    add(t, user, id)
    for other in (id.lower(), id + " ", id[:-1], id + "\u0301"):
        t.expect(find(t, other) is None, "an id that differs in one letter found the account")
    found = t.call("find_social_account", provider="CFKIT", provider_user_id=id)
    t.expect(found is None, "a provider in other letters found the account")


@rule(
    "account.user_id_is_the_users",
    "The user_id of an account equals the id of its user, in its type too.",
    "Linking compares the two: a user could not link again what is his.",
    accounts=FLOW + ": social_account.user_id != user.id",
)
def account_user_id(t: Trial) -> None:
    id, email = t.key(), address(t)
    user = add_user(t, email)
    add(t, user, id)
    t.expect(find(t, id).user_id == t.call("find_user_by_email", email).id, "they are not equal")


@rule(
    "account.unique",
    "A second social account with the same provider and provider_user_id is refused.",
    "One login, two users.",
    accounts=FLOW + ", resolve_or_create_user: it looks, then creates; only the storage can refuse",
)
def account_unique(t: Trial) -> None:
    id = t.key()
    add(t, add_user(t), id)
    t.refused(Exception, adding(add_user(t), id), "a second create_social_account for one account")


@rule(
    "account.one_winner",
    "Of any number of create_social_account for one provider and provider_user_id at once exactly one succeeds.",
    "To look first and then to write is two steps: one login, two users. A UNIQUE constraint makes it one.",
    accounts=FLOW + ", resolve_or_create_user; its routes run in a pool of threads",
)
def account_winner(t: Trial) -> None:
    where = places(t)
    users = [add_user(t) for _ in range(t.settings.contenders)]
    for number in t.rounds():
        id = t.key()
        asks = [adding(user, id, where[each % len(where)]) for each, user in enumerate(users)]
        won = len(winners(t.race(asks)))
        t.expect(won == 1, f"{won} of {len(asks)} create_social_account for one succeeded, in try {number + 1}")


@rule(
    "account.needs_user",
    "A social account for a user who is not there is refused.",
    "An account of nobody: whoever gets that id later has it.",
    accounts=OURS + ", create_social_account",
)
def account_needs_user(t: Trial) -> None:
    ours(t)

    class Nobody:
        id = "999999999"

    t.refused(ValueError, adding(Nobody, t.key()), "create_social_account for nobody")


@rule(
    "account.list",
    "list_social_accounts gives those of the user and no other's, or none; ours the oldest first.",
    "The list of who may log in as this user; the last way to log in could be unlinked.",
    accounts=CROSS + ".list_social_accounts; " + FLOW,
)
def account_list(t: Trial) -> None:
    one, other, nobody = (add_user(t) for _ in range(3))
    ids = [t.key() for _ in range(3)]
    for id in ids:
        add(t, one, id)
    add(t, other, t.key())
    given = list(t.call("list_social_accounts", user_id=one.id))
    found = [each.provider_user_id for each in given]
    t.expect(sorted(found) == sorted(ids), f"of 3 accounts of a user it gave {len(set(found) & set(ids))}")
    t.expect(not list(t.call("list_social_accounts", user_id=nobody.id)), "a user without accounts has some")
    if t.is_ours:
        instants = [each.created_at for each in given]
        t.expect(instants == sorted(instants), "the oldest was not the first")


@rule(
    "account.update",
    "update_social_account stores what is given, None too, and gives the account; what it does not name stays.",
    "A refreshed token would be lost, or a revoked one stay.",
    accounts=CROSS + ".update_social_account",
)
def account_update(t: Trial) -> None:
    id = t.key()
    user = add_user(t)
    made = add(t, user, id, is_login_method=False)
    changes = fields(access_token="newer", refresh_token=None, access_token_expires_at=AT + timedelta(hours=1))
    given = t.call("update_social_account", made.id, **changes)
    for name, found in (("update_social_account", given), ("a find after it", find(t, id))):
        t.expect(found is not None, f"{name} gave none")
        wrong = is_it(found, {"id": made.id, "user_id": made.user_id, "is_login_method": False, **changes})
        t.expect(not wrong, f"{name} gave another {', '.join(wrong)}")


@rule(
    "account.update_missing",
    "update_social_account of one that is not there raises a ValueError, and makes none.",
    "A login would go on with an account that does not exist.",
    accounts=SQLMODEL + ", update_social_account",
)
def account_update_missing(t: Trial) -> None:
    ask = Ask("update_social_account", ("999999999",), fields())
    t.refused(ValueError, ask, "update_social_account of none")


@rule(
    "account.loses_no_update",
    "Updates of different fields at once are all kept.",
    "A refreshed token would be overwritten with the old one.",
    accounts=OURS + ", update_social_account: changes what is given, in one step",
)
def account_lost(t: Trial) -> None:
    ours(t)
    where = places(t)
    made = add(t, add_user(t), t.key())
    for number in t.rounds():
        changes = {"access_token": f"a{number}", "refresh_token": f"r{number}", "scope": f"s{number}"}
        asks = [
            Ask("update_social_account", (made.id,), {name: value}, where[each % len(where)])
            for each, (name, value) in enumerate(changes.items())
        ]
        t.answers(t.race(asks), "updates of different fields")
        wrong = is_it(t.call("find_social_account_by_id", made.id), changes)
        t.expect(not wrong, f"the update of {', '.join(wrong)} was lost, in try {number + 1}")


@rule(
    "account.delete",
    "delete_social_account removes it, and one that is not there is fine.",
    "Whoever unlinks an account would get in by it, or get a server error when he does so twice.",
    accounts=CROSS + ".delete_social_account; " + SQLMODEL,
)
def account_delete(t: Trial) -> None:
    t.needs("delete_social_account")
    id = t.key()
    made = add(t, add_user(t), id)
    kept = t.key()
    add(t, add_user(t), kept)
    t.call("delete_social_account", made.id)
    t.expect(find(t, id) is None, "it was still found")
    t.expect(find(t, kept) is not None, "another's account was gone too")
    t.call("delete_social_account", made.id)
    t.call("delete_social_account", "nonsense")


@rule(
    "account.no_resurrection",
    "When an update and a delete of one account have both ended, whichever was first, it is gone.",
    "Whoever unlinks an account would get in by it again.",
    accounts=CROSS + ".delete_social_account; its routes run in a pool of threads",
)
def account_resurrection(t: Trial) -> None:
    t.needs("delete_social_account")
    where = places(t)
    user = add_user(t)
    for number in t.rounds():
        id = t.key()
        made = add(t, user, id)
        asks = [Ask("update_social_account", (made.id,), fields(), where[each % len(where)]) for each in range(3)]
        got = t.race([*asks, Ask("delete_social_account", (made.id,))])
        t.answers(got[-1:], "delete_social_account beside updates")
        t.expect(find(t, id) is None, f"an update beside it undid a delete, in try {number + 1}")


# --------------------------------------------------------------------------------------------------------------- login


def login(email: str, id: str, of: Any = None) -> Ask:
    named = {"provider": "cfkit", "provider_user_id": id, "user": {"email": email}, **fields()}
    return Ask("find_or_create_by_social_account", (), named, of)


@rule(
    "login.one_winner",
    "Of any number of find_or_create_by_social_account for one account at once one creates, and all get the same user.",
    "Two users for one login, and which of them it is next time is chance.",
    accounts=OURS + ", find_or_create_by_social_account",
)
def login_winner(t: Trial) -> None:
    ours(t)
    t.needs("find_or_create_by_social_account")
    where = places(t)
    for number in t.rounds():
        email, id = address(t), t.key()
        asks = [login(email, id, where[each % len(where)]) for each in range(t.settings.contenders)]
        given = t.answers(t.race(asks), "logins")
        made = sum(created for _, _, created in given)
        users = {str(user.id) for user, _, _ in given}
        t.expect(made == 1 and len(users) == 1, f"{made} were made, of {len(users)} users, in try {number + 1}")


@rule(
    "login.nothing_half",
    "find_or_create_by_social_account with an address that is taken is refused, and leaves neither user nor account.",
    "What was made half stands in the way of the next try.",
    accounts=OURS + ", find_or_create_by_social_account",
)
def login_half(t: Trial) -> None:
    ours(t)
    t.needs("find_or_create_by_social_account")
    email, id = address(t), t.key()
    user = add_user(t, email)
    t.refused(ValueError, login(email, id), "a login with an address that is taken")
    t.expect(find(t, id) is None, "the social account was there")
    t.expect(t.call("find_user_by_email", email).id == user.id, "another user had the address")


@rule(
    "fault.rejects",
    "While the data cannot be reached, finding a user raises: it does not say None.",
    "A miss would make a second user.",
    accounts=CROSS + ": None is for who is not there",
)
def fault(t: Trial) -> None:
    email = address(t)
    add_user(t, email)
    with broken(t):
        t.refused(Exception, Ask("find_user_by_email", (email,)), "find_user_by_email")
