// The browser's side of fer_nb.browser_camera.BrowserCamera: it shows the camera, sends frames to the kernel, and draws what comes back.
// Frames go by messages and never through the widget's state, so no image can get into a saved notebook.
// A plain ES module: no build step, nothing loaded from elsewhere.

const AHEAD = 2;          // frames that are sent before the kernel has answered
const SILENT = 2500;      // milliseconds after which a silent kernel is mentioned
const RETRY = 10000;      // ... after which a frame that was not answered is given up
const GONE = 60000;       // ... after which the camera is closed
const DETACHED = 5000;    // ... after which a widget that is no longer on the page closes the camera
const LARGEST = 64 << 20; // bytes of an image that is chosen
const ICON = `<svg viewBox="0 0 24 24" width="34" height="34" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round"
  aria-hidden="true"><rect x="2.5" y="6" width="13" height="12" rx="2.5"/><path d="M15.5 10.5l6-3v9l-6-3z"/></svg>`;
const SHELL = `
  <div class="fer-bar">
    <span class="fer-status fer-off" role="status">camera off</span>
    <span class="fer-numbers" aria-live="off"></span>
    <span class="fer-ways">
      <button type="button" class="fer-button" data-do="pause">Pause</button>
      <button type="button" class="fer-button" data-do="snapshot" title="Download the image as it is shown">Snapshot</button>
      <button type="button" class="fer-button fer-stop" data-do="stop">Stop</button>
    </span>
  </div>
  <div class="fer-message" role="alert" hidden></div>
  <div class="fer-stage">
    <div class="fer-frame" hidden><video muted playsinline></video><canvas class="fer-still" hidden></canvas><canvas class="fer-overlay" aria-hidden="true"></canvas></div>
    <div class="fer-idle">
      <span class="fer-icon">${ICON}</span>
      <span class="fer-invite"><b>Expressions live, from the camera of this browser</b>
        <span>Frames stay in the memory of this browser and of your kernel. Nothing is saved.</span></span>
      <span class="fer-ways">
        <button type="button" class="fer-button fer-main" data-do="start">Start camera</button>
        <button type="button" class="fer-button" data-do="choose" title="On a phone this opens its camera">Take or choose an image</button></span>
      <input type="file" accept="image/*" capture="user" tabindex="-1" aria-label="Take or choose an image">
    </div>
  </div>
  <div class="fer-bar fer-options">
    <label class="fer-expected" hidden>Expected faces <select></select></label>
    <label class="fer-devices" hidden>Camera <select></select></label>
    <label><input type="checkbox" data-option="mirror"> mirror</label>
    <label><input type="checkbox" data-option="bars" checked> bars</label>
    <label class="fer-unsure-option" hidden><input type="checkbox" data-option="uncertain"> say when uncertain</label>
  </div>
  <ul class="fer-said" aria-label="Faces"></ul>`;

const REASONS = {
  NotAllowedError: "The camera was not allowed. Allow it at the camera symbol in the address bar of the browser, then start again.",
  SecurityError: "The browser's settings do not allow the camera on this page.",
  NotFoundError: "No camera was found at this computer.",
  OverconstrainedError: "The camera that was chosen is not there any more.",
  NotReadableError: "The camera cannot be opened: another program uses it, or the operating system does not let the browser use it.",
  AbortError: "The camera stopped answering.",
};

// Why there is no camera on this page, "" where there may be one.
function obstacle() {
  if (!window.isSecureContext) return "Browsers give the camera only to pages that come by https or from localhost, and this one came by http from another computer. " +
    "Forward its port (ssh -L 8888:localhost:8888 …) and open http://localhost:8888, or serve it by https.";
  if (!navigator.mediaDevices?.getUserMedia) return "This browser or editor gives notebooks no camera.";
  const policy = document.permissionsPolicy ?? document.featurePolicy;
  if (policy?.allowsFeature && !policy.allowsFeature("camera")) return "The program around this notebook does not pass the camera on. In a browser it works.";
  return "";
}

