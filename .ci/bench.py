"""`make bench`: how long `fer_nb` takes to start and to answer, and what stands beside it. Writes models/bench.json.

Every figure is the median of several runs. Times mean little away from the machine they were taken on, so each is
also given as a ratio to something measured beside it: the bare import of OpenCV, and the same network called in Keras."""
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from notebooks import FER_NB, photos

RUNS, OUT = 9, Path("models/bench.json")
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


def machine() -> dict:
    "What the figures were taken on."
    cpu = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    return dict(cpu=names[0] if names else platform.processor(), cores=os.cpu_count(), system=platform.system(), python=platform.python_version(),
                load=round(os.getloadavg()[0], 2), runs=RUNS)


if __name__ == "__main__":
    taken = {name: round(value, 4) for name, value in {**starting(), **classifying()}.items()}
    ratios = {"cold predict / cold python -c 'import cv2'": round(taken["cold predict, s"] / taken["cold python -c 'import cv2', s"], 2)}
    for name in taken:
        if name.endswith(".int8.tflite, ms") and (keras := taken.get(name.replace(".int8.tflite, ms", ".keras called, ms"))):
            ratios[f"{name[:-4]} / the same called in Keras"] = round(taken[name] / keras, 4)
    part = OUT.with_suffix(".part")
    part.write_text(json.dumps(dict(machine=machine(), figures=taken, ratios=ratios), indent=1) + "\n")
    part.replace(OUT)
    for name, value in {**taken, **ratios}.items(): print(f"  {value:9.3f}  {name}")
    print(f"wrote {OUT}")
