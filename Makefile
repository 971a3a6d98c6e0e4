# Every command of the project; `make` without arguments lists them.

# An installed .venv keeps its Python and its packages unless you choose others.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
PRODUCTION ?= $(if $(wildcard .venv/production*),1)
test test-all fuzz soak trained bench bench-gpu bench-gateway profile lint audit bundle: PRODUCTION :=
ray-serve ray-demo: RAY := 1
DEVICE ?= auto
SECONDS ?= 60
MINUTES ?= 10
PY := .venv/bin/python

# What may be set; another variable on the command line of `make` is refused. The variables of a single
# network, as RESNET101_WEIGHTS, are for the export, which knows the networks' names. A `make` that calls
# this one passes its own variables on, so they are not looked at.
VARIABLES = NETWORK TASK WEIGHTS LABELS PREPROCESS SEED AOTI INT8 INT8_AGREEMENT INT8_ONLY MODELS DEVICE \
	WORKERS PRECISION ENGINE MODEL ARCHIVE SHARE GATEWAY HOST PORT GRPC_PORT METRICS_PORT STORE RUN JSON SERVER CLASSIFY \
	TRANSLATE NAME REPLACE HOSTS CLIENT ONCE QUICK PART SECONDS MINUTES ARGS ALLOW_OFFLINE PYTHON PRODUCTION RAY \
	WHEELS SIGN
GOALS = $(strip make $(MAKECMDGOALS))
OF_A_NETWORK = $(if $(filter export,$(MAKECMDGOALS)),%_WEIGHTS %_LABELS %_PREPROCESS)
# Of other programs; `make` passes them on.
ENVIRONMENT = SHELL TMPDIR CUDA_VISIBLE_DEVICES
is_given = $(filter command,$(firstword $(origin $(1))))
# RESNET101 of RESNET101_WEIGHT.
stem = $(patsubst %_$(lastword $(subst _, ,$(1))),%,$(1))
nearest = $(shell $(PYTHON) -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))' '$(1)' $(VARIABLES) $(subst %,$(stem),$(OF_A_NETWORK)))
UNKNOWN := $(filter-out $(VARIABLES) $(OF_A_NETWORK) $(ENVIRONMENT),$(foreach name,$(.VARIABLES),$(if $(call is_given,$(name)),$(name))))
ifeq ($(MAKELEVEL),0)
ifneq ($(UNKNOWN),)
$(error $(foreach name,$(UNKNOWN),$(name)= is no variable of `$(GOALS)`$(addprefix ; did you mean ,$(addsuffix =?,$(call nearest,$(name))))) (an environment variable goes before make: $(firstword $(UNKNOWN))=... $(GOALS)))
endif
endif

# exec: pytest replaces make's shell, so signals reach it. One process tests servers, which mostly wait.
PYTEST = DEVICE=$(DEVICE) PRECISION=$(or $(PRECISION),float32) exec $(PY) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo install lock export archive serve start stop status rollout rollback ray-serve ray-demo cert key ui verify test test-all tools fuzz soak trained bench bench-gpu bench-gateway profile bundle lint audit clean
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
	@echo 'options: NETWORK=NAME|FILE.py  TASK=embed: its features  WEIGHTS=pretrained|random|PATH  LABELS=FILE  PREPROCESS=VARIANT  AOTI=1  (export)'
	@echo '         INT8=FOLDER of photographs  INT8_AGREEMENT=0.98  INT8_ONLY=1: an archive of int8 alone  (export)'
	@echo '         NAME_WEIGHTS, NAME_LABELS, NAME_PREPROCESS: the same for one network, NAME in capitals; they select it'
	@echo '         MODELS=NAME,NAME  DEVICE=auto|gpu|cpu  WORKERS=N  (serve, start, ray-serve)  GATEWAY=0  (serve, start)'
	@echo '         PRECISION=auto|float32|bfloat16|float16|int8  ENGINE=auto|torchscript|openvino  (the same; tests: float32)'
	@echo '         HOST=127.0.0.1  PORT=8080  GRPC_PORT=7070  METRICS_PORT=8082  (serve, start, ray-serve)'
	@echo '         RUN=run: the folder of a server  (serve, start, stop, status, rollout, rollback, verify, profile)  JSON=1  (status)'
	@echo '         MODEL=NAME  (rollout, rollback)  ARCHIVE=FILE.mar  SHARE=0.1  (rollout)'
	@echo '         STORE=model_store  (export, archive, serve, start, ray-serve; bench: the archives to measure)'
	@echo '         SERVER=http://127.0.0.1:8080  PORT=7860: of the page  (ui)  SECONDS=60 (fuzz)  MINUTES=10 (soak)'
	@echo '         WHEELS=1: with every package  SIGN=~/.ssh/id_ed25519: an SSH key  (bundle)'

