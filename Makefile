# Two commands for a newcomer: `make demo` and `make test`. The rest is for those who work on a room.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Namespaces, eBPF and passthrough need root; without it the demo runs what it can and says what root adds.
AS_ROOT := $(shell if [ "$$(id -u)" -ne 0 ] && sudo -n true 2>/dev/null; then echo sudo -n; fi)

.PHONY: demo build test deb test-kernels pictures lint test-ceph test-azure bench bench-planner bench-collector bench-model bench-mover bench-mount
.PHONY: bench-catalog bench-api clean-demo

demo:
	scripts/install demo
	$(CARGO) build --release
	$(AS_ROOT) $(TARGET)/release/foretide demo $(DEMO)

build:
	$(CARGO) build --release

test:
	scripts/install test
	$(CARGO) test --release --workspace
	tests/api/schemathesis
	clients/python/test $(TARGET)/release/foretide
	$(AS_ROOT) tests/slurm/run $(TARGET)/release/foretide
	$(AS_ROOT) tests/helm $(TARGET)/release/foretide
	dashboards/test
	$(AS_ROOT) dashboards/test --demo $(TARGET)/release/foretide

pictures:
	$(CARGO) build --release
	$(AS_ROOT) dashboards/test --demo $(TARGET)/release/foretide docs/pictures

bench-api:
	$(CARGO) bench -p foretide-api

# BENCH="--only small" runs a part of the first; the second is `foretide volume add`, with all processes.
bench-mount:
	$(CARGO) bench -p foretide-mount --bench mount -- $(BENCH)
	$(CARGO) bench --bench volumes

bench-catalog:
	$(CARGO) bench -p foretide-catalog --bench catalog

# A package for Debian 12, in target/debian, installed and taken away again in a root of its own.
deb:
	scripts/install demo
	command -v cargo-deb >/dev/null || $(CARGO) install --quiet --locked cargo-deb
	$(CARGO) deb
	$(AS_ROOT) tests/deb $$(ls -t $(TARGET)/debian/*.deb | head -1)

# The questions that every source is asked, to a Ceph RGW from Debian's packages, and to Azurite.
test-ceph:
	scripts/install ceph
	tests/ceph $(CARGO) test --release --workspace --test source -- --ignored ceph

test-azure:
	scripts/install azure
	tests/azurite $(CARGO) test --release --workspace --test source -- --ignored azure

test-kernels:
	scripts/test-kernels

# BENCH="--only pread" runs a part.
bench-collector:
	$(CARGO) build --release --bin training-job
	$(CARGO) bench -p foretide-collector --bench collector -- $(BENCH)

# Wants the recorded traces at ../shared/traces or where FORETIDE_TRACES says. BENCH="--only jobs" runs a part.
bench-model:
	$(CARGO) bench -p foretide-model --bench model -- $(BENCH)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	ebpf/check-object
	dashboards/check-build

# Two network namespaces joined by an emulated link: needs root. BENCH="--only delta --rounds 1" runs a part.
bench-mover:
	scripts/install bench
	$(CARGO) bench -p foretide-transfer --bench mover --no-run
	$(AS_ROOT) $$(ls -t $(TARGET)/release/deps/mover-* | grep -v '\.d$$' | head -1) $(BENCH)

# The planner's reference, HiGHS, is a Python wheel: its crate would compile for minutes. BENCH="--only rows" runs a part.
bench-planner: $(TARGET)/planner-lp/ready
	FORETIDE_LP_PYTHON=$(abspath $(TARGET))/planner-lp/bin/python $(CARGO) bench -p foretide-planner --bench planner -- $(BENCH)

$(TARGET)/planner-lp/ready: benches/planner-lp/requirements.txt
	python3 -m venv $(TARGET)/planner-lp
	$(TARGET)/planner-lp/bin/pip install --quiet -r $<
	touch $@
