// The dashboard: polls /api/status for the state of the run, listens to /events for its history.
// Everything shown came over the network (model output included), so it only ever goes through textContent.
import { createChart } from "/charts.js";

const MAX_LOG_LINES = 300;
const STATUS_INTERVAL_MS = 1000;

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
const whole = new Intl.NumberFormat("en");
const byId = (id) => document.getElementById(id);

function number(value) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && size < 0.001) return value.toExponential(1);
  return size < 1000 ? String(Number(value.toPrecision(3))) : compact.format(value);
}
const percent = (value) => `${number(value * 100)} %`;
const seconds = (value) => (value < 0.1 ? `${number(value * 1000)} ms` : `${number(value)} s`);

/** The curves of each stage, in reading order. */
const CHARTS = {
  sft: [
    ["loss", "Loss", "training loss, nats per token", number],
    ["eval_loss", "Held-out loss", "loss on held-out rows", number],
    ["lr", "Learning rate", "after warm-up and decay", number],
    ["grad_norm", "Gradient norm", "before clipping", number],
    ["perf/tokens_per_second", "Tokens per second", "trained tokens", number],
    ["perf/allreduce_seconds", "All-reduce", "time in the all-reduce per step", seconds],
  ],
  reward: [
    ["loss", "Loss", "−log σ(chosen − rejected), starts at ln 2", number],
    ["accuracy", "Accuracy", "share of pairs ranked right", percent],
    ["eval_accuracy", "Held-out accuracy", "on held-out pairs", percent],
    ["lr", "Learning rate", "after warm-up and decay", number],
    ["perf/tokens_per_second", "Tokens per second", "trained tokens", number],
    ["perf/allreduce_seconds", "All-reduce", "time in the all-reduce per step", seconds],
  ],
  ppo: [
    ["objective/scores", "Score", "mean reward-model score of the answers", number],
    ["objective/kl", "KL to the reference", "per answer, nats", number],
    ["loss/policy_avg", "Policy loss", "clipped", number],
    ["loss/value_avg", "Value loss", "clipped", number],
    ["policy/entropy_avg", "Entropy", "per token, nats", number],
    ["policy/clipfrac_avg", "Clipped tokens", "share clipped in the policy loss", percent],
    ["val/response_tokens", "Answer length", "tokens", number],
    ["perf/tokens_per_second", "Tokens per second", "generated", number],
    ["perf/allreduce_seconds", "All-reduce", "time in the all-reduce per iteration", seconds],
  ],
};

// ── curves ──────────────────────────────────────────────────────────────────

/** stage → metric name → [unit, value][] */
const history = { sft: new Map(), reward: new Map(), ppo: new Map() };
let chosenStage;
let followedStage;
let drawnCharts = new Map();

function record(event) {
  const curves = history[event.stage];
  if (curves === undefined) return;
  for (const [name, value] of Object.entries(event.metrics)) {
    if (!curves.has(name)) curves.set(name, []);
    const points = curves.get(name);
    // A resumed run does some units again: the later value counts.
    while (points.length > 0 && points.at(-1)[0] >= event.completedUnits) points.pop();
    points.push([event.completedUnits, value ?? NaN]);
  }
  followedStage = event.stage;
  scheduleDraw();
}

let isDrawScheduled = false;
function scheduleDraw() {
  if (isDrawScheduled) return;
  isDrawScheduled = true;
  requestAnimationFrame(() => {
    isDrawScheduled = false;
    drawCharts();
  });
}

let drawnStage;
function drawCharts() {
  const stage = chosenStage ?? followedStage;
  if (stage === undefined) return;
  drawStageButtons(stage);
  const wanted = CHARTS[stage].filter(([name]) => history[stage].has(name));
  if (stage !== drawnStage || wanted.length !== drawnCharts.size) {
    drawnStage = stage;
    drawnCharts = new Map(
      wanted.map(([name, title, hint, format]) => [name, createChart({ title, hint, format })]),
    );
    byId("charts").replaceChildren(...[...drawnCharts.values()].map((chart) => chart.element));
  }
  byId("charts-empty").hidden = wanted.length > 0;
  for (const [name, chart] of drawnCharts) chart.draw(history[stage].get(name));
}

function drawStageButtons(shownStage) {
  const stages = Object.keys(history).filter((stage) => history[stage].size > 0);
  const buttons = stages.map((stage) => {
    const button = make("button", stage);
    button.type = "button";
    button.setAttribute("aria-pressed", String(stage === shownStage));
    button.addEventListener("click", () => {
      // The running stage is followed to the next one; an earlier one stays until another is chosen.
      chosenStage = stage === followedStage ? undefined : stage;
      scheduleDraw();
    });
    return button;
  });
  byId("stage-buttons").replaceChildren(...(stages.length > 1 ? buttons : []));
}

// ── events ──────────────────────────────────────────────────────────────────

function onEvent(event) {
  switch (event.type) {
    case "progress":
      return record(event);
    case "samples":
      return showSamples(event);
    case "message":
      return log(event, event.level, event.text);
    case "run-started":
      return log(event, "info", `run ${event.runId} started`);
    case "stage-started":
      return log(event, "info", `${event.stage} started: ${whole.format(event.totalUnits)} ${event.unit}s`);
    case "stage-finished":
      return log(event, "info", `${event.stage} finished in ${duration(event.elapsedMs)}`);
    case "worker-joined":
      return log(event, "info", `${event.workerId} joined (pid ${event.pid} on ${event.host})`);
    case "worker-lost":
      return log(event, "warn", `${event.workerId} lost: ${event.reason}`);
    case "worker-restarted":
      return log(event, "warn", `${event.workerId} restarted (${event.restarts}): ${event.reason}`);
    case "checkpoint":
      return log(event, "info", `checkpoint ${event.path} (${compact.format(event.bytes)}B)`);
    case "run-finished":
      return log(
        event,
        event.outcome === "succeeded" ? "info" : "error",
        `run ${event.outcome} after ${duration(event.elapsedMs)}${event.error ? `: ${event.error}` : ""}`,
      );
  }
}