demo: install ## everything on a sample photograph: install, export, serve, classify, translate, a page (ONCE=1: then stop)
	@$(PY) -m tools.demo --device $(DEVICE) $(SERVER_OPTIONS) $(call option,MODELS,models) $(call switch,ONCE,once)

install: ## .venv from the locks, with Java (PYTHON=python3.13; PRODUCTION=1: without test tools, PRODUCTION=: with; RAY=1)
	@$(PYTHON) install.py $(call switch,PRODUCTION,production) $(call switch,RAY,ray)

LOCK = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-package vision-client --custom-compile-command 'make lock' pyproject.toml
lock: install ## requirements.lock, -ray.lock and -dev.lock from pyproject.toml and client/pyproject.toml
	@$(LOCK) -o requirements-dev.lock --group dev --extra int8 --extra ray
	@$(LOCK) -o requirements-ray.lock --extra ray --constraints requirements-dev.lock
	@$(LOCK) -o requirements.lock --constraints requirements-dev.lock

export: install ## the networks into model_store/: checkpoint, trace, proof, archive (NETWORK: one, also of your own)
	@$(PY) -m export --from-environment $(if $(NETWORK),$(call quoted,NETWORK)) $(EXPORT_OPTIONS) $(call given,STORE,model-store)

archive: install ## rebuild the archives whose handlers or serving defaults have changed
	@$(PY) -m export.archive $(call given,STORE,model-store)

serve: install ## every archive, in the foreground until Ctrl-C (MODELS, PORT, ... below)
	@exec $(PY) -m serving serve $(SERVE_OPTIONS)

start: install ## the same, in the background
	@$(PY) -m serving start $(SERVE_OPTIONS)

stop: install ## stop the server and its workers
	@$(PY) -m serving stop $(SERVER_OPTIONS)

status: install ## whether each model is ready, its precision, queue, workers and sandbox (JSON=1)
	@$(PY) -m serving status $(SERVER_OPTIONS) $(call switch,JSON,json)

rollout: install ## another version of a model on the running server (MODEL=NAME ARCHIVE=new.mar SHARE=0.1: its part of the requests)
	@$(PY) -m serving rollout $(SERVER_OPTIONS) $(ROLLOUT_OPTIONS)

rollback: install ## the version before the last rollout again (MODEL=NAME)
	@$(PY) -m serving rollback $(SERVER_OPTIONS) $(call given,MODEL,model)

ray-serve: install ## every archive with Ray Serve, on this machine until Ctrl-C (the same clients; docs/scaling.md)
	@exec $(PY) -m deploy.ray serve $(RAY_OPTIONS)

ray-demo: install ## a Ray cluster on this machine, both models; a node is killed under load, and replaced
	@exec $(PY) -m deploy.ray.demo

cert: install ## a local authority and a certificate in tls/ (HOSTS=localhost,127.0.0.1,NAME or CLIENT=NAME)
	@$(PY) -m serving cert $(call given,HOSTS,hosts) $(call given,CLIENT,client)

key: install ## an API key for a client, written to keys.txt (NAME=alice; REPLACE=1: another key)
	@$(PY) -m serving key $(if $(call is_given,NAME),$(call quoted,NAME),'') $(if $(call is_given,REPLACE),$(call switch,REPLACE,replace))

ui: install ## a page in the browser: drop a photograph, see its classes and translation (SERVER=URL, CLASSIFY=NAME, TRANSLATE=NAME)
	@exec .venv/bin/vision page $(call option,SERVER,server) $(call given,PORT,port) \
		$(call option,CLASSIFY,classify) $(call option,TRANSLATE,translate)

verify: install ## compare the running server's answers with published ones (published weights only)
	@$(PY) -m tools.verify $(SERVER_OPTIONS)

test: install ## run before a commit, six minutes (ARGS='-k name' for a part; DEVICE, PRECISION)
	@$(PYTEST) -m 'not slow' $(ARGS)

test-all: install ## every test: Chromium, C++, Node, notebook, faults, corpus and soak too (make tools)
	@$(PYTEST) $(ARGS)

tools: install ## Debian packages for the tests (as root): Chromium, CMake, Node, Prometheus
	@$(PY) -m tools.debian

