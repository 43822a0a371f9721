"use strict";
const byId = id => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const { keys, transitions, relations, limits, tracks } = data;
const MAX_COMPATIBLE = 50, SMOOTH_COST = 1, MAX_UNDO = 100, MAX_ORDERED = 60;

// Everything that comes from files is set as text, never as markup.
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}
function button(className, text, label, onClick) {
  const element = make("button", className, text);
  if (label) element.setAttribute("aria-label", label);
  element.addEventListener("click", onClick);
  return element;
}
function chip(key) {
  const element = make("span", "chip", key < 0 ? "–" : keys[key].camelot);
  if (key >= 0) element.style.background = keys[key].color; else element.style.color = "inherit";
  return element;
}
function bar(share, key) {
  const outer = make("span", "bar"), inner = make("i");
  inner.style.width = 100 * share + "%";
  inner.style.background = key < 0 ? "var(--faint)" : keys[key].color;
  outer.append(inner);
  return outer;
}
function clock(seconds) {
  const whole = Math.floor(seconds), rest = String(whole % 60).padStart(2, "0"), minutes = Math.floor(whole / 60);
  return minutes < 60 ? minutes + ":" + rest : Math.floor(minutes / 60) + ":" + String(minutes % 60).padStart(2, "0") + ":" + rest;
}
// Without case and accents: file names on a Mac store accents as separate characters, and few people type them.
function withoutAccents(text) {
  return /^[\0-\x7f]*$/.test(text) ? text.toLowerCase() : text.normalize("NFKD").replace(/\p{Mn}/gu, "").toLowerCase();
}
const counted = (count, noun = "track") => count.toLocaleString("en") + " " + noun + (count === 1 ? "" : "s");
const percent = share => Math.round(100 * share) + "%";
const signed = number => (number > 0 ? "+" : number < 0 ? "−" : "") + Math.abs(number);
const bpmText = bpm => bpm === null ? "" : String(Math.round(10 * bpm) / 10);
const label = track => track.artist ? track.artist + " – " + track.name : track.name;

// A hash of 53 bits (two multiplicative hashes of 32 bits), which names a track in the saved set.
function hash(text) {
  let high = 0x2545f491, low = 0x9e3779b9;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    high = Math.imul(high ^ code, 2654435761);
    low = Math.imul(low ^ code, 1597334677);
  }
  high ^= low >>> 15;
  low ^= high >>> 13;
  return (4294967296 * (2097151 & low) + (high >>> 0)).toString(36);
}

tracks.forEach((track, number) => {
  track.number = number;
  track.file = track.path.split("/").pop();
  track.name = track.title || track.file;
  track.heading = withoutAccents(track.title + " " + track.artist);
  track.words = track.heading + " " + withoutAccents(track.genre + " " + track.path + " " + track.status);
  track.isAnalyzed = track.detected !== null;
  track.differs = track.isAnalyzed && track.detected !== track.key;
  track.relation = track.tag >= 0 && track.detected >= 0 && track.isAnalyzed ? relations.between[track.tag][track.detected] : null;
  track.move = null;
});
// Computed when first needed: a page of many tracks opens faster.
const idOf = track => track.id ??= hash(track.uri ?? track.path);
const sortName = track => track.sortName ??= withoutAccents(track.name).replace(/\d+/g, digits => digits.padStart(12, "0"));

// Transitions.
// The cost of a transition, as in stonecli/mixing/transitions.py; the constants are in the data.
// `percent` is the change of tempo after halving or doubling. A value that is unknown costs nothing and is null.
function transition(one, other) {
  const knows = one.cents !== null && other.cents !== null, hasKeys = one.out >= 0 && other.in >= 0;
  let best = null;
  for (const shift of knows && hasKeys ? [0, -1, 1] : [0]) {
    const name = hasKeys ? transitions.between[one.out][keys[other.in].shifted[shift + 1]] : null;
    const cents = knows ? other.cents - one.cents - 100 * shift : null;
    const cost = (hasKeys ? transitions.costs[name] : 0) + (knows ? Math.max(0, Math.abs(cents) - limits.freeCents) * limits.perCent : 0);
    if (best === null) best = { name, cents, cost, percent: null, isHalf: false, clashes: false, mixes: false };
    else if (cost < best.cost) { best.name = name; best.cents = cents; best.cost = cost; }
  }
  if (one.bpm !== null && other.bpm !== null) {
    const octaves = Math.log2(other.bpm / one.bpm), size = Math.abs(octaves);
    const ratioCost = distance => Math.min(limits.maxTempo, 100 * (2 ** Math.abs(distance) - 1) * limits.perPercent);
    const same = ratioCost(size), half = ratioCost(size - 1) + limits.halfTempo;
    best.isHalf = half < same;
    best.percent = 100 * (2 ** (best.isHalf ? octaves - Math.sign(octaves) : octaves) - 1);
    best.cost += Math.min(same, half);
  }
  best.clashes = best.name !== null && transitions.names[best.name] === "clash";
  best.mixes = best.name !== null && !best.clashes && best.cost <= limits.compatible;
  return best;
}
const moveName = move => move.name === null ? "key unknown" : transitions.names[move.name];
const keyCost = (key, other) => transitions.costs[transitions.between[key][other]];
// The keys that are compatible with `key`, the closest first. Between two tracks, tuning and tempo count as well.
function compatibleKeys(key) {
  return keys.map((_, index) => index)
    .filter(other => transitions.names[transitions.between[key][other]] !== "clash" && keyCost(key, other) <= limits.compatible)
    .sort((one, other) => keyCost(key, one) - keyCost(key, other) || keys[one].position - keys[other].position);
}

