# Every verb a person types; `make` alone lists them.

# An installed .venv keeps its Python; PYTHON=python3.13 chooses another.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
WEIGHTS ?= pretrained
DEVICE ?= auto
SECONDS ?= 60
MINUTES ?= 10
PY := .venv/bin/python
# exec: a signal to make's shell then reaches pytest.
PYTEST = DEVICE=$(DEVICE) PRECISION=$(or $(PRECISION),float32) exec $(PY) -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo install lock export archive serve start stop status ui verify test test-all tools fuzz soak bench bench-gpu profile lint clean
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18
	@echo 'options: WEIGHTS=pretrained|random  RESNET101_WEIGHTS=PATH  RESNET101_LABELS=FILE  CYCLEGAN_WEIGHTS=PATH'
	@echo '         RESNET101_PREPROCESS=v1|v2  CYCLEGAN_PREPROCESS=book|original  DEVICE=auto|gpu|cpu  WORKERS=N'
	@echo '         PRECISION=auto|float32|bfloat16|float16  (of what is served; tests: float32)'
	@echo '         SECONDS=60 (fuzz)  MINUTES=10 (soak)  SERVER=http://127.0.0.1:8080 PORT=7860 (ui)'

demo: install ## see it all: install, export, serve, classify and translate a photograph (ONCE=1: then stop)
	@$(PY) -m serving demo --device $(DEVICE) $(if $(ONCE),--once)

install: ## .venv from requirements.lock, Java included (PYTHON=python3.13 chooses the Python)
	@$(PYTHON) install.py

lock: install ## requirements.lock from pyproject.toml and client/pyproject.toml
	@.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev --custom-compile-command 'make lock' -o requirements.lock pyproject.toml client/pyproject.toml

export: install ## both networks: checkpoint, trace, proof, archive, into model_store/
	@$(PY) -m export --weights $(WEIGHTS) $(EXPORT_OPTIONS)

archive: install ## the archives again, where a handler or a YAML has changed
	@$(PY) -m export.archive

serve: install ## TorchServe with every archive, in the foreground until Ctrl-C (MODELS, DEVICE, WORKERS, PRECISION)
	@exec $(PY) -m serving serve $(SERVE_OPTIONS)

start: install ## the same, in the background
	@$(PY) -m serving start $(SERVE_OPTIONS)

stop: install ## stop the server and its workers
	@$(PY) -m serving stop

status: install ## check each model with a request, and list its workers
	@$(PY) -m serving status

ui: install ## a page in the browser on the running server: drop a photograph, see classes and a zebra (SERVER=URL)
	@exec .venv/bin/vision page $(call option,SERVER,server) $(call option,PORT,port)

verify: install ## the book's two pictures and numbers against the running server
	@$(PY) -m serving verify

test: install ## what to run before a commit, six minutes (ARGS='-k name' for a part; DEVICE, PRECISION)
	@$(PYTEST) -m 'not slow' $(ARGS)

test-all: install ## every test: Chromium, C++, Node, notebook, faults, corpus and soak too (make tools)
	@$(PYTEST) $(ARGS)

tools: install ## Debian's packages that the tests of the page and the examples need (as root): Chromium, CMake, Node
	@$(PY) -m tests.tools

fuzz: install ## the decoder and the request parser under random inputs, guided by coverage (SECONDS)
	@$(PY) -m tests.fuzz --seconds $(SECONDS)

soak: install ## a real server under mixed uploads, its memory watched: a table, run/soak.png (MINUTES, DEVICE)
	@$(PY) -m tests.soak --minutes $(MINUTES) --device $(DEVICE)

bench: install ## goals, throughput and latency beside the bare network and stock TorchServe (QUICK=1: six minutes)
	@$(PY) -m benchmarks --device $(DEVICE) $(if $(QUICK),--quick)

bench-gpu: install ## how close ResNet-101 comes to the limit of a GPU or of decoding, and what the limit is (DEVICE=cpu: small)
	@$(PY) -m benchmarks.gpu --device $(DEVICE)

profile: install ## where a request's time goes, stage by stage, on the running server
	@$(PY) -m benchmarks.profile

lint: install ## style, types, formatting
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

clean: ## everything that was installed, built or logged
	@rm -rf .venv run .mypy_cache .pytest_cache .ruff_cache client/vision_client/inference_pb2*
	@find . -name __pycache__ -prune -exec rm -rf {} +
	@find model_store -mindepth 1 ! -name .gitkeep -delete

option = $(if $($(1)),--$(2) '$($(1))')
EXPORT_OPTIONS = $(call option,RESNET101_WEIGHTS,resnet101) $(call option,RESNET101_LABELS,resnet101-labels) \
	$(call option,RESNET101_PREPROCESS,resnet101-preprocess) $(call option,CYCLEGAN_WEIGHTS,cyclegan) \
	$(call option,CYCLEGAN_PREPROCESS,cyclegan-preprocess) $(call option,SEED,seed)
SERVE_OPTIONS = --device $(DEVICE) $(call option,MODELS,models) $(call option,WORKERS,workers) $(call option,PRECISION,precision)
