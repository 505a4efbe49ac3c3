// fer_nb.widgets: what all panels share, in front of the script of each (`script` of that module joins them).
// A panel calls `attend` once for each of its views.

const FETCH = "Small or turned faces may be missed. A better face detector (YuNet, 230 kB, from opencv_zoo, MIT) can be fetched.";
const POLL = 500;        // milliseconds between two looks at the kernel
const ASK = 5000;        // ... between two questions to the server whether the kernel is still there
const TOLERATED = 3000;  // ... for which a connection may be down before the panel says so
const ENDED = ["restarting", "autorestarting", "terminating", "dead"];  // states of a kernel that has lost the panel's objects

// The kernel behind a widget, as its front end tells: "idle", "busy", "unreachable", "ended"; "" where it does not tell.
function kernelState(model) {
  const kernel = model.widget_manager?.kernel;
  if (kernel === undefined) return "";
  if (kernel === null || kernel.isDisposed || ENDED.includes(kernel.status)) return "ended";
  if (kernel.connectionStatus === "disconnected") return "ended";
  return kernel.connectionStatus === "connecting" ? "unreachable" : kernel.status === "busy" ? "busy" : "idle";
}

// Whether the server says that there is no such kernel. Where one is shut down by others, the front end is told nothing.
async function isForgotten(kernel) {
  const base = kernel?.serverSettings?.baseUrl;
  if (!base) return false;
  try { return (await fetch(new URL(`api/kernels/${kernel.id}`, base), {cache: "no-store"})).status === 404; } catch { return false; }
}

const onPage = () => document.querySelector("[data-voila]") !== null;  // and not in a notebook

// What becomes of images, in words: `what` stays on this computer, or goes to the one that serves the page.
function whereKept(what) {
  const here = /^(localhost|127\.|\[::1\])/.test(location.hostname) || location.protocol === "vscode-webview:";
  if (here) return `${what} stay on this computer, in memory.`;
  return onPage() ? `${what} go to the computer that serves this page, and stay in its memory.` : `${what} stay in the memory of the kernel.`;
}

// One page has one detector: when a panel there has got the better one, the others take it, too; it is at hand by then.
function tellDetector(root) {
  if (!onPage()) return;
  for (const o of document.querySelectorAll(".fer-about [data-detector]")) o.textContent = "YuNet";
  document.dispatchEvent(new CustomEvent("fer-detector", {detail: root}));
}

function onDetector(root, take) {
  const hear = event => { if (event.detail !== root) take(); };
  document.addEventListener("fer-detector", hear);
  return () => document.removeEventListener("fer-detector", hear);
}

function goneText(connection) {
  if (onPage()) return "Connection lost: reload the page.";
  return connection ? "The connection to the kernel is lost." : "The kernel has stopped: run the cell again.";
}

// Files in a drop or a paste, without folders.
function offered(data) {
  return [...(data?.items ?? [])].filter(o => o.kind === "file" && !o.webkitGetAsEntry?.()?.isDirectory).map(o => o.getAsFile()).filter(o => o);
}

// Hand on what is dropped anywhere on a panel, or chosen by its input; `take` gets an empty list where no file was dropped.
function takeFiles(el, input, take) {
  const over = on => event => {
    event.preventDefault();
    event.stopPropagation();
    if (on || !el.contains(event.relatedTarget)) el.classList.toggle("fer-over", on);
  };
  el.addEventListener("dragenter", over(true));
  el.addEventListener("dragover", over(true));
  el.addEventListener("dragleave", over(false));
  el.addEventListener("drop", event => {
    over(false)(event);
    el.classList.remove("fer-over");
    take(offered(event.dataTransfer));
  });
  input.addEventListener("change", () => { if (input.files.length) take([...input.files]); input.value = ""; });
}

// ---- labels of faces in a picture, by the rules of fer_nb.drawing

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

// Black or white, whichever has more contrast with a color (WCAG 2).
function ink(color) {
  const [r, g, b] = [1, 3, 5].map(i => parseInt(color.slice(i, i + 2), 16)/255).map(v => v <= .04045 ? v/12.92 : ((v + .055)/1.055)**2.4);
  return .2126*r + .7152*g + .0722*b > .179 ? "#000" : "#fff";
}

// The area that two boxes [x, y, w, h] have in common.
const common = ([x, y, w, h], [u, v, a, b]) => Math.max(0, Math.min(x + w, u + a) - Math.max(x, u))*Math.max(0, Math.min(y + h, v + b) - Math.max(y, v));

// Where the label of a face can be: at its corners, inside the picture; the best first.
function labelSpots([x, y, w, h], [across, tall], [wide, high], gap) {
  const above = y - tall - gap, below = y + h + gap, after = x + w + gap, before = x - across - gap, end = x + w - across, low = y + h - tall;
  const spots = [[x, above], [x, below], [end, above], [end, below], [after, y], [before, y], [after, low], [before, low]];
  return spots.map(([left, top]) => [Math.max(0, Math.min(wide - across, left)), Math.max(0, Math.min(high - tall, top)), across, tall]);
}

