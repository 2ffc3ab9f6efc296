"""Against a real control plane."""

from datetime import datetime, timedelta, timezone

import pytest

from foretide import Client, ForetideError, Starts, State
from foretide.sampler import AnnouncedSampler

BYTES = sum(1000 + n for n in range(20))


def now() -> datetime:
    return datetime.now(timezone.utc)


def test_a_warm_up_is_asked_for_waited_for_and_released(client, served):
    _, _, agent = served
    need_by = now() + timedelta(hours=1)
    asked = client.warm(volume="data", site="gpu", need_by=need_by, label="job 7", key="job-7")
    again = client.warm(volume="data", site="gpu", need_by=need_by, label="job 7", key="job-7")
    assert asked.id == again.id
    early = client.wait(asked.id, timeout_s=2)
    assert early.state not in (State.READY, State.PARTIAL), "nobody has counted its bytes"
    for _ in range(100):
        known = client.status(asked.id)
        if known.required_bytes is not None:
            break
    assert (known.required_bytes, known.required_files) == (BYTES, 20)
    census = {"warmup": asked.id, "resident_files": 20, "resident_bytes": BYTES}
    report = {"node": "gpu-1", "site": "gpu", "sequence": 1, "outcomes": [], "census": [census], "resident_bytes": BYTES, "capacity_bytes": 10**10}
    agent.post("/v1/agent/outcomes", json=report).raise_for_status()
    ready = client.wait(asked.id, timeout_s=30)
    assert (ready.state, ready.resident_bytes) == (State.READY, BYTES)
    assert ready.ready_at is not None and ready.slack_s is not None and ready.slack_s > 0
    assert [w.id for w in client.warmups(states=["READY"])] == [asked.id]
    assert client.release(asked.id).state is State.EXPIRED
    assert client.cancel(client.warm(volume="data", site="gpu").id).state is State.CANCELLED


def test_data_is_selected_in_every_way_and_terms_are_kept(client, served):
    _, _, agent = served
    starts = Starts(*(now() + timedelta(hours=h) for h in (1, 2, 3)))
    first = client.warm(volume="data", globs=["img-1*.jpg"], site="gpu", starts=starts, priority=3, pin_for=timedelta(hours=1))
    kept = agent.get(f"/v1/warmups/{first.id}").json()["request"]
    assert (kept["paths"], kept["globs"], kept["priority"], kept["pin_for_s"]) == ([""], ["img-1*.jpg"], 3, 3600)
    assert kept["starts"]["p10"] < kept["starts"]["p90"]
    for _ in range(100):
        known = client.status(first.id)
        if known.required_files is not None:
            break
    assert known.required_files == 11, "img-1 and img-10 to img-19"
    after = client.warm(volume="data", paths=["img-0.jpg"], sites=["gpu", "far"], run_after=[first.id], jurisdictions=["us"])
    assert after.site == "far"
    for _ in range(100):
        waiting = client.status(after.id)
        if waiting.why:
            break
    assert waiting.state is State.QUEUED and first.id in waiting.why
    client.cancel(first.id)
    failed = client.wait(after.id, timeout_s=30)
    assert failed.state is State.FAILED and first.id in failed.why
    agent.put("/v1/tags", json={"volume": "data", "path": "img-7.jpg", "tags": {"split": "val"}}).raise_for_status()
    tagged = client.warm(tags={"split": "val"}, site="gpu")
    assert tagged.paths == ["img-7.jpg"]
    nothing = client.wait(client.warm(volume="data", globs=["*.png"], site="gpu").id, timeout_s=30)
    assert nothing.state is State.FAILED and "no files" in nothing.why
    client.cancel(tagged.id)


def test_a_problem_says_what_and_what_to_do(client):
    with pytest.raises(ForetideError) as told:
        client.warm(volume="data", site="mars")
    assert (told.value.status, told.value.kind) == (422, "/problems/unknown-site")
    assert "gpu" in told.value.detail and told.value.remedy
    with pytest.raises(ForetideError) as forbidden:
        client.warm(volume="scans", site="far")
    assert (forbidden.value.status, forbidden.value.rule) == (403, "phi-stays-in-eu")
    with pytest.raises(ForetideError) as absent:
        client.wait("no-such", timeout_s=5)
    assert absent.value.status == 404
    with pytest.raises(ValueError, match="time zone"):
        client.warm(volume="data", site="gpu", need_by=datetime(2030, 1, 1))


def test_nobody_there_is_told_as_such():
    with Client("http://127.0.0.1:9", "x") as client, pytest.raises(ForetideError) as told:
        client.status("w")
    assert told.value.status == 0


def test_sites_are_ranked(client):
    advice = client.advise(volume="data")
    assert (advice.files, advice.bytes, advice.complete) == (20, BYTES, True)
    ranked = [site.site for site in advice.sites]
    assert ranked.index("gpu") < ranked.index("far"), "ten times the rate, no price, a hundredth of the way"
    scans = client.advise(volume="scans", sites=["far", "gpu"])
    assert scans.sites[0].site == "gpu"


def test_a_sampler_tells_its_order_and_keeps_to_it(client, served):
    _, _, agent = served
    paths = [f"/mnt/data/img-{n}.jpg" for n in range(20)]
    order = [7, 3, 11, 0]
    sampler = AnnouncedSampler(order, paths=paths, root="/mnt/data", client=client, volume="data", site="gpu", files_per_second=10, name="job 9")
    assert list(sampler) == order and len(sampler) == 4
    said = [f for f in agent.get("/v1/forecasts", params={"reads": "true"}).json()["items"] if f["forecaster"] == "announced"]
    assert [read["path"] for read in said[0]["reads"]] == [f"img-{n}.jpg" for n in order]
    assert "epoch 0 of job 9" in said[0]["reason"]
    with pytest.raises(ValueError, match="not below"):
        AnnouncedSampler(order, paths=["/etc/passwd"], root="/mnt/data", client=client, volume="data", site="gpu", files_per_second=1)


def test_a_job_goes_on_when_nobody_hears_its_order(caplog):
    with Client("http://127.0.0.1:9", "x") as nobody:
        sampler = AnnouncedSampler([1, 0], paths=["/m/a", "/m/b"], root="/m", client=nobody, volume="data", site="gpu", files_per_second=1)
        assert list(sampler) == [1, 0]
    assert "could not be told" in caplog.text
