# make help tells the targets.
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GO       ?= go
LDFLAGS  := -s -w -X npd-plugins/internal/plugin.version=$(VERSION) -X main.version=$(VERSION)
# Inputs, not seconds: with a time limit "go test" now and then fails at its end with "context deadline exceeded".
FUZZTIME ?= 20000x

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOTESTSUM   := gotest.tools/gotestsum@v1.13.0

.PHONY: help build run image test kernels kubelets bench corpus fuzz lint deps clean

# Modules of their own, so that the checks depend on little: what builds the image, and what renders the manifests.
MODULES := deploy/image test/deploy test/cmux

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## static binaries of all checks and of npdctl in bin/
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./plugins/... ./cmd/npdctl

run: build ## build, and print the conditions of this machine
	@bin/npdctl run || test $$? -le 2

image: ## the container image as an OCI layout in dist/image, SBOMs beside it
	$(GO) run -C deploy/image . --root ../.. --out $(CURDIR)/dist --version $(VERSION) --revision "$$(git rev-parse HEAD)" --date "$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)}"

test: deps ## all tests; the real faults need root and the packages of test/deps.sh
	$(GO) vet ./...
	@if [ -e /usr/include/systemd/sd-journal.h ]; then set -x; $(GO) vet -tags sdjournal ./plugins/journal-count && \
	  $(GO) run $(GOTESTSUM) --format pkgname -- -count=1 -tags sdjournal ./plugins/journal-count; \
	else echo "needs sd-journal.h (libsystemd-dev): journal-count with libsystemd is not tested"; fi
	@set -e; for module in $(MODULES); do (cd $$module; set -x; $(GO) vet ./... && $(GO) run $(GOTESTSUM) --format pkgname -- -p 1 -count=1 ./...); done
	$(GO) run $(GOTESTSUM) --format pkgname -- -p 2 -count=1 -timeout 35m ./...

kernels: deps ## the fault tests in guests with Linux 5.10, 6.1 and 6.12
	$(GO) test -count=1 -v -timeout 30m -run TestKernels ./test/guest

kubelets: deps ## the tests with a real kubelet again, with that of the release before: builds it first, 3 minutes
	NPD_TEST_KUBELET=1.36 $(GO) test -count=1 -v -timeout 30m -run 'PLEG|KubeletThrottle|OfKubelet' ./test/faults

bench: ## what the checks, the rules and replay cost, as ratios
	$(GO) test -count=1 -timeout 30m -run '^$$' -bench . -benchtime 1x ./test/bench
	$(GO) test -count=1 -timeout 30m -run '^$$' -bench . ./journal-rules ./cmd/npdctl ./internal/npd/logread

corpus: ## the journal rules against the log of a healthy node; needs etcd, kube-apiserver and kubelet on PATH, 11 minutes
	$(GO) test -count=1 -v -timeout 1h -run TestHealthyCorpus ./test/corpus -args -summary SUMMARY.md

fuzz: ## each fuzz target with FUZZTIME inputs
	@set -e; for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
	  done; \
	done

lint: ## gofmt, go vet for amd64 and arm64, staticcheck, npdctl lint
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	GOOS=linux GOARCH=amd64 $(GO) vet ./...
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 $(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	@set -e; for module in $(MODULES); do (cd $$module; set -x; $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...); done
	$(GO) run ./cmd/npdctl lint config journal-rules
	$(GO) run ./cmd/npdctl lint journal-rules/filelog/traditional
	$(GO) run ./cmd/npdctl lint journal-rules/filelog/rfc3339

deps:
	@test/deps.sh

clean: ## remove bin/ and dist/
	rm -rf bin dist
