# Everything a person or a CI machine does with this project. `make help` lists the targets.
# Needed beforehand: git, make and Python 3.11, 3.12 or 3.13. No environment has to be active.
VENV := .venv
BIN  := $(CURDIR)/$(VENV)/bin
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
            "$$p" -c '$(SUITABLE)' 2>/dev/null && echo "$$p" && break; done)

# The stamp's name holds what the installation depends on, so a second run installs nothing.
KEY := $(shell (pwd; cat setup.py settings.ini .github/constraints.txt) | git hash-object --stdin)
STAMP := $(VENV)/.installed-$(KEY)
E2E := $(VENV)/.e2e-$(KEY)
PEER := .venv-fer
PORT := 8866
WIDGETS := anywidget @jupyter-widgets/jupyterlab-manager @voila-dashboards/widgets-manager8

# Nothing from the caller's environment may reach the kernels: only what is installed in $(VENV) counts.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV MPLBACKEND JUPYTER_PATH
export PATH := $(BIN):$(PATH)
export PYTHONNOUSERSITE := 1
export JUPYTER_PREFER_ENV_PATH := 1
export IPYTHONDIR := $(CURDIR)/$(VENV)/ipython
export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: help run test e2e lab app bench peer readme export clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z0-9]+:.*##' Makefile | sed 's/:.*## */: /' | awk -F': ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

run: $(STAMP)  ## execute the notebooks on drawn faces, then recognise the expressions in real photos
	@$(BIN)/python .ci/demo.py

test: $(STAMP)  ## every check, cheapest first; ends with "N passed, N failed"
	@$(BIN)/python .ci/check.py

e2e: $(E2E)  ## notebooks and app in a headless browser, with a camera made of a film; ends with "N passed, N failed"
	@$(BIN)/python .ci/e2e.py

lab: $(STAMP)  ## open JupyterLab on the notebooks
	@cd nbs && $(BIN)/python -m jupyterlab

app: $(STAMP)  ## serve upload and camera as a page without code, at http://127.0.0.1:8866 or another PORT=...
	@cd nbs && JUPYTER_PATH=../.ci/app $(BIN)/voila app.ipynb --template=faces --no-browser --Voila.ip=127.0.0.1 --port=$(PORT) \
	  --Voila.port_retries=0 --Voila.log_format='%(message)s' $(addprefix --VoilaConfiguration.extension_allowlist=,$(WIDGETS)) \
	  --MappingKernelManager.cull_interval=60 --MappingKernelManager.cull_idle_timeout=300

bench: $(STAMP) $(PEER)/.installed  ## measure speed, also against the package fer; writes models/bench.json
	@$(BIN)/python .ci/bench.py

peer: $(STAMP) $(PEER)/.installed  ## measure the accuracy of the package fer on FER2013 (FER_NB_DATA); writes models/peer.json
	@$(BIN)/python .ci/peer_accuracy.py

export: $(STAMP)  ## write fer_nb/*.py and README.md from the notebooks
	@$(BIN)/nbdev_export && $(BIN)/nbdev_clean && $(BIN)/python .ci/readme.py

readme: $(STAMP)  ## write README.md from nbs/index.ipynb
	@$(BIN)/python .ci/readme.py

clean:  ## remove what the other targets wrote, but not the environment
	rm -rf _runs _proc build dist *.egg-info
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

$(STAMP): setup.py settings.ini .github/constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 with the venv module was found (on Debian: apt install python3-venv)." >&2; exit 1; }
	@echo "Installing the pinned dependencies into $(VENV) with $(PYTHON) (once; some minutes)"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check -c .github/constraints.txt -e '.[dev]'
	@rm -f $(VENV)/.installed-* && touch $@

$(E2E): $(STAMP)
	@echo "Installing what drives the browser (once; some seconds)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c .github/constraints.txt -e '.[e2e]'
	@rm -f $(VENV)/.e2e-* && touch $@

# The package that `make bench` compares with; where it cannot be installed, the rest is measured without it.
$(PEER)/.installed: .ci/peer.txt
	@echo "Installing the package fer into $(PEER) to compare with (once; a minute, 2.4 GB)"
	@rm -rf $(PEER) && "$(PYTHON)" -m venv $(PEER) \
	 && $(PEER)/bin/python -m pip install -q --disable-pip-version-check --no-deps -r .ci/peer.txt && touch $@ \
	 || echo "The package fer could not be installed into $(PEER)." >&2
