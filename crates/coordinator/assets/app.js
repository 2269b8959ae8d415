"use strict";

// A combobox over /v1/suggest, records through /v1/record, and the shards from /v1/status. No dependencies.

const DEBOUNCE_MS = 80;
const STATUS_MS = 1000;
const K = 10;
const RECORD_TRIES = 3;

const form = document.getElementById("form");
const input = document.getElementById("q");
const list = document.getElementById("list");
const note = document.getElementById("note");
const live = document.getElementById("live");
const numbers = new Intl.NumberFormat();

// --- completing -----------------------------------------------------------

let shown = []; // the suggestions in the list
let active = -1; // the one that is highlighted
let typed = ""; // what the person typed, which arrows must not lose
let asked = 0; // number of the newest question
let answered = 0; // number of the question whose answer is shown
let timer = 0;
let asking = null;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Splits a suggestion into what was typed and what completes it. */
function split(text, prefix) {
  const bare = prefix.trimStart();
  if (bare && text.toLowerCase().startsWith(bare.toLowerCase())) {
    return [text.slice(0, bare.length), text.slice(bare.length)];
  }
  return ["", text];
}

function option(suggestion, place, prefix, rose) {
  const item = element("li", rose ? "rose" : "");
  item.id = "option-" + place;
  item.setAttribute("role", "option");
  item.setAttribute("aria-selected", "false");
  const [typedPart, rest] = split(suggestion.display, prefix);
  const term = element("span", "term");
  if (typedPart) {
    term.append(element("span", "", typedPart), element("b", "", rest));
  } else {
    term.textContent = rest;
    if (prefix.trim() && suggestion.display !== suggestion.term) {
      term.append(element("span", "key", suggestion.term));
    }
  }
  item.append(term, element("span", "count", numbers.format(suggestion.count)));
  // mousedown, so that the field keeps its focus
  item.addEventListener("mousedown", (event) => {
    event.preventDefault();
    choose(place);
  });
  item.addEventListener("mousemove", () => highlight(place));
  return item;
}

function show(answer, prefix, risen) {
  shown = answer.suggestions;
  active = -1;
  list.replaceChildren(
    ...shown.map((suggestion, place) => option(suggestion, place, prefix, suggestion.term === risen)),
  );
  if (shown.length === 0 && prefix.trim()) {
    const nothing = element("li", "nothing", "Nobody has searched for this yet. Record it, and you are the first.");
    nothing.setAttribute("role", "option");
    nothing.setAttribute("aria-disabled", "true");
    list.replaceChildren(nothing);
  }
  input.setAttribute("aria-expanded", String(shown.length > 0));
  input.removeAttribute("aria-activedescendant");
  if (!answer.complete) {
    say("warn", `Only ${answer.shards_attempted - answer.shards_failed} of ${answer.shards_attempted} shards answered. This list may lack terms.`);
  } else if (note.dataset.kind === "warn") {
    hush();
  }
}

function close() {
  shown = [];
  active = -1;
  asked += 1; // answers on their way come too late
  list.replaceChildren();
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
}

function highlight(place) {
  const before = list.children[active];
  if (before) before.setAttribute("aria-selected", "false");
  active = place;
  const now = list.children[active];
  if (now) {
    now.setAttribute("aria-selected", "true");
    now.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", now.id);
  } else {
    input.removeAttribute("aria-activedescendant");
  }
}

async function complete(prefix, risen) {
  const question = ++asked;
  if (asking) asking.abort();
  asking = new AbortController();
  try {
    const query = new URLSearchParams({ q: prefix, k: String(K) });
    const response = await fetch("/v1/suggest?" + query, { signal: asking.signal });
    const answer = await response.json();
    // Answers may overtake each other: only one that is newer than what is shown counts.
    if (question !== asked || question < answered) return;
    answered = question;
    if (!response.ok) throw new Error(answer.message);
    show(answer, prefix, risen);
    const count = shown.length;
    if (!risen) live.textContent = count === 1 ? "1 suggestion" : `${count} suggestions`;
  } catch (error) {
    if (error.name === "AbortError" || question !== asked) return;
    close();
    say("bad", "No suggestions: " + error.message);
  }
}

input.addEventListener("input", () => {
  typed = input.value;
  clearTimeout(timer);
  timer = setTimeout(() => complete(typed), DEBOUNCE_MS);
});

input.addEventListener("focus", () => {
  if (shown.length === 0) complete(input.value);
});

input.addEventListener("blur", () => {
  clearTimeout(timer);
  close();
});

input.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (shown.length === 0) {
      complete(input.value);
      return;
    }
    // One place more than there are suggestions: the field itself, with what was typed.
    const places = shown.length + 1;
    const step = event.key === "ArrowDown" ? 1 : places - 1;
    const next = ((active + 1 + step) % places) - 1;
    highlight(next);
    input.value = next < 0 ? typed : shown[next].display;
  } else if (event.key === "Escape") {
    if (shown.length > 0) {
      event.preventDefault();
      input.value = typed;
      close();
    } else {
      input.value = typed = "";
    }
  } else if (event.key === "Enter" && active >= 0) {
    event.preventDefault();
    choose(active);
  }
});

function choose(place) {
  const suggestion = shown[place];
  if (!suggestion) return;
  input.value = typed = suggestion.display;
  record(suggestion.display);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(timer);
  if (input.value.trim()) record(input.value);
});

// --- recording ------------------------------------------------------------

