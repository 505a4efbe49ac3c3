"""`make bench`: how long `fer_nb` takes to start and to answer, and what stands beside it.

Writes models/bench.json, which keeps one report for each kind of processor. `python benchmarks/run.py PART...` measures
some parts only, and only prints them. RUNS=2 takes two runs of everything.

Times mean little away from the machine they were taken on, so each is also given as a ratio to something measured
beside it: the bare import of OpenCV, the same network called in Keras, or the package `fer` 25.10.3, which has an
environment of its own (peer_requirements.txt) and takes turns with this one."""
import json
import os
import platform
import re
import sys
import tempfile
from pathlib import Path

import cold
import decoding
import warm
from timing import RUNS

OUT = Path('models/bench.json')
# cold first: what this process holds counts as its children's memory
PARTS = [*cold.PARTS, *decoding.PARTS, *warm.PARTS, 'detection']


def ratios(taken: dict[str, float]) -> dict[str, float]:
    "Every figure divided by what stands beside it."
    pairs = [
        ("cold predict / cold python -c 'import cv2'", 'cold predict, s', "cold python -c 'import cv2', s"),
        ('read a JPEG / cv2.imdecode', 'read a JPEG of 12 megapixels, ms', 'cv2.imdecode of the same JPEG, ms'),
    ]
    for name in taken:
        *who, unit = name.split(', ')
        label = ', '.join(who)
        one = {'two threads': 'one thread', 'two processes': 'one process'}.get(who[-1])
        if unit == 'ms' and '.int8.tflite' in label:
            pairs.append((f'{label} / the same called in Keras', name, name.replace('.int8.tflite', '.keras called')))
        if len(who) > 1 and who[-1] != 'fer': pairs.append((f'{label} / fer', name, f'{who[0]}, fer, {unit}'))
        if one: pairs.append((f'{label} / {one}', name, name.replace(who[-1], one)))
    return {label: round(taken[a] / taken[b], 4) for label, a, b in pairs if a in taken and b in taken}


def machine() -> dict:
    "What the figures were taken on; `vectors` are its vector instructions, which decide more than its name."
    cpu = Path('/proc/cpuinfo')
    facts = dict(re.findall(r'^(.+?)\s*: (.*)$', cpu.read_text(), re.MULTILINE)) if cpu.exists() else {}
    flags = facts.get('flags', facts.get('Features', '')).split()
    return dict(
        cpu=facts.get('model name') or platform.processor(),
        vectors=[flag for flag in flags if flag.startswith(('avx', 'amx', 'asimd', 'sve'))],
        cores=os.cpu_count(),
        system=platform.system(),
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
        runs=RUNS,
    )


def kind(vectors: list[str]) -> str:
    "Under which name a machine's report is kept: the widest vector instructions decide how quick a network is."
    for start, name in dict(avx512='AVX-512', avx2='AVX2', asimd='NEON').items():
        if any(vector.startswith(start) for vector in vectors): return name
    return 'other'


def show(values: dict[str, float]) -> dict[str, float]:
    "Print figures; returns them."
    for name, value in values.items(): print(f'  {value:9.3f}  {name}', flush=True)
    return values


def rounded(values: dict[str, float]) -> dict[str, float]:
    "Four digits behind the point."
    return {name: round(value, 4) for name, value in values.items()}


def measure(wanted: list[str], folder: Path) -> dict:
    "The report on some parts."
    report = dict(machine=machine())
    taken, missing = {}, []
    for name, part in (cold.PARTS | decoding.PARTS).items():
        if name in wanted: taken |= show(rounded(part()))
    if warm.PARTS.keys() & wanted:
        stage = warm.Stage(folder)
        for name, part in warm.PARTS.items():
            if name in wanted: taken |= show(rounded(part(stage)))
        stage.close()
        missing = stage.missing
    report |= dict(figures=taken, ratios=show(ratios(taken)), missing=missing)
    for reason in missing: print(f'left out, with its ratios: {reason}')
    if 'detection' in wanted:
        from detection import report_detectors

        report['detection'] = report_detectors()
        print(json.dumps(report['detection'], indent=1))
    return report


def write(report: dict):
    "Keep a report beside those of other kinds of processors."
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    part = OUT.with_suffix('.part')
    part.write_text(json.dumps(known | {kind(report['machine']['vectors']): report}, indent=1) + '\n')
    part.replace(OUT)
    print(f'wrote {OUT}')


if __name__ == '__main__':
    wanted = sys.argv[1:]
    if unknown := set(wanted) - set(PARTS): sys.exit(f'no part {", ".join(unknown)}; there are {", ".join(PARTS)}')
    with tempfile.TemporaryDirectory() as folder: report = measure(wanted or PARTS, Path(folder))
    if not wanted: write(report)
