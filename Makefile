# Every target covers every module of the workspace (go.work): `work` means all their packages.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ARGS     ?=
FUZZTIME ?= 10s
KILLS    ?= 50
SEED     ?=

LINT    := bin/tools/golangci-lint-2.15.0
GOFUMPT := bin/tools/gofumpt-0.12.0
MODULES := . driver shop cmd/settle test
ALL     := $(MODULES:%=./%/...)

.PHONY: bench-peers cluster gen help build demo test services-setup services-up services-down test-fast race fuzz bench crash cover lint fmt tidy check tools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-15s %s\n", $$1, $$2 }' Makefile

build: ## build bin/settle
	go build -o bin/settle ./cmd/settle

demo: build ## run the whole system in one process; ARGS="..." is passed on
	bin/settle demo $(ARGS)

test: services-setup ## run every test; installs what is missing, fails rather than skips
	go test -count=1 -timeout 30m work

services-setup: ## install the servers that the tests start, and a browser
	scripts/test-setup.sh

services-up: ## start servers that stay, and print their URLs for a shell; ARGS="kafka ..." names them
	@go run ./test/services up $(ARGS)

services-down: ## stop them
	@go run ./test/services down $(ARGS)

test-fast: ## run every test that needs no server and no browser
	go test -short work

race: ## the fast tests under the race detector
	go test -race -short -timeout 20m work

fuzz: ## run each fuzz target for FUZZTIME (10s)
	scripts/fuzz.sh $(FUZZTIME)

bench: build ## run all benchmarks; ARGS="..." is passed on
	bin/settle bench all $(ARGS)

bench-peers: services-setup ## measure beside River, Watermill and Debezium, on servers that it starts
	go test ./test/peers -run '^$$' -bench . -benchtime 1x -v
	go test ./test/debezium -run '^$$' -bench . -benchtime 1x -v

cluster: services-setup build ## one process per service on servers, replaying the month; STORE=postgres|mysql BROKER=kafka|nats|redis|rabbit|store ARGS=--keep
	STORE=$(STORE) BROKER=$(BROKER) scripts/cluster.sh $(ARGS)

crash: ## hurt real processes KILLS (50) times; SEED=n repeats a run; STORE=postgres|mysql BROKER=... PAUSE=payment: one process per service, and the servers too
ifdef STORE
	scripts/test-setup.sh
endif
	go test ./test/crash -run '^$(if $(STORE),TestServers,TestCrash)$$' -count=1 -timeout 2h -v -args -kills=$(KILLS) $(SEED:%=-seed=%) $(STORE:%=-store=%) $(BROKER:%=-broker=%) $(PAUSE:%=-pause=%)

gen: services-setup ## run the conformance suites and write docs/capabilities.md from them
	go run ./test/capabilities

cover: ## write the fast tests' coverage to tmp/cover.html
	@mkdir -p tmp
	go test -short -coverpkg=github.com/settledev/settle/... -coverprofile=tmp/cover.out work
	go tool cover -html=tmp/cover.out -o tmp/cover.html

lint: $(LINT) ## run golangci-lint, which also checks the format
	$(LINT) run $(ALL)

fmt: $(LINT) ## format with gofumpt and goimports
	$(LINT) fmt $(ALL)

tidy: ## tidy every go.mod and bring the workspace in step
	go work sync
	for m in $(MODULES); do (cd $$m && go mod tidy); done

check: lint ## what CI runs before the tests: format, lint, vet, tidy, import rules
	go vet work
	for m in $(MODULES); do (cd $$m && go mod tidy -diff) || { echo "$$m: run make tidy" >&2; exit 1; }; done
	go mod verify
	go test -count=1 ./internal/arch

tools: $(LINT) $(GOFUMPT) ## build the tools into bin/tools

$(LINT):
	GOWORK=off GOFLAGS= GOBIN=$(CURDIR)/bin/tools go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	mv bin/tools/golangci-lint $@

$(GOFUMPT):
	GOWORK=off GOFLAGS= GOBIN=$(CURDIR)/bin/tools go install mvdan.cc/gofumpt@v0.12.0
	mv bin/tools/gofumpt $@
