"""The demo's story, in Chromium: one person, at three devices."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote

from playwright.sync_api import Browser, Page, sync_playwright
from report import HANG_SECONDS, PASSWORD, Report, somebody

if TYPE_CHECKING:
    from demo import Demo


@contextmanager
def chromium() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise RuntimeError("there is no chromium: install it, or use ./run demo --check, which does")
    # It refuses its own sandbox to root, and /dev/shm is small in containers.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.getuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Story:
    def __init__(self, demo: "Demo", browser: Browser, report: Report, screenshot: str | None) -> None:
        self.express, self.fastapi = demo.urls["express"], demo.urls["fastapi"]
        self.place = demo.place
        self.browser = browser
        self.report = report
        self.screenshot = screenshot
        self.complaints: list[str] = []
        # In a store that was there before, somebody may have these.
        people = ("ada", "grace", "grace.at.work")
        self.ada, self.grace, self.work = (f"{name}@example.org" if demo.fresh else somebody(name) for name in people)

    def tell(self) -> None:
        laptop, phone, tablet = self.device(), self.device(width=360), self.device()
        self.sign_up(laptop)
        self.other_language(laptop)
        self.password_in_python(tablet)
        self.link(laptop)
        self.log_in_with_what_was_linked(phone, tablet)
        self.see_sessions(laptop, phone, tablet)
        self.everywhere(laptop, phone, tablet)
        said = self.complaints[:3] or "quiet"
        self.report.saw("Chromium has nothing to complain about", not self.complaints, said)

    def device(self, width: int = 900) -> Page:
        context = self.browser.new_context(viewport={"width": width, "height": 900}, color_scheme="light")
        context.set_default_timeout(HANG_SECONDS * 1000)
        page = context.new_page()
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def saw(self, what: str, page: Page, **expected: str | None) -> None:
        """The texts of these elements; None: there is no such element."""
        seen = {name: text(page, name) for name in expected}
        self.report.saw(what, seen == expected, ", ".join(f"{name} {value}" for name, value in seen.items()))

    def saw_nobody(self, what: str, page: Page) -> None:
        """At both; asked with the browser's cookies, but not shown."""
        pages = [page.context.request.get(url).text() for url in (self.express, self.fastapi)]
        nobody = ['id="login"' in one and 'id="who"' not in one for one in pages]
        self.report.saw(what, nobody == [True, True], f"{sum(nobody)} of 2 ask to log in")

    def log_in(self, page: Page, url: str, email: str) -> None:
        page.goto(url)
        press(page, "#oauth")
        consent(page, email)

    def log_out(self, what: str, page: Page) -> None:
        """And tries with the cookies that the browser should have forgotten."""
        stolen = [(one["name"], one["value"]) for one in page.context.cookies()]
        press(page, "#logout")
        page.context.add_cookies([{"name": name, "value": value, "url": self.express} for name, value in stolen])
        self.saw_nobody(what, page)

    def sign_up(self, page: Page) -> None:
        self.saw_nobody("a stranger is nobody", page)
        page.goto(self.express)
        page.fill("#new-name", "Ada Lovelace")
        page.fill("#new-email", self.ada)
        page.fill("#new-password", PASSWORD)
        press(page, "#signup")
        self.saw("Express: a new user has signed up", page, who="Ada Lovelace", kind="Express", store=self.place)
        self.user, self.session = text(page, "user"), text(page, "session")

    def other_language(self, page: Page) -> None:
        press(page, "#other")
        self.report.saw("from there to another origin", page.url.startswith(self.fastapi), page.url)
        same = {"who": "Ada Lovelace", "user": self.user, "session": self.session, "kind": "Express"}
        self.saw("FastAPI: the same person, in the same session", page, **same)
        press(page, "#other")
        written = {"pages-express": "2", "pages-fastapi": "1"}
        self.saw("Express: Python has written into the session", page, **same, **written)
        hidden = [secret_in(str(cookie.get("value"))) for cookie in page.context.cookies()]
        shown = [secret for secret in hidden if secret in page.content()]
        self.report.saw("the page does not show the session's id", len(hidden) > 0 and not shown, f"{len(shown)} shown")

    def password_in_python(self, page: Page) -> None:
        page.goto(self.fastapi)
        page.fill("#email", self.ada.upper())
        page.fill("#password", PASSWORD)
        press(page, "#login")
        self.saw("FastAPI: a password that Node has hashed", page, user=self.user, kind="Cross Auth")
        same = {"user": self.user, "session": text(page, "session"), "kind": "Cross Auth"}
        press(page, "#other")
        self.saw("Express: the same person, in Cross Auth's session", page, **same)
        self.log_out("Express: logged out of Cross Auth's session, whose cookie is dead", page)

    def link(self, page: Page) -> None:
        for url, email in ((self.express, self.work), (self.fastapi, self.grace)):
            page.goto(url)
            press(page, "#link")
            consent(page, email)
        linked = page.locator("#accounts [data-provider]").all_inner_texts()
        both = len(linked) == 2 and linked[0].endswith(self.work) and linked[1].endswith(self.grace)
        self.report.saw("an account was linked at Express, a second one at FastAPI", both, f"{len(linked)} linked")

    def log_in_with_what_was_linked(self, phone: Page, tablet: Page) -> None:
        self.log_in(phone, self.express, self.grace)
        self.saw("Express: the account of FastAPI, the same user", phone, user=self.user, kind="Express")
        self.log_in(tablet, self.fastapi, self.work)
        self.saw("FastAPI: the account of Express, the same user", tablet, user=self.user, kind="Cross Auth")
        wide = phone.evaluate("document.scrollingElement.scrollWidth")
        self.report.saw("the page fits a phone", wide == 360, f"{wide} pixels wide")

    def see_sessions(self, laptop: Page, phone: Page, tablet: Page) -> None:
        lists = []
        for url in (self.express, self.fastapi):
            laptop.goto(url)
            rows = laptop.locator("#sessions li")
            lists.append(sorted(row.split()[0] for row in rows.locator("small").all_inner_texts()))
        kinds = Counter(row.get_attribute("data-kind") for row in rows.all())
        good = lists[0] == lists[1] and kinds == {"Express": 2, "Cross Auth": 1}
        self.report.saw("both show all sessions, of both kinds", good, dict(kinds))
        if self.screenshot:
            laptop.screenshot(path=self.screenshot, full_page=True)
        self.end(laptop, tablet)
        self.saw_nobody("FastAPI: Cross Auth's session was ended from the list", tablet)
        self.log_in(tablet, self.fastapi, self.work)
        laptop.goto(self.express)
        self.end(laptop, tablet)
        self.saw_nobody("Express: it was ended from the list there", tablet)
        phone.goto(self.fastapi)
        self.log_out("FastAPI: logged out of Express's session, whose cookie is dead", phone)
        laptop.goto(self.express)
        self.saw("the other session goes on", laptop, user=self.user, session=self.session)

    def end(self, page: Page, other: Page) -> None:
        press(page, f'[aria-label="End the session {text(other, "session")}"]')

    def everywhere(self, laptop: Page, phone: Page, tablet: Page) -> None:
        for name, url in (("FastAPI", self.fastapi), ("Express", self.express)):
            if name == "Express":
                self.log_in(laptop, self.express, self.grace)
            self.log_in(phone, self.express, self.grace)
            self.log_in(tablet, self.fastapi, self.work)
            laptop.goto(url)
            press(laptop, "#everywhere")
            for page in (laptop, phone, tablet):
                self.saw_nobody(f"{name}: logged out everywhere", page)


def text(page: Page, element: str) -> str | None:
    found = page.locator(f"#{element}")
    return found.inner_text() if found.count() else None


def press(page: Page, element: str) -> None:
    """Until the next page is there, however often the browser was sent on."""
    with page.expect_event("load"):
        page.click(element)


def consent(page: Page, email: str) -> None:
    page.fill("#email", email)
    press(page, "button[value=yes]")


def secret_in(cookie: str) -> str:
    """Express's is `s:`, the id, a dot and the signature; Cross Auth's is the token."""
    return unquote(cookie).removeprefix("s:").partition(".")[0]
