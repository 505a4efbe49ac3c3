"""`make e2e`: the notebooks in JupyterLab and the page of `make app`, used as a person would, in a headless browser.

Real servers on loopback, a real Chromium, and its imitation of a camera, which shows a film made of a public-domain face.
`python .ci/e2e.py STAGE...` runs only some of the stages. Every screenshot and `figures.json` are left in _runs/e2e.
Environment: CHROME (path of a browser), E2E_SECONDS (how long the camera streams), FER_NB_YUNET (a better detector)."""
import base64
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path

import nbformat
import psutil

from check import Report
from notebooks import NBS

OUT, SECONDS, PATIENCE = Path("_runs/e2e"), float(os.environ.get("E2E_SECONDS", 60)), 120  # PATIENCE: seconds for what takes a while
FIGURES = {}  # what was measured
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update
           --disable-sync --autoplay-policy=no-user-gesture-required""".split()
GRANTED = "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream".split()


# The browser

def find_chrome() -> str:  # its path
    "The browser: named by CHROME, on the PATH, or else installed by root on Debian."
    names = ("chromium", "chromium-browser", "google-chrome")
    find = lambda: os.environ.get("CHROME") or next(filter(None, map(shutil.which, names)), None)
    if not find() and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing the browser: apt-get install chromium (once; a minute)", flush=True)
        for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "-q", *command], stdout=subprocess.DEVNULL, env=os.environ | dict(DEBIAN_FRONTEND="noninteractive"))
    if chrome := find(): return chrome
    sys.exit(f"No browser: install Chromium or Chrome ({', '.join(names)} on the PATH), or name one by CHROME=/its/path.")


# Runs in every page before all else: it counts at the socket which frames go out and which answers come in, and keeps an eye on the cameras.
PROBE = r"""
const Native = window.WebSocket, probe = window.probe = {out: [], back: [], most: 0, tracks: [], waiting: new Set()};
const head = data => typeof data === "string" ? data.slice(0, 4000) : new TextDecoder("latin1").decode(new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, Math.min(4000, data.byteLength)));
const number = (data, kind) => { const found = data && (data.byteLength || data.length) && head(data).match(new RegExp(`"kind": ?"${kind}".{0,90}?"number": ?(\\d+)`)); return found ? +found[1] : 0; };
window.WebSocket = class extends Native {
  constructor(...all) {
    super(...all);
    this.addEventListener("message", event => {
      const n = number(event.data, "result");
      if (!n) return;
      probe.back.push([n, performance.now()]);
      for (const o of probe.waiting) if (o <= n) probe.waiting.delete(o);
    });
  }
  send(data) {
    const n = number(data, "frame");
    if (n) { probe.out.push([n, performance.now()]); probe.waiting.add(n); probe.most = Math.max(probe.most, probe.waiting.size); }
    super.send(data);
  }
};
const devices = navigator.mediaDevices, ask = devices?.getUserMedia.bind(devices);
if (ask) devices.getUserMedia = async wish => { const stream = await ask(wish); probe.tracks.push(...stream.getTracks()); return stream; };
"""


def film(path: Path):
    "One face for Chromium's imitation of a camera: three seconds of slow movement that join without a jump, 640 x 480, 30 frames a second."
    import cv2
    import numpy as np
    import skimage
    photo = skimage.data.astronaut()[..., ::-1]  # 512 x 512, of NASA
    with open(path, "wb") as file:
        for turn in np.linspace(0, 2*np.pi, 90, endpoint=False):
            zoom, left, top = 1.45 + .05*np.cos(turn), 35 + 25*np.sin(turn), 12 + 10*np.cos(turn)
            frame = cv2.warpAffine(photo, np.float32([[zoom, 0, -left], [0, zoom, -top]]), (640, 480), flags=cv2.INTER_AREA)
            file.write(cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, 85))[1])


@contextmanager
def browsing(work, *flags, size=(1280, 900)):
    "A browser of its own with one page; `page.said` collects errors on its console, `page.strangers` requests to other servers."
    with work.playwright.chromium.launch(executable_path=work.chrome, args=[*FLAGS, *flags]) as browser:
        page = browser.new_context(viewport=dict(width=size[0], height=size[1]), accept_downloads=True).new_page()
        page.set_default_timeout(1000*PATIENCE/2)
        page.said, page.strangers, page.shown = [], [], work
        page.on("console", lambda o: page.said.append(o.text) if o.type == "error" else None)
        page.on("pageerror", lambda o: page.said.append(str(o)))
        page.on("request", lambda o: page.strangers.append(o.url) if not re.match(r"(https?|wss?)://(127\.0\.0\.1|notebook\.test)[:/]|data:|blob:", o.url) else None)
        page.add_init_script(f"(() => {{{PROBE}}})()")
        yield page


# The servers

def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port: int) -> bool:
    try: return bool(socket.create_connection(("127.0.0.1", port), timeout=5).close() or True)
    except OSError: return False


class Served:
    "A server with a folder of its own for everything that it writes; `stop` ends it as Ctrl-C does."
    def __init__(self, folder: Path, name: str, port: int, command: list):
        own = {f"JUPYTER_{o}_DIR": str(folder / o.lower()) for o in ("CONFIG", "RUNTIME", "DATA")}
        own |= {f"JUPYTERLAB_{o}_DIR": str(folder / o.lower()) for o in ("SETTINGS", "WORKSPACES")}
        self.port, self.address, self.log = port, f"http://127.0.0.1:{port}/", OUT / f"{name}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | own, start_new_session=True)
        try: until(lambda: self.process.poll() is not None or answers(port), f"{name} does not answer")
        except TimeoutError: self.stop(); raise
        if self.process.poll() is not None: raise RuntimeError(f"{name} ended:\n{self.log.read_text()[-2000:]}")

    def family(self): return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]

    def stop(self) -> str:  # what went wrong
        if self.process.poll() is not None: return "it had ended before"
        family = self.family()
        os.killpg(self.process.pid, signal.SIGINT)
        _, left = psutil.wait_procs(family, timeout=20)
        for o in left: o.kill()
        return f"not ended by Ctrl-C: {[o.pid for o in left]}" if left else ""


class Work:
    "What all stages share: browser, servers (each started when it is needed first), the film, a temporary folder."
    def __init__(self, playwright, folder: Path):
        self.playwright, self.folder, self.chrome, self.stack, self.there = playwright, folder, find_chrome(), ExitStack(), {}
        self.film = folder / "face.mjpeg"
        film(self.film)
        self.camera = [*GRANTED, f"--use-file-for-fake-video-capture={self.film}"]

    def server(self, name, make) -> Served:
        if name not in self.there:
            (self.folder / name).mkdir()
            self.there[name] = make(self.folder / name)
        return self.there[name]

    @property
    def lab(self): return self.server("lab", self.start_lab)
    @property
    def app(self): return self.server("app", self.start_app)

    def start_lab(self, folder) -> Served:
        "JupyterLab over copies of two notebooks and a short one; it saves the state of widgets, which is the harder case for privacy."
        self.notes, port, token = folder / "notebooks", free_port(), os.urandom(12).hex()
        self.notes.mkdir()
        with_values("08_upload", self.notes, show=True, detector=detector())
        with_values("09_webcam", self.notes, panels="yes", detector=detector())
        cells = ["from fer_nb.webcam import BrowserCamera\ncamera = BrowserCamera()", "camera"]
        nbformat.write(nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)], metadata=dict(kernelspec=dict(name="python3", display_name="Python 3"))), self.notes / "camera.ipynb")
        for name, values in (("@jupyter-widgets/jupyterlab-manager/plugin", dict(saveState=True)), ("@jupyterlab/apputils-extension/notification", dict(fetchNews="false"))):
            kept = folder / f"settings/{name}.jupyterlab-settings"
            kept.parent.mkdir(parents=True)
            kept.write_text(json.dumps(values))
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
                   f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={self.notes}", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
                   "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        self.token = token
        return Served(folder, "lab", port, command)

    def start_app(self, folder) -> Served:
        "The page, by the command that a person would give."
        port = free_port()
        return Served(folder, "app", port, ["make", "--no-print-directory", "app", f"PORT={port}"])

    def close(self):
        for server in self.there.values(): server.stop()


def detector(): return "auto" if os.environ.get("FER_NB_YUNET") else "haar"


def with_values(name, folder, **values):
    "A copy of a notebook, without outputs, with some values in place of its default parameters."
    from papermill.parameterize import parameterize_notebook
    from papermill.iorw import load_notebook_node
    nb = parameterize_notebook(load_notebook_node(str(NBS / f"{name}.ipynb")), values)
    for cell in nb.cells:
        if cell.cell_type == "code": cell.outputs, cell.execution_count = [], None
        cell.metadata.pop("papermill", None)
    nb.metadata.pop("papermill", None)
    nbformat.write(nb, folder / f"{name}.ipynb")


# Steps

class Broken(Exception): "A step went wrong that later ones build on; it has been reported."


def until(true, complaint="it did not happen", seconds=PATIENCE):
    "Wait until something is true, and return it."
    start = time.time()
    while not (value := true()):
        if time.time() - start > seconds: raise TimeoutError(complaint() if callable(complaint) else complaint)
        time.sleep(.2)
    return value


class Steps:
    "Reports what is done with a page, step by step."
    def __init__(self, add, page, name): self.add, self.page, self.name = add, page, name

    @contextmanager
    def __call__(self, name, go_on=False):
        "One step. What it appends is reported with it; what fails ends the stage, unless it is to go on."
        start, told = time.time(), []
        try: yield told; problem = ""
        except Exception as e: problem = f"{type(e).__name__}: {e}"
        if problem: self.look(f"failed-{re.sub(r'[^a-z]+', '-', name.lower())}")
        self.add(f"{name}{': ' * bool(told)}{', '.join(told)}", problem, time.time() - start)
        if problem and not go_on: raise Broken

    def look(self, name, at=None):
        "A screenshot, to be looked at by a person; `at` is what should be in the middle of it."
        try:
            if at: at.evaluate("o => o.scrollIntoView({block: 'center'})"); time.sleep(.5)
            self.page.screenshot(path=OUT / f"{self.name}-{name}.png")
        except Exception as e: print(f"        no screenshot: {e}")


def stage(f):
    "A stage ends where a step is broken; that was reported."
    @wraps(f)
    def run(work, add):
        try: f(work, add)
        except Broken: pass
    return run


def require(true, text):
    if not true: raise AssertionError(text)


# JupyterLab

def open_notebook(page, work, name):
    "Open a notebook in a workspace of its own."
    page.goto(f"{work.lab.address}lab/workspaces/{os.urandom(4).hex()}/tree/{name}?token={work.token}")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    until(lambda: page.evaluate("jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus") == "connected", "no kernel")
    command(page, "application:toggle-left-area")
    theme(page, "Light")


def theme(page, name):
    command(page, "apputils:change-theme", dict(theme=f"JupyterLab {name}"))
    page.wait_for_selector(f'body[data-jp-theme-light="{str(name == "Light").lower()}"]', state="attached")
    time.sleep(1)


def command(page, name, args={}): return page.evaluate("([name, args]) => { jupyterapp.commands.execute(name, args); }", [name, args])
def contents(page): return page.evaluate("jupyterapp.shell.currentWidget.context.model.toJSON()")


def run_all(page) -> str:  # what was done
    "Run all cells to the end; an error in one of them is an error here."
    page.evaluate("() => { window.ended = 0; jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.ended = 1; }, e => { window.ended = String(e); }); }")
    until(lambda: page.evaluate("window.ended"), "the cells did not end")
    cells = [o for o in contents(page)["cells"] if o["cell_type"] == "code"]
    for i, cell in enumerate(cells):
        for output in cell["outputs"]: require(output["output_type"] != "error", f"code cell {i}: {output.get('ename')}: {output.get('evalue')}")
    require(all(o["execution_count"] for o in cells if "".join(o["source"]).strip()), "some cells did not run")
    return f"{len(cells)} cells"


def save_notebook(page, path: Path) -> str:  # its text
    before = path.stat().st_mtime_ns
    command(page, "docmanager:save")
    until(lambda: path.stat().st_mtime_ns != before, "the notebook was not saved")
    time.sleep(.5)
    return path.read_text()


def kernel_of(page, server) -> psutil.Process:
    "The process of the kernel behind the page."
    kernel = page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.id")
    return next(o for o in server.family() if any(kernel in part for part in o.cmdline()))


# What is done with the panels, wherever they are

def shot(path: Path) -> bytes:
    "A photograph of two faces, unlike any in the notebooks, and its bytes."
    import cv2
    import numpy as np
    import matplotlib
    import skimage
    hopper = cv2.imread(str(Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"))[40:440, 60:460]
    cv2.imwrite(str(path), np.hstack([skimage.data.astronaut()[:400, 40:440, ::-1], hopper]), (cv2.IMWRITE_JPEG_QUALITY, 92))
    return path.read_bytes()


def upload(steps, scope, work, name="two-visitors.jpg"):
    "Choose a picture, see its faces; choose a file that is none, see why."
    page, picture = steps.page, work.folder / name
    data = shot(picture)
    with steps("a picture is chosen, its faces are shown") as told:
        start = time.time()
        scope.locator(".fer-upload input[type=file]").set_input_files(picture)
        card = scope.locator(f'.fer-card[aria-label="{name}"]')
        card.locator("li.fer-face").nth(1).wait_for()
        told.append(f"{time.time() - start:.1f} s, {card.locator('.fer-sub').inner_text()}")
        photo = card.locator(".fer-photo img")
        until(lambda: photo.evaluate("o => o.complete && o.naturalWidth") == 800, "the picture is not shown")
        require(card.locator(".fer-photo .fer-box").count() == 2, "there are not two boxes")
        for face in card.locator("li.fer-face").all():
            values = face.locator(".fer-bars .fer-value").all_inner_texts()
            require(len(values) == 7 and abs(sum(int(o[:-1]) for o in values) - 100) <= 4, f"these are no probabilities: {values}")
            told.append(" ".join(face.locator(".fer-verdict").inner_text().split()))
        steps.look("upload", card)
    with steps("what is no picture is refused in words") as told:
        scope.locator(".fer-upload input[type=file]").set_input_files(dict(name="letter.pdf", mimeType="application/pdf", buffer=b"%PDF-1.7\n" + bytes(2000)))
        text = scope.locator('.fer-card[aria-label="letter.pdf"] .fer-trouble').inner_text()
        require("PDF" in text, text)
        told.append(repr(" ".join(text.split())))
        steps.look("no-picture", scope.locator('.fer-card[aria-label="letter.pdf"]'))
    with steps("the table is downloaded") as told:
        with page.expect_download() as got: scope.locator('[data-do=save][data-what=csv]').click()
        table = Path(got.value.path()).read_text(encoding="utf-8-sig").splitlines()
        require(len(table) == 4, table)
        told.append(f"{got.value.suggested_filename}, {len(table)} lines")
    return data


def traces(text: str, data: bytes, name: str):
    "Complain if a picture, in base64, or its name is in a text."
    inside = [base64.b64encode(data[i:i + 90])[4:-4].decode() for i in range(len(data)//2, len(data)//2 + 3)]
    require(not any(o in text for o in inside), "the picture is in it")
    require(name not in text, "the picture's name is in it")


def state_of(camera): return camera.evaluate("o => ({...o.dataset, text: o.innerText})")


def start_camera(steps, camera):
    with steps("the camera opens on a click") as told:
        camera.scroll_into_view_if_needed()
        require(camera.get_attribute("data-state") == "off" and not steps.page.evaluate("probe.tracks.length"), "it opened by itself")
        start = time.time()
        camera.locator("[data-do=start]").click()
        until(lambda: (state_of(camera).get("faces") or "0") != "0", lambda: f"no face was seen: {state_of(camera)}", 60)
        told.append(f"first face after {time.time() - start:.1f} s")
        told.append(steps.page.evaluate("(t => `${t.getSettings().width} x ${t.getSettings().height}`)(probe.tracks[0])"))


def watch(steps, camera, seconds, name):
    "Let it run for a while and measure at the socket; the widget's own figures must agree."
    page = steps.page
    page.evaluate("Object.assign(probe, {out: [], back: [], most: 0})")
    shown = []
    for _ in range(max(1, round(seconds))):
        time.sleep(seconds/max(1, round(seconds)))
        shown.append(state_of(camera))
    out, back, most = page.evaluate("[probe.out, probe.back, probe.most]")
    sent = dict(out)
    lags = sorted(t - sent[n] for n, t in back if n in sent)
    gaps = [b[1] - a[1] for a, b in zip(back, back[1:])]
    require(lags, "no answers")
    span = (back[-1][1] - back[0][1])/1000 or 1
    figures = FIGURES[name] = dict(seconds=round(span, 1), results=len(back), results_per_second=round((len(back) - 1)/span, 1), frames_sent=len(out), most_in_flight=most,
        lag_ms=dict(median=round(statistics.median(lags)), p95=round(lags[int(.95*(len(lags) - 1))]), max=round(lags[-1])), longest_gap_ms=round(max(gaps, default=0)),
        shown=dict(rate=[float(o.get("rate", 0)) for o in shown][-1], lag=[float(o.get("lag", 0)) for o in shown][-1]), with_face=round(sum(o.get("faces") == "1" for o in shown)/len(shown), 3))
    return figures


def tell(told, figures):
    told.append(f"{figures['results']} results in {figures['seconds']} s = {figures['results_per_second']}/s")
    told.append(f"{figures['lag_ms']['median']} ms behind (median; 95%: {figures['lag_ms']['p95']}), at most {figures['most_in_flight']} in flight")


def sane(figures, behind=500):
    "Bounds that a loaded machine keeps, too; `behind` in milliseconds."
    require(figures["results_per_second"] >= 2 and figures["longest_gap_ms"] < 10000, f"results do not keep coming: {figures}")
    require(figures["lag_ms"]["median"] <= behind, f"it lags behind: {figures}")
    require(1 <= figures["most_in_flight"] <= 2, f"{figures['most_in_flight']} frames in flight")
    require(figures["with_face"] > .8, f"the face is seen in {figures['with_face']:.0%} of the looks only")


def closed(steps, seconds=15):
    until(lambda: steps.page.evaluate("probe.tracks.length && probe.tracks.every(o => o.readyState === 'ended')"), "the camera is still open", seconds)


def fallback(steps, camera, work, words, name):
    "Where the camera cannot be had: the reason in words, and a single picture instead."
    with steps("the reason is given in words") as told:
        if words != INSECURE: camera.locator("[data-do=start]").click()
        text = until(lambda: camera.locator(".fer-message").inner_text())
        require(words in text, text)
        told.append(repr(text))
        require(camera.get_attribute("data-state") == "off", "the camera is on")
        steps.look(name, camera)
    with steps("a single picture works instead") as told:
        shot(work.folder / "single.jpg")
        camera.locator("input[type=file]").set_input_files(work.folder / "single.jpg")
        said = camera.locator(".fer-said li")
        until(lambda: said.count() == 2, lambda: f"no faces: {state_of(camera)}")
        told += said.all_inner_texts()
        steps.look(f"{name}-picture", camera)


REFUSED, ABSENT, INSECURE = "was not allowed", "No camera was found", "only to pages that come by https"


# Stages

@stage
def lab_upload(work, add):
    "JupyterLab: the notebook of the upload panel runs, and the panel is used"
    with browsing(work) as page:
        steps = Steps(add, page, "lab-upload")
        with steps("08_upload opens and runs") as told:
            open_notebook(page, work, "08_upload.ipynb")
            told.append(run_all(page))
            panel = page.locator(".jp-OutputArea-output .fer-upload").last
            panel.scroll_into_view_if_needed()
        scope = page.locator(".jp-OutputArea-output", has=page.locator(".fer-upload")).last
        data = upload(steps, scope, work)
        with steps("dark theme", go_on=True):
            theme(page, "Dark")
            steps.look("dark", scope.locator('.fer-card').last)
        with steps("nothing of it is in the saved notebook, whose widgets' state is saved") as told:
            text = save_notebook(page, work.notes / "08_upload.ipynb")
            state = json.loads(text)["metadata"].get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state")
            require(state, "the widgets' state was not saved, so this shows nothing")
            traces(text, data, "two-visitors")
            require(not re.search(r"[A-Za-z0-9+/]{2000}", json.dumps(state)), "there is a long piece of base64 in the widgets' state")
            told.append(f"{len(state)} models in {len(text)//1000} kB")
        with steps("no errors on the console, no requests to other servers", go_on=True): quiet(page)


def quiet(page):
    require(not page.said, "\n".join(page.said[:5]))
    require(not page.strangers, "\n".join(page.strangers[:5]))


@stage
def lab_camera(work, add):
    "JupyterLab: the notebook of the cameras runs, and the camera of the browser streams"
    with browsing(work, *work.camera) as page:
        steps = Steps(add, page, "lab-camera")
        with steps("09_webcam opens and runs") as told:
            open_notebook(page, work, "09_webcam.ipynb")
            told.append(run_all(page))
            camera = page.locator(".jp-OutputArea-output .fer-camera").last
        start_camera(steps, camera)
        with steps(f"it streams for {SECONDS:g} s") as told:
            kernel, tools = kernel_of(page, work.lab), page.context.new_cdp_session(page)
            figures = watch(steps, camera, 5, "warming_up")
            before = memory(kernel, tools)
            figures = watch(steps, camera, SECONDS, "streaming")
            after = memory(kernel, tools)
            steps.look("on", camera)
            tell(told, figures)
            figures |= dict(detector="yunet" if detector() == "auto" else "haar", cores=os.cpu_count(), load=os.getloadavg()[0], kernel_mb=[before[0], after[0]], page_mb=[before[1], after[1]])
            sane(figures)
        with steps("memory does not grow", go_on=True) as told:
            told.append(f"kernel {before[0]:.0f} -> {after[0]:.0f} MB, page {before[1]:.1f} -> {after[1]:.1f} MB")
            require(after[0] - before[0] < 40, f"the kernel grew by {after[0] - before[0]:.0f} MB")
            require(after[1] - before[1] < 15, f"the page grew by {after[1] - before[1]:.0f} MB")
        with steps("dark theme", go_on=True):
            theme(page, "Dark")
            steps.look("dark", camera)
        with steps("clearing the cell closes the camera"):
            command(page, "notebook:clear-all-cell-outputs")
            closed(steps)
        with steps("no errors on the console, no requests to other servers", go_on=True): quiet(page)


def memory(kernel, tools) -> tuple:  # (MB of the kernel, MB of the page's JavaScript)
    tools.send("Performance.enable")
    tools.send("HeapProfiler.collectGarbage")
    heap = {o["name"]: o["value"] for o in tools.send("Performance.getMetrics")["metrics"]}["JSHeapUsedSize"]
    return round(kernel.memory_info().rss/1e6, 1), round(heap/1e6, 1)


@stage
def lab_refused(work, add):
    "JupyterLab: the permission for the camera is refused"
    with browsing(work, "--use-fake-device-for-media-stream", "--deny-permission-prompts") as page:
        steps = Steps(add, page, "lab")
        with steps("a short notebook opens and runs") as told:
            open_notebook(page, work, "camera.ipynb")
            told.append(run_all(page))
        fallback(steps, page.locator(".fer-camera"), work, REFUSED, "refused")
        with steps("nothing of it is in the saved notebook", go_on=True):
            text = save_notebook(page, work.notes / "camera.ipynb")
            require("widget-state+json" in text, "the widgets' state was not saved, so this shows nothing")
            require(not re.search(r"[A-Za-z0-9+/]{2000}", text) and "single.jpg" not in text, "there is a picture in it")


def open_app(page, address):
    page.goto(address)
    page.wait_for_selector(".fer-upload")
    until(lambda: page.locator("#rendered_cells").is_visible())


def tab(page, name):
    page.get_by_role("tab", name=name).click()


@stage
def app_page(work, add):
    "Voila: the page of `make app` is used"
    with browsing(work, *work.camera) as page:
        steps = Steps(add, page, "app")
        with steps("the page opens without code") as told:
            start = time.time()
            open_app(page, work.app.address)
            told.append(f"{time.time() - start:.1f} s")
            require("127.0.0.1" in work.app.log.read_text(), "the command does not say its address")
            text = page.locator("body").inner_text()
            require("import" not in text and "UploadPanel" not in text and not page.locator(".jp-InputArea-editor").count(), "there is code on the page")
            require("Nothing is saved" in text, "it does not say what becomes of pictures")
            time.sleep(.5)
            steps.look("open")
        upload(steps, page.locator("body"), work)
        tab(page, "Camera")
        camera = page.locator(".fer-camera")
        start_camera(steps, camera)
        with steps("it streams for 5 s") as told:
            figures = watch(steps, camera, 5, "app_streaming")
            steps.look("camera", camera)
            tell(told, figures)
            sane(figures, behind=1500)
        with steps("snapshot is downloaded", go_on=True) as told:
            with page.expect_download() as got: camera.locator("[data-do=snapshot]").click()
            shutil.copy(got.value.path(), OUT / "app-snapshot.png")
            told.append(got.value.suggested_filename)
        with steps("it closes by itself when it is out of sight, and opens again") as told:
            start = time.time()
            tab(page, "Upload")
            closed(steps, 60)
            told.append(f"closed after {time.time() - start:.0f} s")
            tab(page, "Camera")
            require("out of sight" in camera.locator(".fer-message").inner_text(), "it does not say why")
            camera.locator("[data-do=start]").click()
            until(lambda: (state_of(camera).get("faces") or "0") != "0")
        with steps("Stop closes the camera"):
            camera.locator("[data-do=stop]").click()
            closed(steps)
        with steps("no errors on the console, no requests to other servers", go_on=True): quiet(page)


@stage
def app_without_camera(work, add):
    "Voila: a computer without a camera, and a page that did not come by a safe way"
    for name, words, flags in (("absent", ABSENT, ["--use-fake-device-for-media-stream=device-count=0", "--use-fake-ui-for-media-stream"]),
                               ("insecure", INSECURE, [*work.camera, "--host-resolver-rules=MAP notebook.test 127.0.0.1"])):
        with browsing(work, *flags, size=(900, 900)) as page:
            steps = Steps(add, page, "app")
            with steps(f"the page opens ({name})"):
                open_app(page, work.app.address.replace("127.0.0.1", "notebook.test") if words == INSECURE else work.app.address)
                tab(page, "Camera")
            fallback(steps, page.locator(".fer-camera"), work, words, name)


@stage
def endings(work, add):
    "Ctrl-C ends both servers and their kernels"
    for name in ("lab", "app"):
        server = getattr(work, name)
        add(name, server.stop())
        del work.there[name]


STAGES = [lab_upload, lab_camera, lab_refused, app_page, app_without_camera, endings]


def main(names) -> int:
    if unknown := set(names) - {s.__name__ for s in STAGES}: sys.exit(f"no such stage: {unknown}")
    from playwright.sync_api import sync_playwright
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    report, start = Report(), time.time()
    with tempfile.TemporaryDirectory(prefix="fer_nb-e2e-") as folder, sync_playwright() as playwright:
        work = Work(playwright, Path(folder))
        try:
            for o in STAGES:
                if not names or o.__name__ in names: report.run(wraps(o)(lambda add, o=o: o(work, add)))
        finally: work.close()
    (OUT / "figures.json").write_text(json.dumps(FIGURES, indent=1) + "\n")
    total = f"{report.passed} passed, {report.failed} failed"
    (OUT / "total.txt").write_text(total + "\n")
    print(f"\n{time.time() - start:.0f} s, screenshots and figures in {OUT}\n{total}", flush=True)
    return bool(report.failed)


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
