// The browser's side of fer_nb.browser_camera.BrowserCamera: it shows the camera, sends frames to the kernel, and draws what comes back.
// Frames go by messages and never through the widget's state, so no image can get into a saved notebook.
// A plain ES module: no build step, nothing loaded from elsewhere.

const AHEAD = 2;          // frames that are sent before the kernel has answered
const SILENT = 2500;      // milliseconds after which a silent kernel is mentioned
const RETRY = 10000;      // ... after which a frame that was not answered is given up
const GONE = 60000;       // ... after which the camera is closed
const FRESH = 1000;       // ... for which an answer is shown when no other comes
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
  <div class="fer-scene">
    <div class="fer-stage">
      <div class="fer-frame" hidden><video muted playsinline></video><canvas class="fer-still" hidden></canvas><canvas class="fer-overlay" aria-hidden="true"></canvas></div>
      <div class="fer-idle">
        <span class="fer-icon">${ICON}</span>
        <span class="fer-invite"><b>Expressions live, from the camera of this browser</b><span class="fer-where"></span></span>
        <span class="fer-ways">
          <button type="button" class="fer-button fer-main" data-do="start">Start camera</button>
          <button type="button" class="fer-button fer-phone" data-do="take">Take a photo</button>
          <button type="button" class="fer-button" data-do="choose">Choose an image</button></span>
        <input type="file" class="fer-taken" accept="image/*" capture="user" tabindex="-1" aria-label="Take a photo">
        <input type="file" class="fer-chosen" accept="image/*" tabindex="-1" aria-label="Choose an image">
      </div>
    </div>
    <ol class="fer-list fer-faces" aria-label="Faces and their expressions" hidden></ol>
  </div>
  <div class="fer-better" role="status" hidden><span></span><button type="button" class="fer-button" data-do="fetch">Fetch it</button></div>
  <div class="fer-history" role="group" aria-label="The last 30 seconds" hidden>
    <div class="fer-rows"></div>
    <p class="fer-axis" aria-hidden="true"><span>30 s ago</span><span>20 s</span><span>10 s</span><span>now</span></p>
  </div>
  <div class="fer-recorder" hidden>
    <button type="button" class="fer-button" data-do="record">Record to CSV</button>
    <button type="button" class="fer-button fer-main" data-do="keep" hidden>Save the recording</button>
    <button type="button" class="fer-button" data-do="discard" hidden>Discard it</button>
    <span class="fer-mark" role="status"></span><span class="fer-length" aria-live="off"></span>
    <span class="fer-what"></span>
  </div>
  <div class="fer-bar fer-options">
    <label class="fer-expected" hidden>Expected faces <select></select></label>
    <label class="fer-devices" hidden>Camera <select></select></label>
    <label><input type="checkbox" data-option="mirror"> mirror</label>
    <label><input type="checkbox" data-option="bars" checked> bars</label>
    <label class="fer-unsure-option" hidden><input type="checkbox" data-option="uncertain"> say when not sure</label>
    <label class="fer-baseline-option" hidden><input type="checkbox" data-option="baseline"> own baselines</label>
    <span class="fer-baseline-help" hidden></span>
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
    options: {mirror: settings.mirror, bars: true, uncertain: settings.uncertain, prior: settings.prior, baseline: settings.baseline}, troubled: false,
    newest: 0, listed: 0, drew: 0, history: new Map(), record: null, lost: false,
  };
  for (const box of root.querySelectorAll("[data-option]")) {
    box.checked = s.options[box.dataset.option];
    box.onchange = () => { s.options[box.dataset.option] = box.checked; dress(s); draw(s); };
  }
  find(".fer-unsure-option").hidden = !settings.advised;
  find(".fer-baseline-option").hidden = !settings.baselines;
  find(".fer-baseline-help").textContent = settings.baseline_help;
  find(".fer-where").textContent = `${whereKept("Frames")} Nothing is saved unless you save it.`;
  find(".fer-what").textContent = settings.recorded;
  find(".fer-better span").textContent = FETCH;
  if (settings.problem) say(s, settings.problem);
  const expected = find(".fer-expected select");
  expected.replaceChildren(...settings.priors.map(name => new Option(name, name, false, name === settings.prior)));
  expected.onchange = () => { s.options.prior = expected.value; if (s.state === "still") ask(s); };
  Object.assign(find(".fer-expected"), {hidden: !settings.priors.length, title: settings.help});
  const does = {
    start: () => start(s), stop: () => stop(s), pause: () => pause(s), snapshot: () => snapshot(s), fetch: () => fetchDetector(s), take: () => find(".fer-taken").click(),
    choose: () => find(".fer-chosen").click(), record: () => record(s), keep: () => keep(s), discard: () => discard(s),
  };
  for (const button of root.querySelectorAll("[data-do]")) button.onclick = does[button.dataset.do];
  for (const input of root.querySelectorAll("input[type=file]")) input.onchange = () => { choose(s, input.files[0]); input.value = ""; };
  find(".fer-devices select").onchange = event => start(s, event.target.value);
  const receive = message => message.kind === "detector" ? detectorIs(s, message) : message.view === s.view && answer(s, message);
  const hide = () => hidden(s), leave = () => stop(s), watch = setInterval(() => look(s), 500), warn = event => s.record && event.preventDefault();
  const forsake = attend(model, root, () => lose(s)), deaf = onDetector(root, () => { if (s.settings.detector === "haar" && !s.lost) fetchDetector(s); });
  model.on("msg:custom", receive);
  document.addEventListener("visibilitychange", hide);
  window.addEventListener("pagehide", leave);
  window.addEventListener("beforeunload", warn);
  const resized = new ResizeObserver(() => draw(s));
  resized.observe(find(".fer-stage"));
  s.video.onresize = () => dress(s);
  if (obstacle()) say(s, obstacle() + " A single image works, too.", true);
  dress(s);
  return () => {
    stop(s);
    if (s.record) keep(s);   // the cell is cleared or run again: this is the last moment for the rows
    forsake();
    deaf();
    clearInterval(watch);
    resized.disconnect();
    model.off("msg:custom", receive);
    document.removeEventListener("visibilitychange", hide);
    window.removeEventListener("pagehide", leave);
    window.removeEventListener("beforeunload", warn);
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
  s.find("[data-do=start]").disabled = s.find("[data-do=take]").disabled = s.find("[data-do=choose]").disabled = s.lost;
  s.find(".fer-better").hidden = s.settings.detector !== "haar" || s.lost;
  s.find(".fer-baseline-help").hidden = !s.options.baseline || !s.settings.baselines;
  if (!on) s.find(".fer-history").hidden = true;
  if (!on && state !== "still") s.find(".fer-list").hidden = true;
  s.find("[data-do=snapshot]").hidden = !on && state !== "still";
  s.video.classList.toggle("fer-mirrored", s.options.mirror);
  s.still.hidden = state !== "still";
  s.video.hidden = state === "still";
  s.find(".fer-frame").hidden = !on && state !== "still";
  const shown = state === "still" ? s.still : {width: s.video.videoWidth, height: s.video.videoHeight};
  if (shown.width) s.find(".fer-frame").style.setProperty("--fer-aspect", shown.width/shown.height);
  if (state !== "on") s.find(".fer-numbers").textContent = "";   // paused, nothing is counted
  dressRecorder(s);
}

