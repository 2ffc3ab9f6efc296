"""Slurm's own daemons, the scripts of deploy/slurm, `foretide slurm` and a control plane, on this machine.

    tests/slurm/run BINARY

Everything lies in one folder that goes at the end: munge's key and socket, Slurm's configuration and state, on ports of
its own; where the kernel has the freezer of cgroup v1, slurmd puts jobs into control groups as it does on a cluster. The test plays the site's agent towards the control plane: it says what lies in the volume, and counts.
Needs root (slurmd starts jobs as their users) and Debian's packages, which scripts/install test installs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE_S = 120
FILES, FILE_BYTES = 20, 1000
# Slurm gives root no burst buffers.
SUBMITTER = "nobody"
SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "slurm"
COMMAND = "python train.py --epochs # --data /data"
FREEZER = Path("/sys/fs/cgroup/freezer")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what: str, look, patience_s: float = PATIENCE_S):
    """What `look` finds, once it finds something."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if (found := look()) not in (None, False):
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {patience_s:.0f} s: {what}")


class Processes:
    """What was started, ended in reverse by its own number."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, []

    def start(self, name: str, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen:
        log = (self.folder / f"{name}.out").open("a")
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env)
        self.running.append((name, process))
        return process

    def end(self, process: subprocess.Popen) -> None:
        self.running = [(n, p) for n, p in self.running if p is not process]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def end_all(self) -> None:
        for _, process in reversed(list(self.running)):
            self.end(process)


class Control:
    """The control plane, and the agent that the test plays."""

    def __init__(self, binary: str, folder: Path, processes: Processes) -> None:
        self.binary, self.processes, self.state = binary, processes, folder / "control"
        self.address = f"http://127.0.0.1:{free_port()}"
        self.config = folder / "serve.toml"
        self.config.write_text(
            f'listen = "{self.address[7:]}"\nstate = "{self.state}"\n[site.store]\n[site.gpu]\ncache = "1 GB"\n'
            '[[link]]\nfrom = "store"\nto = "gpu"\nrate = "1 Gbit/s"\nrtt = "1ms"\n[volume.data]\nat = "store"\n'
        )
        self.sequence = 0
        self.start()

    def start(self) -> None:
        self.process = self.processes.start("serve", self.binary, "serve", "--config", str(self.config))
        until("the control plane answers", self.healthy)

    def healthy(self) -> bool:
        assert self.process.poll() is None, "the control plane ended"
        try:
            return urllib.request.urlopen(f"{self.address}/healthz", timeout=2).status == 200
        except OSError:
            return False

    def call(self, method: str, path: str, body: object = None):
        token = (self.state / "token").read_text().strip()
        request = urllib.request.Request(self.address + path, method=method, data=None if body is None else json.dumps(body).encode())
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def tell_files(self) -> None:
        self.call("POST", "/v1/agent/hello", {"node": "store-1", "site": "store", "volumes": ["data"]})
        version = {"modified_at": 1, "mode": 0o644, "uid": 0, "gid": 0, "links": 1, "version": "1"}
        entries = [{"path": f"f{n}", "kind": "file", "size": FILE_BYTES, **version} for n in range(FILES)]
        root = {"volume": "data", "directory": "", "seen_at": 1, "entries": entries}
        self.call("POST", "/v1/agent/listings", {"node": "store-1", "listings": [root]})

    def know_workload(self) -> None:
        """As if runs of it had been watched: the profile is put into the catalog while nobody has it open."""
        self.processes.end(self.process)
        profile = {
            "workload": "w-train", "command": COMMAND, "updated_at": 1, "runs": 3, "accesses": 60, "volume": "data", "root": "",
            "files_per_epoch": FILES, "bytes_per_epoch": FILES * FILE_BYTES, "epochs_per_run": 1.0, "order": "shuffled",
            "extent": {"kind": "whole"}, "bytes_per_second": 1e6, "readers": 1.0, "reuse": 1.0, "templates": [],
            "calendar": {"starts": [], "period_s": None, "jitter_s": 0.0, "confidence": 0.0, "next_start": None},
        }
        with sqlite3.connect(self.state / "catalog.sqlite") as catalog:
            catalog.execute("INSERT INTO profiles (workload, number, body) VALUES (?, 1000000, ?)", ("w-train", json.dumps(profile)))
        self.start()

    def warmup_of(self, job: str):
        items = self.call("GET", "/v1/warmups?limit=1000")["items"]
        return next((w for w in items if w["request"].get("labels", {}).get("slurm_job") == job), None)

    def count_all(self, warmup: str) -> None:
        self.sequence += 1
        total = FILES * FILE_BYTES
        census = [{"warmup": warmup, "resident_files": FILES, "resident_bytes": total}]
        self.call("POST", "/v1/agent/outcomes", {"node": "gpu-1", "site": "gpu", "sequence": self.sequence, "outcomes": [], "census": census, "resident_bytes": total, "capacity_bytes": 10**9})


class Slurm:
    """slurmctld and slurmd with munge between them."""

    def __init__(self, folder: Path, spool: Path, processes: Processes) -> None:
        self.folder = folder / "slurm"
        for part in ("", "state", "spool", "munge", "out"):
            (self.folder / part).mkdir(parents=True, exist_ok=True, mode=0o755)
        os.chmod(self.folder / "out", 0o777)
        key, sock = self.folder / "munge" / "key", self.folder / "munge" / "socket"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for name in ("burst_buffer.lua", "job_submit.lua", "burst_buffer.conf"):
            shutil.copy(SCRIPTS / name, self.folder / name)
        host = socket.gethostname().split(".")[0]
        self.has_groups = (FREEZER / "cgroup.procs").exists()
        self.groups_before = set(FREEZER.glob("slurm*"))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n")
        (self.folder / "slurm.conf").write_text(f"""
