# Each target prepares what it needs. The first one run installs for about two minutes; later
# preparations take under a second.
PYTHON ?= python3.11
PORT ?= 8000
DOCS_PORT ?= 8001
ARGS ?=
HARNESS ?= lmms-eval
BIN := .venv/bin
OVERLAY := $(BIN)/python environment/overlay.py

# No hub lookups, no usage reports; 1 GiB of KV cache holds all that the small models ask for.
ENV := HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1

# A deprecation inside torch that vLLM's CPU build trips over at every start.
SERVE_ENV := $(ENV) PYTHONWARNINGS='ignore:`torch.distributed.reduce_op`:FutureWarning'

.DEFAULT_GOAL := help
.PHONY: help setup models serve demo-qwen demo-reader demo-qwen-reader demo-fast test test-fast test-nightly test-matrix test-ray test-harness lint evaluate loadtest loadtest-adaptive soak hostile bench-serve gpu bench-questions bench-overhead screenshots bench-selection bench-set-quality bench-merger-scores bench-kernels wheel clean bench-host bench-harness bench-launches docs docs-serve

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install vLLM for CPUs and vtprune into .venv
	@$(PYTHON) environment/bootstrap.py

models: setup  ## build the demo models into .cache/models
	@$(BIN)/python demo/build_demo.py

serve: setup  ## serve the demo model with pruning (PORT=8000, ARGS=more flags)
	$(SERVE_ENV) $(BIN)/vllm serve demo/llava --plugin vtprune \
	  --served-model-name demo --dtype float32 --max-model-len 4096 --port $(PORT) $(ARGS)

demo-qwen: setup  ## serve the demo Qwen2.5-VL, pictures of any shape (PORT=8000, ARGS=more flags)
	$(SERVE_ENV) $(BIN)/vllm serve demo/qwen --plugin vtprune \
	  --served-model-name demo --dtype float32 --max-model-len 4096 --port $(PORT) $(ARGS)

demo-reader: setup  ## serve the demo reader of small print (PORT=8000, ARGS=more flags)
	$(ENV) $(BIN)/vllm serve demo/reader --plugin vtprune \
	  --served-model-name demo --dtype float32 --max-model-len 4096 --port $(PORT) $(ARGS)

demo-qwen-reader: setup  ## serve the demo Qwen2.5-VL that reads small print (PORT=8000, ARGS=more flags)
	$(ENV) $(BIN)/vllm serve demo/qwen-reader --plugin vtprune --prune-method pixels --prune-rate 0.95 \
	  --served-model-name demo --dtype float32 --max-model-len 4096 --port $(PORT) $(ARGS)

demo-fast: models  ## stock vLLM and vtprune side by side, a live chart of both (PORT=8000)
	$(ENV) PYTHONPATH=environment $(BIN)/python demo/fast/fast.py --port $(PORT) $(ARGS)

# A file's tests stay in one process, which starts its servers once. Where one dies, the run ends with
# the name of the test that it was in; with another in its place xdist 3.8 may wait for ever.
XDIST := -n 2 --dist loadfile --max-worker-restart=0

test: lint models  ## lint, check types, run the tests on two cores (ARGS=pytest's)
	$(ENV) $(BIN)/pytest $(XDIST) --no-loadscope-reorder $(ARGS)

# For the everyday loop: no server, no compiler, no package build.
test-fast: models  ## the tests that need no server and are not slow, in five minutes (ARGS=pytest's)
	$(ENV) $(BIN)/pytest $(XDIST) --no-loadscope-reorder -m "not server and not slow" $(ARGS)

# What no push waits for: models that resemble others, two engines, every shape.
test-nightly: models  ## the tests that are too long for every run, in an hour (ARGS=pytest's)
	VTPRUNE_NIGHTLY=1 $(ENV) $(BIN)/pytest $(XDIST) --no-loadscope-reorder -m nightly $(ARGS)

# The contract of a supported vLLM: counts, off means off, equal answers, settings of a request. 0.31
# and 0.33 lie before .venv on the path; 0.33, which has no build for CPUs, runs on 0.32's operators.
CONTRACT := tests/compat tests/families tests/server/test_off.py tests/server/test_same_answer.py \
  tests/server/test_request_control.py tests/server/test_trusted_settings.py \
  tests/server/test_llava_next.py tests/server/test_confidence.py
test-matrix: models  ## run the contract tests on vLLM 0.31, 0.33 and 0.32
	for each in vllm-0.31 vllm-0.33; do $(ENV) \
	  PYTHONPATH=$$($(OVERLAY) $$each) \
	  $(BIN)/pytest $(XDIST) $(CONTRACT) $(ARGS) || exit 1; done
	$(ENV) $(BIN)/pytest $(XDIST) $(CONTRACT) $(ARGS)

