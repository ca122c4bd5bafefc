"""The page in a real browser, on the real job: a click changes the list that one sees."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from kafka import KafkaProducer
from playwright.sync_api import Browser, Page, expect, sync_playwright

from deploy.local.stack import Stack
from deploy.local.topics import create_topics, default_topics
from tests.programs import program

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
KINDS = ("lamp", "chair", "rug")
LATELY = int(time.time() * 1000) - 3_600_000
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def fill(bootstrap_servers: str) -> None:
    """Twelve items of each kind, and thirty people who each like one kind."""
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
    for kind in KINDS:
        for number in range(12):
            item = f"{kind}-{number}"
            described = {
                "item_id": item,
                "title": f"{kind.title()} No. {number}",
                "category": [f"{kind}s"],
                "price": 10 + number,
                "currency": "EUR",
            }
            producer.send("items", json.dumps(described).encode(), key=item.encode())
    for number in range(360):
        person, kind = number % 30, KINDS[number % 30 % 3]
        event = {
            "event_id": f"before-{number}",
            "user_id": f"person-{person}",
            "event_type": "view",
            "timestamp": LATELY + number,
            "item_id": f"{kind}-{(number // 30 * 5 + person) % 12}",
        }
        producer.send("events", json.dumps(event).encode())
    producer.flush()
    producer.close()


def until_a_list_knows_the_shop(url: str, bootstrap_servers: str) -> None:
    """The first lists may have been made before the model had learned: go on sending events until one is full."""
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
    deadline = time.monotonic() + 120
    number = 0
    while len(httpx.get(f"{url}/users/nobody/recommendations").json()["items"]) < 20:
        assert time.monotonic() < deadline
        event = {"event_id": f"passing-{number}", "user_id": "passer-by", "event_type": "view", "item_id": "lamp-0"}
        producer.send("events", json.dumps(event | {"timestamp": LATELY + 1000 + number}).encode())
        producer.flush()
        number += 1
        time.sleep(0.5)
    producer.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, jars: Path) -> Iterator[str]:
    """The address of a page behind which the whole system runs."""
    program("chromium", "chromium-browser", "google-chrome")
    stack = Stack(tmp_path_factory.mktemp("page"), jars)
    try:
        stack.up(kafka_port=0, flink_port=0, metrics_port=0)
        create_topics(stack.bootstrap_servers, default_topics())
        stack.submit(Path("jobs/recommend.py"))
        fill(stack.bootstrap_servers)
        url = stack.serve()
        until_a_list_knows_the_shop(url, stack.bootstrap_servers)
        yield url
    finally:
        stack.down()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = program("chromium", "chromium-browser", "google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page of someone new, once there is a list for them. Whatever the browser complains of fails the test."""
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
    expect(page.locator("#latency")).to_contain_text("ms from the click to this list", timeout=30_000)
    assert 0 < int(page.locator("#latency").get_attribute("data-milliseconds") or 0) < 15_000
    expect(page.locator("#strategy")).to_contain_text("Made of 1 events")
    after = titles(page)
    assert after != before
    assert sum(title.startswith("Rug") for title in after[:6]) >= 5
    expect(page.locator("#list")).to_contain_text("because of “Rug No. 3”")

    page.locator("#list button").nth(1).click()
    expect(page.locator("#strategy")).to_contain_text("Made of 2 events", timeout=30_000)
    expect(page.locator("#figures dd").first).not_to_have_text("-")
    shot(page, "page.png")

    page.get_by_role("button", name="Be someone new").click()
    expect(page.locator("#strategy")).to_contain_text("Nothing is known")
    page.get_by_role("textbox", name="Person").fill("person-1")
    page.get_by_role("button", name="Be this person").click()
    expect(page.locator("#strategy")).to_contain_text("Made of 12 events")


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
    expect(page.locator("#latency")).to_contain_text("ms from the click", timeout=30_000)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)])
def test_nothing_of_it_shuts_anybody_out(page: Page, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 900})
    page.locator("#items button").first.click()
    expect(page.locator("#latency")).to_contain_text("ms from the click", timeout=30_000)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot(page, f"page-{scheme}-{width}.png")