ClusterName=foretide
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={sock}
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd.log
ProctrackType=proctrack/{"cgroup" if self.has_groups else "linuxproc"}
TaskPlugin=task/none
SelectType=select/linear
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
BurstBufferType=burst_buffer/lua
JobSubmitPlugins=lua
NodeName={host} NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=10 State=UP
""")
        self.env = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "FORETIDE_SLURM_SPOOL": str(spool)}
        processes.start("munged", "munged", "--foreground", f"--key-file={key}", f"--socket={sock}", f"--pid-file={self.folder}/munge/pid",
                        f"--log-file={self.folder}/munge/log", f"--seed-file={self.folder}/munge/seed", "--force")
        until("munge answers", sock.exists, 30)
        self.controller = processes.start("slurmctld", "slurmctld", "-D", "-i", env=self.env)
        processes.start("slurmd", "slurmd", "-D", env=self.env)
        until("the node is idle", lambda: "idle" in self.run("sinfo", "-h", "-o", "%T", check=False).stdout)

    def run(self, *command: str, check: bool = True, user: str | None = None) -> subprocess.CompletedProcess:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, user=user, cwd=self.folder)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def submit(self, name: str, *lines: str) -> str:
        script = self.folder / f"{name}.sh"
        script.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
        out = self.folder / "out" / name
        done = self.run("sbatch", "--parsable", f"--output={out}", str(script), check=False, user=SUBMITTER)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.strip().split(";")[0]

    def remove_groups(self) -> None:
        for group in set(FREEZER.glob("slurm*")) - self.groups_before:
            for folder in sorted(group.rglob("*/"), reverse=True):
                folder.rmdir()
            group.rmdir()

    def state(self, job: str) -> str:
        shown = self.run("scontrol", "show", "job", "-o", job, check=False).stdout
        return next((w[9:] for w in shown.split() if w.startswith("JobState=")), "GONE")

    def done(self, job: str) -> bool:
        state = self.state(job)
        assert state in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "STAGE_OUT", "COMPLETED", "GONE"), f"job {job} is {state}"
        return state in ("COMPLETED", "GONE")


def told(text: str) -> None:
    print(text, flush=True)


def staged(control: Control, slurm: Slurm, job: str, what: str) -> None:
    """A job waits for its data, starts when all of it is counted, and lets go of it at its end."""
    warmup = until(f"{what}: a warm-up is asked for", lambda: control.warmup_of(job))
    assert warmup["request"]["volume"] == "data" and warmup["request"]["site"] == "gpu", warmup
    until(f"{what}: its files are known", lambda: control.warmup_of(job).get("required_bytes"))
    time.sleep(3)
    assert slurm.state(job) == "PENDING", f"{what}: it is {slurm.state(job)} and its data is not there"
    control.count_all(warmup["id"])
    until(f"{what}: it runs", lambda: slurm.done(job))
    until(f"{what}: its warm-up is released", lambda: control.warmup_of(job)["state"] == "EXPIRED")


def known_by_its_group(binary: str, folder: Path, processes: Processes, slurm: Slurm) -> None:
    """Two jobs of one script are two runs of one workload, and the same program outside Slurm is another one."""
    if not slurm.has_groups:
        told("skipped: slurmd has no control groups here")
        return
    data, recording = folder / "traced", folder / "recording"
    data.mkdir(mode=0o755)
    (data / "file").write_bytes(bytes(FILE_BYTES))
    trace = processes.start("trace", binary, "trace", "record", "--root", str(data), "--out", str(recording))
    said = folder / "trace.out"
    until("the probes run", lambda: "loaded" in said.read_text() or trace.poll() is not None, 30)
    if trace.poll() is not None:
        told(f"skipped: {said.read_text().strip()}")
        return
    read = f"cat {data}/file"
    for name in ("first", "second"):
        job = slurm.submit(name, f"{read} >/dev/null", "cat /proc/self/cgroup")
        until(f"the {name} job ends", lambda: slurm.done(job))
        group = (slurm.folder / "out" / name).read_text()
        assert f"/job_{job}/step_batch" in group, group
    subprocess.run(read.split(), stdout=subprocess.DEVNULL, check=True)
    time.sleep(1)
    trace.send_signal(signal.SIGINT)
    until("the recording is whole", lambda: trace.poll() is not None, 30)
    stats = subprocess.run([binary, "trace", "stats", str(recording), "--json"], capture_output=True, text=True, check=True)
    workloads = [run["workload"] for _, run in json.loads(stats.stdout)["runs"] if run["command"].startswith("cat ")]
    assert len(workloads) == 3 and sorted(workloads.count(w) for w in set(workloads)) == [1, 2], stats.stdout
    told("ok    two jobs of one script are two runs of one workload, known by slurmd's control groups")


def main(binary: str) -> None:
    if os.geteuid() != 0:
        print("skipped: slurmd starts jobs as their users, so this test needs root")
        return
    folder = Path(tempfile.mkdtemp(prefix="foretide-slurm-"))
    folder.chmod(0o755)
    processes = Processes(folder)
    slurm = None
    try:
        control = Control(binary, folder, processes)
        control.tell_files()
        control.know_workload()
        spool = folder / "meet"
        options = ["--control", control.address, "--token-file", str(control.state / "token"), "--site", "gpu", "--spool", str(spool)]
        processes.start("slurm-daemon", binary, "slurm", *options)
        until("the daemon tells which workloads are known", lambda: (spool / "known").exists() and "w-train" in (spool / "known").read_text())
        slurm = Slurm(folder, spool, processes)

        job = slurm.submit("asks", "#BB_LUA warm=data within_s=600", "echo ran")
        staged(control, slurm, job, "a job that asks")
        told(f"ok    a job that asks is staged, started when READY, and released (job {job})")

        job = slurm.submit("silent", "true || python train.py --epochs 3 --data /data", "echo ran")
        staged(control, slurm, job, "a job that says nothing")
        told(f"ok    a job that says nothing is staged by its profile (job {job})")

        job = slurm.submit("stranger", "echo ran")
        until("a job that nobody knows runs", lambda: slurm.done(job))
        assert control.warmup_of(job) is None
        told("ok    a job that nobody knows runs at once and asks for nothing")

        known_by_its_group(binary, folder, processes, slurm)

        try:
            slurm.submit("wrong", "#BB_LUA wram=data", "echo ran")
            raise AssertionError("a directive that is not understood was taken")
        except RuntimeError as refused:
            assert "wram=data" in str(refused), refused
        told("ok    a directive that is not understood is refused, by its word")

        processes.end(control.process)
        began = time.monotonic()
        job = slurm.submit("down", "#BB_LUA warm=data patience_s=5", "echo ran")
        until("a job runs cold while the control plane is down", lambda: slurm.done(job))
        assert (slurm.folder / "out" / "down").read_text() == "ran\n"
        told(f"ok    a job runs cold when the control plane is down ({time.monotonic() - began:.0f} s, patience 5 s)")
    except BaseException:
        for log in sorted(folder.glob("*.out")) + sorted((folder / "slurm").glob("*.log")):
            print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-30:], sep="\n    ", file=sys.stderr)
        raise
    finally:
        processes.end_all()
        if slurm is not None:
            slurm.remove_groups()
        shutil.rmtree(folder, ignore_errors=True)


main(sys.argv[1])
