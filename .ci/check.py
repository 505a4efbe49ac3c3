"""`make test`: every check, cheapest first. `python .ci/check.py STAGE...` runs only some of them.

Each stage reports what it looked at one by one; a failure is shown where it happens and does not keep later stages
from running. A stage that finds nothing to look at has failed. The last line gives the true total."""
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import yaml

import hygiene
from notebooks import FER_NB, NBS, execute_all, numbered, photos

OUT, LIB, README = Path("_runs/test"), Path("fer_nb"), Path("README.md")


class Report:
    "Counts what passed and failed, and prints it while it happens."
    def __init__(self): self.passed, self.failed = 0, 0

    def add(self, name: str, problem: str = "", seconds: float = 0.):
        "One thing was looked at: `problem` is empty when it is as it should be."
        self.passed, self.failed = self.passed + (not problem), self.failed + bool(problem)
        took = f"  ({seconds:.0f} s)" if seconds >= 1 else ""
        print(f"  {'FAIL' if problem else 'ok  '}  {name}{took}", flush=True)
        if problem: print("\n".join(f"        {line}" for line in problem.strip().splitlines()), flush=True)

    def run(self, stage):
        "One stage, with a failure if it breaks down or looked at nothing."
        print(f"\n{stage.__name__.replace('_', ' ')}: {stage.__doc__}", flush=True)
        before, start = self.passed + self.failed, time.time()
        try: stage(self.add)
        except Exception as e: self.add("the stage itself", f"{type(e).__name__}: {e}")
        if self.passed + self.failed == before: self.add("the stage itself", "it found nothing to look at")
        print(f"  {self.passed + self.failed - before} in {time.time() - start:.0f} s", flush=True)


def sh(*command, cwd=None, env=None, timeout=1200) -> subprocess.CompletedProcess:
    "Run a command and keep what it says."
    return subprocess.run([str(c) for c in command], cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True)


def said(done: subprocess.CompletedProcess, expected: int = 0) -> str:
    "The end of what a command said, if it did not exit as expected."
    return "" if done.returncode == expected else f"exit code {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}"


@contextmanager
def tree():
    "A copy of the working tree (what git tracks or would add) for a while: the tree itself is never changed."
    names = sh("git", "ls-files", "-co", "--exclude-standard", "-z").stdout.split("\0")
    with tempfile.TemporaryDirectory(prefix="fer_nb-") as copy:
        for name in filter(os.path.isfile, names):
            (Path(copy) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, Path(copy) / name)
        yield Path(copy)


def notebook_hygiene(add):
    "what nbdev_clean does not look at"
    for nb in sorted(NBS.glob("*.ipynb")): add(nb.name, "\n".join(hygiene.problems(nb)))
    add("import order", "\n".join(hygiene.import_order(LIB)))


def in_sync(add):
    "modules, README.md and cleaned notebooks are exactly what the notebooks produce, and are in git"
    tracked = sh("git", "ls-files").stdout.splitlines()
    with tree() as copy:
        for module in (copy / LIB).glob("*.py"):
            if module.name not in ("__init__.py", "__main__.py"): module.unlink()
        for command in ("nbdev_export",), ("nbdev_clean",), (sys.executable, ".ci/readme.py"):
            if problem := said(sh(*command, cwd=copy)): add(" ".join(command[-1:]), problem)
        made = {p.relative_to(base) for base in (copy, Path()) for p in [*(base / LIB).glob("*.py"), *(base / NBS).glob("*.ipynb")]}
        for path in sorted({*made, README}): add(path.as_posix(), stale(path, copy, tracked))


def stale(path: Path, copy: Path, tracked: list) -> str:
    "How a generated file differs from the one produced in the copy."
    if not (copy / path).exists(): return "no notebook produces it"
    if not path.exists(): return "missing: run `make export`"
    if path.read_bytes() != (copy / path).read_bytes(): return "differs from what the notebooks give: run `make export`"
    return "" if path.as_posix() in tracked else "not in git: `git add` it"