// The label of a face where it hides least of faces and other labels: {text, spot, at}. Of the texts the first one that is
// hardly in the way; `at` says which spot it is, and `was`, where it was before: it stays there unless it is in the way.
function placeLabel(pen, texts, box, {boxes, labels, size, zoom, gap = 0, was = -1}) {
  let best = null;
  pen.font = `600 ${14*zoom}px ${FONT}`;
  pen.textBaseline = "middle";
  for (const text of texts) {
    const shape = [Math.min(size[0], pen.measureText(text).width + 14*zoom), 22*zoom], least = .05*shape[0]*shape[1], spots = labelSpots(box, shape, size, gap);
    const costs = spots.map(spot => boxes.reduce((sum, o) => sum + common(spot, o), 0) + 4*labels.reduce((sum, o) => sum + common(spot, o), 0));
    const at = costs[was] <= least ? was : costs.indexOf(Math.min(...costs));
    if (!best || costs[at] < best.cost) best = {cost: costs[at], text, spot: spots[at], at};
    if (costs[at] <= least) break;
  }
  return best;
}

function paintLabel(pen, {text, spot: [left, top, across, tall]}, color, zoom, radius = 0) {
  pen.font = `600 ${14*zoom}px ${FONT}`;
  pen.textBaseline = "middle";
  pen.textAlign = "left";
  pen.fillStyle = color;
  pen.beginPath();
  if (radius && pen.roundRect) pen.roundRect(left, top, across, tall, radius); else pen.rect(left, top, across, tall);
  pen.fill();
  pen.fillStyle = ink(color);
  pen.fillText(text, left + 7*zoom, top + tall/2 + zoom/2, across - 14*zoom);
}

// Look after a view: keys stay in it, and when its kernel is gone, the view says so.
//   root: the element with the class fer-panel; lost(text): called once when all is over, so that the panel ends what
//   waits and closes what is open. Returns a function that ends this; after it, nothing is called any more.
// root.dataset.kernel is "lost" from then on; a connection that is down, but may come back, makes it "unreachable".
function attend(model, root, lost = () => {}) {
  const kernel = model.widget_manager?.kernel, since = {};
  const quiet = keepKeys(root);
  const end = text => {
    if (since.over) return;
    stop();
    root.dataset.kernel = "lost";
    gone(root, text, true);
    lost(text);
  };
  const look = () => {
    const state = model.widget_manager?.kernel === kernel ? kernelState(model) : "ended";
    if (state === "ended" || root.closest(".jupyter-widgets-disconnected")) return end(goneText(kernel?.connectionStatus === "disconnected"));
    if (state !== "unreachable") since.down = 0; else since.down ||= performance.now();
    const down = since.down && performance.now() - since.down > TOLERATED;
    if (!down && root.dataset.kernel !== "unreachable") return;
    root.dataset.kernel = down ? "unreachable" : "";
    gone(root, down ? goneText(true) : "");
  };
  const changed = (_, status) => ENDED.includes(status) && end(goneText(false));  // it may be too short for the next look
  const ask = async () => { if (await isForgotten(kernel)) end(goneText(false)); };
  const timers = [setInterval(look, POLL), setInterval(ask, ASK)];
  kernel?.statusChanged?.connect(changed);
  const stop = () => { since.over = true; timers.forEach(clearInterval); kernel?.statusChanged?.disconnect(changed); };
  return () => { stop(); quiet(); };
}

// The line at the top of a view that says what has happened; "" takes it away.
function gone(root, text, forever = false) {
  let line = root.querySelector(":scope > .fer-gone");
  if (!line) root.prepend(line = Object.assign(document.createElement("div"), {className: "fer-gone"}));
  line.setAttribute("role", "alert");
  line.hidden = !text;
  line.replaceChildren(text);
  if (forever && onPage()) {
    const again = Object.assign(document.createElement("button"), {type: "button", className: "fer-button", textContent: "Reload"});
    again.onclick = () => location.reload();
    line.append(again);
  }
}

// What has the focus in a panel, or in the box `.fer-whole` around it, gives no commands to JupyterLab.
function keepKeys(root) {
  const suppress = event => {
    const whole = root.closest(".fer-whole") ?? root;
    if (whole.contains(event.target)) event.target.setAttribute("data-lm-suppress-shortcuts", "true");
  };
  const hold = event => event.stopPropagation();
  document.addEventListener("focusin", suppress, true);
  root.addEventListener("keydown", hold);
  return () => { document.removeEventListener("focusin", suppress, true); root.removeEventListener("keydown", hold); };
}
