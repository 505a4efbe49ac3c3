"""`make bench`: how long `fer_nb` takes to start and to answer, and what stands beside it. Writes models/bench.json,
which keeps one report for each kind of processor.
`python .ci/bench.py PART...` measures some parts only, and only prints them. RUNS=2 takes two runs of everything.

Every figure is the median of several runs. Times mean little away from the machine they were taken on, so each is
also given as a ratio to something measured beside it: the bare import of OpenCV, the same network called in Keras, or
the package `fer` 25.10.3, which has an environment of its own (.ci/peer.txt) and takes turns with this one."""
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from notebooks import FER_NB, photos

RUNS, OUT, PEER = int(os.environ.get("RUNS", 9)), Path("models/bench.json"), Path(".venv-fer")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, each start would compile all that it imports anew
CALLS, FILM = 20, 300  # calls of which one run is the median; frames of the film
PHOTO, MOVIE, CROPS = "photo 640x480 with one face", "film 1280x720 with two faces", "64 crops in one call"
TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
LITERT = """
import sys, time, numpy as np
from ai_edge_litert.interpreter import Interpreter
net = Interpreter(sys.argv[1], num_threads=1)
net.allocate_tensors()
i, o = net.get_input_details()[0], net.get_output_details()[0]
face = np.random.default_rng(0).integers(0, 256, i["shape"]).astype(i["dtype"])
def once():
    start = time.perf_counter()
    net.set_tensor(i["index"], face); net.invoke(); net.get_tensor(o["index"])
    return time.perf_counter() - start
for _ in range(50): once()
print(np.median([once() for _ in range(1000)]))
"""
KERAS = """
import sys, time, numpy as np, keras
net, face = keras.saving.load_model(sys.argv[1], compile=False), np.zeros((1, 48, 48, 1), "float32")
def once():
    start = time.perf_counter()
    net(face, training=False)
    return time.perf_counter() - start
for _ in range(5): once()
print(np.median([once() for _ in range(30)]))
"""


def median(measure, runs: int = RUNS) -> float:
    "The median of several measurements, after one that warms the file cache."
    measure()
    return statistics.median(measure() for _ in range(runs))


def python(code: str, *args) -> float:
    "What a fresh interpreter prints, as a number."
    return float(subprocess.run([sys.executable, "-c", code, *args], check=True, capture_output=True, text=True).stdout)


def cold(*command) -> tuple:  # (seconds, peak resident memory in MB)
    "One process from start to end."
    start = time.perf_counter()
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status: sys.exit(f"failed: {' '.join(map(str, command))}")
    return time.perf_counter() - start, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def starting() -> dict:
    "Imports and cold processes."
    predict = FER_NB, "predict", photos()[0], "--json"
    return {"import fer_nb, s": median(lambda: python(TIMED.format("import fer_nb"))),
            "from fer_nb import Recognizer, s": median(lambda: python(TIMED.format("from fer_nb import Recognizer"))),
            "import cv2, s": median(lambda: python(TIMED.format("import cv2"))),
            "import tensorflow, s": median(lambda: python(TIMED.format("import tensorflow")), 2),
            "cold python -c 'import cv2', s": median(lambda: cold(sys.executable, "-c", "import cv2")[0]),
            "cold version, s": median(lambda: cold(FER_NB, "version")[0]),
            "cold predict, s": median(lambda: cold(*predict)[0]),
            "cold predict, peak MB": median(lambda: cold(*predict)[1])}


def classifying() -> dict:
    "One face through each form of the shipped networks, one thread; milliseconds."
    found = {}
    for model in sorted(Path("models").glob("*.tflite")): found[f"{model.name}, ms"] = 1000 * python(LITERT, model)
    for model in sorted(Path("models").glob("*.keras")): found[f"{model.name} called, ms"] = 1000 * python(KERAS, model)
    return found


def scenes() -> tuple:  # RGB: a photo (480, 640, 3), and the frames (720, 1280, 3) of a film with their times
    "A photo with one face, and a film that pans over two; made of portraits in the public domain."
    import cv2
    import numpy as np
    from fer_nb.detection import read_image
    from fer_nb.frames import pan
    hopper, astronaut = map(read_image, photos())
    photo = cv2.resize(astronaut[:384], (640, 480), interpolation=cv2.INTER_CUBIC)
    pair = np.hstack([cv2.resize(o[:512], (760, 760), interpolation=cv2.INTER_CUBIC)[:, 20:740] for o in (astronaut, hopper)])
    return photo, pan(pair, FILM, (1280, 720), 30, view=.95, travel=.02, zoom=.03)