function render({model, el}) {
  const settings = model.get("settings");
  const root = document.createElement("div");
  root.className = "fer-panel fer-live fer-camera";
  root.innerHTML = SHELL;
  el.append(root);
  const find = name => root.querySelector(name);
  const s = {
    model, settings, root, find, video: find("video"), still: find(".fer-still"), overlay: find(".fer-overlay"), grab: document.createElement("canvas"),
    view: Array.from(crypto.getRandomValues(new Uint32Array(3)), n => n.toString(36)).join(""), state: "off", stream: null, turn: 0, number: 0,
    waiting: new Map(), asked: 0, sent: 0, encoding: false, faces: new Map(), arrived: [], lag: 0, results: 0, frame: 0, drawn: 0,
    options: {mirror: settings.mirror, bars: true, uncertain: settings.uncertain, prior: settings.prior}, troubled: false,
  };
  for (const box of root.querySelectorAll("[data-option]")) {
    box.checked = s.options[box.dataset.option];
    box.onchange = () => { s.options[box.dataset.option] = box.checked; dress(s); draw(s); };
  }
  find(".fer-unsure-option").hidden = !settings.advised;
  const expected = find(".fer-expected select");
  expected.replaceChildren(...settings.priors.map(name => new Option(name, name, false, name === settings.prior)));
  expected.onchange = () => { s.options.prior = expected.value; if (s.state === "still") ask(s); };
  Object.assign(find(".fer-expected"), {hidden: !settings.priors.length, title: settings.help});
  const does = {start: () => start(s), stop: () => stop(s), pause: () => pause(s), snapshot: () => snapshot(s), choose: () => find("input[type=file]").click()};
  for (const button of root.querySelectorAll("[data-do]")) button.onclick = does[button.dataset.do];
  find("input[type=file]").onchange = event => { choose(s, event.target.files[0]); event.target.value = ""; };
  find(".fer-devices select").onchange = event => start(s, event.target.value);
  const receive = message => message.view === s.view && answer(s, message);
  const hide = () => hidden(s), leave = () => stop(s), watch = setInterval(() => look(s), 500);
  model.on("msg:custom", receive);
  document.addEventListener("visibilitychange", hide);
  window.addEventListener("pagehide", leave);
  const resized = new ResizeObserver(() => draw(s));
  resized.observe(find(".fer-stage"));
  s.video.onresize = () => dress(s);
  if (obstacle()) say(s, obstacle() + " A single image works, too.", true);
  dress(s);
  return () => {
    stop(s);
    clearInterval(watch);
    resized.disconnect();
    model.off("msg:custom", receive);
    document.removeEventListener("visibilitychange", hide);
    window.removeEventListener("pagehide", leave);
  };
}

// ---- what the widget says about itself

function say(s, text, trouble = false) {
  const box = s.find(".fer-message");
  box.hidden = !text;
  box.classList.toggle("fer-trouble", trouble);
  box.textContent = text;
  for (const [way, main] of [["start", !trouble], ["choose", trouble]]) s.find(`[data-do=${way}]`).classList.toggle("fer-main", main);
}

function dress(s) {
  const {root, state} = s, on = state === "on" || state === "paused";
  root.dataset.state = state;
  const says = {off: "camera off", asking: "camera opening", on: "camera on", paused: "camera on, paused", still: "camera off"}[state];
  s.find(".fer-status").textContent = says;
  s.find(".fer-status").className = `fer-status fer-${on ? "on" : state === "asking" ? "opening" : "off"}`;
  s.find(".fer-idle").classList.toggle("fer-small", state === "still");
  s.find(".fer-idle").hidden = on || state === "asking";
  s.find("[data-do=pause]").textContent = state === "paused" ? "Go on" : "Pause";
  s.find("[data-do=pause]").hidden = !on;
  s.find("[data-do=stop]").hidden = !on && state !== "asking";
  s.find("[data-do=snapshot]").hidden = !on && state !== "still";
  s.video.classList.toggle("fer-mirrored", s.options.mirror);
  s.still.hidden = state !== "still";
  s.video.hidden = state === "still";
  s.find(".fer-frame").hidden = !on && state !== "still";
  const shown = state === "still" ? s.still : {width: s.video.videoWidth, height: s.video.videoHeight};
  if (shown.width) s.find(".fer-frame").style.setProperty("--fer-aspect", shown.width/shown.height);
  if (!on) s.find(".fer-numbers").textContent = "";
}

