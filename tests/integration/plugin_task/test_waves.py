from dms_bench_waves.spec import WavesTask

from dms_bench.testing import check_task


def test_the_task_keeps_its_promises() -> None:
    check_task(WavesTask(samples=128), {"epochs": 3}, {"model": "mlp", "args": {"width": 16}})
