# make          lists the targets
# make check    before each commit

GO         ?= go
FUZZTIME   ?= 10s
BENCH      ?= .
# One version for everybody: findings must not depend on who runs it. .ci/run reads it from here.
LINT_VERSION = v2.15.0

# The packages in which goroutines meet; the rest has one thread and gains nothing from the race detector.
RACE = ./internal/replica/... ./internal/reactor/... ./internal/shard/... ./internal/store/... ./internal/transport/... \
       ./internal/node/... ./internal/rest/... ./client/...

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the program into bin/
	$(GO) build -o bin/ ./cmd/...

.PHONY: dev
dev: ## run a cluster of three nodes on this machine
	$(GO) run ./cmd/hanse dev

.PHONY: check
check: format vet test race ## what has to pass before a commit: format, vet, tests, race tests

.PHONY: format
format: ## fail when gofmt would change a file
	@files=$$(gofmt -l $$(git ls-files '*.go' ':!api')); [ -z "$$files" ] || { echo "gofmt -w $$files"; exit 1; }

.PHONY: vet
vet: ## go vet
	$(GO) vet ./...

.PHONY: test
test: ## all tests
	$(GO) test ./...

.PHONY: race
race: ## tests of the packages with goroutines, under the race detector
	$(GO) test -race -short $(RACE)

.PHONY: lint
lint: ## golangci-lint with .golangci.yml; make tools installs it
	golangci-lint run

.PHONY: tools
tools: ## install the linter, at the version of this file
	$(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (10s; 500x for so many inputs)
	@git grep -n '^func Fuzz' -- '*_test.go' | sed -E 's/^(.*)\/[^/]*:[0-9]+:func (Fuzz[A-Za-z0-9_]*).*/\1 \2/' | sort -u | \
	while read -r dir name; do \
		echo "fuzz $$name in ./$$dir"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "./$$dir" || exit 1; \
	done

.PHONY: sim
sim: ## play fresh seeds in the simulator for MINUTES (1), or replay SEED
	$(GO) run ./cmd/hanse-sim $(if $(SEED),-seed $(SEED),-minutes $(or $(MINUTES),1))

.PHONY: nemesis
nemesis: ## real faults on real processes for MINUTES (5), SEED and FLAGS as you like; writes bin/nemesis.html
	@mkdir -p bin
	$(GO) run ./test/nemesis --report bin/nemesis.html --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) $(FLAGS)

.PHONY: bench
bench: ## benchmarks of the packages matching BENCH, ten runs each, for benchstat
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count 10 ./internal/...

.PHONY: docs
docs: ## print tables that the code knows into the documents
	$(GO) test ./internal/house -run TestTablesInDocs -update

# protoc 3.21.12 is expected; the plugins are built at the versions of go.mod.
PROTOS = $(patsubst api/%,%,$(wildcard api/*/*.proto))
.PHONY: proto
proto: ## generate the code of api/*/*.proto; needs protoc
	$(GO) build -o bin/ google.golang.org/protobuf/cmd/protoc-gen-go github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto
	cd api && PATH="$(CURDIR)/bin:$$PATH" protoc --go_out=. --go_opt=paths=source_relative \
		--go-vtproto_out=. --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+size+clone+equal $(PROTOS)
