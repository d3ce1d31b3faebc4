# Everything runs from one private directory, .lab (another with BYOC_LAB_DIR=...).
PYTHON := .venv/bin/python

# From what needs nothing to what needs the whole stack.
TIERS := fences contracts unit postgres lab convex service security engine system page network crash

.DEFAULT_GOAL := help
.PHONY: help bootstrap demo up down lint test chaos bench

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

bootstrap: ## install what is missing: Debian packages, .venv, npm packages
	@lab/bootstrap.sh

demo: bootstrap ## start the stack, run the demonstration jobs, stop the stack
	@$(PYTHON) -m lab demo

up: bootstrap ## start the whole stack and write lab.json
	@$(PYTHON) -m lab up

down: ## stop the stack and remove everything it left, also after a crash
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m lab down; else echo "nothing to stop: the lab was never installed here"; fi

lint: bootstrap ## ruff, mypy, tsc, ESLint and the import contracts
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	npx --no-install tsc --noEmit
	npx --no-install eslint --max-warnings 0 convex web

test: export BYOC_LAB_BROWSER = chromium
test: lint ## every tier, two at a time, in one closing line
	npx --no-install vitest run
	$(PYTHON) -m pytest -n 2 --no-loadscope-reorder --durations 30 $(addprefix tests/,$(TIERS))

chaos: bootstrap ## kill everything at random under a stream of jobs: DURATION=600 (seconds) SEED= RATE= (jobs/s) EVERY= (s)
	@$(PYTHON) -m lab.chaos --seconds $(or $(DURATION),600) \
		$(if $(SEED),--seed $(SEED)) $(if $(RATE),--rate $(RATE)) $(if $(EVERY),--every $(EVERY))

bench: bootstrap ## measure what things cost, in one table: ROWS="acceptance events" (all), QUICK=1 (a look)
	@$(PYTHON) -m benchmarks $(ROWS) $(if $(QUICK),--quick)