# Ray lies beside .venv: its extra `llm` would bring another vLLM.
RAY_TESTS := tests/server/test_ray_data.py tests/server/test_ray_serve.py tests/telemetry/test_ray_exporter.py \
  tests/test_deploy.py
test-ray: models  ## the tests of Ray Data and Ray Serve, in ten minutes (ARGS=pytest's)
	$(ENV) PYTHONPATH=$$($(OVERLAY) ray) \
	  $(BIN)/pytest $(RAY_TESTS) $(ARGS)

# Both lie beside .venv, each for itself.
test-harness: models  ## the demo through lmms-eval and VLMEvalKit, in five minutes (ARGS=pytest's)
	for each in lmms-eval vlmevalkit; do VTPRUNE_NIGHTLY=1 $(ENV) \
	  PYTHONPATH=$$($(OVERLAY) $$each) \
	  $(BIN)/pytest tests/server/test_harness.py $(ARGS) || exit 1; done

lint: setup  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

evaluate: setup  ## accuracy of a server on PORT, by method and kept share (ARGS=its flags)
	$(BIN)/python -m vtprune_evaluate run --url http://localhost:$(PORT) $(ARGS)

loadtest: models  ## load stock and pruned servers, write an HTML report (ARGS=--quick)
	$(ENV) PYTHONPATH=environment:benchmarks $(BIN)/python loadtests/compare.py $(ARGS)

loadtest-adaptive: models  ## a rate that follows the load against two that do not, on a ramp of users
	$(ENV) PYTHONPATH=environment:benchmarks $(BIN)/python loadtests/adaptive.py $(ARGS)

soak: models  ## saturate a pruned server with bad requests mixed in (ARGS="--minutes 10")
	$(ENV) PYTHONPATH=environment:benchmarks $(BIN)/python loadtests/soak.py $(ARGS)

hostile: models  ## all that a stranger can send to a pruned server (ARGS="--quick pictures")
	$(ENV) PYTHONPATH=environment:benchmarks $(BIN)/python loadtests/hostile.py $(ARGS)

bench-serve: models  ## measure serving with and without pruning (ARGS=its flags)
	$(ENV) PYTHONPATH=environment $(BIN)/python benchmarks/serve.py $(ARGS)

gpu:  ## all that nine minutes with a GPU tell (COMMIT=, OUT=); ARGS=--dry-run walks it on a CPU
	PYTHONPATH=environment:$$PYTHONPATH $(if $(wildcard $(BIN)/python),$(BIN)/python,python3) benchmarks/gpu.py $(ARGS)

bench-selection: models  ## measure the selection alone (ARGS=--question: one that reads it)
	$(ENV) $(BIN)/python benchmarks/selection.py $(ARGS)

bench-set-quality: setup  ## how well kept tokens stand for photographs (ARGS=its flags)
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/set_quality.py $(ARGS)

bench-merger-scores: setup  ## accuracy by what importance is read from, before and after a merger
	$(ENV) PYTHONPATH=environment $(BIN)/python benchmarks/merger_scores.py $(ARGS)

bench-questions: models  ## measure methods on new images and on many questions (ARGS=its flags)
	$(ENV) PYTHONPATH=environment $(BIN)/python benchmarks/questions.py $(ARGS)

bench-overhead: models  ## measure what vtprune costs text-only traffic (ARGS=its flags)
	$(ENV) PYTHONPATH=environment $(BIN)/python benchmarks/overhead.py $(ARGS)

bench-launches: models  ## count what the host launches for pictures, beside stock (ARGS=its flags)
	$(ENV) PYTHONPATH=environment $(BIN)/python benchmarks/launches.py $(ARGS)

bench-host: models  ## measure what a picture costs the API server (ARGS=its flags)
	$(ENV) PYTHONPATH=environment $(BIN)/python benchmarks/host.py $(ARGS)

bench-harness: setup  ## accuracy of a server on PORT by HARNESS=lmms-eval or vlmevalkit (ARGS=its flags)
	PYTHONPATH=$$($(OVERLAY) $(HARNESS)) \
	  $(BIN)/python benchmarks/harnesses.py $(HARNESS) --url http://localhost:$(PORT) $(ARGS)

screenshots: setup  ## the README's pictures of the playground and the load report (ARGS=which)
	$(ENV) PYTHONPATH=environment $(BIN)/python assets/screenshots.py $(ARGS)

bench-kernels: setup  ## measure the kernels on a GPU; a dry run without one
	$(BIN)/python benchmarks/kernels.py $(ARGS)

# mkdocs-material else prints its own end of life and its successor at every build.
docs: setup  ## build the documentation as a site into build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: setup  ## serve that site and follow changes (DOCS_PORT=8001)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr localhost:$(DOCS_PORT)

wheel: setup  ## build the wheel into dist
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## remove everything built, .venv included
	rm -rf .venv .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
