// The browser's side of fer_nb.upload: it takes images and shows what the kernel answers.
// Both go by messages and never through the widget's state, so no image can get into a saved notebook.
// A plain ES module: no build step, nothing loaded from elsewhere.

const PIECE = 1 << 20;      // bytes in one message; servers refuse large ones (Jupyter's limit is 10 MiB)
const AHEAD = 4 * PIECE;    // bytes sent before the kernel has answered
const PATIENCE = 4000;      // milliseconds after which a silent kernel is mentioned
const TYPES = ".jpg,.jpeg,.jfif,.png,.webp,.avif,.gif,.bmp,.tif,.tiff";
const ICON = `<svg viewBox="0 0 24 24" width="30" height="30" fill="none" stroke="currentColor" stroke-width="1.5"
  stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><rect x="3" y="4" width="18" height="16" rx="2.5"/>
  <circle cx="12" cy="10.5" r="2.8"/><path d="M6.5 20c.6-3.2 2.8-4.8 5.5-4.8s4.9 1.6 5.5 4.8"/></svg>`;
const SHELL = `
  <div class="fer-zone" role="group" aria-label="Add images">
    <span class="fer-icon">${ICON}</span>
    <span class="fer-invite"><b>Drop images here</b><span>JPEG, PNG, WebP, GIF, BMP or TIFF. <span class="fer-where"></span></span></span>
    <span class="fer-ways"><button type="button" class="fer-button fer-main" data-do="choose">Choose images</button>
      <button type="button" class="fer-button" data-do="paste" title="Paste an image from the clipboard (Ctrl+V works, too)">Paste</button></span>
    <input type="file" multiple accept="${TYPES}" aria-label="Choose images" tabindex="-1">
    <span class="fer-progress" hidden><span class="fer-doing"></span><progress max="1" value="0" aria-label="Sending images"></progress></span>
  </div>
  <div class="fer-samples" role="group" aria-label="Images to try" hidden><span>Or try one of these:</span></div>
  <details class="fer-options"><summary>Options<span class="fer-chosen"></span></summary><div class="fer-fields">
    <label>Find faces with <select data-set="detector"></select></label>
    <label class="fer-expected">Expected faces <select data-set="prior"></select></label>
    <label>Say “not sure” below <input type="range" min="0" max="100" data-set="confidence"><output></output></label>
    <button type="button" class="fer-button" data-do="advised" title="What the model's file suggests"></button>
  </div></details>
  <div class="fer-better" role="status" hidden><p></p><button type="button" class="fer-button" data-do="fetch">Fetch it</button></div>
  <div class="fer-notes" role="status" aria-live="polite"></div><div class="fer-said" role="status" aria-live="polite"></div>
  <div class="fer-cards"></div><div class="fer-foot"></div>`;

let count = 0;

function newState(model) {
  return {model, views: new Set(), cards: new Map(), order: [], blobs: new Map(), replies: new Map(), queue: [], firsts: new WeakSet(), busy: null, note: "", samples: [],
    limits: {images: 20}, shown: {notes: "", said: "", foot: "", minimum: 0, controls: null}};
}

