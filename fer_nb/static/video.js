// The browser's side of fer_nb.video_panel: it takes or records a video, and plays it with what the kernel found in it.
// All of a video goes by messages and never through the widget's state, so nothing of it can get into a saved notebook.
// A plain ES module: no build step, nothing loaded from elsewhere.

const PIECE = 1 << 20;       // bytes in one message; servers refuse large ones (Jupyter's limit is 10 MiB)
const AHEAD = 4 * PIECE;     // bytes sent before the kernel has answered
const PATIENCE = 4000;       // milliseconds after which a silent kernel is mentioned
const RECORDING = 120;       // seconds of a recording, at most
const ROW = 58, AXIS = 22;   // pixels of a face's line in the timeline, and of the times below
const KINDS = ".mp4,.m4v,.mov,.webm,.mkv,.avi,video/*";
const ICON = `<svg viewBox="0 0 24 24" width="30" height="30" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round"
  stroke-linejoin="round" aria-hidden="true"><rect x="2.5" y="5" width="19" height="14" rx="2.5"/><path d="M10 9.2l5 2.8-5 2.8z"/></svg>`;
const SHELL = `
  <div class="fer-zone" role="group" aria-label="Add a video: drop it here, choose it, or record one">
    <span class="fer-icon">${ICON}</span>
    <span class="fer-invite"><b>Drop a video here</b><span class="fer-limits"></span></span>
    <span class="fer-ways"><button type="button" class="fer-button fer-main" data-do="choose">Choose a video</button>
      <button type="button" class="fer-button" data-do="record">Record</button></span>
    <input type="file" accept="${KINDS}" aria-label="Choose a video" tabindex="-1">
    <label class="fer-expected" hidden>Expected faces <select></select></label>
  </div>
  <div class="fer-better" role="status" hidden><p></p><button type="button" class="fer-button" data-do="fetch">Fetch it</button></div>
  <div class="fer-message" role="alert" hidden></div>
  <div class="fer-recorder" hidden>
    <video muted playsinline aria-label="The camera"></video>
    <div class="fer-bar"><span class="fer-light">recording</span><span class="fer-clock" aria-live="off"></span>
      <span class="fer-ways"><button type="button" class="fer-button fer-main" data-do="stop">Stop and analyze</button>
        <button type="button" class="fer-button" data-do="discard">Discard</button></span></div>
  </div>
  <div class="fer-work" hidden>
    <span class="fer-doing"></span><progress max="1" value="0" aria-label="Progress"></progress><span class="fer-left"></span>
    <button type="button" class="fer-button" data-do="cancel">Cancel</button>
  </div>
  <div class="fer-said" role="status" aria-live="polite"></div>
  <section class="fer-result" aria-label="Faces in the video" hidden>
    <div class="fer-head"><span class="fer-name"></span><span class="fer-sub"></span>
      <button type="button" class="fer-button fer-bare" data-do="remove" aria-label="Remove this video" title="Remove">✕</button></div>
    <div class="fer-notes"></div>
    <div class="fer-body">
      <div class="fer-watch">
        <div class="fer-frame"><video playsinline muted disablepictureinpicture></video><canvas aria-hidden="true"></canvas><p class="fer-loading" hidden></p></div>
        <div class="fer-bar"><button type="button" class="fer-button" data-do="play">Play</button><span class="fer-clock"></span>
          <label class="fer-marks"><input type="checkbox" checked> show faces</label></div>
      </div>
      <div class="fer-now"><h3>At this moment</h3><ol class="fer-faces"></ol><p class="fer-none">No face.</p></div>
      <div class="fer-course"><div class="fer-lines"><div class="fer-names"></div>
        <div class="fer-timeline" role="slider" tabindex="0" aria-label="Moment of the video" aria-valuemin="0">
          <canvas aria-hidden="true"></canvas><span class="fer-cursor"></span></div></div>
        <div class="fer-legend"></div></div>
    </div>
    <div class="fer-save"><span></span></div>
    <div class="fer-scroll" role="region" tabindex="0" aria-label="Summary"></div>
    <p class="fer-fine">An expression is what a face shows, not what a person feels. The uploaded file is removed already; the results go when you remove
      them or leave. Keys on the timeline: arrows for a tenth of a second, Page Up and Down for five seconds, Home, End, and the space bar to play.
      <span class="fer-made"></span></p>
  </section>`;