// Figures and screen readers' text, twice a second; and the camera must not stay on unseen or unanswered.
function look(s) {
  const now = performance.now();
  if (s.state !== "on" && s.state !== "paused") return;
  if (s.root.isConnected) s.seen = now;
  if (document.hidden || s.root.getClientRects().length) s.inSight = now;   // not so behind another tab
  if (now - s.seen > DETACHED) {
    stop(s, "The camera was closed, because the widget was not on the page any more.");
    return s.record && keep(s);
  }
  if (now - s.inSight > 1000*s.settings.away) return stop(s, "The camera was closed, because it was out of sight.");
  if (s.state !== "on" || document.hidden) return;
  s.arrived = s.arrived.filter(t => now - t < 2000);
  const there = seenNow(s), rate = s.arrived.length / 2, n = there.length, stale = isStale(s);
  s.find(".fer-numbers").textContent = stale ? `no answer for ${((now - s.newest)/1000).toFixed(0)} s` :
    `${rate.toFixed(0)} results/s · ${s.lag.toFixed(0)} ms behind · ${n === 1 ? "1 face" : `${n || "no"} faces`}`;
  Object.assign(s.root.dataset, {results: s.results, rate: rate.toFixed(1), lag: s.lag.toFixed(0), faces: stale ? 0 : n});
  tell(s, stale ? [] : there);
  drawHistory(s);
  dressRecorder(s);
  const silent = s.asked ? now - s.asked : 0;
  if (silent > GONE) return stop(s, "The camera was closed, because there was no answer for a minute.", true);
  if (silent > SILENT) { s.troubled = true; say(s, onPage() ? "There is no answer: the program behind this page is busy." : "The kernel does not answer. It is busy with another cell."); }
  for (const [number, sent] of s.waiting) if (now - sent > RETRY) s.waiting.delete(number);
}

