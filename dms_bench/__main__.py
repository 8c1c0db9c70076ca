"""`python -m dms_bench`, the same as `dms-bench`."""

from dms_bench.cli import main

main()