const REFUSED = {
  NotAllowedError: "The camera was not allowed. Allow it at the camera symbol in the address bar of the browser, then start again.",
  NotFoundError: "No camera was found at this computer.",
  NotReadableError: "The camera cannot be opened: another program uses it, or the operating system does not let the browser use it.",
};
const percent = p => `${Math.round(100*p)}%`;
const token = () => Array.from(crypto.getRandomValues(new Uint32Array(3)), n => n.toString(36)).join("");
const element = (tag, className, text = "") => Object.assign(document.createElement(tag), {className, textContent: text});

function clock(seconds, tenths = false) {
  const all = Math.max(0, tenths ? Math.floor(10*seconds + 1e-6)/10 : Math.round(seconds)), minutes = Math.floor(all/60), rest = all - 60*minutes;
  return `${minutes}:${(tenths ? rest.toFixed(1) : String(rest)).padStart(tenths ? 4 : 2, "0")}`;
}

const span = seconds => seconds < 60 ? `${+seconds.toFixed(1)} seconds` : seconds % 60 ? `${clock(seconds)} minutes` : `${seconds/60} minutes`;

function render({model, el}) {
  const settings = model.get("settings"), root = element("div", "fer-panel fer-video");
  root.innerHTML = SHELL;
  el.append(root);
  const find = name => root.querySelector(name);
  const s = {model, settings, root, find, view: token(), state: "idle", id: "", own: null, reply: null, result: null, rows: null, starts: [], now: 0, shift: 0,
    pieces: new Map(), stream: null, recorder: null, lost: false, video: find(".fer-frame video"), overlay: find(".fer-frame canvas"),
    line: find(".fer-timeline"), cards: new Map(), spots: new Map(), turn: 0};
  find(".fer-limits").textContent = `MP4, WebM, MOV or AVI; at most ${span(settings.seconds)} and ${Math.round(settings.bytes/1e6)} MB. `
    + "It goes to the program behind this page and nowhere else, and is removed as soon as it has been analyzed.";
  const expected = find(".fer-expected select");
  expected.replaceChildren(...settings.priors.map(name => new Option(name, name, false, name === settings.prior)));
  Object.assign(find(".fer-expected"), {hidden: !settings.priors.length, title: settings.help});
  const stop = [listen(s), player(s), timeline(s), attend(model, root, () => lost(s)), onDetector(root, () => { if (s.detector === "haar") model.send({kind: "fetch"}); })];
  const receive = (message, buffers) => hear(s, message, buffers), leave = () => left(s);
  model.on("msg:custom", receive);
  window.addEventListener("pagehide", leave);
  dress(s);
  model.send({kind: "hello"});
  return () => {
    left(s);
    forget(s);
    model.off("msg:custom", receive);
    window.removeEventListener("pagehide", leave);
    stop.forEach(end => end());
  };
}

// ---- what the panel says

function say(s, text, trouble = true) {
  const box = s.find(".fer-message");
  box.hidden = !text;
  box.classList.toggle("fer-trouble", trouble);
  box.textContent = text;
}

function dress(s) {
  const busy = s.state === "sending" || s.state === "working", recording = s.state === "recording";
  s.root.dataset.state = s.state;
  s.find(".fer-zone").hidden = busy || recording;
  s.find(".fer-zone").classList.toggle("fer-small", s.state === "done");
  s.find(".fer-invite b").textContent = s.state === "done" ? "Drop another video: it takes the place of this one" : "Drop a video here";
  s.find(".fer-better").hidden = busy || recording || s.detector !== "haar";
  s.find(".fer-recorder").hidden = !recording;
  s.find(".fer-work").hidden = !busy;
  s.find(".fer-result").hidden = s.state !== "done" || !s.result;
}

function works(s, text, share, left = "") {
  s.find(".fer-doing").textContent = text;
  s.find(".fer-left").textContent = left;
  const bar = s.find(".fer-work progress");
  if (share === null) bar.removeAttribute("value"); else bar.value = share;
}

// ---- from the kernel

function hear(s, message, buffers) {
  if (message.kind === "state") return changed(s, message);
  if (message.kind === "result") return found(s, message);
  if (message.kind === "piece" && message.to === s.view && message.id === s.id) return s.pieces.get(`${message.what} ${message.at}`)?.(buffers[0]);
  if (message.kind === "got" && s.reply?.id === message.id) { s.reply.got = message.bytes; s.reply.wake(); }
  if (message.kind === "refused" && s.reply?.id === message.id) { say(s, message.message); s.reply.over = true; s.reply.wake(); }
}

