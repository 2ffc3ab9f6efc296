"""A control plane of its own for the tests: `foretide serve` on loopback, named by FORETIDE_BINARY."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from foretide import Client

CONFIG = """
listen = "127.0.0.1:{port}"
state = "{state}"
[site.store]
jurisdiction = "eu"
[site.gpu]
jurisdiction = "eu"
cache = "10 GB"
[site.far]
jurisdiction = "us"
cache = "10 GB"
[[link]]
from = "store"
to = "gpu"
rate = "10 Gbit/s"
rtt = "1ms"
[[link]]
from = "store"
to = "far"
rate = "1 Gbit/s"
rtt = "150ms"
cost_per_gb = 0.05
[volume.data]
at = "store"
[volume.scans]
at = "store"
tags = {{ class = "phi" }}
[[policy.rule]]
name = "phi-stays-in-eu"
effect = "deny"
tags = {{ class = "phi" }}
outside_jurisdictions = ["eu"]
"""


def entry(name: str, size: int) -> dict:
    return {"path": name, "kind": "file", "size": size, "modified_at": 1, "mode": 0o644, "uid": 0, "gid": 0, "links": 1, "version": "1"}


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "serve.toml"
    config.write_text(CONFIG.format(port=port, state=folder / "state"))
    log = (folder / "log").open("w")
    process = subprocess.Popen([os.environ["FORETIDE_BINARY"], "serve", "--config", str(config)], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                if httpx.get(f"{address}/healthz").is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        token = Path(folder / "state" / "token").read_text().strip()
        agent = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"})
        agent.post("/v1/agent/hello", json={"node": "store-1", "site": "store", "volumes": ["data"]}).raise_for_status()
        files = [entry(f"img-{n}.jpg", 1000 + n) for n in range(20)]
        root = {"volume": "data", "directory": "", "seen_at": 1, "entries": files}
        agent.post("/v1/agent/listings", json={"node": "store-1", "listings": [root]}).raise_for_status()
        yield address, token, agent
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


@pytest.fixture
def client(served):
    address, token, _ = served
    with Client(address, token) as client:
        yield client
