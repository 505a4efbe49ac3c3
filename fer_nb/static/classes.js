// The browser's side of fer_nb.classes_panel: classes of your own, from examples to a model that is tried at once.
// Images go by messages and never through the widget's state, so none can get into a saved notebook.
// A plain ES module: no build step, nothing loaded from elsewhere.

const PIECE = 1 << 20;      // bytes in one message; servers refuse large ones (Jupyter's limit is 10 MiB)
const AHEAD = 4 * PIECE;    // bytes sent before the kernel has answered
const RATE = 110;           // milliseconds between two frames that are recorded
const LIVE = 60;            // ... that are tried
const GIVEN_UP = 5000;      // ... after which a frame that was not answered is given up
const FRESH = 1000;         // ... for which boxes stay over the moving image
const AWAY = 30000;         // ... after which a camera that cannot be seen is closed
const SHORT = 2000;         // ... of a take where a button was clicked and not held
const SIDE = 640;           // pixels of the longer side of a frame
const TYPES = ".jpg,.jpeg,.jfif,.png,.webp,.avif,.gif,.bmp,.tif,.tiff";
const SHELL = `
  <p class="fer-intro">Give names to your classes, add examples of faces to each, and train. <span class="fer-where"></span></p>
  <div class="fer-notes" role="status" aria-live="polite"></div>
  <div class="fer-columns">
    <section class="fer-lens" aria-label="Camera">
      <div class="fer-view" hidden><video muted playsinline aria-label="Camera"></video><canvas class="fer-overlay" aria-hidden="true"></canvas></div>
      <div class="fer-bar"><span class="fer-status fer-off" role="status">camera off</span><span class="fer-doing" aria-live="off"></span>
        <button type="button" class="fer-button" data-do="camera">Start camera</button></div>
      <p class="fer-trouble" role="alert" hidden></p>
    </section>
    <section class="fer-step fer-examples" aria-label="Examples">
      <h2><b>1</b> Examples</h2>
      <ul class="fer-owns"></ul>
      <div class="fer-ways"><button type="button" class="fer-button" data-do="add">Add class</button>
        <button type="button" class="fer-button" data-do="load">Load examples</button>
        <button type="button" class="fer-button" data-do="zip">Save examples</button>
        <button type="button" class="fer-button" data-do="clear">Remove all</button></div>
      <p class="fer-fine fer-limits"></p>
    </section>
    <section class="fer-step fer-train" aria-label="Train">
      <h2><b>2</b> Train</h2>
      <div class="fer-ways"><button type="button" class="fer-button fer-main" data-do="train">Train</button><span class="fer-why"></span></div>
      <p class="fer-progress" role="status" hidden><progress aria-label="Training"></progress> <span></span></p>
      <p class="fer-estimate" role="status"></p>
    </section>
    <section class="fer-step fer-try" aria-label="Try">
      <h2><b>3</b> Try it</h2>
      <p class="fer-hint">After the training: start the camera, or choose an image.</p>
      <div class="fer-ways"><button type="button" class="fer-button" data-do="image">Choose an image</button>
        <button type="button" class="fer-button" data-do="model">Download model</button></div>
      <div class="fer-tried" hidden><img alt="The image that you chose"><canvas class="fer-overlay" aria-hidden="true"></canvas></div>
      <ol class="fer-answers"></ol><p class="fer-fine fer-use" hidden>Use the file with <code>fer_nb predict --model own-classes.tflite</code>.</p>
    </section>
  </div>
  <input type="file" tabindex="-1" aria-label="Choose images">
  <div class="fer-said" role="status" aria-live="polite"></div>`;
const REASONS = {
  NotAllowedError: "The camera was not allowed. Allow it at the camera symbol in the address bar, then start again.",
  SecurityError: "The browser's settings do not allow the camera on this page.",
  NotFoundError: "No camera was found at this computer. Images work, too.",
  NotReadableError: "The camera cannot be opened: another program uses it, or the operating system does not let the browser use it.",
};

