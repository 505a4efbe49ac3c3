# Everything a person or a CI machine does with this project. `make help` lists the targets.
# Needed beforehand: git, make and Python 3.11, 3.12 or 3.13. No environment has to be active.
VENV := .venv
BIN  := $(VENV)/bin
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
            "$$p" -c '$(SUITABLE)' 2>/dev/null && echo "$$p" && break; done)

# The stamp's name holds what the installation depends on, so a second run installs nothing.
PINNED := .github/requirements.txt
PINNED_E2E := .github/requirements-e2e.txt
PINNED_DOCS := .github/requirements-docs.txt
KEY := $(shell (pwd; cat setup.py settings.ini $(PINNED) $(PINNED_E2E) $(PINNED_DOCS)) | git hash-object --stdin)
STAMP := $(VENV)/.installed-$(KEY)
E2E := $(VENV)/.e2e-$(KEY)
DOCS := $(VENV)/.docs-$(KEY)
PEER := .venv-fer
WORKERS := 2
PORT := 8866
PAGES := 8
PATIENCE := 20
HOST :=
WIDGETS := anywidget @jupyter-widgets/jupyterlab-manager @voila-dashboards/widgets-manager8

# Nothing from the caller's environment may reach the kernels: only what is installed in $(VENV) counts.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE VIRTUAL_ENV MPLBACKEND JUPYTER_PATH
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONNOUSERSITE := 1
export JUPYTER_PREFER_ENV_PATH := 1
export IPYTHONDIR := $(CURDIR)/$(VENV)/ipython
export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: help run test fuzz e2e floors figures docs lab app bench peer explanations baselines cluster plan readme export lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z0-9]+:.*##' Makefile | sed 's/:.*## */: /' | awk -F': ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

run: $(STAMP)  ## recognize the expressions in real photos, then execute the notebooks on synthetic faces
	@$(BIN)/python tools/demo.py

test: $(STAMP)  ## notebooks, modules, command line, wheel, style and types; WORKERS=2 side by side
	@$(BIN)/python -m pytest -n $(WORKERS) --junitxml=_runs/test/report.xml

SECONDS := 600
fuzz: $(STAMP)  ## changed files for every reader, other ones each time, for SECONDS=600
	@FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest tests/test_fuzz.py -n 2 --junitxml=_runs/fuzz/report.xml

e2e: $(E2E)  ## notebooks and web app in a headless browser, with a camera that shows a video
	@$(BIN)/python -m pytest tests/e2e -n $(WORKERS) --junitxml=_runs/e2e/report.xml

floors: $(STAMP)  ## prediction, video and fine-tuning with the oldest versions that settings.ini allows
	@$(BIN)/python -m pytest tests/floors -n $(WORKERS) --junitxml=_runs/floors/report.xml

