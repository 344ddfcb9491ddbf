# Two commands do everything on a fresh Debian 12: `make run` and `make test`.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
DIST := dist

# Debian packages: QEMU, what serves guests' devices beside it, and libvirt's embedded driver; what builds libvirt-python;
# assemblers for the tiny guests; busybox and kmod for guests' and the lab's file systems; curl to ask the API; xmllint for
# virt-xml-validate; for tests, a file system that can clone, a cron daemon, a debugger that knows all four architectures, a
# terminal in a terminal, an ssh server that nothing but a test starts, and sudo, since the guard refuses who comes through them.
PACKAGES := qemu-system-x86 qemu-system-arm qemu-system-common qemu-utils ipxe-qemu seabios swtpm curl \
	libvirt-daemon-system libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libxml2-utils \
	libvirt-dev gcc libc6-dev pkg-config python3-venv python3-dev \
	binutils binutils-aarch64-linux-gnu binutils-arm-linux-gnueabi busybox-static kmod lz4 util-linux cron btrfs-progs gdb-multiarch tmux \
	dropbear-bin sudo

# The main job: a guest of each architecture and a Linux, ten heartbeats each.
JOB := $(wildcard domains/heartbeat-*.toml) domains/linux-aarch64.toml
JOB_CORES := 5
RUN_JOB := orchestrator run $(JOB) --heartbeats 10 --for 4m

.PHONY: help run test suites check types lint unit first-half second-half guests wheel deb clean packages

help: ## Show what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: .venv/ready guests ## Run guests of all four architectures on pool cores (in the lab if this host is too small)
	@pool=$$($(BIN)/orchestrator host topology --json | $(BIN)/python -c 'import json, sys; print(len(json.load(sys.stdin)["pool"]))'); \
	if [ $$pool -ge $(JOB_CORES) ]; then $(BIN)/$(RUN_JOB); else \
	echo "This host has $$(nproc --all) cores, which leaves $$pool to guests; they need $(JOB_CORES), so they run in the lab, a nested host with 8."; \
	$(BIN)/orchestrator lab run --cpus 8 --timeout 5m -- $(RUN_JOB); fi

test: .venv/ready guests ## Run all tests, the lab's included
	$(BIN)/pytest tests

suites: .venv/ready guests ## Run all that takes minutes: six suites of real guests in the lab, faults, the documentation, the packages
	ORCHESTRATOR_SUITES=all $(BIN)/pytest tests/lab/test_guests_in_lab.py tests/packaging tests/functional/test_states.py

check: .venv/ready ## Types, lint, unit and golden tests: under 30 seconds
	@$(MAKE) --no-print-directory -j2 unit types lint

types:
	$(BIN)/mypy

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: first-half second-half

# Two processes for two cores; either half takes about as long as the other.
first-half:
	$(BIN)/pytest tests/golden $(wildcard tests/unit/test_[a-o]*.py)

second-half:
	$(BIN)/pytest $(wildcard tests/unit/test_[!a-o]*.py)

guests: packages ## Build the payloads of the shipped guests
	@$(MAKE) --no-print-directory -C domains

wheel: .venv/ready packages ## Build dist/orchestrator-*.whl, with guests, policies, manual pages and completions in it
	@$(MAKE) --no-print-directory -C domains heartbeats payload
	rm -rf build/lib build/beside $(DIST)/*.whl
	$(BIN)/python -m orchestrator.packaging build/beside
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir $(DIST) .

deb: wheel ## Build dist/orchestrator_*.deb, with systemd units too
	PIP=$(BIN)/pip orchestrator/packaging/deb $(DIST)/orchestrator-*.whl build/beside build
	mv build/orchestrator_*.deb $(DIST)/

.venv/ready: pyproject.toml requirements.lock | packages
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

packages:
	@missing=$$(for name in $(PACKAGES); do \
	dpkg-query -W -f '$${db:Status-Status}\n' $$name 2>/dev/null | grep -qx installed || echo $$name; done); \
	[ -z "$$missing" ] || { echo "Installing Debian packages:" $$missing; \
	sudo=; [ $$(id -u) = 0 ] || sudo=sudo; \
	{ $$sudo apt-get update || echo "apt-get update had failures; trying with what is known"; } && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $$missing; } >&2

clean: ## Remove everything that was built
	$(MAKE) -C domains clean
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