const all = (s, f) => s.views.forEach(f);
const escaped = text => text.replace(/[&<>"']/g, c => `&#${c.charCodeAt()};`);

// ---- from the kernel

function receive(s, message, buffers) {
  const reply = s.replies.get(message.id);
  if (message.kind === "show") return show(s, message);
  if (message.kind === "samples") return offer(s, message.titles, buffers);
  if (message.kind === "images") return keep(s, message.keys, buffers);
  if (message.kind === "file") return download(message, buffers[0]);
  if (message.kind === "got" && reply) reply.got = message.bytes;
  if (message.kind === "done" && reply) reply.done = true;
  if (reply) reply.wake();
}

function show(s, message) {
  if (!s.shown.controls) s.model.send({kind: "samples"});
  for (const [id, html] of Object.entries(message.cards)) s.cards.set(id, html);
  for (const id of [...s.cards.keys()]) if (!message.order.includes(id)) s.cards.delete(id);
  Object.assign(s, {order: message.order, limits: message.limits, note: "", shown: message});
  all(s, draw);
  const used = new Set([...s.cards.values()].flatMap(html => [...html.matchAll(/data-key="([^"]+)"/g)].map(m => m[1])));
  for (const [key, url] of s.blobs) if (!used.has(key)) { URL.revokeObjectURL(url); s.blobs.delete(key); }
  const missing = [...used].filter(key => !s.blobs.has(key));
  if (missing.length) s.model.send({kind: "want", keys: missing});
}

function keep(s, keys, buffers) {
  keys.forEach((key, i) => { if (!s.blobs.has(key)) s.blobs.set(key, URL.createObjectURL(new Blob([buffers[i]]))); });
  all(s, fill);
}

function offer(s, titles, buffers) {
  s.samples = titles.map((title, i) => ({title, url: URL.createObjectURL(new Blob([buffers[i]]))}));
  all(s, showSamples);
}

function download({name, type}, buffer) {
  const link = Object.assign(document.createElement("a"), {download: name, href: URL.createObjectURL(new Blob([buffer], {type}))});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// ---- to the kernel

async function deliver(s, file, first) {
  const id = `${Date.now()}-${++count}-${Math.random()}`, reply = {got: -1, done: false, wake() {}};
  const until = test => new Promise(ok => { reply.wake = () => test() && ok(); reply.wake(); });
  s.replies.set(id, reply);
  try {
    s.model.send({kind: "begin", id, first, name: file.name, size: file.size});
    await until(() => reply.done || reply.got >= 0);
    for (let at = 0; at < file.size && !reply.done; at += PIECE) {
      await until(() => reply.done || at - reply.got < AHEAD);
      const piece = await file.slice(at, at + PIECE).arrayBuffer();
      s.model.send({kind: "part", id}, undefined, [piece]);
      progress(s, file, Math.min(1, (at + PIECE) / file.size));
    }
    await until(() => reply.done);
  } catch (error) {
    s.model.send({kind: "cancel", id});
    say(s, `${file.name}: the browser cannot read it (${error.name})`);
  } finally { s.replies.delete(id); }
}

async function take(s, files) {
  if (s.lost) return;
  const room = s.limits.images, first = s.firsts;
  first.add(files[0]);
  if (files.length > room) s.model.send({kind: "surplus", count: files.length - room});
  s.queue.push(...files.slice(0, room));
  if (s.busy) return;
  s.busy = {sent: 0};
  while (s.queue.length) {
    const file = s.queue.shift();
    progress(s, file, 0);
    const late = setTimeout(() => { s.busy.late = true; progress(s, file, s.busy.share); }, PATIENCE);
    await deliver(s, file, first.has(file));
    clearTimeout(late);
    s.busy = {sent: s.busy.sent + 1};
  }
  s.busy = null;
  all(s, progressOf);
}

function progress(s, file, share) {
  Object.assign(s.busy, {share, text: (s.busy.late ? waitingText() : share < 1 ? "Sending " : "Looking at ") + file.name});
  all(s, progressOf);
}

// The kernel is gone: nothing is awaited any more, and nothing is taken.
function lost(s) {
  Object.assign(s, {lost: true, queue: []});
  for (const reply of s.replies.values()) { reply.done = true; reply.wake(); }
  all(s, ({el}) => el.querySelectorAll(".fer-zone, .fer-samples, .fer-options, .fer-better, .fer-actions, .fer-save").forEach(o => { o.inert = true; }));
}

function say(s, text) { s.note = text; all(s, draw); }

const waitingText = () => onPage() ? "Still busy; waiting: " : "The kernel is busy; waiting: ";

// ---- what is on the page

function showSamples({s, el}) {
  const place = el.querySelector(".fer-samples");
  place.hidden = !s.samples.length;
  place.querySelectorAll("button").forEach(o => o.remove());
  for (const {title, url} of s.samples) {
    const button = Object.assign(document.createElement("button"), {type: "button", className: "fer-sample", title});
    button.dataset.do = "sample";
    button.dataset.name = title;
    button.append(Object.assign(new Image(), {src: url, alt: ""}), Object.assign(document.createElement("span"), {textContent: title}));
    place.append(button);
  }
}

function showOptions({s, el}) {
  const c = s.shown.controls, find = name => el.querySelector(name);
  if (!c) return;
  for (const what of ["detector", "prior"]) {
    const select = find(`[data-set=${what}]`), {options, value} = c[what], knew = select.dataset.options;
    if (select.dataset.options !== JSON.stringify(options)) select.replaceChildren(...options.map(([name, label]) => new Option(label, name)));
    select.dataset.options = JSON.stringify(options);
    if (what === "detector" && knew && !knew.includes('"yunet"') && value === "yunet") tellDetector(el);
    select.value = value;
    select.title = c[what].help ?? "";
  }
  const slider = find("[data-set=confidence]"), percent = Math.round(100*c.confidence);
  slider.value = percent;
  find("output").textContent = `${percent}%`;
  find(".fer-expected").hidden = !c.prior.options.length;
  Object.assign(find("[data-do=advised]"), {hidden: c.advised === null, textContent: `Suggested: ${Math.round(100*c.advised)}%`});
  const chosen = [find("[data-set=detector]").selectedOptions[0]?.textContent, c.prior.options.length && `${c.prior.value} faces`, percent && `not sure below ${percent}%`];
  find(".fer-chosen").textContent = chosen.filter(o => o).join(" · ");
  showBetter(find(".fer-better"), c.better);
}

// What is said of a better detector: null where it is there, or not needed yet; a text where it could not be fetched.
function showBetter(place, better) {
  place.hidden = better === null;
  place.querySelector("p").textContent = better || FETCH;
  Object.assign(place.querySelector("button"), {disabled: false, textContent: better ? "Try again" : "Fetch it"});
}

function draw(view) {
  const {s, el} = view, has = s.order.length > 0;
  el.querySelector(".fer-zone").classList.toggle("fer-small", has);
  el.querySelector(".fer-samples").classList.toggle("fer-small", has);
  showOptions(view);
  el.style.setProperty("--fer-minimum", s.shown.minimum);
  el.classList.toggle("fer-any", s.shown.minimum > 0);
  put(el.querySelector(".fer-notes"), s.shown.notes + (s.note && `<p>${escaped(s.note)}</p>`));
  put(el.querySelector(".fer-said"), s.shown.said);
  put(el.querySelector(".fer-foot"), s.shown.foot);
  const list = el.querySelector(".fer-cards"), there = new Map([...list.children].map(o => [o.dataset.id, o]));
  for (const [id, node] of there) if (!s.cards.has(id)) node.remove();
  s.order.forEach((id, i) => {
    let node = there.get(id);
    if (!node) node = Object.assign(document.createElement("div"), {className: "fer-place"});
    node.dataset.id = id;
    put(node, s.cards.get(id));
    if (list.children[i] !== node) list.insertBefore(node, list.children[i] ?? null);
  });
  fill(view);
}

// New content, but images that were there stay (they would flicker), and so does what was folded open or had the focus.
function put(node, html) {
  if (node.fer === html) return;
  const images = new Map([...node.querySelectorAll("img[data-key]")].map(o => [o.dataset.key, o]));
  const open = [...node.querySelectorAll("details")].map(o => o.open), focus = document.activeElement;
  const back = focus && node.contains(focus) && focus.dataset.do;
  node.innerHTML = node.fer = html;
  node.querySelectorAll("img[data-key]").forEach(o => {
    const old = images.get(o.dataset.key);
    if (old) { old.alt = o.alt; o.replaceWith(old); }
  });
  node.querySelectorAll("details").forEach((o, i) => { o.open = open[i] ?? o.open; });
  if (back) node.querySelector(`[data-do="${back}"]`)?.focus();
}

function fill({s, el}) {
  el.querySelectorAll("img[data-key]:not([src])").forEach(o => { if (s.blobs.has(o.dataset.key)) o.src = s.blobs.get(o.dataset.key); });
}

function progressOf({s, el}) {
  const place = el.querySelector(".fer-progress");
  place.hidden = !s.busy;
  if (!s.busy) return;
  place.querySelector(".fer-doing").textContent = s.busy.text;
  place.querySelector("progress").value = (s.busy.sent + s.busy.share) / (s.busy.sent + 1 + s.queue.length);
}

async function paste(s) {
  try {
    const found = [];
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find(o => o.startsWith("image/"));
      if (type) found.push(new File([await item.getType(type)], `pasted.${type.split("/")[1]}`, {type}));
    }
    if (found.length) take(s, found); else say(s, "There is no image in the clipboard.");
  } catch (error) { say(s, `The browser does not hand over the clipboard (${error.name}). Click into the field and press Ctrl+V.`); }
}

const actions = {
  choose: ({el}) => el.querySelector("input[type=file]").click(),
  paste: ({s}) => paste(s),
  sample: ({s}, o) => s.model.send({kind: "sample", name: o.dataset.name}),
  advised: ({s}) => s.model.send({kind: "set", what: "confidence", value: s.shown.controls.advised}),
  fetch: ({s}, o) => { Object.assign(o, {disabled: true, textContent: "Fetching …"}); s.model.send({kind: "fetch"}); },
  save: ({s}, o) => s.model.send({kind: "save", what: o.dataset.what, id: o.closest("[data-id]")?.dataset.id ?? ""}),
  why: ({s}, o) => s.model.send({kind: "why", id: o.closest("[data-id]")?.dataset.id ?? ""}),
  remove: ({s}, o) => s.model.send({kind: "remove", id: o.closest("[data-id]")?.dataset.id ?? ""}),
};

function listen(view) {
  const {s, el} = view, zone = el.querySelector(".fer-zone"), input = el.querySelector("input[type=file]");
  takeFiles(el, input, files => {
    if (files.length) take(s, files); else say(s, "That was not a file. Save the image first, then drop the file.");
  });
  zone.addEventListener("click", event => { if (event.target.closest("button, input") === null && !zone.classList.contains("fer-small")) actions.choose(view); });
  el.addEventListener("click", event => { const o = event.target.closest("[data-do]"); if (o) actions[o.dataset.do](view, o); });
  el.addEventListener("input", event => { if (event.target.type === "range") event.target.nextElementSibling.textContent = `${event.target.value}%`; });
  el.addEventListener("change", ({target: o}) => {
    if (o.dataset.set) s.model.send({kind: "set", what: o.dataset.set, value: o.type === "range" ? o.value/100 : o.value});
  });
  const hot = on => event => {
    const face = event.target.closest?.("[data-face]"), card = face?.closest(".fer-card");
    card?.querySelectorAll(`[data-face="${face.dataset.face}"]`).forEach(o => o.classList.toggle("fer-hot", on));
  };
  el.addEventListener("mouseover", hot(true));
  el.addEventListener("mouseout", hot(false));
  const pasted = event => {
    if (!el.matches(":hover, :focus-within")) return;
    const files = offered(event.clipboardData).filter(o => o.type.startsWith("image/"));
    if (files.length) { event.preventDefault(); event.stopPropagation(); take(s, files); }
  };
  document.addEventListener("paste", pasted, true);
  return () => document.removeEventListener("paste", pasted, true);
}

function begin(s) {
  const hear = (message, buffers) => receive(s, message, buffers);
  s.model.on("msg:custom", hear);
  s.model.send({kind: "hello"});
  return () => {
    s.model.off("msg:custom", hear);
    for (const url of [...s.blobs.values(), ...s.samples.map(o => o.url)]) URL.revokeObjectURL(url);
  };
}

function view(s, el) {
  const view = {s, el};
  el.classList.add("fer-panel", "fer-upload");
  el.innerHTML = SHELL;
  el.querySelector(".fer-where").textContent = whereKept("They");
  el.querySelector('[data-do="paste"]').hidden = !navigator.clipboard?.read;
  s.views.add(view);
  const stop = listen(view);
  draw(view);
  showSamples(view);
  progressOf(view);
  const leave = attend(s.model, el, () => lost(s));
  const deaf = onDetector(el, () => { if (!el.querySelector("[data-set=detector]").dataset.options?.includes('"yunet"')) s.model.send({kind: "fetch"}); });
  return () => { stop(); leave(); deaf(); s.views.delete(view); };
}

// One state for each panel, however many views of it there are.
export default () => {
  let s;
  return { initialize: ({model}) => begin(s = newState(model)), render: ({el}) => view(s, el) };
};
