// The desk: rules, what is to be reviewed, experiments, and what people do. Looks again every two seconds.

import { $, call, element } from "./common.js";

const EVERY_MS = 2000, MOST = 200;
const shown = new Map();
let unread = false;
let wake = () => {};

function moment(milliseconds) {
  return milliseconds ? new Date(milliseconds).toLocaleString() : "";
}

function day(milliseconds) {
  return new Date(milliseconds).toISOString().slice(0, 10);
}

function number(value, digits = 3) {
  return value == null ? "" : value.toLocaleString(undefined, { maximumFractionDigits: digits });
}

// Only where what is shown has changed, so that focus and selection stay where they are.
function show(id, rows, heads, cells, none) {
  const state = JSON.stringify(rows);
  if (shown.get(id) === state) return;
  shown.set(id, state);
  if (!rows.length) {
    $(id).replaceChildren(element("p", none));
    return;
  }
  const grid = element("table");
  const head = element("tr");
  head.append(...heads.map((text) => text ? element("th", text, { scope: "col" }) : element("td")));
  const top = element("thead");
  top.append(head);
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr");
    line.append(...cells(row).map((cell) => {
      const box = element("td");
      box.append(cell);
      return box;
    }));
    body.append(line);
  }
  grid.append(top, body);
  // A wide table scrolls by itself, with the keyboard too.
  const frame = element("div", "", { className: "wide", tabIndex: 0, role: "group" });
  const heading = $(id).previousElementSibling;
  frame.setAttribute("aria-label", heading.textContent);
  frame.append(grid);
  $(id).replaceChildren(frame);
}

function button(text, about, act) {
  const made = element("button", text, { type: "button" });
  made.setAttribute("aria-label", `${text} ${about}`);
  made.addEventListener("click", act);
  return made;
}

function buttons(...all) {
  const made = element("span", "", { className: "buttons" });
  made.append(...all);
  return made;
}

async function send(method, name, id, message, done) {
  try {
    const answer = await call(`desk/${name}/${encodeURIComponent(id)}`, {
      method, ...(message ? { headers: { "Content-Type": "application/json" }, body: JSON.stringify(message) } : {}),
    });
    $("said").textContent = answer.ok ? done : `Refused: ${(await answer.json()).detail}`;
    setTimeout(wake, 300);
    return answer.ok;
  } catch (error) {
    $("said").textContent = `Not sent: ${error.message}`;
    return false;
  }
}

function decide(itemId, decision) {
  const message = { item_id: itemId, decision, by: "the desk" };
  return send("PUT", "review-decisions", itemId, message, `${itemId}: ${decision}.`);
}

const ARGUMENTS = ["amount", "position", "share", "by", "at_most", "at_least"];
function does(rule) {
  const given = ARGUMENTS.filter((name) => rule[name] != null).map((name) => `${name} ${rule[name]}`);
  return [rule.action, ...given].join(", ");
}

function concerns(rule) {
  const named = rule.item_ids ? [`${rule.item_ids.length} items by id`] : [];
  return [...named, ...(rule.items && rule.items !== "true" ? [rule.items] : [])].join("; ") || "all items";
}

function meant(campaign) {
  const said = campaign.price_sensitive == null ? [] : [campaign.price_sensitive ? "price-sensitive" : "not price-sensitive"];
  return [...(campaign.segments || []), ...said].join(", ") || "all";
}

function results(experiments, found) {
  const by = new Map(found.map((result) => [result.experiment_id, result]));
  return experiments.flatMap((one) => Object.entries(one.arms).map(([arm, given]) => {
    const result = by.get(one.experiment_id);
    return { id: one.experiment_id, arm, share: given.share, control: arm === one.control,
      stopped: [...(one.stopped || []), ...(result?.stopped || [])].includes(arm), alarm: result?.sample_ratio_mismatch || false,
      ...(result?.arms[arm] || {}) };
  }));
}

function verdict(row) {
  if (row.alarm) return "Sizes do not fit: trust nothing here";
  if (row.stopped) return "stopped";
  if (row.control) return "control";
  if (row.people == null) return "no result yet";
  if (row.low > 0) return "more than the control";
  return row.high < 0 ? "less than the control" : "not told apart yet";
}

