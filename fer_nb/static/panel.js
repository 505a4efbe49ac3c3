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
