# Every target that a person calls has a line after ##, which `make help` prints.

SHELL      := /bin/bash
GO         ?= go
TOOL       := $(GO) tool -modfile=tools/go.mod
BUF        := $(GO) tool -modfile=tools/buf/go.mod buf
# The schema of the last release, as buf build writes it.
BASELINE   := proto/baseline.binpb
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS    := -s -w -X main.version=$(VERSION)
BIN        := bin
GOBUILD    := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
# Root's tests make namespaces and cgroups one package at a time: two packages at once are enough for two cores.
TESTFLAGS  ?= -race -shuffle=on -count=1 -timeout=20m

.DEFAULT_GOAL := build

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: ## Install what the demo and the tests need, on Debian
	@tools/setup/debian.sh

.PHONY: build
build: ## Build bin/skep, bin/skep-runtime and the built-in image
	@mkdir -p $(BIN)
	@$(GOBUILD) -o $(BIN)/ ./cmd/skep ./cmd/skep-runtime ./cmd/skep-hello
	@$(GO) run ./cmd/skep-hello/mkimage -o $(BIN)/skep-hello.tar $(BIN)/skep-hello

.PHONY: demo
demo: setup build ## A swarm of five nodes on this machine, with a service and a secret; Ctrl-C ends it
	@$(GO) run ./e2e/demo -bin $(BIN)

.PHONY: test
test: setup build ## All tests: unit tests with the race detector, e2e with the real programs, two simulated hours
	@tools/setup/debian.sh test
	@$(GO) test $(TESTFLAGS) ./...
	@$(GO) test ./store ./store/wal -count=1 -run 'EveryCrashPoint|FlippedByte'
	@$(GO) test ./e2e/day -count=1 -day-length 30m
	@$(GO) run ./e2e/sim -bugs -time 5m >/dev/null
	@$(MAKE) --no-print-directory sim SEEDS=24 TIME=5m

# The suites whose tests depend on the kernel; the processor is emulated, so this takes about ten minutes on two cores.
.PHONY: e2e-vm
SUITE ?=
e2e-vm: setup build ## Tests of isolation in a virtual machine: Debian's kernel, cgroup v2, AppArmor, SELinux; SUITE=runtime/launch for one
	@tools/setup/debian.sh vm $(BIN)/vm
	@$(GO) test ./e2e/vm -count=1 -timeout 90m -v -kernel '$(CURDIR)/$(BIN)/vm' -suite '$(SUITE)'

.PHONY: sim
SEED    ?= 1
SEEDS   ?= 1
WORKERS ?= 2
sim soak: TIME = 10m
sim: ## Simulate managers under faults: SEEDS runs from SEED on, each of TIME of virtual time
	@$(GO) run ./e2e/sim -seed $(SEED) -seeds $(SEEDS) -time $(TIME) -workers $(WORKERS)

.PHONY: soak
HOURS ?= 100
DAYS ?= 1
soak: ## Simulate managers for HOURS of virtual time, and the whole swarm for DAYS, and search all planted bugs
	@$(GO) test ./e2e/day -count=1 -timeout 48h -v -day-seed $(SEED) -day-seeds $(DAYS) -day-length 24h -day-bugs
	@$(GO) run ./e2e/sim -bugs -time $(TIME)
	@$(GO) run ./e2e/sim -seed $(SEED) -seeds $$(($(HOURS) * 6)) -time $(TIME) -workers $(WORKERS)

.PHONY: crash
ROUNDS ?= 100
crash: setup build ## End supervisor, daemon and both with SIGKILL, ROUNDS times, while 200 tasks come and go
	@$(GO) test ./e2e -count=1 -timeout 6h -v -run '^TestCrash_LosesNo' -crash-rounds $(ROUNDS) -crash-tasks 200

.PHONY: unit
unit: ## The tests that need neither root nor built programs
	@$(GO) test $(TESTFLAGS) -short ./...

.PHONY: bench
bench: setup build ## Measure this machine: init, join, create, scale, failover, restart, memory, launch, placement, the store, the CA
	@tools/setup/debian.sh bench
	@$(GO) run ./e2e/bench -bin $(BIN)
	@$(GO) test -run '^$$' -bench . ./store
	@$(GO) test -run '^$$' -bench . -benchtime 3s ./manager/raftnet | grep -v '\[INFO\]'
	@$(GO) test -run '^$$' -bench . ./ca ./manager/caserver | grep -v '\[INFO\]'
	@$(GO) test -run '^$$' -bench . -benchtime 1x ./manager/rootrotation
	@$(GO) test -run '^$$' -bench '^Benchmark(Launch|Create)$$' ./runtime/supervisor

.PHONY: lint
lint: ## gofumpt, vet, staticcheck, buf lint and breaking, and that generated code and go.mod are fresh
	@out=$$($(TOOL) gofumpt -l $$(git ls-files '*.go' | grep -v '^api/')); test -z "$$out" || { echo "gofumpt -w these:"; echo "$$out"; exit 1; }
	@$(GO) vet ./...
	@$(GO) vet -C tools ./...
	@GOARCH=arm64 CGO_ENABLED=0 $(GO) build ./...
	@$(TOOL) staticcheck ./...
	@$(BUF) lint
	@$(BUF) format --diff --exit-code
	@$(BUF) breaking --against $(BASELINE)
	@$(MAKE) --no-print-directory verify-generate
	@$(GO) mod tidy -diff
	@$(GO) mod verify >/dev/null

.PHONY: fmt
fmt: ## Format Go and proto files
	@$(TOOL) gofumpt -w $$(git ls-files '*.go' | grep -v '^api/')
	@$(BUF) format -w

.PHONY: proto
proto: ## Generate api/ from proto/
	@$(BUF) generate

.PHONY: verify-generate
verify-generate: proto
	@git diff --exit-code --stat -- api || { echo "api/ is stale: commit what make proto wrote"; exit 1; }

.PHONY: proto-baseline
proto-baseline: ## At a release: keep proto/ as it is as what later versions must stay compatible with
	@$(BUF) build --exclude-source-info -o $(BASELINE)

.PHONY: golden
golden: ## At a release: keep what this version writes in store/testdata/golden/NAME, for later ones to read
	@$(GO) test ./store -count=1 -run '^TestGolden_OfThisVersion$$' -golden '$(CURDIR)/store/testdata/golden/$(or $(NAME),$(error NAME is missing: the version, such as v2))'

.PHONY: fuzz
TIME ?= 10s
fuzz: ## Run every fuzz target for TIME each (default 10s)
	@tools/setup/fuzz.sh $(TIME)

.PHONY: install
PREFIX ?= /usr/local
install: build ## Install the programs, the built-in image and the systemd unit below PREFIX
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin $(BIN)/skep $(BIN)/skep-runtime
	install -D -m 0644 $(BIN)/skep-hello.tar $(DESTDIR)$(PREFIX)/lib/skep/skep-hello.tar
	install -D -m 0644 docs/skep.service $(DESTDIR)$(PREFIX)/lib/systemd/system/skep.service

.PHONY: clean
clean: ## Remove what was built
	@rm -rf $(BIN)
