// The page: a shop window, one person's list as it comes, and the pulse. No library, no build.

import { $, call, element } from "./common.js";

const SHOWN = 12;
const WAIT_MS = 15000;
let user = "";
let stopList = () => {};
let shownList = [];
let listId = null;
// Clicks whose list has not come: event id to the moment of the click.
const clicks = new Map();

// Server-sent events by fetch, which, unlike EventSource, can send the key. Returns what stops it.
function follow(path, heard, state = () => {}) {
  const over = new AbortController();
  (async () => {
    while (!over.signal.aborted) {
      let reader = null;
      try {
        const answer = await call(path, { signal: over.signal });
        if (!answer.ok) throw new Error(answer.statusText);
        state(true);
        reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let rest = "";
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          const parts = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
          rest = parts.pop();
          for (const part of parts) {
            const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim());
            if (data.some(Boolean)) heard(JSON.parse(data.join("\n")));
          }
        }
      } catch (error) {
        if (over.signal.aborted) return;
      } finally {
        reader?.cancel().catch(() => {});
      }
      state(false);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  })();
  return () => over.abort();
}

const titles = new Map();
function titleOf(itemId) {
  return titles.get(itemId) || itemId;
}

function price(item) {
  return item.price == null ? "" : ` · ${item.price.toLocaleString()} ${item.currency || ""}`;
}

function row(item, note, list) {
  const line = element("li");
  const button = element("button", titleOf(item.item_id), { type: "button" });
  if (note) button.append(element("small", note));
  button.dataset.item = item.item_id;
  button.addEventListener("click", () => take(item.item_id, list));
  line.append(button);
  return line;
}

async function take(itemId, fromList) {
  const eventId = crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`;
  const event = { event_id: eventId, user_id: user, event_type: "view", item_id: itemId };
  if (fromList && listId) event.list_id = listId;
  clicks.set(eventId, performance.now());
  $("latency").textContent = `Clicked “${titleOf(itemId)}” …`;
  setTimeout(() => {
    if (clicks.delete(eventId)) $("latency").textContent = `The list stayed as it was, for ${WAIT_MS / 1000} seconds.`;
  }, WAIT_MS);
  const answer = await call("events", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(event),
  });
  if (!answer.ok) {
    clicks.delete(eventId);
    $("latency").textContent = `The event was refused: ${(await answer.json()).detail}`;
  }
}

function why(item) {
  const names = {
    cooccurrence: "people have it together", factorization: "people alike have it", linear: "goes with the history",
    popularity: "popular now", history: "seen before", content: "alike", new: "new, and alike",
    sequence: "often comes next",
  };
  const ruled = item.rules ? `, by the shop's rule ${item.rules.join(", ")}` : "";
  const reason = (names[item.source] || item.source) + ruled;
  const [kind, name] = (item.shared || "").split(/:(.*)/s);
  const shared = kind ? ` (same ${kind}${name ? ` ${name.replaceAll(">", " › ")}` : ""})` : "";
  return item.because ? `${reason}, because of “${titleOf(item.because)}”${shared}` : reason;
}

async function nameCauses(items) {
  const unknown = [...new Set(items.map((item) => item.because))].filter((id) => id && !titles.has(id));
  await Promise.all(unknown.map(async (id) => {
    titles.set(id, id);
    const answer = await call(`items/${encodeURIComponent(id)}`);
    if (answer.ok) titles.set(id, (await answer.json()).title || id);
  }));
}

let newest = 0;
async function showList(list) {
  const turn = ++newest;
  for (const item of list.items) if (item.title) titles.set(item.item_id, item.title);
  const started = clicks.get(list.event_id);
  const took = started === undefined ? null : Math.round(performance.now() - started);
  await nameCauses(list.items.slice(0, SHOWN));
  // What took longer to name must not be painted over what came after it.
  if (list.user_id !== user || turn !== newest) return;
  listId = list.list_id;
  const before = new Map(shownList.map((item, rank) => [item.item_id, rank]));
  const focused = document.activeElement?.closest?.("#list button")?.dataset.item;
  const items = list.items.slice(0, SHOWN);
  $("list").replaceChildren(...items.map((item, rank) => {
    const line = row(item, why(item) + price(item), true);
    if (shownList.length && (before.get(item.item_id) ?? Infinity) > rank) {
      line.classList.add("rose");
      setTimeout(() => line.classList.remove("rose"), 1500);
    }
    return line;
  }));
  if (focused) [...$("list").querySelectorAll("button")].find((button) => button.dataset.item === focused)?.focus();
  shownList = items;
  const whose = {
    default: "Nothing is known of this person yet: what is popular.", session: "Of this session alone.",
    personal: `Made of ${list.profile_version} events of this person.`, popular: "What is popular.",
  };
  $("strategy").textContent = items.length ? whose[list.strategy] || list.strategy : "There is no list yet.";
  if (took !== null) {
    for (const [eventId, at] of clicks) if (at <= started) clicks.delete(eventId);
    $("latency").textContent = `${took} ms from the click to this list`;
    $("latency").dataset.milliseconds = took;
  }
}