// The better detector: what is said of it, and what was analyzed without it is analyzed again.
function detectorIs(s, detector, better) {
  const came = s.detector === "haar" && detector !== "haar", button = s.find("[data-do=fetch]");
  s.detector = detector;
  s.find(".fer-better p").textContent = better || FETCH;
  Object.assign(button, {disabled: false, textContent: better ? "Try again" : "Fetch it"});
  if (!came) return;
  say(s, "The better face detector is in use now.", false);
  tellDetector(s.root);
  if (s.own && s.state === "done") take(s, [s.own.file], false);
}

function changed(s, {state, id, name, size, got, frames, total, left, message, detector, better}) {
  if (s.reply && s.reply.id === id) { s.reply.got = Math.max(got, s.reply.got); s.reply.wake(); }
  if (s.reply && s.reply.id !== id && s.reply.got >= 0) { s.reply.over = true; s.reply.wake(); }
  if (state !== "done" || id !== s.id) forget(s);
  s.id = id ?? "";
  if (s.state === "recording" && state === "idle") return message && say(s, message);
  s.state = state;
  detectorIs(s, detector, better);
  if (message) { say(s, message); s.find(".fer-said").textContent = ""; }
  if (state === "sending" && !s.reply) works(s, `Another page sends ${name}`, got/size);
  if (state === "working") {
    works(s, `Looking for faces in ${name}`, total ? Math.min(1, frames/total) : null,
      total && left !== null ? `frame ${frames} of ${total}, ${left < 60 ? `${Math.ceil(left)} s` : `${clock(left)} min`} left` : `frame ${frames}`);
    s.find(".fer-said").textContent = `Looking for faces in ${name}`;
  }
  dress(s);
}

// ---- to the kernel