// Figures and screen readers' text, twice a second; and the camera must not stay on unseen or unanswered.
function look(s) {
  const now = performance.now();
  if (s.state !== "on" && s.state !== "paused") return;
  if (s.root.isConnected) s.seen = now;
  if (document.hidden || s.root.getClientRects().length) s.inSight = now;   // not so behind another tab
  if (now - s.seen > DETACHED) return stop(s, "The camera was closed, because the widget was not on the page any more.");
  if (now - s.inSight > 1000*s.settings.away) return stop(s, "The camera was closed, because it was out of sight.");
  if (s.state !== "on" || document.hidden) return;
  s.arrived = s.arrived.filter(t => now - t < 2000);
  const rate = s.arrived.length / 2, n = [...s.faces.values()].filter(face => face.there).length;
  s.find(".fer-numbers").textContent = `${rate.toFixed(0)} results/s · ${s.lag.toFixed(0)} ms behind · ${n === 1 ? "1 face" : `${n || "no"} faces`}`;
  Object.assign(s.root.dataset, {results: s.results, rate: rate.toFixed(1), lag: s.lag.toFixed(0), faces: n});
  s.find(".fer-said").replaceChildren(...[...s.faces.values()].filter(face => face.there).map(face => {
    const line = document.createElement("li");
    line.textContent = `face ${face.id}: ${face.label} ${Math.round(100*face.confidence)}%`;
    return line;
  }));
  const silent = s.asked ? now - s.asked : 0;
  if (silent > GONE) return stop(s, "The camera was closed, because the kernel did not answer for a minute.", true);
  if (silent > SILENT) { s.troubled = true; say(s, "The kernel does not answer. It is busy with another cell, or it has stopped. Nothing is sent meanwhile."); }
  for (const [number, sent] of s.waiting) if (now - sent > RETRY) s.waiting.delete(number);
}

// ---- the camera

async function start(s, device) {
  release(s);
  const turn = ++s.turn, reason = obstacle();
  if (reason) return fail(s, reason);
  s.state = "asking";
  say(s, "");
  dress(s);
  const size = {width: {ideal: s.settings.size}, height: {ideal: Math.round(.75*s.settings.size)}};
  try {
    const stream = await navigator.mediaDevices.getUserMedia({audio: false, video: device ? {...size, deviceId: {exact: device}} : {...size, facingMode: "user"}});
    if (turn !== s.turn) return stream.getTracks().forEach(track => track.stop());   // stopped while the person was asked
    s.stream = stream;
    stream.getVideoTracks()[0].onended = () => s.stream === stream && stop(s, "The camera was taken away.", true);
    s.video.srcObject = stream;
    await s.video.play();
  } catch (error) {
    if (turn === s.turn) { release(s); fail(s, REASONS[error.name] ?? `The camera cannot be opened (${error.message || error.name}).`); }
    return;
  }
  if (turn !== s.turn) return;
  Object.assign(s, {state: "on", asked: 0, seen: performance.now(), inSight: performance.now(), sent: 0, arrived: [], lag: 0, results: 0});
  s.waiting.clear();
  s.faces.clear();
  dress(s);
  devices(s);
  const next = s.video.requestVideoFrameCallback ? f => s.video.requestVideoFrameCallback(f) : f => requestAnimationFrame(f);
  const live = () => { if (turn === s.turn && s.stream) { next(live); send(s); draw(s); } };   // once for each frame of the camera
  next(live);
}

function release(s) {
  s.turn++;
  s.stream?.getTracks().forEach(track => track.stop());
  if (s.stream) try { s.model.send({kind: "stop", view: s.view}); } catch { /* the kernel is gone */ }
  s.stream = s.video.srcObject = null;
  s.faces.clear();
  s.waiting.clear();
}

function stop(s, text = "", trouble = false) {
  clearTimeout(s.away);
  if (s.state === "off") return;
  release(s);
  s.state = "off";
  s.find(".fer-said").replaceChildren();
  say(s, text, trouble);
  dress(s);
  draw(s);
}

function fail(s, reason) {
  s.state = "off";
  say(s, reason + " A single image works, too: take or choose one.", true);
  dress(s);
  draw(s);
}

function pause(s) {
  s.state = s.state === "paused" ? "on" : "paused";
  if (s.state === "on") s.video.play(); else { s.video.pause(); send(s, true); }   // the frame that stays is looked at, too
  dress(s);
}