def notebook_tests(add):
    "nbdev_test, every cell with its assertions"
    done = sh("nbdev_test", "--n_workers", 2, "--do_print")
    through = set(re.findall(r"- Completed \S*?([^/\s]+\.ipynb)", done.stdout))
    reasons = tracebacks(done.stderr)
    failed = set(re.findall(r"^\t(\S+\.ipynb)$", done.stderr, re.M))
    for name in sorted(p.name for p in NBS.glob("*.ipynb")):
        add(name, "it was not run" if name not in through else reasons.get(name, "failed") if name in failed else "")
    if done.returncode and not failed: add("nbdev_test", said(done))


def tracebacks(text: str) -> dict:  # {notebook: the end of its traceback}
    "What nbdev_test says of the notebooks that failed, without what compiled code says beside it."
    lines = [line for line in text.splitlines() if not re.match(r"\[(ERROR|WARN|INFO):|[IWE]0000 |WARNING: All log", line)]
    parts = re.split(r"^\w+ in \S*?([^/\s]+\.ipynb):\n=+$", "\n".join(lines), flags=re.M)
    return {name: part.split("\nnbdev Tests Failed")[0].strip()[-3000:] for name, part in zip(parts[1::2], parts[2::2])}


def materials(folder: Path):
    "What parameters can point to: a small FER2013 file with drawn faces, and an annotated photo."
    from fer_nb.data import sample_faces
    from fer_nb.labels import EXPRESSIONS, FER2013_CSV, remap
    faces, usage = sample_faces(n=840, seed=5), dict(train="Training", val="PublicTest", test="PrivateTest")
    labels = remap(faces.labels, EXPRESSIONS, FER2013_CSV)
    rows = [f"{label},{' '.join(map(str, image.ravel()))},{usage[split]}" for label, image, split in zip(labels, faces.images, faces.split)]
    (folder / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    (folder / "photos").mkdir()
    shutil.copy(photos()[0], folder / "photos/portrait.jpg")
    (folder / "photos/boxes.csv").write_text("file,left,top,width,height\nportrait.jpg,151,105,225,225\n")


def given(nb: nbformat.NotebookNode) -> dict:
    "The values in the cell that papermill injected."
    cells = [c.source for c in nb.cells if "injected-parameters" in c.metadata.get("tags", [])]
    nodes = [n for cell in cells for n in ast.parse(cell).body if isinstance(n, ast.Assign)]
    return {n.targets[0].id: ast.literal_eval(n.value) for n in nodes}


def outputs(path: Path) -> str:
    "All text that the notebook shows."
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(text for c in cells for o in c.get("outputs", []) for text in hygiene.texts(o))


def misfit(nb: Path, section: dict) -> str:
    "What is wrong with a section of the parameter file: each value must be known to the notebook, and not its default."
    import papermill
    known = papermill.inspect_notebook(str(nb))
    new = section.get("set", {})
    if not known: return "parameters are given, but the notebook has none" if new else ""
    if not new: return f"no value is given for any of its parameters ({', '.join(known)})"
    for name, value in new.items():
        if name not in known: return f"{name!r} is not a parameter ({', '.join(known)})"
        if ast.literal_eval(known[name]["default"]) == value: return f"{name} = {value!r} is the default"
    if not section.get("shows"): return "`shows` is missing: what do the outputs say when the values have arrived?"
    return f"{section['shows']!r} stands in the outputs already" if section["shows"] in outputs(nb) else ""


def arrived(nb: Path, section: dict) -> str:
    "What did not arrive in an executed notebook."
    if not section: return ""
    if (got := given(nbformat.read(nb, as_version=4))) != section["set"]: return f"set {section['set']}, arrived {got}"
    return "" if section["shows"] in outputs(nb) else f"{section['shows']!r} is not in the outputs"


def other_parameters(add):
    "papermill over all notebooks with the values of .ci/params.yaml, which must arrive"
    sections = yaml.safe_load(Path(".ci/params.yaml").read_text())
    todo = [*numbered(), NBS / "index.ipynb"]
    if unknown := sorted(set(sections) - {nb.stem for nb in todo}): add("params.yaml", f"no such notebooks: {unknown}")
    values = {name: section["set"] for name, section in sections.items()}
    materials(OUT)
    for nb, seconds, reason in execute_all(todo, OUT / "notebooks", values):
        section = sections.get(nb.stem, {})
        add(nb.name, reason or misfit(nb, section) or arrived(OUT / "notebooks" / nb.name, section), seconds)


def wheel(add):
    "the built wheel in an environment of its own, core dependencies only, used from another directory"
    with tree() as copy:
        python, away = copy / "env/bin/python", copy / "elsewhere"
        away.mkdir()
        add("builds", problem := said(sh(sys.executable, "-m", "build", "--wheel", "--outdir", copy / "dist", copy)))
        if problem: return
        sh(sys.executable, "-m", "venv", copy / "env")
        add("installs, unpinned", problem := said(sh(python, "-m", "pip", "install", *(copy / "dist").glob("*.whl"))))
        if problem: return
        add("pip check", said(sh(python, "-m", "pip", "check")))
        for name, problem in away_from_home(python, away): add(name, problem)


ABSENT = "tensorflow keras jax torch matplotlib pandas IPython ipykernel notebook jupyterlab nbdev".split()
LIBRARY = """
import sys, fer_nb
from fer_nb import Recognizer
found = Recognizer()(sys.argv[1])
assert "site-packages" in fer_nb.__file__, fer_nb.__file__
assert found.status == "ok" and len(found.faces) == 1, found
"""


def away_from_home(python: Path, away: Path):  # yields (name, problem)
    "Use the installed package as a stranger would."
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FER_NB", "PYTHON"))}
    run = lambda *command: sh(*command, cwd=away, env=env)
    absent = f"import importlib.util as u; print([m for m in {ABSENT} if u.find_spec(m)])"
    yield "only what prediction needs", "" if (there := run(python, "-c", absent).stdout.strip()) == "[]" else f"importable: {there}"
    photo, command = photos()[0], python.with_name("fer_nb")
    yield "Recognizer in Python", said(run(python, "-c", LIBRARY, photo))
    yield "fer_nb version", said(run(command, "version"))
    done = run(command, "predict", photo, "--json", "--csv", "faces.csv", "--annotate", "out")
    yield "fer_nb predict", said(done) or answer(done.stdout)
    yield "what it wrote", "" if (away / "faces.csv").exists() and list((away / "out").iterdir()) else "no table or no picture"
    done = run(command, "predict", "missing.jpg", photo, "--json")
    yield "a missing file beside a photo", said(done, expected=1) or answer(done.stdout.splitlines()[-1])


def answer(text: str) -> str:
    "What is wrong with the JSON for a photo that shows one face."
    found = json.loads(text)
    if found["status"] != "ok" or len(found["faces"]) != 1: return text
    face = found["faces"][0]
    if face["label"] != max(p := face["probabilities"], key=p.get): return "the label is not the most probable one"
    return "" if abs(sum(p.values()) - 1) < 1e-3 and len(p) == 7 else f"not a distribution over seven expressions: {p}"


def figures(add):
    "the figures that are published with a shipped model, measured again on the real rows (FER_NB_FIGURES=all: ten-crop too)"
    modes = [] if os.environ.get("FER_NB_FIGURES") == "all" else ["--modes", "single", "flip"]
    for report in sorted(Path("models").glob("*/evaluation.json")):
        start = time.time()
        done = sh(FER_NB, "evaluate", "--data", os.environ["FER_NB_DATA"], "--check", report, *modes)
        add(report.as_posix(), said(done), time.time() - start)


STAGES = [notebook_hygiene, in_sync, notebook_tests, other_parameters, wheel]
if os.environ.get("FER_NB_DATA"): STAGES.append(figures)

if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - {s.__name__ for s in STAGES}: sys.exit(f"no such stage: {unknown}")
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    report, start = Report(), time.time()
    for stage in STAGES:
        if not sys.argv[1:] or stage.__name__ in sys.argv[1:]: report.run(stage)
    if "FER_NB_DATA" not in os.environ: print("\nfigures: not measured again (FER_NB_DATA names no folder with FER2013)")
    total = f"{report.passed} passed, {report.failed} failed"
    (OUT / "total.txt").write_text(total + "\n")
    print(f"\n{time.time() - start:.0f} s, executed notebooks in {OUT}\n{total}", flush=True)
    sys.exit(bool(report.failed))