function problemOf(s, file) {
  if (!file.size) return `${file.name}: it is empty`;
  if (file.size > s.settings.bytes) return `${file.name}: it has ${(file.size/1e6).toFixed(1)} MB, the limit is ${(s.settings.bytes/1e6).toFixed(0)} MB`;
  if (/^(image|text|audio)\//.test(file.type)) return `${file.name}: it is no video`;
  return "";
}

async function take(s, files, fresh = true) {
  if (s.lost) return;
  const busy = s.state === "sending" || s.state === "working" || s.state === "recording";
  if (busy) return say(s, `${files[0].name}: one video at a time. Wait for the other one, or cancel it.`);
  const [file, ...others] = files;
  const left = others.length ? `${others[0].name}${others.length > 1 ? ` and ${others.length - 1} more` : ""}: one video at a time. Only ${file.name} is taken.` : "";
  if (fresh) say(s, problemOf(s, file) || left);
  if (!problemOf(s, file)) await deliver(s, file);
}

async function deliver(s, file) {
  const id = token(), reply = s.reply = {id, got: -1, over: false, wake() {}};
  const until = test => new Promise(ok => { reply.wake = () => test() && ok(); reply.wake(); });
  const late = setTimeout(() => works(s, `The kernel is busy; waiting: ${file.name}`, null), PATIENCE);
  forget(s);
  s.own = {id, file};
  s.state = "sending";
  works(s, `Sending ${file.name}`, 0);
  dress(s);
  s.find("[data-do=cancel]").focus();
  try {
    s.model.send({kind: "begin", id, name: file.name, size: file.size, prior: s.find(".fer-expected select").value});
    await until(() => reply.over || reply.got >= 0);
    clearTimeout(late);
    for (let at = 0; at < file.size && !reply.over; at += PIECE) {
      await until(() => reply.over || at - reply.got < AHEAD);
      if (reply.over) break;
      const piece = await file.slice(at, at + PIECE).arrayBuffer();
      s.model.send({kind: "part", id}, undefined, [piece]);
      if (s.state === "sending") works(s, `Sending ${file.name}`, Math.min(1, (at + PIECE)/file.size));
    }
    await until(() => reply.over || reply.got >= file.size);
  } catch (error) {
    s.model.send({kind: "cancel", id});
    say(s, `${file.name}: the browser cannot read it (${error.name})`);
  }
  clearTimeout(late);
  if (s.reply !== reply) return;
  s.reply = null;
  if (reply.over && s.state === "sending") { s.state = "idle"; s.own = null; dress(s); if (!s.lost) s.model.send({kind: "hello"}); }
}

function cancel(s) {
  s.model.send({kind: "cancel", id: s.reply?.id ?? s.id});
  if (s.reply) { s.reply.over = true; s.reply.wake(); }
  s.find("[data-do=choose]").focus();
}

// The page is left: what is on its way is given up, and the camera is closed.
function left(s) {
  if (s.reply && s.state === "sending") s.model.send({kind: "cancel", id: s.reply.id});
  release(s);
}

function lost(s) {
  s.lost = true;
  release(s);
  if (s.reply) { s.reply.over = true; s.reply.wake(); }
  s.pieces.forEach(got => got(null));
  if (s.state !== "done") s.state = "idle";
  dress(s);
  s.root.querySelectorAll(".fer-zone, .fer-better, .fer-save, [data-do=remove]").forEach(o => { o.inert = true; });
}

// A whole file of results, in pieces.
async function fetchAll(s, what) {
  const {size} = s.result.files[what], {id} = s, parts = [];
  let next = 0;
  const ask = at => new Promise(ok => { s.pieces.set(`${what} ${at}`, ok); s.model.send({kind: "want", id, what, at, to: s.view}); });
  const worker = async () => {
    while (next < size && id === s.id && !s.lost) {
      const at = next;
      next += PIECE;
      parts[at/PIECE] = await ask(at);
      s.pieces.delete(`${what} ${at}`);
    }
  };
  await Promise.all([worker(), worker(), worker()]);
  return id === s.id && !s.lost && parts.every(o => o) ? parts : null;
}

async function save(s, what) {
  const {name, type} = s.result.files[what], parts = await fetchAll(s, what);
  if (!parts) return;
  const link = Object.assign(document.createElement("a"), {download: name, href: URL.createObjectURL(new Blob(parts, {type}))});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// ---- the camera

async function record(s) {
  const secure = window.isSecureContext && navigator.mediaDevices?.getUserMedia && window.MediaRecorder;
  if (!secure) return say(s, "Browsers give the camera only to pages that come by https or from localhost. A video that you drop or choose works.");
  const turn = ++s.turn, kind = ["video/webm;codecs=vp8", "video/webm", "video/mp4"].find(o => MediaRecorder.isTypeSupported(o)), parts = [];
  say(s, "");
  try {
    const size = {width: {ideal: 640}, height: {ideal: 480}, facingMode: "user"};
    const stream = await navigator.mediaDevices.getUserMedia({audio: false, video: size});
    if (turn !== s.turn || s.lost) return stream.getTracks().forEach(track => track.stop());
    s.stream = stream;
    s.recorder = new MediaRecorder(stream, {mimeType: kind, videoBitsPerSecond: 2_500_000});
  } catch (error) {
    release(s);
    return say(s, `${REFUSED[error.name] ?? `The camera cannot be opened (${error.message || error.name}).`} A video that you drop or choose works, too.`);
  }
  forget(s);
  s.state = "recording";
  dress(s);
  const show = s.find(".fer-recorder video"), began = performance.now(), most = Math.min(RECORDING, s.settings.seconds);
  show.srcObject = s.stream;
  show.play().catch(() => {});
  const tick = () => {
    const seconds = (performance.now() - began)/1000;
    s.find(".fer-recorder .fer-clock").textContent = `${clock(seconds)} of at most ${clock(most)}`;
    if (seconds >= most - .2) finish(s);
  };
  s.ticking = setInterval(tick, 200);
  tick();
  s.recorder.ondataavailable = event => event.data.size && parts.push(event.data);
  s.recorder.onstop = () => {
    if (turn !== s.turn) return;
    const ending = kind.includes("mp4") ? "mp4" : "webm", when = new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-");
    release(s);
    s.state = "idle";
    take(s, [new File(parts, `recording-${when}.${ending}`, {type: `video/${ending}`})]);
  };
  s.stream.getVideoTracks()[0].onended = () => finish(s);
  s.recorder.start(500);
  s.find("[data-do=stop]").focus();
}

function finish(s) { if (s.recorder?.state === "recording") s.recorder.stop(); }

function release(s) {
  s.turn++;
  clearInterval(s.ticking);
  s.stream?.getTracks().forEach(track => track.stop());
  s.stream = s.recorder = s.find(".fer-recorder video").srcObject = null;
}

function discard(s) {
  release(s);
  s.state = "idle";
  dress(s);
  s.model.send({kind: "hello"});
  s.find("[data-do=record]").focus();
}

// ---- what was found

function forget(s) {
  s.result = s.rows = null;
  s.starts = [];
  s.cards.clear();
  s.pieces.forEach(got => got(null));
  s.pieces.clear();
  s.video.pause();
  if (s.video.src) { URL.revokeObjectURL(s.video.src); s.video.removeAttribute("src"); s.video.load(); }
}

async function found(s, result) {
  if (result.id !== s.id || s.result?.id === result.id) return;
  Object.assign(s, {result, now: result.begin, shift: 0, state: "done"});
  const many = result.number_of_faces, said = `${many || "no"} face${many === 1 ? "" : "s"}`;
  s.find(".fer-name").textContent = s.find(".fer-name").title = result.name;
  s.find(".fer-sub").textContent = `${result.duration < 60 ? `${result.duration.toFixed(1)} s` : `${clock(result.duration)} min`} · ${result.frames} frames, ${result.frames_with_faces} with faces · ${said}`;
  s.find(".fer-said").textContent = `${result.name}: ${said}`;
  s.find(".fer-frame").style.setProperty("--fer-aspect", result.size[0]/result.size[1]);
  s.find(".fer-notes").replaceChildren(...result.problems.map(text => element("p", "", text)));
  s.line.setAttribute("aria-valuemax", (result.end - result.begin).toFixed(1));
  s.find(".fer-now .fer-faces").replaceChildren();
  s.find(".fer-made").textContent = `Made by ${result.made}.`;
  names(s);
  legend(s);
  table(s);
  files(s);
  dress(s);
  show(s);
  seek(s, result.begin);
  const parts = await fetchAll(s, "rows");
  if (!parts || s.result !== result) return;
  s.rows = new Float32Array(await new Blob(parts).arrayBuffer());
  s.wide = 8 + s.settings.classes.length;
  for (let i = 0; i < s.rows.length; i += s.wide) if (!i || s.rows[i] !== s.rows[i - s.wide]) s.starts.push(i);
  moved(s);
  s.root.dataset.rows = s.rows.length/s.wide;
}

// The video itself plays where this page still has it and the browser can, and else the annotated copy.
async function show(s) {
  const own = s.own?.id === s.result.id;
  s.root.dataset.plays = own ? "video" : "copy";
  if (own) { s.video.src = URL.createObjectURL(s.own.file); return; }
  copy(s);
}

async function copy(s) {
  const {result} = s, loading = s.find(".fer-loading");
  s.root.dataset.plays = "copy";
  if (!result.files.video) { loading.hidden = false; loading.textContent = "There is no copy of this video to play."; return; }
  loading.hidden = false;
  loading.textContent = "Loading the annotated copy …";
  const parts = await fetchAll(s, "video");
  if (s.result !== result) return;
  loading.hidden = Boolean(parts);
  if (!parts) return;
  s.shift = result.begin;
  s.video.src = URL.createObjectURL(new Blob(parts, {type: "video/mp4"}));
  seek(s, s.now);
}

function names(s) {
  s.find(".fer-names").replaceChildren(...s.result.faces.map(face => {
    const line = element("div", "fer-name-of"), seconds = face.seconds < 60 ? `${face.seconds.toFixed(1)} s` : clock(face.seconds);
    line.append(element("b", "", `face ${face.face}`), element("span", "", seconds));
    return line;
  }));
  s.line.style.height = `${Math.max(10, s.result.faces.length*ROW) + AXIS}px`;
}

function legend(s) {
  const used = new Set(s.result.faces.flatMap(face => Object.keys(face.labels)));
  const shown = [...s.settings.classes, ...(used.has("uncertain") ? ["uncertain"] : [])];
  s.find(".fer-legend").replaceChildren(...shown.map(name => {
    const entry = element("span", "", name === "uncertain" ? "not sure" : name);
    entry.style.setProperty("--fer-color", s.settings.colors[name]);
    return entry;
  }));
  s.find(".fer-legend").hidden = !s.result.faces.length;
  if (s.result.cuts.length) s.find(".fer-legend").append(element("em", "", `dashed: another scene begins (${s.result.cuts.length})`));
  const more = s.result.number_of_faces - s.result.faces.length;
  if (more > 0) s.find(".fer-legend").append(element("em", "", `and ${more} more face${more === 1 ? "" : "s"}, seen for a shorter time`));
}

function table(s) {
  const labels = [...s.settings.classes, ...(s.result.faces.some(o => o.labels.uncertain) ? ["uncertain"] : [])];
  const head = document.createElement("tr"), body = document.createElement("tbody"), top = document.createElement("thead"), whole = document.createElement("table");
  const cell = (tag, text, scope) => { const o = element(tag, "", text); if (scope) o.scope = scope; return o; };
  head.append(...["face", "seen", ...labels.map(o => o === "uncertain" ? "not sure" : o)].map(text => cell("th", text, "col")));
  for (const face of s.result.faces) {
    const line = document.createElement("tr"), all = Object.values(face.labels).reduce((a, b) => a + b, 0) || 1;
    line.append(cell("th", `${face.face}`, "row"), cell("td", `${face.seconds.toFixed(1)} s`));
    for (const name of labels) {
      const place = cell("td", percent((face.labels[name] ?? 0)/all)), mean = face.probabilities[name];
      if (mean !== undefined && mean !== null) place.append(element("small", "", ` ${mean.toFixed(2)}`));
      line.append(place);
    }
    body.append(line);
  }
  top.append(head);
  whole.append(element("caption", "", "Share of the time in which a face shows an expression, and the mean of its probability"), top, body);
  s.find(".fer-scroll").replaceChildren(whole);
  s.find(".fer-scroll").hidden = !s.result.faces.length;
}

function files(s) {
  const titles = {video: "Annotated copy (MP4)", table: "Table (CSV)", summary: "Summary (JSON)"};
  const buttons = Object.entries(titles).filter(([what]) => s.result.files[what]).map(([what, title]) => {
    const button = Object.assign(element("button", "fer-button", title), {type: "button"});
    Object.assign(button.dataset, {do: "save", what});
    return button;
  });
  s.find(".fer-save").replaceChildren(element("span", "", "Save"), ...buttons);
}

// ---- playing

function player(s) {
  const {video} = s, next = () => {
    if (!video.isConnected) return;
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_, frame) => { s.now = frame.mediaTime + s.shift; moved(s); next(); });
  };
  video.onloadedmetadata = () => {
    if (video.videoWidth) s.find(".fer-frame").style.setProperty("--fer-aspect", video.videoWidth/video.videoHeight);  // a copy may have a list beside the picture
    if (video.duration === Infinity) { video.currentTime = 1e7; video.addEventListener("seeked", () => seek(s, s.now), {once: true}); }  // a recording does not know its length
    else seek(s, s.now);
    next();
  };
  video.ontimeupdate = () => { if (!video.requestVideoFrameCallback && s.result) { s.now = video.currentTime + s.shift; moved(s); } };
  video.onplay = video.onpause = video.onended = () => { s.find("[data-do=play]").textContent = video.paused || video.ended ? "Play" : "Pause"; };
  video.onerror = () => { if (s.result && s.root.dataset.plays === "video") copy(s); };
  video.onclick = () => play(s);
  s.find(".fer-marks input").onchange = () => paint(s);
  const resized = new ResizeObserver(() => { paint(s); draw(s); });
  resized.observe(s.find(".fer-frame"));
  resized.observe(s.line);
  const dark = matchMedia("(prefers-color-scheme: dark)"), again = () => draw(s), themed = new MutationObserver(again);
  dark.addEventListener("change", again);
  themed.observe(document.body, {attributes: true, attributeFilter: ["data-jp-theme-name", "class"]});
  return () => { resized.disconnect(); themed.disconnect(); dark.removeEventListener("change", again); };
}

