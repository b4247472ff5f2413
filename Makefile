# Everything runs in .venv, which the first command makes from requirements.txt, and again when what that names changes.
PYTHON ?= python3
RUN = .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test slow fuzz lint web referee peers lowering clean

help:
	@echo "make demo      a photograph in the bytes of a JPEG, then a model trained in two minutes: pictures in demo/"
	@echo "make test      lint and run the tests"
	@echo "make lint      ruff alone, rules and format"
	@echo "make slow      the tests that take minutes"
	@echo "make fuzz      damaged and hostile files, pictures and weights for MINUTES=60; findings in fuzz/"
	@echo "make web       a page that decodes in the browser, in site/; needs npm"
	@echo "make referee   an environment of its own for tensorflow-compression (2 GB)"
	@echo "make peers     an environment of its own for CompressAI, which experiments.benchmark --peers times (1.4 GB)"
	@echo "make lowering  an environment of its own for the compilers that experiments.lowering asks (6 GB)"
	@echo "make clean     remove the environments, the caches, the demo and the page"

.venv/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("clic_jax needs Python 3.11 or newer; try make PYTHON=python3.12") if sys.version_info < (3, 11) else 0'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps jax2onnx==0.17.1
	touch $@

demo: .venv/.installed
	$(RUN) -m experiments.demo

test: lint
	$(RUN) -m pytest -m "not slow" -q -n 2 --dist loadfile --no-loadscope-reorder

slow: .venv/.installed
	$(RUN) -m pytest -m slow -q

MINUTES ?= 60
fuzz: .venv/.installed
	JAX_PLATFORMS=cpu nice $(RUN) -m tests.fuzz --minutes $(MINUTES)

lint: .venv/.installed
	.venv/bin/ruff check clic_jax experiments tests
	.venv/bin/ruff format --check clic_jax experiments tests

web: .venv/.installed
	$(RUN) -m experiments.web --out site

.venv-referee/.installed: requirements-referee.txt
	test -x .venv-referee/bin/python || $(PYTHON) -m venv .venv-referee
	.venv-referee/bin/pip install --quiet --disable-pip-version-check -r requirements-referee.txt
	touch $@

referee: .venv-referee/.installed

.venv-peers/.installed: requirements-peers.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r requirements-peers.txt
	touch $@

peers: .venv-peers/.installed

.venv-lowering/.installed: requirements-lowering.txt pyproject.toml
	test -x .venv-lowering/bin/python || $(PYTHON) -m venv .venv-lowering
	.venv-lowering/bin/pip install --quiet --disable-pip-version-check -r requirements-lowering.txt
	touch $@

lowering: .venv-lowering/.installed

clean:
	rm -rf .venv .venv-referee .venv-peers .venv-lowering demo site build *.egg-info .pytest_cache .ruff_cache .hypothesis
