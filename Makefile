# Every target makes the virtual environment it needs; python3, python3-venv, make and git are enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # a hundred short processes would each compile everything anew
.PHONY: help demo check lint types test fuzz bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## replay captured SIGBUS traces into the model guest: SEA and SDEI, polled, SEI; then look at a record
	@echo "== A Linux guest: consumed errors by SEA, found ones by SDEI"
	@$(BIN)/vmm-ras replay fixtures/traces/qemu-like.strace --out out/demo
	@echo; echo "== The same for a guest without SDEI: found errors are polled"
	@$(BIN)/vmm-ras replay fixtures/traces/qemu-like.strace --no-sdei --quiet
	@echo; echo "== A guest that takes virtual SErrors"
	@$(BIN)/vmm-ras replay fixtures/traces/qemu-like.strace --preset all --guest generic --policy fixtures/policies/sei.toml --quiet
	@echo; echo "== The first record, byte by byte (out/demo holds HEST, the placed image and every block)"
	@$(BIN)/vmm-ras cper show out/demo/blocks/000001-source1.bin

check: lint  ## lint, type-check and test (under 2 minutes)
	@$(MAKE) --no-print-directory -j2 types test  # mypy keeps one core busy, and is done long before the tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal -q -p no:logging

$(VENV)/.fuzz: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]'
	@touch $@

RUNS ?= 10000000
fuzz: $(VENV)/.fuzz  ## property tests with the long profile, a million snapshots, RUNS=10000000 inputs by coverage; writes docs/fuzz.md (hours)
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -n auto --dist worksteal -q tests/fuzz tests/laws
	$(BIN)/python -m tests.fuzz.snapshots --executions 1000000
	$(BIN)/python -m tests.fuzz --runs $(RUNS) --jobs $$(nproc) --report

.PHONY: prove
prove: $(STAMP)  ## a random walk of a million host events, guest actions and acks, and 10,000 VMs moved; writes docs/prove.md (about 20 minutes)
	$(BIN)/python -m tests.prove --report docs/prove.md

.PHONY: oracle
oracle: $(STAMP)  ## random CPER records read by libcper's Python module and by us, compared; writes docs/libcper.md (needs PyPI)
	@$(BIN)/python -m tests.oracle --report

EVENTS ?= 1000000
bench: $(STAMP)  ## per-structure times beside construct, and EVENTS=1000000 told and replayed beside a floor loop; compiled too, given a compiler
	@missed=0; $(BIN)/python -m tests.bench.run --events $(EVENTS) || missed=1; \
	if $(BIN)/python -m tests.bench.fast --able; then $(MAKE) --no-print-directory fast-bench || missed=1; fi; exit $$missed

$(VENV)/.fast: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'setuptools>=65'  # 3.12 and later come without
	@touch $@

.PHONY: fast fast-check fast-bench
fast: $(VENV)/.fast  ## a copy of the tree in build/fast, its hot modules compiled by mypyc (needs a C compiler and Python's headers)
	@$(BIN)/python -m tests.bench.fast

fast-check: $(VENV)/.fast  ## the test suite with the compiled modules
	@$(BIN)/python -m tests.bench.fast --check

fast-bench: fast  ## replays with the compiled modules beside the interpreted floor loop
	@cd build/fast && PYTHONPATH=. $(CURDIR)/$(BIN)/python -m tests.bench.run --only replay --events $(EVENTS)
	@cd build/fast && PYTHONPATH=. $(CURDIR)/$(BIN)/python -m tests.bench.run --only policy --events $(EVENTS)

.PHONY: lab lab-smoke
lab-smoke: $(STAMP)  ## boot Debian's kernels with our tables under emulation and tell them errors (needs Debian's apt)
	@$(BIN)/python -m vmm_ras.lab smoke

lab: $(STAMP)  ## that, real KVM on an emulated arm64 host, and some scenarios; writes the reports of docs/lab (under 6 minutes)
	@$(BIN)/python -m vmm_ras.lab smoke --report docs/lab
	@$(BIN)/python -m vmm_ras.lab tiny --kernel 6.12 --report docs/lab
	@$(BIN)/python -m vmm_ras.lab linux-kvm --report docs/lab
	@$(BIN)/python -m vmm_ras.lab conformance --kernel 6.1 --kernel 7.2 --only '^(channel/.*-early|sea/(el0|el1-record|bare)|several/two|malformed/.*-data|sdei/)'

.PHONY: lab-all
lab-all: $(STAMP) conformance  ## every lane with every kernel (about an hour)
	@$(BIN)/python -m vmm_ras.lab smoke --report docs/lab
	@$(BIN)/python -m vmm_ras.lab tiny --report docs/lab
	@$(BIN)/python -m vmm_ras.lab linux-kvm --all --report docs/lab
	@$(BIN)/python -m vmm_ras.lab compat --report docs/lab/compat.md
	@$(BIN)/python -m vmm_ras.lab moves --from 6.12 --to 7.2 --report docs/lab/moves-6.12-7.2.md
	@$(BIN)/python -m vmm_ras.lab moves --from 6.12 --to 7.2 --linux --report docs/lab/moves-linux-6.12-7.2.md
	@$(BIN)/python -m vmm_ras.lab moves --from 7.2 --to 6.12 --linux --report docs/lab/moves-linux-7.2-6.12.md

.PHONY: conformance
conformance: $(STAMP)  ## every scenario on Debian's kernels in QEMU and on the model; writes docs/conformance.md (about 20 minutes)
	@$(BIN)/python -m vmm_ras.lab conformance --observed fixtures/conformance
	@$(BIN)/python -m tests.conformance_tables

.PHONY: printed
printed: $(STAMP)  ## random records of each type, told to Debian's kernels; what they print is compared with our reading (5 minutes)
	@$(BIN)/python -m tests.printed --report
	@$(BIN)/python -m tests.conformance_tables

clean:  ## remove the virtual environment and what runs left behind
	rm -rf $(VENV) out build .pytest_cache .mypy_cache .ruff_cache .hypothesis