function play(s) {
  if (!s.result || !s.video.src) return;
  if (s.video.paused || s.video.ended) s.video.play().catch(() => {}); else s.video.pause();
}

function seek(s, seconds) {
  if (!s.result) return;
  s.now = Math.max(s.result.begin, Math.min(s.result.end, seconds));
  if (s.video.readyState) s.video.currentTime = Math.min(s.now - s.shift + .001, Math.max(0, (Number.isFinite(s.video.duration) ? s.video.duration : 1e9) - .01));
  moved(s);
}

// The faces in the frame that is shown: rows of `s.rows`.
function facesNow(s) {
  if (!s.rows?.length) return [];
  let low = 0, high = s.starts.length;
  while (low < high) { const middle = (low + high) >> 1; if (s.rows[s.starts[middle]] <= s.now + .004) low = middle + 1; else high = middle; }
  if (!low || s.now - s.rows[s.starts[low - 1]] > Math.max(.12, 2.5*s.result.step)) return [];
  const faces = [];
  for (let i = s.starts[low - 1]; i < (s.starts[low] ?? s.rows.length); i += s.wide) {
    const [, id, x, y, w, h, unsure, confidence, ...p] = s.rows.subarray(i, i + s.wide);
    const best = p.indexOf(Math.max(...p)), label = s.settings.classes[best];
    faces.push({id, box: [x, y, w, h], unsure: Boolean(unsure), confidence, p, best, label});
  }
  return faces;
}

