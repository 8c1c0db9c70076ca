"""The promises of tasks and methods, as checks for a plug-in's own tests.

```python
from dms_bench.testing import check_method, check_task

def test_the_task_keeps_its_promises():
    check_task(MyTask(samples=96), {"epochs": 3, "batch_size": 32}, "my_network")

def test_the_method_keeps_its_promises():
    check_method(MyMethod())
```

Checks run on the processor, some in two processes; with small data and networks they take seconds. A promise that is
broken is an AssertionError of one line that says which one and how. What a check cannot see is said where it stands.
"""

from dms_bench.testing.method import check_method
from dms_bench.testing.task import check_task

__all__ = ["check_method", "check_task"]
