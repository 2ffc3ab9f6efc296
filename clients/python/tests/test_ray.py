"""A real Ray cluster of one node that names its site."""

import pytest
import ray

from foretide import State
from foretide.ray import NoSiteError, place, warmed


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, num_gpus=1, resources={"site:gpu": 1}, include_dashboard=False, logging_level="error")
    yield
    ray.shutdown()


def test_a_task_runs_where_the_advice_says(client, cluster):
    chosen = place(client, volume="data", gpus=1)
    assert (chosen.site, chosen.resources) == ("gpu", {"site:gpu": 0.0001})
    assert chosen.advice.free_accelerators == 1

    @ray.remote(num_cpus=1)
    def where():
        return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(where.options(resources=chosen.resources).remote())["site:gpu"] == 0.0001
    with pytest.raises(NoSiteError, match="gpu: 1 accelerators"):
        place(client, volume="data", gpus=2)


def test_data_is_there_for_as_long_as_a_block_runs(client, cluster):
    site = place(client, volume="data").site
    with warmed(client, timeout_s=1, wanted={"volume": "data", "site": site, "label": "ray job"}) as warmup:
        assert warmup.label == "ray job" and not warmup.state.is_over
    assert client.status(warmup.id).state is State.CANCELLED, "nobody has counted its bytes, so nothing was served"
