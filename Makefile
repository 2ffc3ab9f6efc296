# Two commands for a newcomer: `make demo` and `make test`. The rest is for those who work on a room.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Namespaces, eBPF and passthrough need root; without it the demo runs what it can and says what root adds.
AS_ROOT := $(shell if [ "$$(id -u)" -ne 0 ] && sudo -n true 2>/dev/null; then echo sudo -n; fi)

.PHONY: demo build test lint bench bench-model clean-demo

demo:
	scripts/install demo
	$(CARGO) build --release
	$(AS_ROOT) $(TARGET)/release/foretide demo $(DEMO)

build:
	$(CARGO) build --release

test:
	scripts/install test
	$(CARGO) test --release --workspace

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	ebpf/check-object
	dashboards/check-build

# Rows in target/bench/model.json; wants the recorded traces at ../shared/traces or FORETIDE_TRACES.
bench-model:
	$(CARGO) bench -p foretide-model --bench model