function be(name) {
  user = name;
  $("user").value = $("name").textContent = name;
  history.replaceState(null, "", `?user=${encodeURIComponent(name)}`);
  $("latency").textContent = "";
  shownList = [];
  stopList();
  stopList = follow(`users/${encodeURIComponent(name)}/stream`, showList);
}

let asked = 0;
async function showItems() {
  const turn = ++asked;
  const search = new URLSearchParams({ q: $("query").value, limit: "60" });
  if ($("category").value) search.set("category", $("category").value);
  const { items } = await (await call(`items?${search}`)).json();
  if (turn !== asked) return;
  for (const item of items) titles.set(item.item_id, item.title || item.item_id);
  $("items").replaceChildren(...items.map((item) => row(item, item.category.join(" › ") + price(item), false)));
  if (!items.length) $("items").append(element("li", "No item is found."));
}

async function showCategories() {
  const { categories } = await (await call("categories")).json();
  for (const name of categories) $("category").append(element("option", name, { value: name }));
}

const FIGURES = [
  ["events/s", (beat) => beat.events_per_second, (value) => value.toFixed(1)],
  ["lists/s", (beat) => beat.lists_per_second, (value) => value.toFixed(1)],
  ["freshness p50, ms", (beat) => beat.freshness_ms_p50, (value) => value.toFixed(0)],
  ["freshness p99, ms", (beat) => beat.freshness_ms_p99, (value) => value.toFixed(0)],
  ["hit rate at 20", (beat) => beat.hit, (value) => value.toFixed(3)],
  ["model version", (beat) => beat.model_version, (value) => value.toLocaleString()],
  ["model's age, s", (beat) => beat.model_age_ms && beat.model_age_ms / 1000, (value) => value.toFixed(1)],
];
const beats = [];

function plot(values) {
  const known = values.filter((value) => value != null);
  const low = Math.min(0, ...known), high = Math.max(...known, low + 1e-9);
  const places = values.map((value, at) => (value == null ? null : `${at},${30 - (28 * (value - low)) / (high - low)}`));
  return places.filter(Boolean).join(" ");
}

function showBeat(beat) {
  beats.push(beat);
  if (beats.length > 300) beats.shift();
  FIGURES.forEach(([, valueOf, text], n) => {
    const box = $("figures").children[n];
    const value = valueOf(beat);
    box.querySelector("dd").textContent = value == null ? "-" : text(value);
    const line = box.querySelector("polyline");
    line.parentElement.setAttribute("viewBox", `0 0 ${Math.max(beats.length - 1, 1)} 32`);
    line.setAttribute("points", plot(beats.map(valueOf)));
  });
}

for (const [name] of FIGURES) {
  const box = element("div");
  const value = element("dd", "-");
  box.append(element("dt", name), value);
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("aria-hidden", "true");
  drawing.append(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
  const plotted = element("dd");
  plotted.append(drawing);
  box.append(plotted);
  $("figures").append(box);
}

$("person").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("user").value.trim()) be($("user").value.trim());
});
$("new-person").addEventListener("click", () => be(`visitor-${Math.random().toString(36).slice(2, 8)}`));
$("find").addEventListener("submit", (event) => event.preventDefault());
let typing = 0;
$("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(showItems, 150);
});
$("category").addEventListener("change", showItems);

be(new URLSearchParams(location.search).get("user") || `visitor-${Math.random().toString(36).slice(2, 8)}`);
showItems();
showCategories();
follow("pulse/stream", showBeat, (well) => { $("down").hidden = well; });