const words = face => `${face.id} ${face.label}${face.unsure ? "?" : ""} ${percent(face.confidence)}`;

function moved(s) {
  if (!s.result) return;
  const {begin, end} = s.result, faces = facesNow(s), at = s.now - begin;
  s.find(".fer-watch .fer-clock").textContent = `${clock(at, true)} of ${clock(end - begin, true)}`;
  s.find(".fer-cursor").style.left = `${100*at/Math.max(1e-6, end - begin)}%`;
  s.line.setAttribute("aria-valuenow", at.toFixed(1));
  s.line.setAttribute("aria-valuetext", `${clock(at, true)}: ${faces.map(words).join(", ") || "no face"}`);
  s.root.dataset.now = at.toFixed(2);
  s.root.dataset.faces = faces.length;
  list(s, faces);
  paint(s, faces);
}

// The faces of this moment with all their bars.
function list(s, faces) {
  s.find(".fer-none").hidden = faces.length > 0;
  const wanted = faces.slice(0, 12);
  for (const [id, card] of s.cards) if (!wanted.some(o => o.id === id)) { card.node.remove(); s.cards.delete(id); }
  wanted.forEach((face, i) => {
    const card = s.cards.get(face.id) ?? newCard(s, face.id), place = s.find(".fer-now .fer-faces");
    if (place.children[i] !== card.node) place.insertBefore(card.node, place.children[i] ?? null);
    const color = s.settings.colors[face.label];
    card.node.classList.toggle("fer-unsure", face.unsure);
    card.node.style.cssText = `--fer-color:${color};--fer-on:${ink(color)}`;
    card.plate.textContent = `${face.id} ${face.label}${face.unsure ? "?" : ""}`;
    card.percent.textContent = `${percent(face.confidence)}${face.unsure ? ", not sure" : ""}`;
    face.p.forEach((p, k) => {
      card.bars[k].style.width = `${(100*p).toFixed(1)}%`;
      card.values[k].textContent = percent(p);
      card.values[k].classList.toggle("fer-best", k === face.best);
    });
  });
}