// The search. A word that names a key finds only that key: "2B" does not find 12B, nor "Am" C#m. It also finds titles and
// artists that contain it as a whole word, as does "a minor". "~8A" finds the keys that are compatible with 8A. Any other
// word may be part of a word. If the whole query, such as "a minor thing", is part of a title or artist, it is a title.
const spellings = new Map();
keys.forEach((key, index) => key.spellings.forEach(spelling => spellings.set(spelling, index)));
const JOINT = "\u0001";  // between the two words of a key in the query
function keyNamed(word) {
  const [tonic, mode] = word.split(JOINT);
  return spellings.get(mode ? tonic + (mode.startsWith("min") ? "m" : "") : word.replace(/^0/, ""));
}
function isWhole(words) {
  const escaped = words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\s+/g, "\\s+").replace(JOINT, "[\\s-]*");
  const whole = new RegExp("(^|[^\\p{L}\\p{N}])" + escaped + "($|[^\\p{L}\\p{N}#])", "u");
  return track => whole.test(track.heading);
}
// The tests that a track must pass, and the key after "~", or null.
function parsed(text) {
  const query = withoutAccents(text).replace(/♯/g, "#").replace(/♭/g, "b").trim().replace(/~\s+/g, "~")
    .replace(/(^|\s|~)([a-g][#b]?)[\s-]*(minor|min|major|maj)(?=\s|$)/g, (_, before, tonic, mode) => before + tonic + JOINT + mode);
  const words = query.split(/\s+/).filter(Boolean);
  if (words.length > 1 && query.includes(JOINT) && !query.includes("~") && tracks.some(isWhole(query))) return { tests: [isWhole(query)], near: null };
  let near = null;
  const tests = words.map(word => {
    if (word.startsWith("~")) {
      const key = keyNamed(word.slice(1));
      if (key === undefined) return track => track.words.includes(word);
      near = key;
      const compatible = new Set(compatibleKeys(key));
      return track => compatible.has(track.in);
    }
    const key = keyNamed(word);
    if (key === undefined) return track => track.words.includes(word);
    const whole = isWhole(word);
    return track => track.key === key || whole(track);
  });
  return { tests, near };
}

// The state of the view.
let shown = tracks, sorted = null, isDown = false, near = null, selected = null, pinned = null;
let set = [], past = [], lost = [];
const chosenKeys = new Set();
const table = byId("table"), space = byId("space");
let rowHeight = 44;

// The list: only the visible rows are in the document, and only the columns that fit.
const hasBpm = tracks.some(track => track.bpm !== null);
const COLUMNS = [
  { id: "key", name: "Key", width: 88, value: track => track.key < 0 ? null : keys[track.key].position },
  { id: "track", name: "Track", width: 150, value: sortName },
  { id: "mix", name: "Mix", width: 96, has: () => reference() !== null, value: track => track.move === null ? null : track.move.cost },
  { id: "bpm", name: "BPM", width: 46, kind: "number", has: () => hasBpm, value: track => track.bpm },
  { id: "strip", name: "Over time", width: 110, has: () => tracks.some(track => track.segments.length), value: track => track.segments.length || null, down: true },
  { id: "tag", name: "Tag key", width: 58, has: () => tracks.some(track => track.old !== null), value: track => track.tag < 0 ? track.old && 100 : keys[track.tag].position },
  { id: "relation", name: "Relation", width: 68, has: () => tracks.some(track => track.relation !== null), value: track => track.relation, down: true },
  { id: "confidence", name: "Confidence", width: 96, has: () => tracks.some(track => track.isAnalyzed), value: track => track.confidence, down: true },
  { id: "tuning", name: "Tuning", width: 52, kind: "number", has: () => tracks.some(track => track.cents !== null), value: track => track.cents },
  { id: "length", name: "Length", width: 54, kind: "number", has: () => tracks.some(track => track.seconds !== null), value: track => track.seconds },
  { id: "genre", name: "Genre", width: 96, has: () => tracks.some(track => track.genre), value: track => withoutAccents(track.genre) || null },
  { id: "status", name: "Status", width: 92, has: () => new Set(tracks.map(track => track.status)).size > 1, value: track => track.status },
  { id: "add", name: "", width: 30 },
];
for (const column of COLUMNS) if (column.has && column.id !== "mix") { const has = column.has(); column.has = () => has; }
const PRIORITIES = ["key", "track", "add", "bpm", "mix", "relation", "tag", "confidence", "tuning", "length", "genre", "strip", "status"];
const isTouched = matchMedia("(pointer: coarse)").matches;
let columns = COLUMNS;
const isVisible = id => columns.some(column => column.id === id);

function fitColumns() {
  const narrow = table.clientWidth < 500, gap = narrow ? 10 : 12;
  const width = column => narrow && column.id === "key" ? 46 : (narrow || isTouched) && column.id === "add" ? 40 : column.width;
  let room = table.clientWidth - (narrow ? 24 : 28);
  const visible = new Set();
  for (const id of PRIORITIES) {
    const column = COLUMNS.find(each => each.id === id);
    if (column.has && !column.has()) continue;
    if (narrow && (id === "mix" || id === "tag" || id === "relation" || room < width(column))) continue;
    if (room < width(column)) break;
    room -= width(column) + gap;
    visible.add(id);
  }
  columns = COLUMNS.filter(column => visible.has(column.id));
  document.documentElement.style.setProperty("--columns", columns.map(column => column.id === "track" ? "minmax(0, 1fr)" : width(column) + "px").join(" "));
  document.body.classList.toggle("narrow", narrow);
  rowHeight = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
  table.setAttribute("aria-colcount", columns.length);
  byId("names").replaceChildren(...columns.map(column => {
    const cell = make("span", column.kind || "");
    cell.setAttribute("role", "columnheader");
    if (!column.value) { cell.setAttribute("aria-label", "Set"); return cell; }
    if (column.id === sortColumn()?.id) cell.setAttribute("aria-sort", isDown ? "descending" : "ascending");
    const sorter = button("", column.name, "", () => sortBy(column));
    sorter.tabIndex = 0;
    cell.append(sorter);
    return cell;
  }));
}
const sortColumn = () => COLUMNS.find(column => column.id === (sorted ?? (pinned !== null || near !== null ? "mix" : "")));
function sortBy(column) {
  isDown = sortColumn()?.id === column.id ? !isDown : Boolean(column.down);
  sorted = column.id;
  update();
}

// What the tracks are compared with: the pinned or the selected track, or the key after "~" in the search.
function reference() {
  const track = pinned ?? selected;
  if (track !== null && track.key >= 0) return track;
  return near === null ? null : { out: near, cents: null, bpm: null };
}
function compareAll() {
  const from = reference();
  for (const track of tracks) track.move = from === null || track === from || track.key < 0 ? null : transition(from, track);
}

const FILTERS = ["low", "high", "relation", "status"];
// The number in a field; null if it is empty or no number.
function bound(id) {
  const text = byId(id).value.trim().replace(",", "."), number = Number(text);
  byId(id).setAttribute("aria-invalid", String(!(number >= 0)));
  return text === "" || !(number >= 0) ? null : number;
}
const RELATION_TESTS = {
  "": () => true,
  different: track => track.relation !== null && relations.names[track.relation] !== "same",
  unknown: track => track.relation === null,
};
function update({ keepScroll = false } = {}) {
  const query = parsed(byId("search").value), low = bound("low"), high = bound("high");
  const relation = byId("relation").value, status = byId("status").value;
  near = query.near;
  compareAll();
  const isRelated = RELATION_TESTS[relation] ?? (track => track.relation !== null && relations.names[track.relation] === relation);
  shown = tracks.filter(track => query.tests.every(matches => matches(track)) && (!chosenKeys.size || chosenKeys.has(track.key))
    && (low === null || (track.bpm !== null && track.bpm >= low)) && (high === null || (track.bpm !== null && track.bpm <= high))
    && isRelated(track) && (!status || track.status === status)
    && (pinned === null || track === pinned || (track.move !== null && track.move.mixes)));
  const column = sortColumn();
  if (column) {
    const values = new Map(shown.map(track => [track, track === pinned && column.id === "mix" ? -1 : column.value(track)])), sign = isDown ? -1 : 1;
    shown.sort((one, other) => {
      const first = values.get(one), second = values.get(other);
      if (first === null || second === null) return (first === null) - (second === null) || one.number - other.number;  // missing values are last
      return (first < second ? -sign : first > second ? sign : 0) || one.number - other.number;
    });
  }
  byId("count").textContent = shown.length === tracks.length ? counted(tracks.length) : shown.length.toLocaleString("en") + " of " + tracks.length.toLocaleString("en");
  byId("show").textContent = "Show " + counted(shown.length);
  byId("reset").hidden = !(FILTERS.some(id => byId(id).value) || byId("search").value || chosenKeys.size || pinned);
  byId("more-filters").textContent = "Filters" + (FILTERS.some(id => byId(id).value) ? " •" : "");
  byId("nothing").hidden = shown.length > 0;
  byId("nothing").textContent = !tracks.length ? "No tracks on this page." : "No track matches. " + (byId("reset").hidden ? "" : "Clear the filters to see all tracks.");
  byId("pin").hidden = pinned === null;
  if (pinned !== null) byId("pin").firstChild.textContent = "Mixes with " + label(pinned) + (pinned.key < 0 ? "" : " (" + keys[pinned.out].camelot + ")");
  table.setAttribute("aria-rowcount", shown.length + 1);
  fitColumns();
  space.style.height = shown.length * rowHeight + "px";
  if (!keepScroll) table.scrollTop = 0;
  drawRows();
  rememberView();
}

const CELLS = {
  key(track) {
    const cell = make("span");
    cell.append(chip(track.key));
    if (!document.body.classList.contains("narrow")) cell.append(make("span", "", track.key < 0 ? "" : keys[track.key].musical));
    return cell;
  },
  track(track) {
    const cell = make("span", "name", track.name), mix = !isVisible("mix") && track.move?.mixes ? moveName(track.move) + " · " : "";
    cell.title = label(track);
    cell.append(make("small", track.error ? "error" : "", track.error || mix + (track.artist || track.path)));
    return cell;
  },
  mix(track) {
    const from = reference();
    if (track === from) return make("span", "faint", pinned ? "this track" : "selected");
    const move = track.move;
    if (move === null) return make("span");
    if (move.mixes) return make("span", "", moveName(move));
    const cell = make("span", "faint", move.clashes ? "–" : Math.abs(move.percent ?? 0) * limits.perPercent > 1 ? "tempo " + signed(Math.round(move.percent)) + "%" : "tuning");
    if (move.clashes) cell.setAttribute("aria-label", "clash");
    return cell;
  },
  bpm: track => make("span", "number", bpmText(track.bpm)),
  strip(track) {
    const line = make("span", "strip");
    if (!track.segments.length) line.style.background = "none";
    for (const [start, end, key] of track.segments) {
      const block = make("span");
      block.style.left = 100 * start / track.seconds + "%";
      block.style.width = 100 * (end - start) / track.seconds + "%";
      block.style.background = keys[key].color;
      line.append(block);
    }
    line.setAttribute("aria-hidden", "true");
    return line;
  },
  tag(track) {
    const cell = make("span", "faint", track.old ?? "");
    cell.title = track.old ?? "";
    return cell;
  },
  relation(track) {
    if (track.relation === null) return make("span");
    const name = relations.names[track.relation];
    return make("span", name === "clash" ? "clash" : name === "same" ? "faint" : "", name);
  },
  confidence(track) {
    const cell = make("span");
    if (track.differs) {
      cell.title = "Detected by stone; the file has another key";
      if (track.detected >= 0) cell.append(chip(track.detected), " " + percent(track.confidence)); else cell.append("no key");
    } else if (track.confidence !== null) cell.append(bar(track.confidence, track.key), percent(track.confidence));
    return cell;
  },
  tuning: track => make("span", "number", track.cents === null ? "" : signed(Math.round(track.cents))),
  length: track => make("span", "number", track.seconds === null ? "" : clock(track.seconds)),
  genre(track) {
    const cell = make("span", "faint", track.genre);
    cell.title = track.genre;
    return cell;
  },
  status: track => make("span", "faint", track.status),
  add(track) {
    const cell = make("span"), position = set.indexOf(track);
    if (track.uri === null) return cell;
    const plus = make("button", "plus" + (position < 0 ? "" : " in"), position < 0 ? "+" : String(position + 1));
    plus.tabIndex = -1;  // the keyboard adds with Enter
    plus.setAttribute("aria-label", position < 0 ? "Add " + track.name + " to the set" : track.name + " is number " + (position + 1) + " of the set");
    cell.append(plus);
    return cell;
  },
};
function row(track, index) {
  const line = make("div", "row cells");
  line.style.top = index * rowHeight + "px";
  line.id = "track" + track.number;
  line.dataset.number = track.number;
  line.setAttribute("role", "row");
  line.setAttribute("aria-rowindex", index + 2);  // the list is longer than the document; row 1 is the header
  line.setAttribute("aria-selected", String(track === selected));
  if (track.move !== null && track.move.mixes) {
    line.classList.add("mixes");
    line.setAttribute("aria-description", "mixes: " + moveName(track.move));
  }
  for (const column of columns) {
    const cell = CELLS[column.id](track);
    cell.setAttribute("role", "gridcell");
    line.append(cell);
  }
  return line;
}
function drawRows() {
  const first = Math.max(0, Math.floor(table.scrollTop / rowHeight) - 8);
  const last = Math.min(shown.length, Math.ceil((table.scrollTop + table.clientHeight) / rowHeight) + 8);
  space.replaceChildren(...shown.slice(first, last).map((track, index) => row(track, first + index)));
  // The rows never have the focus; this tells a screen reader which one is active.
  if (selected && byId("track" + selected.number)) table.setAttribute("aria-activedescendant", "track" + selected.number);
  else table.removeAttribute("aria-activedescendant");
}
let isWaiting = false;
table.addEventListener("scroll", () => {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => { isWaiting = false; drawRows(); });
});
function relayout() {
  fitColumns();
  space.style.height = shown.length * rowHeight + "px";
  drawRows();
}
const trackOf = event => tracks[event.target.closest?.(".row")?.dataset.number];
space.addEventListener("click", event => {
  const track = trackOf(event);
  if (!track || wasDragged) return;
  if (event.target.closest(".plus")) toggleInSet(track); else select(track);
});
space.addEventListener("dblclick", event => {
  const track = trackOf(event);
  if (track && !event.target.closest(".plus")) addToSet(track);
});
table.addEventListener("keydown", event => {
  if (event.target !== table || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Enter" && shown.includes(selected)) { event.preventDefault(); addToSet(selected); return; }  // a filter may hide it
  if (event.key === " " && selected) { event.preventDefault(); playOrPause(); return; }
  const page = Math.max(1, Math.floor(table.clientHeight / rowHeight) - 2);
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
  if (!step || !shown.length) return;
  event.preventDefault();
  const index = Math.min(shown.length - 1, Math.max(0, shown.indexOf(selected) + step));
  select(shown[index], { scroll: true });
});
function reveal(track) {
  const index = shown.indexOf(track);
  if (index < 0) return;
  const top = index * rowHeight, height = table.clientHeight - byId("names").offsetHeight;
  table.scrollTop = Math.min(top, Math.max(table.scrollTop, top + rowHeight - height));
}

// The wheel.
const NAMESPACE = "http://www.w3.org/2000/svg";
function drawn(tag, attributes, text) {
  const element = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
function sector(center, inner, outer, turn) {
  const half = Math.PI / 12;
  const point = (radius, angle) => (center + radius * Math.sin(angle)).toFixed(1) + " " + (center - radius * Math.cos(angle)).toFixed(1);
  return `M${point(inner, turn - half)} L${point(outer, turn - half)} A${outer} ${outer} 0 0 1 ${point(outer, turn + half)} L${point(inner, turn + half)} A${inner} ${inner} 0 0 0 ${point(inner, turn - half)}Z`;
}
const turnOf = key => (key.wheel - 8) * Math.PI / 6;
const groups = [], outlines = drawn("g", { id: "outlines", "aria-hidden": "true" });
function drawWheel() {
  const wheel = byId("wheel"), counts = new Array(keys.length).fill(0);
  tracks.forEach(track => { if (track.key >= 0) counts[track.key] += 1; });
  keys.forEach((key, index) => {
    const [inner, outer] = key.minor ? [54, 101] : [101, 148], turn = turnOf(key);
    const group = drawn("g", { tabindex: -1, role: "button", "aria-pressed": "false", "aria-label": key.camelot + " " + key.musical + ", " + counted(counts[index]), "data-key": index });
    if (!counts[index]) group.classList.add("none");
    const x = 150 + (inner + outer) / 2 * Math.sin(turn), y = 150 - (inner + outer) / 2 * Math.cos(turn);
    group.append(drawn("path", { fill: key.color, d: sector(150, inner, outer, turn) }),
      drawn("text", { x, y, class: "camelot" }, key.camelot), drawn("text", { x, y: y + 12 }, counts[index] ? counts[index].toLocaleString("en") : key.musical));
    group.addEventListener("click", () => choose(index));
    group.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(index); return; }
      const turned = { ArrowRight: 1, ArrowLeft: -1 }[event.key], ring = event.key === "ArrowUp" || event.key === "ArrowDown";
      if (!turned && !ring) return;
      event.preventDefault();
      const wanted = turned ? (key.wheel - 1 + turned + 12) % 12 + 1 : key.wheel, minor = ring ? event.key === "ArrowDown" : key.minor;
      focusKey(keys.findIndex(other => other.wheel === wanted && other.minor === minor));
    });
    groups.push(group);
    wheel.append(group);
    byId("logo").append(drawn("path", { fill: key.color, d: sector(12, key.minor ? 4 : 8, key.minor ? 8 : 12, turn) }));
  });
  groups[keys.findIndex(key => key.camelot === "8A")].setAttribute("tabindex", 0);
  wheel.append(outlines, drawn("text", { x: 150, y: 154, class: "sum" }), drawn("text", { x: 150, y: 172, class: "word" }));
}
// The outlines lie above all sectors, whose own borders their neighbors would cover.
function drawOutlines() {
  outlines.replaceChildren(...groups.filter(group => group.classList.contains("smooth") || group.getAttribute("aria-pressed") === "true").map(group => {
    const path = group.firstChild.cloneNode();
    path.classList.toggle("own", group.classList.contains("own"));
    return path;
  }));
}
function focusKey(index) {  // one stop of the Tab key; the arrow keys move within the wheel
  groups.forEach((group, each) => group.setAttribute("tabindex", each === index ? 0 : -1));
  groups[index].focus();
}
function choose(index) {
  if (index === null) chosenKeys.clear();
  else if (!chosenKeys.delete(index)) chosenKeys.add(index);
  pressKeys();
  update();
}
function pressKeys() {
  groups.forEach((group, key) => group.setAttribute("aria-pressed", String(chosenKeys.has(key))));
  drawOutlines();
  byId("wheel").classList.toggle("filtered", chosenKeys.size > 0);
  byId("clear").hidden = !chosenKeys.size;
}
byId("clear").addEventListener("click", () => choose(null));
const known = tracks.filter(track => track.key >= 0).length;
function light() {
  const from = reference(), lit = new Set(from === null ? [] : compatibleKeys(from.out)), wheel = byId("wheel");
  wheel.classList.toggle("lit", lit.size > 0);
  groups.forEach((group, key) => {
    const mixes = lit.has(key);
    group.classList.toggle("mixes", mixes);
    group.classList.toggle("smooth", mixes && keyCost(from.out, key) <= SMOOTH_COST);
    group.classList.toggle("own", mixes && key === from.out);
    if (mixes) group.setAttribute("aria-description", transitions.names[transitions.between[from.out][key]]);
    else group.removeAttribute("aria-description");
  });
  drawOutlines();
  wheel.querySelector(".sum").textContent = from === null ? known.toLocaleString("en") : keys[from.out].camelot;
  wheel.querySelector(".word").textContent = from === null ? "with a key" : from.key !== undefined && from.key !== from.out ? "at its end" : keys[from.out].musical;
  const legend = byId("legend");
  if (from === null) legend.replaceChildren("Select a track to see what mixes with it, or a key to filter.");
  else {
    const mixing = tracks.filter(track => track.move?.mixes).length;
    if (mixing) legend.replaceChildren(make("b", "", counted(mixing)), mixing === 1 ? " mixes" : " mix", " with it. Outlined keys mix smoothly.");
    else legend.replaceChildren("Nothing on this page mixes with it.");
  }
}

// The selected track.
function timeline(parts, track, className) {
  const line = make("div", "time " + className);
  for (const [start, end, key, confidence] of parts) {
    if (key < 0) continue;
    const block = make("span", "", className ? "" : keys[key].camelot);
    block.style.left = 100 * start / track.seconds + "%";
    block.style.width = 100 * (end - start) / track.seconds + "%";
    block.style.background = keys[key].color;
    if (className) { block.style.opacity = 0.25 + 0.75 * confidence; block.style.border = 0; block.style.padding = 0; }
    block.title = clock(start) + " – " + clock(end) + "  " + keys[key].camelot + " " + keys[key].musical;
    line.append(block);
  }
  return line;
}
function howToAnalyze(object) {
  return [make("code", "", "stone tag --overwrite"), " without ", make("code", "", "--write-tags"), " analyzes " + object + " and changes no file."];
}
function paragraph(...parts) {
  const element = make("p", "path");
  element.append(...parts);
  return element;
}
function playOrPause() {
  const audio = byId("more").querySelector("audio");
  if (audio) if (audio.paused) audio.play().catch(() => {}); else audio.pause();
}
function player(track, line) {
  const audio = make("audio");
  audio.controls = true;
  audio.preload = "none";
  audio.src = track.uri;
  audio.addEventListener("error", () => audio.replaceWith(paragraph("The browser cannot play this file from here.")));
  if (line) {
    const hand = make("i");
    hand.hidden = true;
    line.append(hand);
    line.title = "Click to play from here";
    audio.addEventListener("timeupdate", () => { hand.hidden = false; hand.style.left = 100 * audio.currentTime / track.seconds + "%"; });
    line.addEventListener("click", event => {
      const box = line.getBoundingClientRect(), start = (event.clientX - box.left) / box.width * track.seconds;
      if (audio.readyState) audio.currentTime = start;
      else audio.addEventListener("loadedmetadata", () => { audio.currentTime = start; }, { once: true });
      audio.play().catch(() => {});
    });
  }
  return audio;
}
function select(track, { scroll = false } = {}) {
  const hadReference = reference() !== null;
  selected = track;
  compareAll();
  light();
  if (hadReference !== (reference() !== null)) fitColumns();
  if (sortColumn()?.id === "mix" && pinned === null && near === null) update({ keepScroll: true });
  if (scroll) reveal(track);
  drawMore();
  drawRows();
  markChosen();
  rememberView();
}
function drawMore() {
  const more = byId("more"), track = selected;
  more.querySelector("audio")?.pause();
  more.replaceChildren();
  more.hidden = track === null;
  if (track === null) return;
  const close = button("", "×", "Close", leave);
  close.id = "close";
  more.append(close, make("h2", "", track.name), make("div", "", track.artist));
  const facts = make("div", "facts");
  if (track.key >= 0) facts.append(chip(track.key), make("span", "", keys[track.key].name + ", Open Key " + keys[track.key].open));
  if (track.bpm !== null) facts.append(make("span", "faint", bpmText(track.bpm) + " BPM"));
  if (track.seconds !== null) facts.append(make("span", "faint", clock(track.seconds)));
  if (track.genre) facts.append(make("span", "faint", track.genre));
  if (facts.children.length) more.append(facts);
  if (track.error) more.append(make("p", "error", track.error));
  if (track.key < 0) {
    if (track.status === "unreadable key") more.append(make("p", "", "stone cannot read the key that the file names."));
    else if (!track.error) more.append(make("p", "", "No key."));
  }
  if (track.uri !== null || track.key >= 0) {
    const actions = make("div", "actions");
    if (track.uri !== null) actions.append(button("quiet to-set", "", "", () => toggleInSet(track)));
    if (track.key >= 0) actions.append(button("quiet", pinned === track ? "Show all tracks" : "Only what mixes", "", () => pin(pinned === track ? null : track)));
    more.append(actions);
  }
  const line = track.segments.length ? timeline(track.segments, track, "") : null;
  if (line) {
    more.append(make("h3", "", "Key over time"), line);
    if (track.windows.length) more.append(timeline(track.windows, track, "thin"));
    const axis = make("div", "axis");
    axis.append(make("span", "", "0:00"), make("span", "", clock(track.seconds)));
    more.append(axis);
    if (track.in !== track.key || track.out !== track.key)
      more.append(make("div", "", "Starts in " + keys[track.in].camelot + ", ends in " + keys[track.out].camelot));
  }
  if (track.uri !== null) more.append(player(track, line));
  if (track.differs) {
    const detected = make("p", "other");
    if (track.detected >= 0) detected.append("Detected: ", chip(track.detected), " " + keys[track.detected].name + ", " + percent(track.confidence));
    else detected.append("Detected: no key");
    more.append(detected);
  }
  if (track.old !== null)
    more.append(make("div", "", (track.collection ? "Key in the rekordbox XML: " : track.status === "written" ? "Key in the file before: " : "Key in the file: ") + track.old + (track.relation === null ? "" : " (" + relations.names[track.relation] + ")")));
  if (track.other !== null) more.append(make("div", "", "Two different keys: the other one is " + track.other));
  if (track.cents !== null) more.append(make("div", "faint", "A = " + (440 * 2 ** (track.cents / 1200)).toFixed(1) + " Hz (" + signed(Math.round(track.cents)) + " cents)"));
  if (track.key >= 0 && !track.isAnalyzed) more.append(paragraph("stone has not analyzed this track: the key is the one in " + (track.collection ? "the rekordbox XML. " : "its tags. "), ...howToAnalyze("it")));
  if (track.key >= 0) {
    const isCompared = reference() === track, found = [];  // then each track has its move
    for (const other of tracks) {
      const move = other === track ? null : isCompared ? other.move : transition(track, other);
      if (move?.mixes) found.push({ other, move });
    }
    if (found.length) more.append(make("h3", "", "Mixes with " + counted(found.length) + (found.length > MAX_COMPATIBLE ? ", the best " + MAX_COMPATIBLE : "")));
    else if (tracks.length > 1) more.append(make("h3", "", "No other track on this page mixes with it"));
    const worst = Float64Array.from(found, ({ move }) => move.cost).sort()[MAX_COMPATIBLE - 1] ?? Infinity;  // faster than to sort all
    const best = found.filter(({ move }) => move.cost <= worst).sort((one, next) => one.move.cost - next.move.cost || one.other.number - next.other.number);
    more.append(...best.slice(0, MAX_COMPATIBLE).map(({ other, move }) => compatibleLine(other, move)));
  }
  if (track.alternatives.length) {
    const list = make("div", "candidates");
    for (const [key, share] of [[track.detected, track.confidence], ...track.alternatives])
      list.append(chip(key), make("span", "", keys[key].musical), bar(share, key), make("span", "number", percent(share)));
    more.append(make("h3", "", "Candidates"), list);
  }
  if (track.key >= 0) {
    const list = make("div", "keys");
    for (const key of compatibleKeys(track.out)) {
      const element = chip(key);
      element.title = keys[key].musical + ": " + transitions.names[transitions.between[track.out][key]];
      list.append(element);
    }
    more.append(make("h3", "", "Compatible keys"), list);
  }
  more.append(make("h3", "", "File"), make("div", "path", track.path));
  more.scrollTop = 0;
  markAdded();
}
function compatibleLine(other, move) {
  const line = make("div", "near"), open = button("open", other.name, "", () => {
    select(other, { scroll: true });
    byId("close").focus();  // the pressed button is gone, and the keyboard focus with it
  });
  open.append(make("small", "", [other.artist, moveName(move), tempoText(move)].filter(Boolean).join(" · ")));
  line.append(chip(other.in), open, make("span", "number", bpmText(other.bpm)));
  if (other.uri !== null) {
    const plus = button("plus", "+", "", () => toggleInSet(other));
    plus.dataset.number = other.number;
    line.append(plus);
  }
  return line;
}
// The buttons of the selected track and of those that mix with it say whether a track is in the set.
function markAdded() {
  const own = byId("more").querySelector(".to-set");
  if (own) own.textContent = set.includes(selected) ? "Remove from set" : "Add to set";
  byId("more").querySelectorAll(".plus").forEach(plus => {
    const track = tracks[plus.dataset.number], position = set.indexOf(track);
    plus.classList.toggle("in", position >= 0);
    plus.textContent = position < 0 ? "+" : position + 1;
    plus.setAttribute("aria-label", position < 0 ? "Add " + track.name + " to the set" : "Remove " + track.name + " from the set");
  });
}
function leave() {
  const focused = byId("more").contains(document.activeElement);
  select(null);
  if (focused) table.focus({ preventScroll: true });  // otherwise the keyboard focus would move to the top of the page
}
function pin(track) {
  pinned = track;
  sorted = null;
  isDown = false;
  update();
  light();
  drawMore();
  if (track !== null && getComputedStyle(byId("more")).position === "fixed") select(null);  // on a phone the list is behind it
}
byId("pin").lastChild.addEventListener("click", () => pin(null));

// The set.
function tempoText(move) {
  if (move.percent === null) return "";
  const rounded = Math.round(10 * move.percent) / 10;
  return (move.isHalf ? "half or double tempo" + (rounded ? " " : "") : "") + (rounded ? signed(rounded) + "%" : move.isHalf ? "" : "same tempo");
}
function moveText(move) {
  const cents = move.cents !== null && Math.abs(move.cents) >= limits.freeCents ? Math.abs(Math.round(move.cents)) + " cents " + (move.cents > 0 ? "sharper" : "flatter") : "";
  return [moveName(move), tempoText(move), cents].filter(Boolean).join(" · ");
}
const isWarning = move => move.clashes || move.cost > limits.compatible;
function announce(text) {
  const line = byId("announcement");
  line.textContent = text;
  line.classList.add("shown");
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => line.classList.remove("shown"), 2500);
}
function changeSet(next, text, nextLost = lost) {
  past.push([set, lost]);
  if (past.length > MAX_UNDO) past.shift();
  set = next;
  lost = nextLost;
  showSet();
  announce(text);
}
function showSet() {
  rememberSet();
  drawSet();
  drawRows();
  markAdded();
}
function positionText(track) {
  const position = set.indexOf(track), move = position > 0 ? transition(set[position - 1], track) : null;
  return "number " + (position + 1) + " of " + set.length + (move && isWarning(move) ? ", warning: " + moveText(move) : "");
}
function insert(track, index) {
  if (track.uri === null) { announce(track.name + " cannot be read, so it cannot be in the set"); return; }
  const from = set.indexOf(track), next = set.filter(other => other !== track);
  next.splice(index - (from >= 0 && from < index ? 1 : 0), 0, track);
  if (from >= 0 && next.indexOf(track) === from) return;
  changeSet(next, "");
  announce(track.name + (from < 0 ? ": added, " : ": moved, ") + positionText(track));
}
function addToSet(track) {
  if (set.includes(track)) announce(track.name + " is already " + positionText(track)); else insert(track, set.length);
}
const removeFromSet = track => changeSet(set.filter(other => other !== track), track.name + ": removed");
const toggleInSet = track => set.includes(track) ? removeFromSet(track) : addToSet(track);
function moveInSet(track, step) {
  const index = set.indexOf(track);
  if (index + step < 0 || index + step >= set.length) return;
  insert(track, index + step + (step > 0 ? 1 : 0));
  focusItem(track);
}
function focusItem(track) {
  byId("item" + track?.number)?.querySelector(".open").focus();
}
function undoSet() {
  if (!past.length) return;
  [set, lost] = past.pop();
  showSet();
  announce("Undone: " + counted(set.length) + " in the set");
}
function item(track, index, start) {
  const line = make("li");
  line.id = "item" + track.number;
  if (index > 0) {
    const before = set[index - 1], move = transition(before, track), warns = isWarning(move);
    const text = (move.clashes ? keys[before.out].camelot + " → " + keys[track.in].camelot + " " : "") + moveText(move);
    const between = make("div", "between" + (warns ? " clash" : ""), (warns ? "⚠ " : "↓ ") + text);
    between.setAttribute("aria-label", (warns ? "Warning: " : "Transition: ") + text);
    between.setAttribute("role", "note");
    line.append(between);
  }
  const box = make("div", "item"), handle = make("span", "handle", String(index + 1));
  box.dataset.number = track.number;
  handle.setAttribute("aria-hidden", "true");
  handle.title = "Drag to move";
  const open = button("open", track.name, "", () => { if (!wasDragged) { select(track); reveal(track); } });
  open.setAttribute("aria-describedby", "item-keys");
  open.title = label(track);
  open.append(make("small", "", (track.seconds === null ? "" : clock(start) + " · ") + (track.artist || track.file)));
  const moves = make("div", "moves");
  moves.append(button("quiet", "↑", "Move " + track.name + " up", () => moveInSet(track, -1)), button("quiet", "↓", "Move " + track.name + " down", () => moveInSet(track, 1)));
  box.append(handle, chip(track.key), open, make("span", "number faint", bpmText(track.bpm)),
    button("act", "×", "Remove " + track.name + " from the set", () => { const next = set[index + 1] ?? set[index - 1]; removeFromSet(track); focusItem(next); }), moves);
  line.append(box);
  return line;
}
function drawSet() {
  const order = byId("order"), total = set.reduce((sum, track) => sum + (track.seconds ?? 0), 0);
  let start = 0;
  order.replaceChildren(...set.map((track, index) => {
    const line = item(track, index, start);
    start += track.seconds ?? 0;
    return line;
  }));
  const warnings = set.filter((track, index) => index > 0 && isWarning(transition(set[index - 1], track))).length;
  const facts = byId("set-facts");
  facts.replaceChildren(set.length ? counted(set.length) + (total ? " · " + clock(total) : "") + " · " : "No tracks yet");
  if (set.length) facts.append(make("span", warnings ? "clash" : "", warnings ? counted(warnings, "warning") : "no clashes"));
  byId("set-keys").replaceChildren(...set.map(track => {
    const block = make("i");
    block.style.flex = "1";
    block.style.background = track.key < 0 ? "var(--line)" : keys[track.key].color;
    return block;
  }));
  byId("empty").hidden = set.length > 0;
  byId("next").hidden = !set.length || set.at(-1).key < 0;
  byId("best").disabled = set.length < 3 || set.length > MAX_ORDERED;
  byId("export").disabled = !set.length;
  byId("empty-set").disabled = !set.length && !lost.length;
  byId("undo").disabled = !past.length;
  document.querySelector("nav [data-view=set]").textContent = "Set" + (set.length ? " (" + set.length + ")" : "");
  byId("lost").hidden = !lost.length;
  byId("lost").textContent = counted(lost.length) + " of the saved set " + (lost.length === 1 ? "is" : "are") + " not on this page.";
  markChosen();
}
function markChosen() {
  byId("order").querySelectorAll(".item").forEach(box => box.classList.toggle("chosen", selected !== null && Number(box.dataset.number) === selected.number));
}
byId("order").addEventListener("keydown", event => {
  if (!event.target.matches(".open")) return;
  const track = tracks[event.target.closest(".item").dataset.number], step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (step) {
    event.preventDefault();
    if (event.altKey) moveInSet(track, step); else focusItem(set[set.indexOf(track) + step]);
  } else if (event.key === "Delete" || event.key === "Backspace") {
    event.preventDefault();
    const index = set.indexOf(track);
    removeFromSet(track);
    if (set.length) focusItem(set[Math.min(index, set.length - 1)]); else table.focus({ preventScroll: true });
  }
});
byId("undo").addEventListener("click", undoSet);
byId("next").addEventListener("click", () => {
  pin(set.at(-1));
  view("tracks");
});
byId("empty-set").addEventListener("click", () => changeSet([], "The set is empty; Undo restores it", []));

