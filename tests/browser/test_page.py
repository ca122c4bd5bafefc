"""The page in a real browser, on the real job: a click changes the list that one sees."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from deploy.local.stack import Stack
from tests.programs import program

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A busy machine is slow, which says nothing of the page.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = program("chromium", "chromium-browser", "google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, whole: Stack) -> Iterator[Page]:
    """The page of someone new, once there is a list for them. Whatever the browser complains of fails the test."""
    address = str(whole.serving_url)
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(address) else None)
    page.goto(f"{address}/?user=visitor-{time.time_ns() % 10**6}")
    expect(page.locator("#list li").nth(5)).to_be_visible(timeout=120_000)
    yield page
    page.close()
    assert [complaint for complaint in complaints if "favicon" not in complaint] == []


def titles(page: Page) -> list[str]:
    return page.locator("#list button").evaluate_all("all => all.map(button => button.firstChild.textContent)")


def shot(page: Page, name: str) -> None:
    if folder := os.environ.get("HEADRACE_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / name)


def test_a_click_changes_the_list_and_the_page_says_why_and_how_soon(page: Page) -> None:
    expect(page.locator("#strategy")).to_contain_text("Nothing is known of this person yet")
    before = titles(page)
    page.get_by_label("Search").fill("rug no")
    expect(page.locator("#items button")).to_have_count(12)
    page.get_by_role("button", name=re.compile("Rug No. 3")).first.click()
    expect(page.locator("#latency")).to_contain_text("ms from the click to this list")
    assert 0 < int(page.locator("#latency").get_attribute("data-milliseconds") or 0) < 15_000
    expect(page.locator("#strategy")).to_contain_text("Made of 1 events")
    after = titles(page)
    assert after != before
    assert sum(title.startswith("Rug") for title in after[:6]) >= 5
    expect(page.locator("#list")).to_contain_text("because of “Rug No. 3”")

    page.locator("#list button").nth(1).click()
    expect(page.locator("#strategy")).to_contain_text("Made of 2 events")
    expect(page.locator("#figures dd").first).not_to_have_text("-")
    shot(page, "page.png")

    page.get_by_role("button", name="Be someone new").click()
    expect(page.locator("#strategy")).to_contain_text("Nothing is known")
    page.get_by_role("textbox", name="Person").fill("person-1")
    page.get_by_role("button", name="Be this person").click()
    expect(page.locator("#name")).to_have_text("person-1")
    # Of fewer than their twelve where the last ones changed nothing: the same list is not sent again.
    expect(page.locator("#strategy")).to_contain_text(re.compile(r"Made of \d+ events"))


def test_all_of_it_is_reached_with_the_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the list")).to_be_focused()
    for _ in range(5):
        page.keyboard.press("Tab")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("lamp")
    expect(page.locator("#items button")).to_have_count(12)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    if page.locator("#items").evaluate("list => list === document.activeElement"):
        page.keyboard.press("Tab")
    expect(page.locator("#items button").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#latency")).to_contain_text("ms from the click")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)])
def test_nothing_of_it_shuts_anybody_out(page: Page, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 900})
    page.locator("#items button").first.click()
    expect(page.locator("#latency")).to_contain_text("ms from the click")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot(page, f"page-{scheme}-{width}.png")
