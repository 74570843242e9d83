SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/llm-gateway
TOOLS := $(CACHE)/tools
GOLANGCI_VERSION := v2.15.0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BIN := bin/llm-gateway
# A slow machine may need longer; a hung test must still end.
E2E_TIMEOUT ?= 20m

# SQLite is pure Go here: no C compiler is needed to build or run.
export CGO_ENABLED := 0

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z][a-z0-9-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 14

.PHONY: build
build: $(BIN) envoy ## build bin/llm-gateway and get the pinned Envoy

.PHONY: $(BIN)
$(BIN):
	go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BIN) ./cmd/llm-gateway

.PHONY: envoy
envoy: ## find an Envoy, or install the pinned one into the cache
	@deploy/install-envoy.sh >/dev/null

.PHONY: up
up: build ## run sidecar and Envoy on port 12000 (Ctrl-C stops both)
	@exec $(BIN) up

.PHONY: test
test: build test-tools unit race e2e ## install what tests need, run everything

.PHONY: test-tools
test-tools: ## install what the tests need and the machine lacks
	@deploy/install-test-tools.sh

.PHONY: unit
unit: ## unit, property and script tests (seconds)
	go vet ./...
	go test -shuffle=on ./...

# What the race detector does not watch. Where no second goroutine is it finds nothing,
# and it makes these some ten times slower: they were half of its time. unit runs all of
# them. Tests of the Kubernetes manifests wait for other programs.
# The scripts are commands that do one thing after another (those that start a
# gateway or ask several places at once are watched), the others are plain functions at
# many inputs, and a bomb, which adds but bytes to other tests of compressed answers.
empty :=
space := $(empty) $(empty)
UNWATCHED_SCRIPTS := audit backup block-key calls config create-key envoy-config history import-keys keys prices \
	reconcile revoke-key rotate-key secrets set-key tariffs usage
UNWATCHED_TESTS := TestRecordingsWholeAndSplitEverywhere TestEndingComesExactlyWithTheByteThatShowsTheEnd \
	TestDrop TestMemoryIsBounded TestBombIsNotDecoded \
	TestCoarseWindowIsConservativeByAtMostOnePiece TestNoChangeOfLimitsAdmitsTooMany \
	TestBrokenConfigurations TestPromtool TestSchemasOfEveryVersionAreBroughtUp TestBackupsOfAnOlderSchemaAreBroughtUp \
	TestDamagedBackupsAreNamed TestKubernetes_.* TestEnvoyConfig_schemas TestChart_.* TestKustomize_.*
# Parts of the books' tests, with either database, that do one thing after another.
UNWATCHED_PARTS := AuditNamesWhatWasTamperedWith TheChainNamesForgedCharges ACheckpointHoldsTheEndOfAChain \
	RebuiltCountersAreTheSame PricesAreNeverRewritten EachChangeLeavesOneRow TariffsAreNamedLimits LastUseOfKeys
UNWATCHED := ^TestScripts$$/^($(subst $(space),|,$(strip $(UNWATCHED_SCRIPTS))))$$|^($(subst $(space),|,$(strip $(UNWATCHED_TESTS))))$$|^Test(SQLite|Postgres)$$/^($(subst $(space),|,$(strip $(UNWATCHED_PARTS))))$$

.PHONY: race
race: ## the same under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race -run '^$$' ./... >/dev/null
	CGO_ENABLED=1 go test -race -p 1 -shuffle=on -timeout 15m -skip '$(UNWATCHED)' ./...

# Those of the end-to-end tests that mostly wait (for windows, time-outs, probes) are
# marked parallel: four at a time wait together, on a machine with two cores too. Those
# that load or measure run alone before them.
.PHONY: e2e
e2e: build ## end-to-end tests through a real Envoy
	go vet -tags e2e ./...
	go test -tags e2e -count=1 -timeout $(E2E_TIMEOUT) -run E2E ./envoy/
	go test -tags e2e -count=1 -timeout $(E2E_TIMEOUT) -parallel 4 ./cmd/llm-gateway/e2e/ ./cmd/correctness/

.PHONY: fuzz
fuzz: ## every fuzz target for 30 s
	@for target in $$(grep -rhoE 'func Fuzz[A-Za-z]+' --include='*_test.go' . | sed 's/func //' | sort -u); do \
	  dir=$$(grep -rlE "func $$target\b" --include='*_test.go' . | head -1 | xargs dirname); \
	  echo "== $$target in $$dir"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime 30s "$$dir"; done

.PHONY: bench
bench: build ## speed beside bare Envoy and a no-op ext_proc, in the same rounds
	go build -trimpath -o bin/bench ./cmd/bench
	bin/bench -gateway $(BIN)

$(TOOLS)/golangci-lint-$(GOLANGCI_VERSION):
	mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(TOOLS)/golangci-lint $@

.PHONY: lint
lint: $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION) ## linters, formatting, tidy go.mod
	$< config verify
	$< run --build-tags e2e ./...
	go mod tidy -diff

.PHONY: fmt
fmt: $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION) ## format all Go files
	$< fmt ./...

.PHONY: check
check: lint test ## everything that must be green before a change lands

.PHONY: clean
clean: ## remove what was built (not the data directory)
	rm -rf bin