// A cheap order that starts with the same track: moves of one to three tracks and reversals, as long as they save cost.
function betterOrder(order) {
  const size = order.length, costs = order.map(one => order.map(other => one === other ? 0 : transition(one, other).cost));
  const total = path => { let sum = 0; for (let index = 1; index < size; index++) sum += costs[path[index - 1]][path[index]]; return sum; };
  const improve = path => {
    let cost = total(path);
    for (let improved = true; improved;) {
      improved = false;
      for (let from = 1; from < size; from++) for (let to = from + 1; to <= size; to++) {
        const part = path.slice(from, to), rest = [...path.slice(0, from), ...path.slice(to)];
        const candidates = [[...path.slice(0, from), ...part.toReversed(), ...path.slice(to)]];
        if (part.length <= 3) for (let index = 1; index <= rest.length; index++) candidates.push([...rest.slice(0, index), ...part, ...rest.slice(index)]);
        for (const candidate of candidates) {
          const next = total(candidate);
          if (next < cost - 1e-9) { path = candidate; cost = next; improved = true; break; }
        }
      }
    }
    return [path, cost];
  };
  const nearest = [0], left = new Set(order.keys());
  left.delete(0);
  while (left.size) {
    const last = nearest.at(-1), next = [...left].reduce((best, each) => costs[last][each] < costs[last][best] ? each : best);
    left.delete(next);
    nearest.push(next);
  }
  const [path] = [improve([...order.keys()]), improve(nearest)].sort((one, other) => one[1] - other[1])[0];
  return path.map(index => order[index]);
}
byId("best").addEventListener("click", () => {
  const next = betterOrder(set);
  if (next.every((track, index) => track === set[index])) announce("No better order found");
  else changeSet(next, "Reordered; Undo restores the order");
});

