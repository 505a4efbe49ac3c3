"""Starting: imports, whole processes, and the networks alone, each in a fresh interpreter."""
import os
import subprocess
import sys
import time
from pathlib import Path

from images import photos
from timing import median

FER_NB = Path(sys.executable).with_name('fer_nb')  # the installed command
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)  # with it, each start would compile all that it imports anew
IMPORT = 'import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)'
LITERT = """
import sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
net = Interpreter(sys.argv[1], num_threads=1)
net.allocate_tensors()
i, o = net.get_input_details()[0], net.get_output_details()[0]
face = np.random.default_rng(0).integers(0, 256, i['shape']).astype(i['dtype'])
def once():
    start = time.perf_counter()
    net.set_tensor(i['index'], face)
    net.invoke()
    net.get_tensor(o['index'])
    return time.perf_counter() - start
for _ in range(50): once()
print(np.median([once() for _ in range(1000)]))
"""
KERAS = """
import sys, time
import keras, numpy as np
net, face = keras.saving.load_model(sys.argv[1], compile=False), np.zeros((1, 48, 48, 1), 'float32')
def once():
    start = time.perf_counter()
    net(face, training=False)
    return time.perf_counter() - start
for _ in range(5): once()
print(np.median([once() for _ in range(30)]))
"""


def python(code: str, *args) -> float:
    "What a fresh interpreter prints, as a number."
    done = subprocess.run([sys.executable, '-c', code, *args], check=True, capture_output=True, text=True)
    return float(done.stdout)


def process(*command) -> tuple[float, float]:  # seconds, peak resident memory in MB
    "One process from start to end."
    start = time.perf_counter()
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status: sys.exit(f'failed: {" ".join(map(str, command))}')
    return time.perf_counter() - start, usage.ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10)


def start() -> dict[str, float]:
    "Imports and cold processes."
    predict = FER_NB, 'predict', photos()[0], '--json'
    return {
        'import fer_nb, s': median(lambda: python(IMPORT.format('import fer_nb'))),
        'from fer_nb import Recognizer, s': median(lambda: python(IMPORT.format('from fer_nb import Recognizer'))),
        'import cv2, s': median(lambda: python(IMPORT.format('import cv2'))),
        'import tensorflow, s': median(lambda: python(IMPORT.format('import tensorflow')), 2),
        "cold python -c 'import cv2', s": median(lambda: process(sys.executable, '-c', 'import cv2')[0]),
        'cold version, s': median(lambda: process(FER_NB, 'version')[0]),
        'cold predict, s': median(lambda: process(*predict)[0]),
        'cold predict, peak MB': median(lambda: process(*predict)[1]),
    }


def network() -> dict[str, float]:
    "One face through each form of the shipped networks, one thread; milliseconds."
    models = Path('models')
    exported = {f'{m.name}, ms': 1000 * python(LITERT, m) for m in sorted(models.glob('*.tflite'))}
    return exported | {f'{m.name} called, ms': 1000 * python(KERAS, m) for m in sorted(models.glob('*.keras'))}


PARTS = dict(start=start, network=network)
