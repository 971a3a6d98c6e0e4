# Every command of the project; `make` without arguments lists them.

# An installed .venv keeps its Python and its packages unless you choose others.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
PRODUCTION ?= $(wildcard .venv/production)
test test-all fuzz soak trained bench bench-gpu bench-gateway profile lint audit: PRODUCTION :=
DEVICE ?= auto
SECONDS ?= 60
MINUTES ?= 10
PY := .venv/bin/python
# exec: pytest replaces make's shell, so signals reach it.
PYTEST = DEVICE=$(DEVICE) PRECISION=$(or $(PRECISION),float32) exec $(PY) -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo install lock export archive serve start stop status cert key ui verify test test-all tools fuzz soak trained bench bench-gpu bench-gateway profile lint audit clean
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
	@echo 'options: NETWORK=NAME|FILE.py  WEIGHTS=pretrained|random|PATH  LABELS=FILE  PREPROCESS=VARIANT  AOTI=1  (export)'
	@echo '         INT8=FOLDER of photographs  INT8_AGREEMENT=0.98  INT8_ONLY=1: an archive of int8 alone  (export)'
	@echo '         NAME_WEIGHTS, NAME_LABELS, NAME_PREPROCESS: the same for one network, NAME in capitals; they select it'
	@echo '         MODELS=NAME,NAME  DEVICE=auto|gpu|cpu  WORKERS=N  GATEWAY=0  (serve)'
	@echo '         PRECISION=auto|float32|bfloat16|float16|int8  ENGINE=auto|torchscript|openvino  (serve; tests: float32)'
	@echo '         SECONDS=60 (fuzz)  MINUTES=10 (soak)  SERVER=http://127.0.0.1:8080 PORT=7860 (ui)'

demo: install ## everything on a sample photograph: install, export, serve, classify, translate (ONCE=1: then stop)
	@$(PY) -m tools.demo --device $(DEVICE) $(if $(ONCE),--once)

install: ## .venv from the locks, with Java (PYTHON=python3.13; PRODUCTION=1: without test tools, PRODUCTION=: with)
	@$(PYTHON) install.py $(if $(PRODUCTION),--production)

LOCK = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-package vision-client --custom-compile-command 'make lock' pyproject.toml
lock: install ## requirements.lock and requirements-dev.lock from pyproject.toml and client/pyproject.toml
	@$(LOCK) -o requirements-dev.lock --group dev --extra int8
	@$(LOCK) -o requirements.lock --constraints requirements-dev.lock

export: install ## the networks into model_store/: checkpoint, trace, proof, archive (NETWORK: one, also of your own)
	@$(PY) -m export --from-environment $(if $(NETWORK),'$(NETWORK)') $(EXPORT_OPTIONS)

archive: install ## rebuild the archives whose handlers or serving defaults have changed
	@$(PY) -m export.archive

serve: install ## every archive, in the foreground until Ctrl-C (MODELS, DEVICE, WORKERS, PRECISION, ENGINE; GATEWAY=0)
	@exec $(PY) -m serving serve $(SERVE_OPTIONS)

start: install ## the same, in the background
	@$(PY) -m serving start $(SERVE_OPTIONS)

stop: install ## stop the server and its workers
	@$(PY) -m serving stop

status: install ## whether each model is ready, its workers and its sandbox
	@$(PY) -m serving status

cert: install ## a local authority and a certificate in tls/ (HOSTS=localhost,127.0.0.1,NAME or CLIENT=NAME)
	@$(PY) -m serving cert $(call option,HOSTS,hosts) $(call option,CLIENT,client)

key: install ## an API key for a client, written to keys.txt (NAME=alice; REPLACE=1: another key)
	@$(PY) -m serving key '$(NAME)' $(if $(REPLACE),--replace)

ui: install ## a page in the browser: drop a photograph, see its classes and translation (SERVER=URL, CLASSIFY=NAME, TRANSLATE=NAME)
	@exec .venv/bin/vision page $(call option,SERVER,server) $(call option,PORT,port) \
		$(call option,CLASSIFY,classify) $(call option,TRANSLATE,translate)

verify: install ## compare the running server's answers with published ones (published weights only)
	@$(PY) -m tools.verify

test: install ## run before a commit, six minutes (ARGS='-k name' for a part; DEVICE, PRECISION)
	@$(PYTEST) -m 'not slow' $(ARGS)

test-all: install ## every test: Chromium, C++, Node, notebook, faults, corpus and soak too (make tools)
	@$(PYTEST) $(ARGS)

tools: install ## Debian packages for the tests of the page and the examples (as root): Chromium, CMake, Node
	@$(PY) -m tools.debian

fuzz: install ## coverage-guided random inputs for the decoder and the request parser (SECONDS)
	@$(PY) -m tools.fuzz --seconds $(SECONDS)

soak: install ## mixed uploads to a real server, its memory measured: a table, run/soak.png (MINUTES, DEVICE)
	@$(PY) -m tools.soak --minutes $(MINUTES) --device $(DEVICE)

trained: install ## train a ResNet-101 for minutes, and check every precision's gate on it; run/trained has its photographs
	@$(PY) -m tools.trained

bench: install ## goals, throughput and latency beside bare networks, TorchServe and LitServe (QUICK=1; PART=threads: workers; STORE=DIR: its archives)
	@$(PY) -m tools.bench $(PART) --device $(DEVICE) $(if $(QUICK),--quick) $(call option,STORE,store)

bench-gpu: install ## how close a classifier comes to the limit of a GPU or of decoding (DEVICE=cpu: small)
	@$(PY) -m tools.bench gpu --device $(DEVICE)

bench-gateway: install ## the gateway's cost and fairness; idle connections, stalled uploads, faults (PART='cost fair')
	@$(PY) -m tools.gateway --device $(DEVICE) $(PART)

profile: install ## where a request's time goes, stage by stage, on the running server
	@$(PY) -m tools.bench profile

lint: install ## style, formatting, types, layers, declared dependencies
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy
	@.venv/bin/lint-imports --no-logo
	@.venv/bin/deptry handlers export serving
	@.venv/bin/deptry tools tests --ignore DEP002,DEP004
	@.venv/bin/deptry client/vision_client --config client/pyproject.toml

audit: install ## known vulnerabilities of requirements.lock; audit.toml has the exemptions (ALLOW_OFFLINE=1: warn if OSV does not answer)
	@$(PY) -m tools.audit $(if $(ALLOW_OFFLINE),--allow-offline)

clean: ## remove everything that was installed, built or logged
	@rm -rf .venv run .mypy_cache .pytest_cache .ruff_cache .import_linter_cache client/vision_client/inference_pb2*
	@find . -name __pycache__ -prune -exec rm -rf {} +
	@find model_store -mindepth 1 ! -name .gitkeep -delete

option = $(if $($(1)),--$(2) '$($(1))')
# With --from-environment, the export reads NAME_WEIGHTS, NAME_LABELS and NAME_PREPROCESS.
EXPORT_OPTIONS = $(call option,WEIGHTS,weights) $(call option,LABELS,labels) $(call option,PREPROCESS,preprocess) $(call option,SEED,seed) $(if $(AOTI),--aoti) \
	$(call option,INT8,int8) $(call option,INT8_AGREEMENT,int8-agreement) $(if $(INT8_ONLY),--int8-only)
SERVE_OPTIONS = --device $(DEVICE) $(call option,MODELS,models) $(call option,WORKERS,workers) $(call option,PRECISION,precision) $(call option,ENGINE,engine) $(if $(filter 0,$(GATEWAY)),--no-gateway)