function newCard(s, id) {
  const node = element("li", "fer-face"), verdict = element("p", "fer-verdict"), bars = element("div", "fer-bars");
  const card = {node, plate: element("span", "fer-plate"), percent: element("span", "fer-percent"), bars: [], values: []};
  verdict.append(card.plate, card.percent);
  for (const name of s.settings.classes) {
    const track = element("span", "fer-track"), bar = document.createElement("i"), value = element("span", "fer-value");
    track.style.setProperty("--fer-bar", s.settings.colors[name]);
    track.append(bar);
    bars.append(element("span", "fer-class", name), track, value);
    card.bars.push(bar);
    card.values.push(value);
  }
  node.append(verdict, bars);
  s.cards.set(id, card);
  return card;
}

// ---- drawing

function sized(canvas) {
  const ratio = window.devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight, pen = canvas.getContext("2d");
  if (canvas.width !== Math.round(wide*ratio) || canvas.height !== Math.round(high*ratio)) { canvas.width = Math.round(wide*ratio); canvas.height = Math.round(high*ratio); }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, wide, high);
  return {pen, wide, high};
}

function paint(s, faces = facesNow(s)) {
  const {pen, wide, high} = sized(s.overlay), zoom = Math.max(.85, Math.min(1.3, Math.min(wide, high)/420));
  if (!s.result || s.root.dataset.plays === "copy" || !s.find(".fer-marks input").checked) return;
  const shown = [...faces].sort((a, b) => b.box[1] - a.box[1]), boxes = shown.map(face => face.box.map((v, i) => v*(i % 2 ? high : wide)));
  const labels = [], color = face => s.settings.colors[face.label];
  shown.forEach((face, i) => {
    pen.setLineDash(face.unsure ? [6*zoom, 5*zoom] : []);
    for (const [width, style] of [[4.5*zoom, "rgba(0,0,0,.4)"], [2.5*zoom, color(face)]]) { pen.lineWidth = width; pen.strokeStyle = style; pen.strokeRect(...boxes[i]); }
  });
  shown.forEach((face, i) => {
    const texts = shown.length > 2 ? [words(face), words(face).split(" ")[0]] : [words(face)], was = s.spots.get(face.id);
    const label = placeLabel(pen, texts, boxes[i], {boxes, labels, size: [wide, high], zoom, was});
    s.spots.set(face.id, label.at);
    labels.push(label.spot);
    paintLabel(pen, label, color(face), zoom);
  });
}

// ---- the timeline: a line for each face, probabilities stacked, the label below