// The path of a file for a playlist. It remains a URI if it is not UTF-8, or cannot be a line of the playlist.
function playlistPath(uri) {
  let path;
  try { path = decodeURIComponent(uri.slice("file://".length)); } catch { return uri; }
  if (path !== path.trim() || /[\0-\x1f\x7f-\x9f\u2028\u2029]/.test(path)) return uri;
  return data.separator === "\\" ? path.replace(/^\/(?=[A-Za-z]:\/)/, "").replaceAll("/", "\\") : path;
}
function playlist() {
  const name = byId("set-name").value.trim();
  return "#EXTM3U\n" + (name ? "#PLAYLIST:" + name + "\n" : "") + set.map(track =>
    "#EXTINF:" + (track.seconds === null ? -1 : Math.round(track.seconds)) + "," + (track.artist ? track.artist + " - " : "") + (track.title || track.file.replace(/\.[^.]*$/, "")) + "\n" + playlistPath(track.uri) + "\n").join("");
}
byId("export").addEventListener("click", () => {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([playlist()], { type: "audio/mpegurl" }));
  link.download = (byId("set-name").value.replace(/[\\/:*?"<>|\s\0-\x1f]+/g, " ").trim().replace(/^\.+|\.+$/g, "") || "set") + ".m3u8";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  announce("Saved " + link.download + ": " + counted(set.length));
});

// Dragging, by pointer events: the same code for mouse, pen and touch. On a touch screen the list scrolls, so there only
// the handle of a track of the set starts it.
let drag = null, wasDragged = false;
function grab(event, track) {
  if (!track || event.button !== 0 || track.uri === null) return;
  drag = { track, x: event.clientX, y: event.clientY, ghost: null, index: null, pointer: event.pointerId };
}
space.addEventListener("pointerdown", event => { if (event.pointerType === "mouse" && !event.target.closest(".plus")) grab(event, trackOf(event)); });
byId("more").addEventListener("pointerdown", event => {
  const plus = event.target.closest(".near")?.querySelector(".plus");
  if (event.pointerType === "mouse" && plus && !event.target.closest(".plus")) grab(event, tracks[plus.dataset.number]);
});
byId("order").addEventListener("pointerdown", event => {
  if (event.target.closest(".act, .moves") || (event.pointerType !== "mouse" && !event.target.closest(".handle"))) return;
  grab(event, tracks[event.target.closest(".item")?.dataset.number]);
});
document.addEventListener("pointermove", event => {
  if (!drag || event.pointerId !== drag.pointer) return;
  if (!drag.ghost) {
    if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 6) return;
    drag.ghost = make("div");
    drag.ghost.id = "ghost";
    drag.ghost.append(chip(drag.track.key), make("span", "", drag.track.name));
    document.body.append(drag.ghost);
    document.body.classList.add("dragging");
    requestAnimationFrame(scrollWhileDragging);
  }
  drag.x = event.clientX;
  drag.y = event.clientY;
  drag.ghost.style.translate = drag.x + 10 + "px " + (drag.y + 6) + "px";
  aim();
});
// Where the dragged track would be dropped; null outside the set.
function aim() {
  const box = byId("order-box"), area = box.getBoundingClientRect(), isOver = drag.x >= area.left && drag.x <= area.right && drag.y >= area.top - 90 && drag.y <= area.bottom;
  drag.index = null;
  byId("drop").hidden = !isOver;
  if (!isOver) return;
  const items = [...byId("order").querySelectorAll(".item")], boxes = items.map(each => each.getBoundingClientRect());
  const next = boxes.findIndex(each => drag.y < (each.top + each.bottom) / 2);
  drag.index = next < 0 ? items.length : next;
  const line = !boxes.length ? area.top + 4 : next < 0 ? boxes.at(-1).bottom + 4 : next === 0 ? boxes[0].top - 5 : (boxes[next - 1].bottom + boxes[next].top) / 2;
  byId("drop").style.top = line - area.top + box.scrollTop - 1 + "px";
}
function scrollWhileDragging() {
  if (!drag?.ghost) return;
  const box = byId("order-box"), area = box.getBoundingClientRect();
  if (drag.index !== null) {
    const speed = drag.y < area.top + 36 ? -7 : drag.y > area.bottom - 36 ? 7 : 0;
    if (speed) { box.scrollTop += speed; aim(); }
  }
  requestAnimationFrame(scrollWhileDragging);
}
function release(isDropped) {
  if (!drag) return;
  const { track, ghost, index } = drag;
  drag = null;
  if (!ghost) return;
  ghost.remove();
  byId("drop").hidden = true;
  document.body.classList.remove("dragging");
  wasDragged = true;  // the click that follows selects nothing
  setTimeout(() => { wasDragged = false; }, 0);
  if (isDropped && index !== null) insert(track, index);
}
document.addEventListener("pointerup", event => { if (drag?.pointer === event.pointerId) release(true); });
document.addEventListener("pointercancel", () => release(false));
addEventListener("blur", () => release(false));

// The state. The set is kept between visits, in the local storage of this page or, where a browser has none for files, in
// its address. The view is kept only for a reload.
const STORE = "stone " + location.pathname;
function stored(storage, name) {
  try { return JSON.parse(globalThis[storage].getItem(name)); } catch { return null; }
}
function rememberSet() {
  const saved = { name: byId("set-name").value, tracks: [...set.map(idOf), ...lost] }, text = JSON.stringify(saved);
  try { localStorage.setItem(STORE, text); } catch {
    try { history.replaceState(null, "", "#" + encodeURIComponent(text)); } catch { location.replace("#" + encodeURIComponent(text)); }
  }
}
function fromAddress() {
  try { return JSON.parse(decodeURIComponent(location.hash.slice(1))); } catch { return null; }
}
function restoreSet() {
  const saved = stored("localStorage", STORE) ?? fromAddress(), ids = Array.isArray(saved?.tracks) ? saved.tracks.filter(id => typeof id === "string") : [];
  const byHash = new Map(tracks.filter(track => track.uri !== null).map(track => [idOf(track), track]));
  set = [...new Set(ids.map(id => byHash.get(id)).filter(Boolean))];
  lost = ids.filter(id => !byHash.has(id));
  byId("set-name").value = typeof saved?.name === "string" ? saved.name.slice(0, 100) : "";
}
byId("set-name").addEventListener("input", rememberSet);
addEventListener("storage", event => {  // the page is open in another window
  if (event.key !== STORE) return;
  restoreSet();
  drawSet();
  drawRows();
  markAdded();
});
function rememberView() {
  const values = Object.fromEntries(["search", ...FILTERS].map(id => [id, byId(id).value]));
  const view = { ...values, sorted, isDown, keys: [...chosenKeys], selected: selected?.number ?? null, pinned: pinned?.number ?? null, count: tracks.length };
  try { sessionStorage.setItem(STORE, JSON.stringify(view)); } catch { /* the view is lost on a reload, the set is not */ }
}
function restoreView() {
  const view = stored("sessionStorage", STORE);
  if (view === null || view.count !== tracks.length) return;
  for (const id of ["search", ...FILTERS]) byId(id).value = view[id] ?? "";
  sorted = COLUMNS.some(column => column.id === view.sorted) ? view.sorted : null;
  isDown = Boolean(view.isDown);
  for (const key of view.keys ?? []) if (keys[key]) chosenKeys.add(key);
  selected = tracks[view.selected] ?? null;
  pinned = tracks[view.pinned] ?? null;
}

// The filters, the views of small screens, and the keyboard.
function addOptions(id, options) {
  byId(id).append(...options.map(([value, text]) => { const option = make("option", "", text); option.value = value; return option; }));
}
function fillFilters() {
  const counts = new Map(), statuses = new Map();
  for (const track of tracks) {
    const name = track.relation === null ? "unknown" : relations.names[track.relation];
    counts.set(name, (counts.get(name) ?? 0) + 1);
    statuses.set(track.status, (statuses.get(track.status) ?? 0) + 1);
  }
  const different = tracks.filter(RELATION_TESTS.different).length, withCount = (text, count) => text + " (" + count.toLocaleString("en") + ")";
  addOptions("relation", [["", "any"], ...(different ? [["different", withCount("different", different)]] : []),
    ...relations.names.filter(name => counts.has(name)).map(name => [name, withCount(name, counts.get(name))]), ...(counts.has("unknown") ? [["unknown", withCount("not compared", counts.get("unknown"))]] : [])]);
  addOptions("status", [["", "any"], ...[...statuses].sort().map(([status, count]) => [status, withCount(status, count)])]);
  byId("relation-field").hidden = counts.get("unknown") === tracks.length || !tracks.length;
  byId("status-field").hidden = statuses.size < 2;
  byId("tempo").hidden = !hasBpm;
  if (byId("relation-field").hidden && byId("status-field").hidden && !hasBpm) byId("more-filters").hidden = true;
}
byId("search").addEventListener("input", () => { update(); light(); });
for (const id of FILTERS) byId(id).addEventListener(byId(id).matches("select") ? "change" : "input", () => update());
byId("reset").addEventListener("click", () => {
  for (const id of ["search", ...FILTERS]) byId(id).value = "";
  chosenKeys.clear();
  pinned = null;
  pressKeys();
  update();
  light();
});
byId("more-filters").addEventListener("click", () => {
  byId("more-filters").setAttribute("aria-expanded", String(byId("filters").classList.toggle("open")));
  relayout();
});
function view(name) {
  document.body.dataset.view = name;
  document.querySelectorAll("nav button").forEach(each => each.setAttribute("aria-current", String(each.dataset.view === name)));
}
document.querySelectorAll("nav button").forEach(each => each.addEventListener("click", () => view(each.dataset.view)));
byId("show").addEventListener("click", () => view("tracks"));
function useTheme(name) {
  if (name === "light" || name === "dark") document.documentElement.dataset.theme = name;
}
byId("theme").addEventListener("click", () => {
  const isDark = (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  useTheme(isDark ? "light" : "dark");
  try { localStorage.setItem("stone theme", JSON.stringify(isDark ? "light" : "dark")); } catch { /* the next visit follows the system */ }
});
byId("help").addEventListener("click", () => byId("keys").showModal());
document.addEventListener("keydown", event => {
  if (byId("keys").open) return;
  if (event.key === "Escape") { if (drag) release(false); else if (event.target === byId("search") && byId("search").value) { byId("search").value = ""; update(); light(); } else leave(); return; }
  if (event.target.matches("input, select")) {
    if (event.target === byId("search") && (event.key === "ArrowDown" || event.key === "Enter")) {
      event.preventDefault();
      table.focus();
      if (shown.length) select(shown[0], { scroll: true });
    }
    return;
  }
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") { event.preventDefault(); undoSet(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); byId("search").focus(); byId("search").select(); }
  else if (event.key === "?") byId("keys").showModal();
  else if (event.key.toLowerCase() === "m" && (pinned || (selected && selected.key >= 0))) pin(pinned ? null : selected);
});

const unknown = tracks.filter(track => track.key >= 0 && !track.isAnalyzed).length;
byId("unknown").hidden = !unknown;
byId("unknown").append(counted(unknown) + " not analyzed: the key is the one in the tags. ", ...howToAnalyze(unknown === 1 ? "it" : "them"));

useTheme(stored("localStorage", "stone theme"));
fillFilters();
drawWheel();
restoreSet();
restoreView();
pressKeys();
if (tracks.length === 1) selected = tracks[0];
update();
light();
drawMore();
drawSet();
if (selected) { reveal(selected); drawRows(); }
new ResizeObserver(relayout).observe(table);