function hidden(s) {
  clearTimeout(s.away);
  const after = () => document.hidden && s.stream && stop(s, "The camera was closed, because the page was hidden.");
  if (document.hidden) s.away = setTimeout(after, 1000*s.settings.away);
  s.asked = 0;
}

async function devices(s) {
  const all = (await navigator.mediaDevices.enumerateDevices()).filter(d => d.kind === "videoinput");
  const now = s.stream?.getVideoTracks()[0]?.getSettings().deviceId;
  s.find(".fer-devices select").replaceChildren(...all.map((d, i) => new Option(d.label || `camera ${i + 1}`, d.deviceId, false, d.deviceId === now)));
  s.find(".fer-devices").hidden = all.length < 2;
}

// ---- frames out, results in

function shrink(s, source, wide, high, most) {
  const scale = Math.min(1, most/Math.max(wide, high));
  s.grab.width = Math.max(1, Math.round(wide*scale));
  s.grab.height = Math.max(1, Math.round(high*scale));
  s.grab.getContext("2d", {willReadFrequently: true}).drawImage(source, 0, 0, s.grab.width, s.grab.height);
}

const jpeg = (canvas, quality) => new Promise(done => canvas.toBlob(done, "image/jpeg", quality));

// The newest frame, if the kernel has kept up; otherwise it is left out, and a newer one will come.
async function send(s, last = false) {
  const now = performance.now(), {turn} = s;
  if (!last && (s.state !== "on" || s.waiting.size >= AHEAD || now - s.sent < 1000/s.settings.rate - 4 || document.hidden || s.encoding)) return;
  if (!s.video.videoWidth) return;
  s.encoding = true;
  s.sent = now;
  try {
    shrink(s, s.video, s.video.videoWidth, s.video.videoHeight, s.settings.size);
    const bytes = await (await jpeg(s.grab, s.settings.quality)).arrayBuffer();
    if (turn !== s.turn || !s.stream) return;
    const number = ++s.number;
    s.asked ||= now;
    s.waiting.set(number, now);
    s.model.send({kind: "frame", view: s.view, number, time: now/1000, uncertain: s.options.uncertain, prior: s.options.prior}, undefined, [bytes]);
  } finally { s.encoding = false; }
}

async function choose(s, file) {
  if (!file) return;
  stop(s);
  if (file.size > LARGEST) return say(s, `${file.name}: it is larger than ${LARGEST >> 20} MB.`, true);
  let image;
  try { image = await createImageBitmap(file, {imageOrientation: "from-image"}); } catch { return say(s, `${file.name}: it is not an image that this browser can read.`, true); }
  shrink(s, image, image.width, image.height, s.settings.still);
  s.still.width = s.grab.width;
  s.still.height = s.grab.height;
  s.still.getContext("2d").drawImage(s.grab, 0, 0);
  image.close();
  s.state = "still";
  s.faces.clear();
  dress(s);
  draw(s);
  ask(s);
}

// Have the single image answered, perhaps once more.
async function ask(s) {
  say(s, "Looking …");
  const bytes = await (await jpeg(s.still, .92)).arrayBuffer(), number = ++s.number;
  s.waiting.set(number, performance.now());
  const {uncertain, prior} = s.options;
  s.model.send({kind: "still", view: s.view, number, time: performance.now()/1000, uncertain, prior}, undefined, [bytes]);
}

function answer(s, message) {
  const sent = s.waiting.get(message.number), now = performance.now();
  for (const number of s.waiting.keys()) if (number <= message.number) s.waiting.delete(number);
  if (sent === undefined || (message.kind === "still") !== (s.state === "still")) return;
  s.asked = s.waiting.size ? now : 0;
  if (message.error) { s.troubled = true; return say(s, message.error, true); }
  if (s.troubled || s.state === "still") { s.troubled = false; say(s, message.kind === "still" && !message.faces.length ? "No face was found in this image." : ""); }
  s.arrived.push(now);
  s.results++;
  s.lag += (now - sent - s.lag)*(s.lag ? .15 : 1);
  merge(s, message.faces, sent);
  if (s.state !== "on") {
    s.find(".fer-said").replaceChildren(...message.faces.map(face => Object.assign(document.createElement("li"),
      {textContent: `face ${face.id}: ${face.label} ${Math.round(100*face.confidence)}%`})));
    s.root.dataset.faces = message.faces.length;
    draw(s);
  }
}