class Peer:
    "`fer` in a process and an environment of its own: asked for a part by name it answers in milliseconds."
    def __init__(self, folder: Path):  # with photo.npy, film.npy and crops.npy
        if not (PEER/".installed").exists(): raise OSError(f"its environment {PEER} could not be made")
        with open(folder/"peer.log", "w+") as log:
            self.process = subprocess.Popen([PEER/"bin/python", ".ci/bench_peer.py", folder], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=log, text=True)
            if not self.process.stdout.readline(): raise OSError((folder/"peer.log").read_text().strip()[-200:])

    def __call__(self, part: str) -> float:
        print(part, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


class Stage:
    "What is measured end to end: pictures, recognizers, and the peer if there is one."
    def __init__(self, folder: Path):
        import numpy as np
        from fer_nb import Recognizer
        from fer_nb.data import sample_faces
        from fer_nb.frames import FilmWriter
        self.photo, frames = scenes()
        self.film, self.crops, self.recognizers, self.missing, some = folder/"film.mp4", sample_faces(64).images, {}, [], []
        with FilmWriter(self.film, 1280, 720) as film:
            for i, (at, frame) in enumerate(frames):
                film.add(at, frame)
                if i % (FILM//10) == 0: some.append(frame)
        for name, array in dict(photo=self.photo, film=some, crops=self.crops).items(): np.save(folder/name, array)
        for name in "YuNet", "Haar":
            try: self.recognizers[name] = Recognizer(detector=name.lower())
            except (ValueError, OSError) as e: self.missing.append(f"{name}: {e}")
        try: self.peer = Peer(folder)
        except OSError as e: self.peer = self.missing.append(f"fer: {e}")  # None

    def beside(self, name: str, part: str) -> dict:
        "The peer's way of a part, for `abreast`."
        return {f"{name}, fer": partial(self.peer, part)} if self.peer else {}


def rested(way) -> float:
    "Measure when the threads of whoever was measured before have gone to sleep."
    time.sleep(.5)
    return way()


def abreast(ways: dict) -> dict:  # {name: function without arguments that returns a number} -> {name: median}
    "They take turns, so that what else the machine does falls on all of them; the first round only warms up."
    rounds = [{name: rested(way) for name, way in ways.items()} for _ in range(RUNS + 1)][1:]
    return {name: statistics.median(o[name] for o in rounds) for name in ways}


def calls(work) -> float:
    "One run: the median of several calls, in milliseconds."
    def once():
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    return 1000*statistics.median(once() for _ in range(CALLS))


def rates(taken: dict) -> dict: return {f"{name}, frames/s": 1000/ms for name, ms in taken.items()}


def photographs(stage) -> dict:
    "From an array to the answer."
    ours = {f"{PHOTO}, {k}": partial(calls, partial(r, stage.photo)) for k, r in stage.recognizers.items()}
    return rates(abreast(ours | stage.beside(PHOTO, "photo")))


def films(stage) -> dict:
    "From a file to the answers for every frame, tracked. The peer gets ten of the frames as arrays: it decodes and tracks nothing."
    faces = {}
    def watch(k, **how):
        start = time.perf_counter()
        faces[f"{MOVIE}, {k}, faces a frame"] = sum(1 for _ in stage.recognizers[k].video(stage.film, **how))/FILM
        return 1000*(time.perf_counter() - start)/FILM
    ways = {f"{MOVIE}, {k}{often}": partial(watch, k, **how) for k in stage.recognizers
            for often, how in (("", {}), (" in every frame", dict(detect_every=0, classify_every=0)))}
    return rates(abreast(ways | stage.beside(MOVIE, "film"))) | faces


def crops(stage) -> dict:
    "Faces already cropped, on two threads and on one."
    from fer_nb import Recognizer
    ours = {f"{CROPS}, {text}": partial(calls, partial(Recognizer(detector="haar", threads=n), stage.crops, detect=False))
            for n, text in ((2, "two threads"), (1, "one thread"))}
    return {f"{name}, ms": ms for name, ms in abreast(ours | stage.beside(CROPS, "crops")).items()}


OWN = {}  # what a worker of a pool uses


def equip(own: dict): OWN.update(own)


def repeat(times: int):
    for _ in range(times): OWN["recognizer"](OWN["photo"])


def together(stage) -> dict:
    "The same photos by one and two threads that share a `Recognizer`, and by one and two processes that were sent one each."
    def run(pool, workers):
        start = time.perf_counter()
        list(pool.map(repeat, [2*CALLS//workers]*workers))
        return 1000*(time.perf_counter() - start)/(2*CALLS)
    taken = {}
    for k, r in stage.recognizers.items():
        equip(own := dict(recognizer=r, photo=stage.photo))
        with ExitStack() as stack:
            thread = lambda n: stack.enter_context(ThreadPoolExecutor(n))
            process = lambda n: stack.enter_context(ProcessPoolExecutor(n, get_context("spawn"), equip, (own,)))
            pools = {"one thread": (thread(1), 1), "two threads": (thread(2), 2), "one process": (process(1), 1), "two processes": (process(2), 2)}
            taken |= abreast({f"photos in a row, {k}, {name}": partial(run, *o) for name, o in pools.items()})
    return rates(taken)


def ratios(taken: dict) -> dict:
    "Every figure divided by what stands beside it."
    pairs = [("cold predict / cold python -c 'import cv2'", "cold predict, s", "cold python -c 'import cv2', s")]
    for name in taken:
        *who, unit = name.split(", ")
        label, one = ", ".join(who), {"two threads": "one thread", "two processes": "one process"}.get(who[-1])
        if unit == "ms" and ".int8.tflite" in label: pairs.append((f"{label} / the same called in Keras", name, name.replace(".int8.tflite", ".keras called")))
        if len(who) > 1 and who[-1] != "fer": pairs.append((f"{label} / fer", name, f"{who[0]}, fer, {unit}"))
        if one: pairs.append((f"{label} / {one}", name, name.replace(who[-1], one)))
    return {label: round(taken[a]/taken[b], 4) for label, a, b in pairs if a in taken and b in taken}


def machine() -> dict:
    "What the figures were taken on; `vectors` are its vector instructions, which decide more than its name."
    cpu = Path("/proc/cpuinfo")
    facts = dict(re.findall(r"^(.+?)\s*: (.*)$", cpu.read_text(), re.MULTILINE)) if cpu.exists() else {}
    vectors = [f for f in facts.get("flags", facts.get("Features", "")).split() if f.startswith(("avx", "amx", "asimd", "sve"))]
    return dict(cpu=facts.get("model name") or platform.processor(), vectors=vectors, cores=os.cpu_count(),
                system=platform.system(), python=platform.python_version(), load=round(os.getloadavg()[0], 2), runs=RUNS)


def kind(vectors: list) -> str:
    "Under which name a machine's report is kept: a processor's widest vector instructions decide how quick a network is."
    return next((name for start, name in (("avx512", "AVX-512"), ("avx2", "AVX2"), ("asimd", "NEON")) if any(v.startswith(start) for v in vectors)), "other")


COLD = dict(start=starting, network=classifying)  # first: what this process holds would count as its children's memory
WARM = dict(photo=photographs, film=films, crops=crops, together=together)


def show(values: dict) -> dict:
    for name, value in values.items(): print(f"  {value:9.3f}  {name}", flush=True)
    return values


def measured(wanted: list, folder: Path) -> dict:
    "The report on some parts."
    report, taken, missing = dict(machine=machine()), {}, []
    def keep(values): taken.update(show({name: round(value, 4) for name, value in values.items()}))
    for part in [o for o in COLD if o in wanted]: keep(COLD[part]())
    if WARM.keys() & wanted:
        stage = Stage(folder)
        for part in [o for o in WARM if o in wanted]: keep(WARM[part](stage))
        if stage.peer: stage.peer.process.communicate()
        missing = stage.missing
    report |= dict(figures=taken, ratios=show(ratios(taken)), missing=missing)
    for reason in missing: print(f"left out, with its ratios: {reason}")
    if "detection" in wanted:
        from bench_detection import figures
        report["detection"] = figures()
        print(json.dumps(report["detection"], indent=1))
    return report


if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - (parts := {*COLD, *WARM, "detection"}): sys.exit(f"no part {', '.join(unknown)}; there are {', '.join(parts)}")
    with tempfile.TemporaryDirectory() as folder: report = measured(sys.argv[1:] or list(parts), Path(folder))
    if not sys.argv[1:]:
        part, known = OUT.with_suffix(".part"), json.loads(OUT.read_text()) if OUT.exists() else {}
        part.write_text(json.dumps(known | {kind(report["machine"]["vectors"]): report}, indent=1) + "\n")
        part.replace(OUT)
        print(f"wrote {OUT}")
