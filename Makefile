# Wrenn's commands. `make help` lists them.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory

export CGO_ENABLED ?= 0
export PATH := $(CURDIR)/bin:$(PATH)

CACHE   := $(or $(WRENN_CACHE),$(HOME)/.cache/wrenn)
IMAGES  := $(CACHE)/images
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
VERPKG  := wrenn.dev/wrenn/internal/version
LDFLAGS := -s -w -X $(VERPKG).Version=$(VERSION) -X $(VERPKG).Commit=$(COMMIT)
TIMED   := tools/timed
HOST    := bin/kvmhost

PKG ?=
RUN ?= .
FUZZTIME ?= 3s
EXAMPLES ?= 40
CHAOS ?= 1
CHAOS_TIME ?= 10m
SEED ?=
SOAK_TIME ?= 10m

.PHONY: help
help: ## list the commands
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## ---- the main job ----

.PHONY: demo
demo: ## install what is needed, build, and show the whole life of a sandbox through the REST API and the commands
	@tools/demo

.PHONY: build
build: ## build the binaries into bin/
	@$(TIMED) "build the binaries" tools/build "$(LDFLAGS)"

.PHONY: deps
deps: ## install the Debian packages that the build needs, if they are missing
	@tools/deps

.PHONY: firecracker
firecracker: ## get Firecracker and its jailer into bin/, verified
	@$(TIMED) "get Firecracker" go run ./tools/firecracker --out bin

.PHONY: images
images: deps build ## make the guest kernel and the template "base"
	@$(TIMED) "make the guest image" go run ./images --out $(IMAGES) --envd bin/envd --init bin/wrenn-init

.PHONY: kvmhost
kvmhost: deps build firecracker ## make the emulated KVM host, if this machine can't run sandboxes itself
	@bin/wrenn host check --require run >/dev/null 2>&1 || $(TIMED) "make the emulated KVM host" $(HOST) build

.PHONY: ready
ready: firecracker images kvmhost ## all that a run needs: binaries, guest image, and a host to run it on

.PHONY: print-images
print-images:
	@echo $(IMAGES)

## ---- the tests ----

.PHONY: test
test: ## everything that CI runs
	@$(TIMED) --total "make test" $(MAKE) check fuzz api-fuzz browser-test ready image-test kvmhost-test host-test bench-quick

.PHONY: check
check: deps ## what needs no VM: build, vet, staticcheck, unit tests with the race detector, generated code
	@$(TIMED) --total "make check" tools/check

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME
	@$(TIMED) "fuzz" go run ./tools/fuzz --time $(FUZZTIME)

.PHONY: api-fuzz
api-fuzz: deps ## the REST API fuzzed from its own document; EXAMPLES=500 for more, SEED= for the same again
	@$(TIMED) "API fuzz" go test -count=1 -v -tags apifuzz -timeout 60m ./test/apifuzz/ -examples $(EXAMPLES) $(if $(SEED),-seed $(SEED))

.PHONY: browser-test
browser-test: deps ## the pages for a person, in headless Chromium
	@$(TIMED) "browser tests" go test -count=1 -tags browsertest -timeout 10m ./test/browser/

.PHONY: image-test
image-test: deps ## the same inputs make the same image
	@$(TIMED) "image tests" go test -count=1 -tags imagetest -timeout 20m ./images/...

.PHONY: kvmhost-test
kvmhost-test: ready ## the emulated KVM host itself: boots, stays up, dies; and the agent under systemd, through a restart of the host
	@$(TIMED) "tests of the emulated KVM host" go test -count=1 -tags hostboot -timeout 20m ./test/kvmhost/ ./test/systemd/

.PHONY: host-test
host-test: ready ## tests that need root, KVM or device-mapper; PKG=./internal/disk/... and RUN=TestName choose
	@$(TIMED) "host tests" $(HOST) test --bin bin --images $(IMAGES) --split ./test/e2e --run '$(RUN)' $(PKG)

.PHONY: chaos
chaos: ready ## kill the agent at every step of every operation (CHAOS=2/5: at every fifth), and random ones for CHAOS_TIME (SEED=)
	@$(TIMED) "chaos" $(HOST) test --bin bin --images $(IMAGES) --split ./test/e2e --run '^(TestKillMatrix|TestRandomOperations)$$' --timeout 6h \
		--env WRENN_CHAOS=$(CHAOS) --env WRENN_CHAOS_TIME=$(CHAOS_TIME) $(if $(SEED),--env WRENN_SEED=$(SEED)) ./test/e2e
.PHONY: soak
soak: ready ## the life of sandboxes over and over through the agent for SOAK_TIME: nothing grows
	@$(TIMED) "soak" $(HOST) test --bin bin --images $(IMAGES) --hosts 1 --timeout 24h --env WRENN_SOAK_TIME=$(SOAK_TIME) --run '^TestSoak$$' ./test/e2e

.PHONY: bench
bench: ready ## ours against the bare mechanism, as ratios; writes bench-control.json and bench.json
	@bin/wrenn-bench control
	@$(HOST) run --bin bin --images $(IMAGES) --out . -- wrenn-bench
	@$(MAKE) proxy-bench

.PHONY: bench-quick
bench-quick: ready ## the same with few runs, as CI does it
	@mkdir -p out && $(TIMED) "bench of the control plane" bin/wrenn-bench control --runs 3 --out out/bench-control.json
	@$(TIMED) "bench" $(HOST) run --bin bin --images $(IMAGES) --out out -- wrenn-bench --runs 3
	@tools/deps nginx && $(TIMED) "bench of the proxy" go run ./test/proxy-bench --runs 3 --slack 0.2 --out out/proxy-bench.json

.PHONY: proxy-bench
proxy-bench: ## the way to sandboxes' ports against nginx, before one server on this machine; writes proxy-bench.json
	@tools/deps nginx && go run ./test/proxy-bench

.PHONY: kvm-shell
kvm-shell: ready ## a shell in the emulated KVM host, with the built binaries
	@$(HOST) shell --bin bin --images $(IMAGES)

## ---- the code ----

.PHONY: generate
generate: ## make the generated code anew, and put what is new in the protos into their baseline
	@go run ./tools/buf generate && go run ./tools/buf baseline && go run ./tools/sqlc generate
	@go run ./tools/openapi
	@go tool -modfile=tools/tool.mod oapi-codegen -config openapi/oapi-codegen.yaml -o internal/server/rest/rest.gen.go openapi/wrenn.json
	@go tool -modfile=tools/tool.mod oapi-codegen -config openapi/oapi-client.yaml -o client/internal/rest/rest.gen.go openapi/wrenn.json

.PHONY: fmt
fmt: ## format Go and proto files
	@gofmt -w $$(git ls-files '*.go') && go run ./tools/buf format

.PHONY: clean
clean: ## remove what was built here; the cache stays
	@rm -rf bin out bench.json bench-control.json proxy-bench.json