// ---- drawing: boxes and bars glide to where they should be by now, so they move as smoothly as the image.
// A box that moves is moved on for as long as its answer was under way; small movements are left alone, for they are noise.

const CALM = .15, REACH = 250;   // widths of the box in a second that count as noise; milliseconds that are looked ahead

function merge(s, faces, taken) {
  for (const face of s.faces.values()) face.there = false;
  for (const {id, box, label, confidence, p} of faces) {
    const face = s.faces.get(id) ?? {id, box: [...box], p: p.map(() => 0), alpha: 0, speed: [0, 0, 0, 0]}, span = (taken - face.taken)/1000;
    if (span > .01) face.speed = face.speed.map((v, i) => i > 1 || span > 1 ? 0 : v + ((box[i] - face.target[i])/span - v)*Math.min(1, span/.12));
    s.faces.set(id, Object.assign(face, {there: true, label, confidence, target: box, aims: p, taken}));
  }
}

function settle(face, share, ahead) {
  const move = face.speed.map(v => Math.sign(v)*Math.max(0, Math.abs(v) - CALM*face.target[2])*ahead/1000);
  face.box = face.box.map((v, i) => v + (face.target[i] + move[i] - v)*share);
  face.p = face.p.map((v, i) => v + (face.aims[i] - v)*share);
  face.alpha += ((face.there ? 1 : 0) - face.alpha)*share;
}

function draw(s) {
  const {overlay} = s, now = performance.now(), ratio = window.devicePixelRatio || 1;
  const wide = overlay.clientWidth, high = overlay.clientHeight, step = Math.min(100, now - s.drawn);
  if (overlay.width !== Math.round(wide*ratio) || overlay.height !== Math.round(high*ratio)) { overlay.width = Math.round(wide*ratio); overlay.height = Math.round(high*ratio); }
  s.drawn = now;
  const pen = overlay.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, wide, high);
  if (s.state === "off" || s.state === "asking") return;
  for (const face of s.faces.values())
    if (s.state === "on") settle(face, 1 - Math.exp(-step/(face.there ? 40 : 120)), Math.min(REACH, now - face.taken)); else settle(face, 1, 0);
  for (const [id, face] of s.faces) if (!face.there && face.alpha < .03) s.faces.delete(id);
  paint(s, pen, wide, high);
}

function paint(s, pen, wide, high) {
  const faces = [...s.faces.values()].sort((a, b) => a.box[2] - b.box[2]), zoom = Math.max(1, Math.min(1.3, Math.min(wide, high)/420));
  const boxes = faces.map(({box: [x, y, w, h]}) => [s.options.mirror && s.state !== "still" ? wide*(1 - x - w) : x*wide, y*high, w*wide, h*high]);
  const taken = boxes.map(([x, y, w, h]) => [x, y - 26*zoom, w, h + 26*zoom]);
  const fading = (i, paintPart) => { pen.globalAlpha = Math.max(0, Math.min(1, faces[i].alpha)); paintPart(); };
  faces.forEach((face, i) => fading(i, () => paintFace(s, pen, face, boxes[i], [wide, high], zoom)));
  faces.forEach((face, i) => {
    if (s.options.bars && boxes[i][2] > 28*zoom) fading(i, () => taken.push(paintBars(s, pen, face, boxes[i], taken, [wide, high], zoom)));
  });
  pen.globalAlpha = 1;
}

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
const round = (pen, x, y, w, h, r) => { pen.beginPath(); pen.roundRect ? pen.roundRect(x, y, w, h, r) : pen.rect(x, y, w, h); };

function ink(color) {
  const [r, g, b] = [1, 3, 5].map(i => parseInt(color.slice(i, i + 2), 16));
  return .299*r + .587*g + .114*b > 110 ? "#000" : "#fff";
}