function timeline(s) {
  const at = event => {
    const {left, width} = s.line.getBoundingClientRect();
    seek(s, s.result.begin + (event.clientX - left)/width*(s.result.end - s.result.begin));
  };
  s.line.onpointerdown = event => { if (!s.result || event.button) return; s.line.setPointerCapture(event.pointerId); s.video.pause(); at(event); };
  s.line.onpointermove = event => { if (s.line.hasPointerCapture(event.pointerId)) at(event); };
  const steps = {ArrowLeft: -.1, ArrowDown: -.1, ArrowRight: .1, ArrowUp: .1, PageDown: -5, PageUp: 5};
  s.line.onkeydown = event => {
    if (!s.result || event.ctrlKey || event.altKey || event.metaKey) return;
    const {begin, end} = s.result;
    if (event.key === " ") play(s);
    else if (event.key === "Home") seek(s, begin);
    else if (event.key === "End") seek(s, end);
    else if (event.key in steps) { s.video.pause(); seek(s, s.now + steps[event.key]); }
    else return;
    event.preventDefault();
  };
  return () => {};
}

function draw(s) {
  if (!s.result) return;
  const {pen, wide, high} = sized(s.line.querySelector("canvas")), {begin, end, width, faces, cuts} = s.result, style = getComputedStyle(s.root);
  const colors = [...s.settings.classes, "uncertain"].map(name => s.settings.colors[name]), line = style.getPropertyValue("--fer-line"), soft = style.getPropertyValue("--fer-soft");
  const x = t => (t - begin)/Math.max(1e-6, end - begin)*wide, bin = b => Math.min(wide, Math.round(x(begin + b*width)));  // whole pixels: no seams
  faces.forEach((face, i) => {
    const top = i*ROW + 4, tall = ROW - 26;
    pen.fillStyle = style.getPropertyValue("--fer-shade");
    pen.fillRect(0, top, wide, tall);
    face.parts.forEach((parts, k) => {
      let low = top + tall;
      const from = bin(face.start + k), across = Math.max(1, bin(face.start + k + 1) - from);
      parts.forEach((p, c) => { const part = tall*p/100; pen.fillStyle = colors[c]; pen.fillRect(from, low - part, across, part); low -= part; });
    });
    runs(face.labels_of_bins).forEach(([label, from, to]) => {
      if (label < 0) return;
      const left = bin(face.start + from), right = bin(face.start + to), name = label < s.settings.classes.length ? s.settings.classes[label] : "not sure";
      pen.fillStyle = colors[label];
      pen.fillRect(left, top + tall + 2, right - left, 15);
      pen.font = `11px ${FONT}`;
      pen.textBaseline = "middle";
      if (pen.measureText(name).width + 6 > right - left) return;
      pen.fillStyle = ink(colors[label]);
      pen.textAlign = "center";
      pen.fillText(name, (left + right)/2, top + tall + 10);
    });
  });
  pen.textAlign = "center";
  pen.font = `11px ${FONT}`;
  pen.textBaseline = "top";
  const step = [.1, .2, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300].find(o => x(begin + o) > 60) ?? 600;
  for (let t = 0; t <= end - begin + 1e-6; t += step) {
    pen.fillStyle = line;
    pen.fillRect(Math.min(wide - 1, x(begin + t)), high - AXIS, 1, 5);
    pen.fillStyle = soft;
    pen.fillText(clock(t, step < 1), Math.max(18, Math.min(wide - 18, x(begin + t))), high - AXIS + 7);
  }
  pen.setLineDash([3, 3]);
  pen.strokeStyle = style.getPropertyValue("--fer-ink");
  for (const t of cuts) { pen.beginPath(); pen.moveTo(x(t), 0); pen.lineTo(x(t), high - AXIS + 4); pen.stroke(); }
  pen.setLineDash([]);
}

function runs(labels) {
  const found = [];
  labels.forEach((label, i) => { if (i && label === labels[i - 1]) found.at(-1)[2] = i + 1; else found.push([label, i, i + 1]); });
  return found;
}

// ---- what a person does

const actions = {
  choose: s => s.find("input[type=file]").click(),
  fetch: (s, o) => { Object.assign(o, {disabled: true, textContent: "Fetching …"}); s.model.send({kind: "fetch"}); },
  record, discard, cancel, play,
  stop: finish,
  save: (s, o) => save(s, o.dataset.what),
  remove: s => { s.model.send({kind: "remove", id: s.id}); s.find("[data-do=choose]").focus(); },
};

function listen(s) {
  const {root} = s;
  takeFiles(root, s.find("input[type=file]"), files => {
    if (files.length) take(s, files); else say(s, "That was not a file. Save the video first, then drop the file.");
  });
  root.addEventListener("click", event => { const o = event.target.closest("[data-do]"); if (o && root.contains(o)) actions[o.dataset.do](s, o); });
  return () => {};
}

export default {render};