fuzz: install ## coverage-guided random inputs for the decoder and the request parser (SECONDS)
	@$(PY) -m tools.fuzz --seconds $(SECONDS)

soak: install ## mixed uploads to a real server, its memory measured: a table, run/soak.png (MINUTES, DEVICE)
	@$(PY) -m tools.soak --minutes $(MINUTES) --device $(DEVICE)

trained: install ## train a ResNet-101 for minutes, and check every precision's gate on it; run/trained has its photographs
	@$(PY) -m tools.trained

bench: install ## goals, throughput and latency beside bare networks, TorchServe and LitServe (QUICK=1; PART=threads: workers; STORE=DIR: its archives)
	@$(PY) -m tools.bench $(PART) --device $(DEVICE) $(call switch,QUICK,quick) $(call given,STORE,store)

bench-gpu: install ## how close a classifier comes to the limit of a GPU or of decoding (DEVICE=cpu: small)
	@$(PY) -m tools.bench gpu --device $(DEVICE)

bench-gateway: install ## the gateway's cost and fairness; idle connections, stalled uploads, faults (PART='cost fair')
	@$(PY) -m tools.gateway --device $(DEVICE) $(PART)

profile: install ## where a request's time goes, stage by stage, on the running server
	@$(PY) -m tools.bench profile $(SERVER_OPTIONS)

bundle: install ## everything for another machine in dist/NAME-VERSION.tar.gz: there `./run` (WHEELS=1, SIGN=KEY, STORE, MODELS)
	@$(PY) -m tools.portable $(call given,STORE,model-store) $(call option,MODELS,models) $(call switch,WHEELS,wheels) $(call option,SIGN,sign)

lint: install ## style, formatting, types, layers, declared dependencies
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy
	@.venv/bin/lint-imports --no-logo
	@.venv/bin/deptry handlers export serving deploy
	@.venv/bin/deptry tools tests --ignore DEP002,DEP004
	@.venv/bin/deptry client/vision_client --config client/pyproject.toml

audit: install ## known vulnerabilities of what serving installs, Ray too; audit.toml has the exemptions (ALLOW_OFFLINE=1: warn if OSV does not answer)
	@$(PY) -m tools.audit $(call switch,ALLOW_OFFLINE,allow-offline)

clean: ## remove everything that was installed, built or logged
	@rm -rf .venv run dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache client/vision_client/inference_pb2*
	@find . -name __pycache__ -prune -exec rm -rf {} +
	@find model_store -mindepth 1 ! -name .gitkeep -delete

quoted = '$(subst ','\'',$($(1)))'
option = $(if $($(1)),--$(2) $(quoted))
is_on = $(if $(filter 1 yes true on,$($(1))),1,$(if $(filter-out 0 no false off,$($(1))),$(error $(1)=$($(1)): 1, yes, true or on, or 0, no, false or off)))
switch = $(if $(is_on),--$(2))
# From the command line alone: shells and container platforms have a HOST, a PORT and a NAME for other programs.
given = $(if $(call is_given,$(1)),$(option))
ADDRESS_OPTIONS = $(call given,HOST,host) $(call given,PORT,port) $(call given,GRPC_PORT,grpc-port) $(call given,STORE,model-store)
METRICS_OPTION = $(call given,METRICS_PORT,metrics-port)
SERVER_OPTIONS = $(ADDRESS_OPTIONS) $(METRICS_OPTION) $(call given,RUN,run-dir)
MODEL_OPTIONS = --device $(DEVICE) $(call option,MODELS,models) $(call option,WORKERS,workers) $(call option,PRECISION,precision) $(call option,ENGINE,engine)
# With --from-environment, the export reads NAME_WEIGHTS, NAME_LABELS and NAME_PREPROCESS.
EXPORT_OPTIONS = $(call option,TASK,task) $(call option,WEIGHTS,weights) $(call option,LABELS,labels) $(call option,PREPROCESS,preprocess) $(call option,SEED,seed) $(call switch,AOTI,aoti) \
	$(call option,INT8,int8) $(call option,INT8_AGREEMENT,int8-agreement) $(call switch,INT8_ONLY,int8-only)
ROLLOUT_OPTIONS = $(call given,MODEL,model) $(call given,ARCHIVE,archive) $(call given,SHARE,share)
RAY_OPTIONS = $(ADDRESS_OPTIONS) $(METRICS_OPTION) $(MODEL_OPTIONS)
SERVE_OPTIONS = $(SERVER_OPTIONS) $(MODEL_OPTIONS) $(if $(GATEWAY),$(if $(call is_on,GATEWAY),,--no-gateway))