function paintFace(s, pen, face, [x, y, w, h], [wide, high], zoom) {
  const unsure = face.label === "uncertain", color = s.settings.colors[face.label] ?? "#b0b0b0";
  pen.setLineDash(unsure ? [6*zoom, 5*zoom] : []);
  pen.lineJoin = "round";
  for (const [width, style] of [[4.5*zoom, "rgba(0,0,0,.4)"], [2.5*zoom, color]]) {
    pen.lineWidth = width;
    pen.strokeStyle = style;
    round(pen, x, y, w, h, 7*zoom);
    pen.stroke();
  }
  pen.setLineDash([]);
  const text = `${face.label} ${Math.round(100*face.confidence)}%`;
  pen.font = `600 ${14*zoom}px ${FONT}`;
  pen.textBaseline = "middle";
  const plate = pen.measureText(text).width + 14*zoom, tall = 22*zoom;
  const left = Math.max(0, Math.min(x, wide - plate)), top = y - tall - 4*zoom >= 0 ? y - tall - 4*zoom : Math.max(0, y) + 4*zoom;
  pen.fillStyle = color;
  round(pen, left, top, plate, tall, 6*zoom);
  pen.fill();
  pen.fillStyle = ink(color);
  pen.fillText(text, left + 7*zoom, top + tall/2 + zoom/2);
}

// The place beside a face where its bars hide least of faces and of other bars; the one where they were is kept unless another is clearly better.
function place(face, [x, y, w, h], taken, [wide, high], [across, tall], zoom) {
  const common = ([x, y, w, h], [u, v, a, b]) => Math.max(0, Math.min(x + w, u + a) - Math.max(x, u))*Math.max(0, Math.min(y + h, v + b) - Math.max(y, v));
  const middle = x + (w - across)/2, sides = [[x + w + 8*zoom, y], [x - 8*zoom - across, y], [middle, y + h + 8*zoom], [middle, y - 34*zoom - tall]];
  const spots = sides.map(([left, top]) => [Math.max(0, Math.min(wide - across, left)), Math.max(0, Math.min(high - tall, top)), across, tall]);
  const costs = spots.map((spot, i) => taken.reduce((sum, o) => sum + common(spot, o), 0)/(across*tall) + .03*i - (i === face.side ? .15 : 0));
  face.side = costs.indexOf(Math.min(...costs));
  return spots[face.side];
}

// All probabilities on a dark plate, whose place is given back.
function paintBars(s, pen, face, box, taken, size, zoom) {
  const line = 15*zoom, across = 150*zoom, tall = face.p.length*line + 10*zoom, best = face.aims.indexOf(Math.max(...face.aims));
  const spot = place(face, box, taken, size, [across, tall], zoom), [left, top] = spot;
  pen.fillStyle = "rgba(18,20,24,.62)";
  round(pen, left, top, across, tall, 8*zoom);
  pen.fill();
  face.p.forEach((p, i) => {
    const middle = top + 5*zoom + (i + .5)*line, name = s.settings.classes[i], start = left + 68*zoom, room = across - 76*zoom;
    pen.font = `${i === best ? 600 : 400} ${11.5*zoom}px ${FONT}`;
    pen.fillStyle = i === best ? "#fff" : "rgba(255,255,255,.75)";
    pen.fillText(name, left + 8*zoom, middle, 58*zoom);
    pen.fillStyle = "rgba(255,255,255,.16)";
    round(pen, start, middle - 4*zoom, room, 8*zoom, 3*zoom);
    pen.fill();
    pen.fillStyle = s.settings.colors[name];
    round(pen, start, middle - 4*zoom, Math.max(zoom, room*p), 8*zoom, 3*zoom);
    pen.fill();
  });
  return spot;
}

async function snapshot(s) {
  const source = s.state === "still" ? s.still : s.video, wide = source.videoWidth ?? source.width, high = source.videoHeight ?? source.height;
  const canvas = Object.assign(document.createElement("canvas"), {width: wide, height: high}), pen = canvas.getContext("2d");
  if (s.options.mirror && source === s.video) pen.setTransform(-1, 0, 0, 1, wide, 0);
  pen.drawImage(source, 0, 0, wide, high);
  pen.setTransform(1, 0, 0, 1, 0, 0);
  paint(s, pen, wide, high);
  const url = URL.createObjectURL(await new Promise(done => canvas.toBlob(done, "image/png")));
  const name = `expressions-${new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-")}.png`;
  Object.assign(document.createElement("a"), {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  say(s, `The browser saves ${name} among its downloads.`);
}

export default {render};