// ---- the camera

async function start(s, device) {
  if (s.lost) return;
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
  Object.assign(s, {state: "on", asked: 0, seen: performance.now(), inSight: performance.now(), newest: performance.now(), sent: 0, arrived: [], lag: 0, results: 0});
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
  s.history.clear();
  s.waiting.clear();
  s.listed = 0;
}

// The kernel is gone; `attend` has said so.
function lose(s) {
  s.lost = true;
  stop(s, "", true);
  say(s, "");
  dress(s);
}

function stop(s, text = "", trouble = false) {
  clearTimeout(s.away);
  if (s.state === "off") return;
  release(s);
  s.state = "off";
  endRecording(s, text);
  s.find(".fer-said").replaceChildren();
  say(s, text, trouble);
  dress(s);
  draw(s);
}

function fail(s, reason) {
  s.state = "off";
  say(s, reason + " A single image works, too.", true);
  dress(s);
  draw(s);
}

function pause(s) {
  s.state = s.state === "paused" ? "on" : "paused";
  s.newest = performance.now();
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

// How a person wants frames to be answered.
const wishes = ({options: {uncertain, prior, baseline}}) => ({uncertain, prior, baseline});

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
    s.model.send({kind: "frame", view: s.view, number, time: now/1000, ...wishes(s)}, undefined, [bytes]);
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
  s.model.send({kind: "still", view: s.view, number, time: performance.now()/1000, ...wishes(s)}, undefined, [bytes]);
}

function answer(s, message) {
  const sent = s.waiting.get(message.number), now = performance.now();
  for (const number of s.waiting.keys()) if (number <= message.number) s.waiting.delete(number);
  if (sent === undefined || (message.kind === "still") !== (s.state === "still")) return;
  s.asked = s.waiting.size ? now : 0;
  if (message.error) { s.troubled = true; return say(s, message.error, true); }
  if (s.troubled || s.state === "still") { s.troubled = false; say(s, message.kind === "still" && !message.faces.length ? "No face was found in this image." : ""); }
  if (isStale(s)) s.faces.clear();   // what was there is too old to be moved on from
  s.newest = now;
  s.made = message.made;
  s.arrived.push(now);
  s.results++;
  s.lag += (now - sent - s.lag)*(s.lag ? .15 : 1);
  merge(s, message.faces, sent);
  if (s.state === "on") { remember(s, message.faces, sent); addRows(s, message, sent); }
  if (s.state !== "on") {
    tell(s, message.faces);
    s.root.dataset.faces = message.faces.length;
    draw(s);
  }
}

// The better detector: the kernel fetches it on a click, and says whether it did.
function fetchDetector(s) {
  s.find("[data-do=fetch]").disabled = true;
  s.find(".fer-better span").textContent = "Fetching the face detector …";
  s.model.send({kind: "fetch", view: s.view});
}

function detectorIs(s, {detector, error}) {
  s.find("[data-do=fetch]").disabled = false;
  s.settings = {...s.settings, detector};
  s.find(".fer-better span").textContent = error || FETCH;
  if (detector !== "haar") {
    say(s, "The better face detector is in use now.");
    tellDetector(s.root);
  }
  dress(s);
  if (s.state === "still") ask(s);
}

export default {render};