const client = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
let sequence = 0;
const unsettled = new Set();

/** Records a search. The same request id in every try makes sure that it counts once. */
async function record(term) {
  const own = sequence++;
  unsettled.add(own);
  const body = JSON.stringify({
    term,
    request_id: {
      client_id: client,
      sequence: own,
      issued_at_ms: Date.now(),
      acked_below: Math.min(...unsettled),
    },
  });
  try {
    const done = await send(body);
    const times = done.count === 1 ? "once" : numbers.format(done.count) + " times";
    say("good", `Recorded. “${term.trim()}” has now been searched ${times}.`);
    // It counts already: the list that is asked for now has it in its place.
    if (document.activeElement === input) await complete(input.value, done.term);
  } catch (error) {
    say("bad", "Not recorded: " + error.message);
  } finally {
    unsettled.delete(own);
  }
}

async function send(body) {
  for (let attempt = 1; ; attempt++) {
    let problem;
    try {
      const response = await fetch("/v1/record", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      });
      const answer = await response.json();
      if (response.ok) return answer;
      problem = new Error(answer.message);
      const again = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"].includes(answer.status);
      if (!again) throw Object.assign(problem, { final: true });
    } catch (error) {
      if (error.final) throw error;
      problem = problem || new Error("the service cannot be reached");
    }
    if (attempt >= RECORD_TRIES) throw problem;
    await new Promise((resolve) => setTimeout(resolve, 200 * 2 ** attempt * (0.5 + Math.random())));
  }
}

function say(kind, text) {
  note.dataset.kind = kind;
  note.textContent = text;
  note.hidden = false;
  live.textContent = text;
}

function hush() {
  note.hidden = true;
  note.dataset.kind = "";
}

// --- the shards -----------------------------------------------------------

const cards = document.getElementById("shards");
const totals = document.getElementById("totals");
const cluster = document.getElementById("cluster");
const clusterText = document.getElementById("cluster-text");

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return (unit === 0 ? count : count.toFixed(count < 10 ? 1 : 0)) + " " + units[unit];
}

function rate(perSecond) {
  return numbers.format(perSecond < 10 ? Math.round(perSecond * 10) / 10 : Math.round(perSecond)) + "/s";
}

function fact(name, value) {
  const pair = element("div");
  pair.append(element("dt", "", name), element("dd", "", value));
  return pair;
}

// One line for each replica: where it is, whether it leads, and how far it is behind.
function replicaList(shard, nodes) {
  const list = element("ul", "replicas");
  for (const replica of shard.replicas) {
    const node = nodes.find((at) => at.node_id === replica.node_id);
    const line = element("li");
    line.dataset.role = replica.role;
    line.append(element("span", "node", node ? node.name : "node " + replica.node_id), element("span", "role", replica.role));
    if (!replica.serving && replica.reason) line.append(element("span", "why", replica.reason));
    else if (replica.entries_behind > 0) line.append(element("span", "behind", numbers.format(replica.entries_behind) + " behind"));
    list.append(line);
  }
  return list;
}

function card(shard, next, nodes) {
  const item = element("li", "card");
  item.dataset.state = shard.state;
  const title = element("h3");
  const dot = element("span", "dot");
  dot.setAttribute("aria-hidden", "true");
  const from = shard.shard_key === "" ? "the start" : shard.shard_key;
  const to = next ? next.shard_key : "the end";
  title.append(dot, element("span", "", "Shard " + shard.shard_id), element("span", "range", `${from} … ${to}`), element("span", "state", shard.state));
  const facts = element("dl");
  facts.append(
    fact("terms", numbers.format(shard.terms)),
    fact("memory", bytes(shard.memory_bytes)),
    fact("records", rate(shard.records_per_second)),
    fact("reads", rate(shard.reads_per_second)),
  );
  item.append(title, facts);
  if (shard.replicas.length > 1) item.append(replicaList(shard, nodes));
  if (shard.state !== "serving" && shard.reason) item.append(element("p", "why", shard.reason));
  return item;
}

function showStatus(status) {
  const shards = status.shards;
  cards.replaceChildren(...shards.map((shard, place) => card(shard, shards[place + 1], status.nodes)));
  const sum = (field) => shards.reduce((total, shard) => total + shard[field], 0);
  totals.textContent = `${numbers.format(sum("terms"))} terms, ${bytes(sum("memory_bytes"))}`;
  const bad = shards.filter((shard) => shard.state !== "serving");
  cluster.dataset.state = bad.length === 0 && status.metadata_available ? "serving" : (bad[0] || { state: "unreachable" }).state;
  clusterText.textContent = bad.length === 0 ? "all shards serve" : `${shards.length - bad.length} of ${shards.length} shards serve`;
  document.getElementById("version").textContent = "version " + status.version;
}

async function watch() {
  for (;;) {
    if (!document.hidden) {
      try {
        const response = await fetch("/v1/status", { signal: AbortSignal.timeout(5000) });
        showStatus(await response.json());
      } catch {
        cluster.dataset.state = "unreachable";
        clusterText.textContent = "no connection";
      }
    }
    await new Promise((resolve) => setTimeout(resolve, STATUS_MS));
  }
}

// --- the start ------------------------------------------------------------

// A browser that has this as a search engine comes with what was searched.
const asker = new URLSearchParams(location.search).get("q");
if (asker) {
  input.value = typed = asker;
  history.replaceState(null, "", "/");
  record(asker);
}
watch();
if (document.activeElement === input) complete(input.value);
