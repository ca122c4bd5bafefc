"""The page in a real browser, on the real job: a click changes the list that one sees."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from kafka import KafkaProducer
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from deploy.local.stack import Stack
from schema.behaviour import Drift, FunnelStats, PersonSegment, Trend, encode_behaviour
from schema.campaign import Offer, encode_offer
from schema.experiment import ArmResult, ExperimentResults, encode_results
from tests.panels import MEASURED
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
    # That a rule is refused is looked for.
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and "/desk/rules/" not in message.location["url"]
            else None
        ),
    )
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
    for _ in range(6):
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


@pytest.fixture
def desk(page: Page, whole: Stack) -> Page:
    page.goto(f"{whole.serving_url}/desk")
    expect(page.locator("#experiments")).to_contain_text("No experiment runs.")
    return page


def put_rule(page: Page, **rule: object) -> None:
    page.get_by_label("A rule, as JSON").fill(json.dumps(rule))
    page.get_by_role("button", name="Put it in force").click()


def test_from_the_desk_rules_and_decisions_reach_the_lists(desk: Page, whole: Stack) -> None:
    def listed() -> list[str]:
        asked = httpx.get(f"{whole.serving_url}/users/person-1/recommendations", params={"k": 36})
        return [item["item_id"] for item in asked.json()["items"]]

    put_rule(desk, rule_id="lamps", action="pin", position="first", items="item.category[0] == 'lamps'")
    expect(desk.locator("#said")).to_contain_text("Refused")
    expect(desk.locator("#said")).to_contain_text("position")
    put_rule(desk, rule_id="no-lamps", action="review", items="item.category.exists(c, c == 'lamps')", note="by hand")
    expect(desk.locator("#rules")).to_contain_text("no-lamps")
    expect(desk.locator("#review-queue tbody tr")).to_have_count(12)
    desk.get_by_role("button", name="Allow lamp-3", exact=True).click()
    expect(desk.locator("#review-queue tbody tr")).to_have_count(11)
    expect(desk.locator("#review-decisions")).to_contain_text("lamp-3")
    event = {"event_id": "at-the-desk", "user_id": "person-1", "event_type": "view", "item_id": "chair-3"}
    httpx.post(f"{whole.serving_url}/events", json=event)
    deadline = time.monotonic() + 90
    while any(item.startswith("lamp") and item != "lamp-3" for item in listed()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    shot(desk, "desk.png")
    desk.get_by_role("button", name="Take back no-lamps").click()
    expect(desk.locator("#review-queue")).to_contain_text("Nothing waits.")
    desk.get_by_role("button", name="Take back the decision about lamp-3").click()
    expect(desk.locator("#review-decisions")).to_contain_text("Nothing has been decided.")


def test_the_desk_shows_what_the_other_jobs_say(desk: Page, whole: Stack) -> None:
    producer = KafkaProducer(bootstrap_servers=whole.bootstrap_servers)
    experiment = {"experiment_id": "shelf", "arms": {"a": {"share": 0.5}, "b": {"share": 0.5}}, "control": "a"}
    arms = {
        "a": ArmResult(1000, 0.05),
        "b": ArmResult(1010, 0.07, difference=0.02, low=0.005, high=0.035, p_value=0.01),
    }
    result = encode_results(ExperimentResults("shelf", 1, arms, False))
    trend, funnel = Trend("item", "rug-1", 0, 3_600_000, 40, 9, 3), FunnelStats("rugs", 1, 90, 20, 5, 25, 8)
    segment = encode_behaviour(PersonSegment("person-1", "loyal", False, 1))
    drift = encode_behaviour(Drift("person-1", 86_400_000, 80_000_000, 1.5, ["rugs", "lamps"]))
    campaign = {"campaign_id": "spring", "from": "2026-03-01T00:00:00Z", "until": "2026-04-01T00:00:00Z"}
    campaign |= {"budget": 50, "cost": 2.5, "segments": ["loyal"]}
    offer = encode_offer(Offer("person-1", "spring", 4, 1_772_323_200_000, 0.9, None, spent=10))
    for topic, key, value in (
        ("experiments", "shelf", json.dumps(experiment).encode()),
        ("experiment-results", "shelf", result),
        ("trends", "rug-1", msgspec.json.encode(trend)),
        ("funnel-stats", "rugs", msgspec.json.encode(funnel)),
        ("segments", "person-1", segment),
        ("drift", "person-1", drift),
        ("campaigns", "spring", json.dumps(campaign).encode()),
        ("offers", "person-1", offer),
    ):
        producer.send(topic, value, key=key.encode())
    producer.flush()
    expect(desk.locator("#experiments")).to_contain_text("more than the control")
    expect(desk.locator("#trends")).to_contain_text("rug-1")
    expect(desk.locator("#funnel-stats tbody tr")).to_have_count(1)
    expect(desk.locator("#segments")).to_contain_text("loyal")
    expect(desk.locator("#drift tbody tr")).to_contain_text("rugs, lamps")
    expect(desk.locator("#campaigns tbody tr")).to_contain_text("loyal5010")
    told = httpx.get(f"{whole.serving_url}/metrics").text
    assert {name for name in MEASURED["serving"] if f"headrace_{name}{{" in told} == MEASURED["serving"]
    assert 'headrace_funnel{category="rugs",step="any_carted"} 25.0' in told
    for scheme, width in (("light", 1200), ("dark", 360)):
        desk.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        desk.set_viewport_size({"width": width, "height": 900})
        found = Axe().run(desk)
        assert found.violations_count == 0, found.generate_report()
        assert desk.evaluate("document.documentElement.scrollWidth") <= width
    for topic, key in (("experiments", "shelf"), ("experiment-results", "shelf")):
        producer.send(topic, None, key=key.encode())
    producer.close()
    expect(desk.locator("#experiments")).to_contain_text("No experiment runs.")
    desk.get_by_role("button", name="End spring").click()
    expect(desk.locator("#campaigns")).to_contain_text("No campaign runs.")


@pytest.mark.parametrize("path", ["", "desk"])
def test_where_the_server_asks_for_its_key_the_page_does(browser: Browser, whole: Stack, path: str) -> None:
    keyed = browser.new_page()

    def guard(route: Route) -> None:
        if route.request.headers.get("x-api-key") == "secret":
            route.continue_()
        else:
            route.fulfill(status=401, json={"status_code": 401, "detail": "The key is missing or wrong."})

    keyed.route(re.compile(r"/(categories|items|desk/.*)(\?.*)?$"), guard)
    keyed.goto(f"{whole.serving_url}/{path}")
    expect(keyed.get_by_role("dialog", name="API key")).to_be_visible()
    keyed.get_by_label("This server asks for its key").fill("secret")
    keyed.get_by_role("button", name="Use it").click()
    expect(keyed.locator("#items button, #rules p").first).to_be_visible()
    expect(keyed.get_by_role("dialog")).to_have_count(0)
    keyed.close()