let serial = 0;
const all = (s, f) => s.views.forEach(f);
const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

// An element with attributes; a function is a listener, and true an attribute without a value.
function make(tag, attributes = {}, ...children) {
  const o = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") o.addEventListener(name, value);
    else if (value !== false && value !== undefined) o.setAttribute(name, value === true ? "" : value);
  }
  o.append(...children);
  return o;
}

function newState(model) {
  return {model, views: new Set(), classes: new Map(), order: [], urls: new Map(), replies: new Map(), queue: [], sending: false, over: false,
    shown: {limits: {classes: 0, examples: 0, bytes: 0, zip_bytes: 0, frames: 0}, note: "", said: "", train: {}, model: null}, progress: "", tried: null};
}

// ---- from the kernel

function receive(s, message, buffers) {
  const {kind, id} = message, reply = s.replies.get(id);
  if (kind === "show") return show(s, message);
  if (kind === "images") return keep(s, message.keys, buffers);
  if (kind === "file") return download(message, buffers[0]);
  if (kind === "progress") { s.progress = message.text; return all(s, drawTraining); }
  if (kind === "answer") return all(s, view => view.id === message.view && answered(view, message));
  if (kind === "tried") { s.tried = {...s.tried, ...message}; return all(s, drawTried); }
  if (kind === "got" && reply) reply.got = message.bytes;
  if (kind === "done" && reply) reply.done = true;
  reply?.wake();
}

function show(s, message) {
  for (const [id, own] of Object.entries(message.changed)) s.classes.set(id, own);
  for (const id of [...s.classes.keys()]) if (!message.order.includes(id)) s.classes.delete(id);
  Object.assign(s, {order: message.order, shown: message});
  if (!message.train.busy) s.progress = "";
  if (!message.model) s.tried = null;
  const used = new Set([...s.classes.values()].flatMap(own => own.items.map(item => item.id)));
  for (const [key, url] of s.urls) if (!used.has(key)) { URL.revokeObjectURL(url); s.urls.delete(key); }
  all(s, draw);
}

function keep(s, keys, buffers) {
  keys.forEach((key, i) => { if (!s.urls.has(key)) s.urls.set(key, URL.createObjectURL(new Blob([buffers[i]], {type: "image/png"}))); });
  all(s, fill);
}