figures: $(STAMP)  ## measure all published figures of the shipped models again (FER_NB_DATA)
	@for report in models/*/evaluation.json; do \
	  $(BIN)/fer_nb evaluate --data "$${FER_NB_DATA:?names the folder with FER2013}" --check "$$report" || exit 1; done

docs: $(DOCS)  ## build the documentation into _docs/, offline and with checked links
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Built _docs/. To read it: $(BIN)/python -m http.server -b 127.0.0.1 -d _docs, then http://127.0.0.1:8000"

lab: $(STAMP)  ## open JupyterLab on the notebooks
	@cd nbs && ../$(BIN)/python -m jupyterlab

app: $(STAMP)  ## serve the panels as a page without code, at http://127.0.0.1:8866 or another PORT=... (HOST=name, PAGES=8)
	@cd nbs && JUPYTER_PATH=../fer_nb ../$(BIN)/python -c 'from fer_nb.app_server import PageServer; PageServer.launch_instance()' \
	  63_app.ipynb --template=faces --no-browser --PageServer.ip=127.0.0.1 --port=$(PORT) --PageServer.max_pages=$(PAGES) --PageServer.patience=$(PATIENCE) \
	  $(addprefix --PageServer.hosts=,$(HOST)) --PageServer.port_retries=0 --PageServer.log_format='%(message)s' \
	  $(addprefix --VoilaConfiguration.extension_allowlist=,$(WIDGETS)) --KernelManager.shutdown_wait_time=1 --KernelManager.transport=ipc \
	  --PageServer.connection_dir_root=/tmp

bench: $(STAMP) $(PEER)/.installed  ## measure speed, also against the package fer; writes models/bench.json
	@$(BIN)/python benchmarks/run.py

peer: $(STAMP) $(PEER)/.installed  ## measure the accuracy of the package fer on the yardsticks (FER_NB_DATA); writes models/peer.json
	@$(BIN)/python benchmarks/peer_accuracy.py

explanations: $(STAMP)  ## check the activation maps on FER2013 (FER_NB_DATA); writes models/explanations.json
	@$(BIN)/python benchmarks/explanations.py

baselines: $(STAMP)  ## measure what a person's own baseline changes (FER_NB_DATA); writes models/baselines.json
	@$(BIN)/python benchmarks/baselines.py

cluster: $(STAMP)  ## measure many inputs on a Dask cluster of this machine; writes models/cluster.json
	@$(BIN)/python benchmarks/cluster.py

plan: $(STAMP)  ## simulate larger clusters with what `make cluster` measured; writes models/cluster_plan.json and docs/scaling.md
	@$(BIN)/python benchmarks/cluster_plan.py

export: $(STAMP)  ## write fer_nb/*.py and README.md from the notebooks
	@$(BIN)/nbdev_export && $(BIN)/nbdev_clean && $(BIN)/python tools/build_readme.py

readme: $(STAMP)  ## write README.md from nbs/index.ipynb
	@$(BIN)/python tools/build_readme.py

COMPILE = UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate $(UPGRADE)

lock: $(STAMP)  ## pin the dependencies that settings.ini declares, with their hashes; newer ones with UPGRADE=--upgrade
	@$(COMPILE) setup.py --extra dev -o $(PINNED)
	@for part in e2e docs; do sed -n "s/^$${part}_requirements = //p" settings.ini | tr ' ' '\n' \
	  | $(COMPILE) - -c $(PINNED) -o .github/requirements-$$part.txt || exit 1; done

clean:  ## remove what the other targets wrote, but not the environment
	rm -rf _runs _proc _docs build dist *.egg-info
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

# Every package is pinned by version and by the hashes of its files, uv too; it takes half the time of pip. Where uv cannot be
# had or does not find a package (it does not read pip's settings), pip installs the same.
# editable_mode=compat: a script in the folder that holds the clone imports the package, not the clone of the same name.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
INSTALL = install() { $(UV) "$$@" || $(PIP) "$$@"; }; install

$(STAMP): setup.py settings.ini $(PINNED)
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 with the venv module was found (on Debian: apt install python3-venv)." >&2; exit 1; }
	@echo "Installing the pinned dependencies into $(VENV) with $(PYTHON) (once; about a minute)"
	@$(BIN)/pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	@sed -n '/^uv==/,/[^\\]$$/p' $(PINNED) > $(VENV)/uv.txt && $(PIP) --require-hashes -r $(VENV)/uv.txt || true
	@$(INSTALL) --require-hashes -r $(PINNED)
	@$(INSTALL) --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@rm -f $(VENV)/.installed-* && touch $@

$(E2E): $(STAMP) $(PINNED_E2E)
	@echo "Installing what drives the browser (once; some seconds)"
	@$(INSTALL) --require-hashes -r $(PINNED_E2E)
	@rm -f $(VENV)/.e2e-* && touch $@

$(DOCS): $(STAMP) $(PINNED_DOCS)
	@echo "Installing what builds the documentation (once; some seconds)"
	@$(INSTALL) --require-hashes -r $(PINNED_DOCS)
	@rm -f $(VENV)/.docs-* && touch $@

# The package that `make bench` compares with; where it cannot be installed, the rest is measured without it.
$(PEER)/.installed: benchmarks/peer_requirements.txt
	@echo "Installing the package fer into $(PEER) to compare with (once; a minute, 2.4 GB)"
	@rm -rf $(PEER) && "$(PYTHON)" -m venv $(PEER) \
	 && $(PEER)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r benchmarks/peer_requirements.txt && touch $@ \
	 || echo "The package fer could not be installed into $(PEER)." >&2