function log(event, level, text) {
  const list = byId("log");
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const line = make("li", "", level);
  line.append(
    make("time", new Date(event.timeMs).toLocaleTimeString("en-GB")),
    make("span", printable(text)),
  );
  list.append(line);
  while (list.childElementCount > MAX_LOG_LINES) list.firstElementChild.remove();
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

function showSamples(event) {
  byId("samples-when").textContent = `${event.stage} ${event.completedUnits}`;
  byId("samples-empty").hidden = true;
  const cards = event.samples.map((sample) => {
    const card = make("article", "", "sample");
    card.append(
      make("p", printable(sample.prompt), "prompt"),
      make("p", printable(sample.response), "response"),
      make("p", `score ${number(sample.score)}`, "score"),
    );
    return card;
  });
  byId("samples").replaceChildren(...cards);
}

/** Control and bidirectional characters as visible escapes, so that text cannot disguise itself. Newlines stay. */
function printable(text) {
  return text.replace(
    /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

let instance;
const source = new EventSource("/events");
source.addEventListener("message", (message) => {
  // Ids are INSTANCE-SEQUENCE; a new instance is a restarted coordinator, which tells its history again.
  const sender = message.lastEventId.split("-")[0];
  if (instance !== sender) byId("log").replaceChildren();
  instance = sender;
  onEvent(JSON.parse(message.data));
});

// ── status ──────────────────────────────────────────────────────────────────

async function refreshStatus() {
  const connection = byId("connection");
  try {
    const response = await fetch("/api/status", { signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    showStatus(await response.json());
    connection.textContent = "live";
    connection.dataset.state = "live";
  } catch {
    connection.textContent = "coordinator not reachable";
    connection.dataset.state = "lost";
  }
  setTimeout(refreshStatus, STATUS_INTERVAL_MS);
}

function showStatus(status) {
  document.title = `${status.name} · Troupe`;
  byId("run-name").textContent = status.name;
  byId("stage").textContent = status.stage === null ? "no stage running" : status.stage;
  byId("units").textContent =
    status.stage === null
      ? ""
      : `${status.unit} ${whole.format(status.completedUnits)} of ${whole.format(status.totalUnits)}`;
  byId("bar").max = status.totalUnits || 1;
  byId("bar").value = status.completedUnits;
  const facts = {
    Elapsed: duration(status.elapsedMs),
    "Policy version": whole.format(status.policyVersion),
    "Optimizer step": whole.format(status.optimizerStep),
    "Learner group": `generation ${status.generation}`,
    Coordinator: `epoch ${status.coordinatorEpoch}`,
    Run: status.runId,
  };
  if (status.isPaused) facts.Paused = "too few learners";
  byId("facts").replaceChildren(
    ...Object.entries(facts).map(([term, value]) => {
      const group = make("div");
      group.append(make("dt", term), make("dd", value));
      return group;
    }),
  );
  showLedger(status.ledger);
  showWorkers(status.workers);
}

function showLedger(ledger) {
  const isBalanced = ledger.admitted === ledger.trained + ledger.dropped + ledger.buffered;
  const term = (value, name) => {
    const span = make("span", "", "term");
    span.append(make("b", whole.format(value)), make("small", name));
    return span;
  };
  const sign = (text, className) => make("span", text, className ?? "sign");
  byId("ledger").replaceChildren(
    term(ledger.admitted, "admitted"),
    sign(isBalanced ? "=" : "≠"),
    term(ledger.trained, "trained"),
    sign("+"),
    term(ledger.dropped, "dropped"),
    sign("+"),
    term(ledger.buffered, "buffered"),
    make("span", isBalanced ? "balanced" : "out of balance", isBalanced ? "pill ok" : "pill bad"),
  );
  const list = (counts) =>
    Object.entries(counts)
      .filter(([, count]) => count > 0)
      .map(([reason, count]) => `${reason} ${whole.format(count)}`)
      .join(", ");
  const parts = [
    ["dropped", list(ledger.droppedByReason)],
    ["given up before admission", list(ledger.refusedByReason)],
  ];
  byId("ledger-detail").textContent = parts
    .filter(([, text]) => text !== "")
    .map(([name, text]) => `${name}: ${text}`)
    .join(" · ");
}

function showWorkers(workers) {
  byId("workers-empty").hidden = workers.length > 0;
  byId("workers").replaceChildren(
    ...workers.map((worker) => {
      const row = make("tr");
      const name = make("th", worker.workerId);
      name.scope = "row";
      const state = make("td");
      state.append(make("span", worker.state, `pill ${worker.state}`));
      row.append(
        name,
        state,
        make("td", worker.activity),
        make("td", whole.format(worker.policyVersion), "number"),
        make("td", `${(worker.lastHeartbeatAgeMs / 1000).toFixed(1)} s ago`, "number"),
        make("td", whole.format(worker.restarts), "number"),
        make("td", `${worker.host} pid ${worker.pid}`),
        make("td", worker.metricsAddress),
      );
      return row;
    }),
  );
}

function duration(ms) {
  const total = Math.floor(ms / 1000);
  const [hours, minutes, rest] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${rest} s` : `${rest} s`;
}

function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className !== "") element.className = className;
  return element;
}

void refreshStatus();