function download({name, type}, buffer) {
  const link = make("a", {download: name, href: URL.createObjectURL(new Blob([buffer], {type}))});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// ---- files to the kernel

function say(s, text) { s.shown.note = text; all(s, drawNotes); }

async function deliver(s, file, target) {
  const id = `${Date.now()}-${++serial}`, reply = {got: -1, done: false, wake() {}};
  const until = test => new Promise(ok => { reply.wake = () => (s.over || test()) && ok(); reply.wake(); });
  s.replies.set(id, reply);
  try {
    s.model.send({kind: "begin", id, name: file.name, size: file.size, ...target});
    await until(() => reply.done || reply.got >= 0);
    for (let at = 0; at < file.size && !reply.done && !s.over; at += PIECE) {
      await until(() => reply.done || at - reply.got < AHEAD);
      s.model.send({kind: "part", id}, undefined, [await file.slice(at, at + PIECE).arrayBuffer()]);
    }
    await until(() => reply.done);
  } catch (error) {
    s.model.send({kind: "cancel", id});
    say(s, `${file.name}: the browser cannot read it (${error.name})`);
  } finally { s.replies.delete(id); }
}

async function take(s, files) {   // of {file, target}
  s.queue.push(...files);
  if (s.sending) return;
  s.sending = true;
  while (s.queue.length && !s.over) {
    const {file, target} = s.queue.shift();
    all(s, drawNotes);
    await deliver(s, file, target);
  }
  s.sending = false;
  all(s, drawNotes);
}

const isZip = file => /\.zip$/i.test(file.name);

function takeInto(s, id, files) {   // images chosen for a class, or dropped on it
  const own = s.classes.get(id), room = s.shown.limits.examples - own.count, images = files.filter(file => !isZip(file));
  if (images.length < files.length) say(s, "A ZIP holds several classes: drop it beside the classes, or use Load examples.");
  if (images.length > room) say(s, `${plural(images.length - room, "image")} not taken: a class holds ${s.shown.limits.examples} examples.`);
  take(s, images.slice(0, room).map(file => ({file, target: {to: id}})));
}

function tryImage(s, file) {
  if (!s.shown.model) return say(s, "Train first; then an image can be tried.");
  if (s.tried?.url) URL.revokeObjectURL(s.tried.url);
  s.tried = {url: URL.createObjectURL(file), faces: null, error: ""};
  all(s, drawTried);
  take(s, [{file, target: {try: true}}]);
}

// What was dropped: files, and the files in folders, whose names are those of classes.
async function dropped(data) {
  const entries = [...(data?.items ?? [])].map(o => o.webkitGetAsEntry?.()).filter(o => o), found = [];
  const walk = async (entry, folder) => {
    if (found.length > 3000) return;
    if (entry.isFile) return found.push({file: await new Promise((ok, no) => entry.file(ok, no)), folder});
    const reader = entry.createReader();
    for (let some; (some = await new Promise((ok, no) => reader.readEntries(ok, no))).length;) for (const inner of some) await walk(inner, entry.name);
  };
  for (const entry of entries) await walk(entry, "");
  if (!entries.length) found.push(...[...(data?.files ?? [])].map(file => ({file, folder: ""})));
  return found;
}

async function drop(view, event) {
  const {s} = view, id = event.target.closest?.(".fer-own")?.dataset.id, trying = event.target.closest?.(".fer-try");
  let found;
  try { found = await dropped(event.dataTransfer); } catch { return say(s, "The browser cannot read what was dropped."); }
  const loose = found.filter(o => !o.folder).map(o => o.file), zips = loose.filter(isZip), images = loose.filter(o => !isZip(o));
  const inside = found.filter(o => o.folder && !o.file.name.startsWith("."));
  if (!found.length) return say(s, "That was not a file. Save the image first, then drop the file.");
  if (trying && images.length) return tryImage(s, images[0]);
  if (zips.length || inside.length) take(s, [...zips.map(file => ({file, target: {zip: true}})), ...inside.map(({file, folder}) => ({file, target: {folder}}))]);
  if (images.length && id) takeInto(s, id, images); else if (images.length) say(s, "Drop images on the class that they show.");
}

function choose(view, {types, many = true, then}) {
  const input = view.el.querySelector("input[type=file]");
  Object.assign(input, {accept: types, multiple: many, value: "", onchange: () => { if (input.files.length) then([...input.files]); }});
  input.click();
}

// ---- what is on the page

function draw(view) {
  const {s, el} = view, {limits, train, model} = s.shown;
  drawNotes(view);
  el.querySelector(".fer-limits").textContent = `At most ${limits.classes} classes with ${limits.examples} examples each, ${Math.round(limits.bytes/1e6)} MB an image, `
    + `${Math.round(limits.zip_bytes/1e6)} MB a ZIP, ${limits.frames} frames a recording. Of each image only the cropped face is kept. `
    + "Load examples takes a ZIP of class folders; a folder can be dropped.";
  el.querySelector(".fer-said").textContent = s.shown.said;
  const list = el.querySelector(".fer-owns"), there = new Map([...list.children].map(o => [o.dataset.id, o]));
  for (const [id, node] of there) if (!s.classes.has(id)) node.remove();
  s.order.forEach((id, i) => {
    const node = there.get(id) ?? card(view, id);
    if (list.children[i] !== node) list.insertBefore(node, list.children[i] ?? null);
    drawClass(view, node, s.classes.get(id), i);
  });
  const count = [...s.classes.values()].reduce((sum, own) => sum + own.items.length, 0);
  el.querySelector("[data-do=add]").disabled = s.order.length >= limits.classes;
  el.querySelector("[data-do=zip]").disabled = !count || train.invalid;
  el.querySelector("[data-do=clear]").disabled = !count;
  for (const name of ["image", "model"]) el.querySelector(`[data-do=${name}]`).disabled = !model;
  el.querySelector(".fer-hint").hidden = Boolean(model);
  el.querySelector(".fer-use").hidden = !model;
  drawTraining(view);
  drawTried(view);
  fill(view);
}

function drawNotes({s, el}) {
  const waiting = s.queue.length + s.sending, text = s.shown.note || (waiting ? `Reading ${plural(waiting, "file")} …` : "");
  el.querySelector(".fer-notes").replaceChildren(...(text ? [make("p", {}, text)] : []));
}

function card(view, id) {
  const {s} = view, error = `fer-error-${id}-${view.id}`;
  const name = make("input", {type: "text", maxlength: 60, "aria-describedby": error, autocomplete: "off", spellcheck: "false"});
  const rename = () => { clearTimeout(name.later); name.later = 0; s.model.send({kind: "rename", id, name: name.value}); };
  name.addEventListener("input", () => { clearTimeout(name.later); name.later = setTimeout(rename, 250); });
  name.addEventListener("blur", () => { if (name.later) rename(); });   // before what comes next
  name.addEventListener("keydown", event => { if (event.key === "Enter") name.blur(); });
  const pick = () => choose(view, {types: TYPES, then: files => takeInto(s, id, files)});
  const node = make("li", {class: "fer-own", "data-id": id},
    make("div", {class: "fer-own-head"}, make("i", {class: "fer-dot"}), name, make("span", {class: "fer-count"}),
      make("button", {type: "button", class: "fer-button fer-bare", "data-part": "drop", click: () => s.model.send({kind: "remove", id})}, "✕")),
    make("p", {class: "fer-error", id: error, role: "alert", hidden: true}),
    make("div", {class: "fer-ways"}, make("button", {type: "button", class: "fer-button", "data-part": "choose", click: pick}, "Choose images"), recordButton(view, id)),
    make("p", {class: "fer-empty"}, "or drop images here"), make("ul", {class: "fer-thumbs", keydown: event => move(s, event)}));
  return node;
}

function drawClass(view, node, own, place) {
  const name = node.querySelector("input"), title = own.name.trim() || `class ${place + 1}`, error = node.querySelector(".fer-error");
  if (document.activeElement !== name && !name.later) name.value = own.name;
  name.setAttribute("aria-label", `Name of class ${place + 1}`);
  name.setAttribute("aria-invalid", String(Boolean(own.error)));
  Object.assign(error, {hidden: !own.error, textContent: own.error});
  node.style.setProperty("--fer-color", own.color);
  node.querySelector(".fer-empty").hidden = own.items.length > 0;
  node.querySelector(".fer-count").textContent = plural(own.count, "example");
  node.querySelector("[data-part=drop]").setAttribute("aria-label", `Remove class ${title}`);
  node.querySelector("[data-part=choose]").setAttribute("aria-label", `Choose images for ${title}`);
  node.querySelector("[data-part=record]").setAttribute("aria-label", `Hold to record ${title}`);
  drawThumbs(view, node.querySelector(".fer-thumbs"), own, title);
}

// Thumbnails are buttons that remove them: one stop for the Tab key, arrows go from one to the next.
function drawThumbs({s}, list, own, title) {
  const there = new Map([...list.children].map(o => [o.dataset.id, o])), at = [...list.children].findIndex(o => o.contains(document.activeElement));
  for (const [id, node] of there) if (!own.items.some(item => item.id === id)) node.remove();
  own.items.forEach((item, i) => {
    const text = item.note + (item.count > 1 ? ` (${item.count} frames)` : ""), label = `Remove example ${i + 1} of ${title}${text ? `: ${text}` : ""}`;
    let node = there.get(item.id);
    if (!node) {
      const remove = () => s.model.send({kind: "remove", id: item.id});
      node = make("li", {"data-id": item.id}, make("button", {type: "button", tabindex: -1, click: remove},
        make("img", {alt: "", width: 48, height: 48, "data-key": item.id}), make("span", {class: "fer-cross", "aria-hidden": "true"}, "✕")), make("span", {class: "fer-what"}));
      list.append(node);
    }
    node.classList.toggle("fer-odd", Boolean(item.note));
    node.classList.toggle("fer-unused", !item.usable);
    node.querySelector("button").setAttribute("aria-label", label);
    node.querySelector("button").title = text || "Remove";
    node.querySelector(".fer-what").textContent = item.usable ? (item.note ? "several faces" : "") : short(item);
  });
  const buttons = [...list.querySelectorAll("button")], now = buttons.find(o => o.tabIndex === 0) ?? buttons[0];
  buttons.forEach(o => { o.tabIndex = o === now ? 0 : -1; });
  if (at >= 0 && !list.contains(document.activeElement)) (buttons[Math.min(at, buttons.length - 1)] ?? list.closest(".fer-own").querySelector("[data-part=choose]")).focus();
}

const short = item => (/no face/.test(item.note) ? "no face" : "not readable") + (item.count > 1 ? ` ×${item.count}` : "");

function move(s, event) {
  const buttons = [...event.currentTarget.querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
  if (event.key === "Delete" && at >= 0) return buttons[at].click();
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  if (!step || at < 0) return;
  event.preventDefault();
  const next = buttons[Math.max(0, Math.min(buttons.length - 1, at + step))];
  buttons.forEach(o => { o.tabIndex = o === next ? 0 : -1; });
  next.focus();
}

function fill({s, el}) {
  el.querySelectorAll("img[data-key]:not([src])").forEach(o => { if (s.urls.has(o.dataset.key)) o.src = s.urls.get(o.dataset.key); });
}

function drawTraining({s, el}) {
  const {train} = s.shown, place = el.querySelector(".fer-train");
  place.querySelector("[data-do=train]").disabled = train.busy || Boolean(train.why);
  place.querySelector(".fer-why").textContent = train.busy ? "" : train.why || (train.outdated ? "The examples have changed since: train again." : "");
  place.querySelector(".fer-progress").hidden = !train.busy;
  place.querySelector(".fer-progress span").textContent = s.progress || "Training";
  const estimate = place.querySelector(".fer-estimate");
  if (estimate.textContent !== (train.text ?? "")) estimate.textContent = train.text ?? "";
  estimate.dataset.kind = train.wrong ? "wrong" : train.better ? "better" : train.text ? "few" : "";
  el.dataset.training = train.busy ? "busy" : s.shown.model ? "done" : "none";
}

// ---- answers

function answers(view, faces) {
  const {classes, colors} = view.s.shown.model, list = view.el.querySelector(".fer-answers");
  list.replaceChildren(...faces.map(face => {
    const best = face.p.indexOf(Math.max(...face.p)), bars = make("div", {class: "fer-bars", role: "img", "aria-label": classes.map((o, i) => `${o} ${Math.round(100*face.p[i])}%`).join(", ")});
    face.p.forEach((p, i) => {
      const track = make("span", {class: "fer-track", style: `--fer-bar:${colors[i]}`}, make("i", {style: `width:${(100*p).toFixed(1)}%`})), mark = i === best ? " fer-best" : "";
      bars.append(make("span", {class: `fer-class${mark}`}, classes[i]), track, make("span", {class: `fer-value${mark}`}, `${Math.round(100*p)}%`));
    });
    const color = colors[classes.indexOf(face.label)] ?? "#b0b0b0", plate = make("span", {class: "fer-plate"}, `${face.id} ${face.label} ${Math.round(100*face.confidence)}%`);
    return make("li", {style: `--fer-color:${color};--fer-on:${ink(color)}`}, make("p", {class: "fer-verdict"}, plate), bars);
  }));
}

function paint(view, canvas, faces, mirror) {
  const {classes, colors} = view.s.shown.model ?? {classes: [], colors: []}, ratio = window.devicePixelRatio || 1, [wide, high] = [canvas.clientWidth, canvas.clientHeight];
  Object.assign(canvas, {width: Math.round(wide*ratio), height: Math.round(high*ratio)});
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const boxes = faces.map(({box: [x, y, w, h]}) => [wide*(mirror ? 1 - x - w : x), high*y, wide*w, high*h]), labels = [], zoom = wide < 420 ? .86 : 1;
  const color = ({label}) => colors[classes.indexOf(label)] ?? "#b0b0b0", spots = canvas.spots ??= new Map();   // of each face, where its label was
  faces.forEach((face, i) => {
    for (const [width, style] of [[4.5, "rgba(0,0,0,.4)"], [2.5, color(face)]]) Object.assign(pen, {lineWidth: width, strokeStyle: style}).strokeRect(...boxes[i]);
  });
  faces.forEach((face, i) => {
    const whole = `${face.id} ${face.label} ${Math.round(100*face.confidence)}%`, texts = faces.length > 2 ? [whole, String(face.id)] : [whole];
    const label = placeLabel(pen, texts, boxes[i], {boxes, labels, size: [wide, high], zoom, was: spots.get(face.id)});
    spots.set(face.id, label.at);
    labels.push(label.spot);
    paintLabel(pen, label, color(face), zoom);
  });
}

function drawTried(view) {
  const {s, el} = view, place = el.querySelector(".fer-tried"), image = place.querySelector("img"), {tried} = s;
  place.hidden = !tried?.url;
  if (!tried?.url) { image.removeAttribute("src"); if (!view.stream) el.querySelector(".fer-answers").replaceChildren(); return; }
  if (image.src !== tried.url) { image.src = tried.url; image.onload = () => drawTried(view); image.onerror = () => { place.hidden = true; }; }
  const list = el.querySelector(".fer-answers");
  if (tried.error) return list.replaceChildren(make("li", {}, tried.error));
  if (!tried.faces || !s.shown.model) return list.replaceChildren();
  paint(view, place.querySelector("canvas"), tried.faces, false);
  if (tried.faces.length) answers(view, tried.faces); else list.replaceChildren(make("li", {}, "No face was found in this image."));
}

// ---- the camera

async function openCamera(view) {
  const {el} = view, turn = ++view.turn;
  trouble(view, "");
  if (!navigator.mediaDevices?.getUserMedia) return trouble(view, "Browsers give the camera only to pages that come by https or from localhost. Images work, too.");
  let stream;
  try { stream = await navigator.mediaDevices.getUserMedia({audio: false, video: {width: {ideal: SIDE}, height: {ideal: .75*SIDE}, facingMode: "user"}}); }
  catch (error) { return trouble(view, REASONS[error.name] ?? `The camera cannot be opened (${error.message || error.name}).`); }
  if (turn !== view.turn) return stream.getTracks().forEach(track => track.stop());   // stopped while the person was asked
  const video = el.querySelector("video");
  Object.assign(view, {stream, seen: performance.now()});
  stream.getVideoTracks()[0].onended = () => closeCamera(view, "The camera was taken away.");
  video.srcObject = stream;
  await video.play().catch(() => {});
  dress(view);
}

function closeCamera(view, text = "") {
  view.turn++;
  stopRecording(view);
  view.stream?.getTracks().forEach(track => track.stop());
  view.el.querySelector("video").srcObject = view.stream = view.asked = null;
  if (text) trouble(view, text);
  dress(view);
  drawTried(view);
}

function trouble(view, text) { Object.assign(view.el.querySelector(".fer-trouble"), {hidden: !text, textContent: text}); }

function dress(view) {
  const {el, stream, record} = view, status = el.querySelector(".fer-status");
  status.textContent = record ? "recording" : stream ? "camera on" : "camera off";
  status.className = `fer-status ${stream ? "fer-on" : "fer-off"}`;
  el.dataset.camera = record ? "recording" : stream ? "on" : "off";
  el.querySelector(".fer-view").hidden = !stream;
  el.querySelector("[data-do=camera]").textContent = stream ? "Stop camera" : "Start camera";
  el.querySelector(".fer-doing").textContent = record ? `${plural(record.taken, "example")}${record.lost ? `, ${record.lost} without a face` : ""}` : "";
  el.querySelectorAll("[data-part=record]").forEach(o => { o.classList.toggle("fer-held", record?.id === o.closest(".fer-own").dataset.id); });
}

// A button that records while it is held, by pointer or key. A click of a screen reader, which cannot hold, takes two seconds.
function recordButton(view, id) {
  const begin = () => { if (view.stream) startRecording(view, id); else trouble(view, "Start the camera first."); };
  const end = () => { if (view.record?.id === id) stopRecording(view); }, isKey = event => [" ", "Enter"].includes(event.key);
  const down = event => { if (event.button) return; event.currentTarget.setPointerCapture(event.pointerId); begin(); };
  return make("button", {type: "button", class: "fer-button fer-record", "data-part": "record", title: "Hold it (or the space bar) to take examples from the camera",
    pointerdown: down, pointerup: end, pointercancel: end, blur: end, contextmenu: event => event.preventDefault(),
    keydown: event => { if (isKey(event)) { event.preventDefault(); if (!event.repeat) begin(); } },
    keyup: event => { if (isKey(event)) { event.preventDefault(); end(); } },
    click: event => { if (event.detail === 0) { begin(); setTimeout(end, SHORT); } }}, "Hold to record");
}

function startRecording(view, id) {
  view.record = {id, take: ++serial, taken: 0, lost: 0, sent: 0};
  dress(view);
}

function stopRecording(view) {
  if (!view.record) return;
  view.record = null;
  dress(view);
}

// Twelve times a second: send a frame if the last one was answered, and close a camera that nobody can see.
function tick(view) {
  const now = performance.now(), {stream, record, s, el} = view;
  if (!stream) return;
  if (!document.hidden && el.getClientRects().length) view.seen = now;
  if (now - view.seen > AWAY) return closeCamera(view, "The camera was closed, because it was out of sight.");
  if (view.shown && now - view.shown.at > FRESH) { view.shown = null; paint(view, el.querySelector(".fer-view canvas"), [], true); }
  if (view.asked && now - view.asked.at < GIVEN_UP || view.encoding || document.hidden) return;
  if (record && record.sent >= s.shown.limits.frames) { trouble(view, `A recording has at most ${s.shown.limits.frames} frames. Move a little, then record once more.`); return stopRecording(view); }
  if (now - (view.sentAt ?? 0) < (record ? RATE : LIVE) || !record && !s.shown.model) return;
  sendFrame(view, record);
}

async function sendFrame(view, record) {
  const {s, el, turn} = view, video = el.querySelector("video"), scale = Math.min(1, SIDE/Math.max(video.videoWidth, video.videoHeight));
  if (!video.videoWidth) return;
  Object.assign(view, {encoding: true, sentAt: performance.now()});
  try {
    Object.assign(view.grab, {width: Math.round(video.videoWidth*scale), height: Math.round(video.videoHeight*scale)});
    view.grab.getContext("2d").drawImage(video, 0, 0, view.grab.width, view.grab.height);
    const blob = await new Promise(done => view.grab.toBlob(done, "image/jpeg", .85)), bytes = await blob.arrayBuffer();
    if (turn !== view.turn || record && view.record !== record) return;
    const number = ++view.number, target = record ? {to: record.id, take: record.take} : {};
    if (record) record.sent++;
    view.asked = {number, at: performance.now(), record};
    s.model.send({kind: "frame", view: view.id, number, time: performance.now()/1000, ...target}, undefined, [bytes]);
  } finally { view.encoding = false; }
}

function answered(view, message) {
  if (message.number !== view.asked?.number) return;
  const {record} = view.asked;
  view.asked = null;
  if (message.error) trouble(view, message.error);
  if (message.full) stopRecording(view);
  if (record && !message.error) { if (message.usable) record.taken++; else if (message.usable === false) record.lost++; return dress(view); }
  if (!message.faces || !view.stream || !view.s.shown.model) return;
  view.shown = {at: performance.now()};
  view.results = (view.results ?? 0) + 1;
  view.el.dataset.results = view.results;
  paint(view, view.el.querySelector(".fer-view canvas"), message.faces, true);
  if (!view.s.tried?.url) answers(view, message.faces);
}

// ---- what a person does

const actions = {
  camera: view => { if (view.stream) closeCamera(view); else { forget(view.s); openCamera(view); } },
  add: ({s}) => s.model.send({kind: "add"}),
  load: view => choose(view, {types: ".zip", many: false, then: ([file]) => take(view.s, [{file, target: {zip: true}}])}),
  zip: ({s}) => s.model.send({kind: "save", what: "zip"}),
  model: ({s}) => s.model.send({kind: "save", what: "model"}),
  clear: ({s}) => s.model.send({kind: "clear"}),
  train: ({s}) => s.model.send({kind: "train"}),
  image: view => choose(view, {types: TYPES, many: false, then: ([file]) => tryImage(view.s, file)}),
};

function forget(s) {   // the image that was tried
  if (s.tried?.url) URL.revokeObjectURL(s.tried.url);
  s.tried = null;
  all(s, drawTried);
}

function listen(view) {
  const {el} = view, mark = event => {
    event.preventDefault();
    event.stopPropagation();
    el.querySelectorAll(".fer-over").forEach(o => o.classList.remove("fer-over"));
    if (event.type === "dragover") event.target.closest?.(".fer-own, .fer-try")?.classList.add("fer-over");
  };
  for (const name of ["dragenter", "dragover", "dragleave"]) el.addEventListener(name, mark);
  el.addEventListener("drop", event => { mark(event); drop(view, event); });
  el.addEventListener("click", event => { const o = event.target.closest("[data-do]"); if (o) actions[o.dataset.do](view); });
}

function render(s, el) {
  const id = Array.from(crypto.getRandomValues(new Uint32Array(3)), n => n.toString(36)).join("");
  const root = make("div", {class: "fer-panel fer-classes"}), view = {s, el: root, id, turn: 0, number: 0, stream: null, record: null, grab: document.createElement("canvas")};
  root.innerHTML = SHELL;
  root.querySelector(".fer-where").textContent = onPage() ? "All of it stays on this computer, and is gone when you close the page."
    : "All of it stays in the memory of the kernel, and is gone when the kernel is.";
  el.append(root);
  s.views.add(view);
  listen(view);
  const leave = attend(s.model, root, () => { s.over = true; closeCamera(view); s.replies.forEach(o => o.wake()); root.querySelectorAll("button:not(.fer-gone button), input").forEach(o => { o.disabled = true; }); });
  const timer = setInterval(() => tick(view), 30), hide = () => closeCamera(view), resized = new ResizeObserver(() => drawTried(view));
  window.addEventListener("pagehide", hide);
  resized.observe(root);
  draw(view);
  dress(view);
  return () => {
    closeCamera(view);
    leave();
    clearInterval(timer);
    resized.disconnect();
    window.removeEventListener("pagehide", hide);
    s.views.delete(view);
  };
}

function begin(s) {
  const hear = (message, buffers) => receive(s, message, buffers);
  s.model.on("msg:custom", hear);
  s.model.send({kind: "hello"});
  return () => {
    s.model.off("msg:custom", hear);
    for (const url of s.urls.values()) URL.revokeObjectURL(url);
  };
}

// One state for each panel, however many views of it there are.
export default () => {
  let s;
  return {initialize: ({model}) => begin(s = newState(model)), render: ({el}) => render(s, el)};
};
