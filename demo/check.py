"""What `./run demo --check` does: a story in Chromium, what strangers try, and a new start of it all."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import Browser
from report import Report, somebody
from story import Story
from strangers import Strangers, Visitor, logged_in

if TYPE_CHECKING:
    from demo import Demo


def check(demo: "Demo", browser: Browser, report: Report, screenshot: str | None) -> None:
    parts: dict[str, Callable[[], None]] = {
        "the story": lambda: Story(demo, browser, report, screenshot).tell(),
        "strangers": lambda: Strangers(demo, report).try_all(),
        "a new start": lambda: new_start(demo, report),
    }
    for name, drive in parts.items():
        try:
            drive()
        except Exception as error:  # one part's fault must not hide what the others see
            report.saw(f"{name} went to its end", False, f"{type(error).__name__}: {error}")


def quoted(report: Report) -> None:
    """The lines of docs/demo.md are those of the demo."""
    here = Path(__file__).parent
    files = [*here.glob("express/*.cjs"), here / "fastapi" / "app.py"]
    lines = {line for file in files for line in file.read_text().splitlines()}
    blocks = re.findall(r"```(?:js|python)\n(.*?)```", (here.parent / "docs" / "demo.md").read_text(), re.DOTALL)
    said = [line for block in blocks for line in block.splitlines()]
    gone = [line.strip() for line in said if line not in lines]
    report.saw("docs/demo.md quotes the demo as it is", bool(said) and not gone, gone or f"{len(said)} lines")


def new_start(demo: "Demo", report: Report) -> None:
    email = somebody("grace")
    visitors = {app: Visitor(demo, app) for app in ("express", "fastapi")}
    ended = {app: Visitor(demo, app) for app in visitors}
    for visitor in [*visitors.values(), *ended.values()]:
        visitor.log_in(email)
    for visitor in ended.values():
        cookies = dict(visitor.client.cookies)
        visitor.post("/logout")
        visitor.client.cookies.update(cookies)
    pending = Visitor(demo, "express")
    back = pending.come_back(email)
    demo.restart()
    for app, visitor in visitors.items():
        report.saw(f"{app}: a session outlives the process", visitor.who() == "Grace Hopper", f"hello, {visitor.who()}")
        report.saw(f"{app}: one that was ended stays so", ended[app].who() is None, "log in")
    answers = [logged_in(pending.get(back), "express"), logged_in(pending.get(back), "express")]
    report.saw("express: a login that was begun before is good, once", answers == [True, False], "logged in, refused")