async function look() {
  try {
    const answer = await call(`desk/all?limit=${MOST}`);
    if (!answer.ok) throw new Error(answer.statusText);
    const held = await answer.json();
    if (unread) $("said").textContent = "";
    unread = false;
    show("rules", held.rules, ["Rule", "Does", "For", "When", "Note", ""], (rule) => [
      rule.rule_id, does(rule), concerns(rule),
      [rule.when && rule.when !== "true" ? rule.when : "always", rule.from ? `from ${rule.from}` : "", rule.until ? `until ${rule.until}` : ""].filter(Boolean).join(", "),
      rule.note || "",
      buttons(
        button("Edit", rule.rule_id, () => { $("rule").value = JSON.stringify(rule, null, 1); $("rule").focus(); }),
        button("Take back", rule.rule_id, () => send("DELETE", "rules", rule.rule_id, null, `${rule.rule_id} is taken back.`)),
      ),
    ], "No rule is in force.");
    show("review-queue", held["review-queue"], ["Item", "Title", "Kept off lists by", "Since", ""], (entry) => [
      entry.item_id, entry.title, entry.rules.join(", "), moment(entry.flagged_at),
      buttons(
        button("Allow", entry.item_id, () => decide(entry.item_id, "allow")),
        button("Forbid", entry.item_id, () => decide(entry.item_id, "forbid")),
      ),
    ], "Nothing waits.");
    show("review-decisions", held["review-decisions"], ["Item", "Decision", "By", "Note", ""], (one) => [
      one.item_id, one.decision, one.by || "", one.note || "",
      button("Take back", `the decision about ${one.item_id}`, () => send("DELETE", "review-decisions", one.item_id, null, "The decision is taken back.")),
    ], "Nothing has been decided.");
    show("experiments", results(held.experiments, held["experiment-results"]), ["Experiment", "Arm", "Share", "People", "Mean", "Difference", "From", "To", "p", ""], (row) => [
      row.id, row.arm, number(row.share), number(row.people), number(row.mean, 4), row.control ? "" : number(row.difference, 4),
      row.control ? "" : number(row.low, 4), row.control ? "" : number(row.high, 4), row.control ? "" : number(row.p_value, 4), verdict(row),
    ], "No experiment runs.");
    const offered = new Map(held.offers.map((offer) => [offer.campaign_id, offer]));
    show("campaigns", held.campaigns, ["Campaign", "From", "Until", "For", "Budget", "Spent", "Offers", "Newest", ""], (one) => {
      const newest = offered.get(one.campaign_id);
      const offers = newest?.number || 0;
      return [one.campaign_id, one.from, one.until, meant(one), number(one.budget), number(newest?.spent || 0), number(offers),
        newest ? moment(newest.at) : "", button("End", one.campaign_id, () => send("DELETE", "campaigns", one.campaign_id, null, `${one.campaign_id} is ended.`))];
    }, "No campaign runs.");
    show("trends", held.trends, ["Hour until", "Kind", "Id", "Times", "People", "The hour before"], (trend) => [
      moment(trend.window_end), trend.kind, trend.id, number(trend.actions), number(trend.people), number(trend.before),
    ], "Nothing is known: the job of behaviour writes this.");
    show("funnel-stats", held["funnel-stats"], ["Day", "Category", "Viewed", "Then carted", "Then bought", "Carted at all", "Bought at all"], (one) => [
      day(one.day), one.category, number(one.viewed), number(one.strict_carted), number(one.strict_purchased), number(one.any_carted), number(one.any_purchased),
    ], "Nothing is known: the job of behaviour writes this.");
    show("drift", held.drift, ["When", "Person", "Since", "Now takes"], (one) => [
      moment(one.detected_at), one.user_id, moment(one.since), one.categories.join(", "),
    ], "Nothing is known: the job of behaviour writes this.");
    show("segments", Object.entries(held.segments), ["Segment", "People"], ([name, people]) => [name, number(people)],
      "Nothing is known: the job of behaviour writes this.");
  } catch (error) {
    unread = true;
    $("said").textContent = `The desk cannot be read: ${error.message}`;
  }
}

$("rule-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  let rule = null;
  try {
    rule = JSON.parse($("rule").value);
  } catch (error) {
    $("said").textContent = `Not JSON: ${error.message}`;
    return;
  }
  if (!rule?.rule_id) $("said").textContent = "The rule has no rule_id.";
  else if (await send("PUT", "rules", rule.rule_id, rule, `${rule.rule_id} is sent.`)) $("rule").value = "";
});

(async () => {
  for (;;) {
    await look();
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, EVERY_MS);
    });
  }
})();
