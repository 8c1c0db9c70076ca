"""A suite of language models, run as a user runs it, and its network in a process without dms_bench."""

import json
import os
import subprocess
import sys

import pytest

EXPERIMENT = {
    "task": {
        "kind": "language",
        "data": {"name": "pystdlib", "train": "60k", "val": "4k", "test": "8k"},
        "context": 32,
        "windows": [32, 128],
        "zero_shot": ["next_line"],
        "zero_shot_limit": 8,
        "generate": 4,
    },
    "supernet": {
        "model": "llama",
        "args": {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4},
        "space": {"exclude": ["lm.model.stream"]},
    },
    "pipeline": "DMSp",
    "budget": {"kind": "params", "target": "60%"},
    "pretrain": {"epochs": 1, "steps": 6, "batch_size": 8, "lr": 3e-3},
    "search": {"epochs": 1, "steps": 4, "batch_size": 8, "lr": 1e-3, "distil": True},
    "retrain": {"epochs": 1, "steps": 4, "batch_size": 8, "lr": 1e-3, "distil": True, "lora": True},
    "sweep": {"grid": {"method": ["dms", "flap", "sleb", "uniform"]}},
}


@pytest.mark.slow
def test_a_suite_of_language_models_from_pretraining_to_a_folder_that_transformers_opens(command, tmp_path):
    command.write("words", EXPERIMENT)
    code, output = command.run("words")
    assert code == 0, output
    assert output.count("done") == 5
    assert "Warning" not in output
    results = command.results("words")
    assert len(results) == 4
    for result in results.values():
        assert result.metric == "perplexity"
        assert {"pystdlib-test/32", "pystdlib-test/128", "next_line", "generate_ms_per_token"} <= set(result.metrics)
        assert not result.budget_missed
    board = command.board("words").splitlines()
    assert len(board) == 4
    trial = next(folder for folder in os.listdir(tmp_path / "runs" / "words" / "trials"))
    exported = subprocess.run(
        [sys.executable, "-m", "dms_bench", "export", trial, "--output", "out"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert exported.returncode == 0, exported.stderr
    script = (
        "from transformers import AutoModelForCausalLM as M; import sys, json, torch;"
        "m = M.from_pretrained('out/transformers', trust_remote_code=True);"
        "print(json.dumps([sum(p.numel() for p in m.parameters()), 'dms_bench' in sys.modules]))"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment, check=True
    )
    assert json.loads(found.stdout.splitlines()[-1]) == [results[trial].params, False]


@pytest.mark.slow
def test_two_workers_train_a_language_model_together(command):
    two = EXPERIMENT | {"resources": {"workers": 2}, "sweep": {"grid": {"method": ["dms"]}}, "pipeline": "DMSnp"}
    two |= {"search": EXPERIMENT["search"] | {"distil": False}}
    two |= {"retrain": EXPERIMENT["retrain"] | {"distil": False, "lora": False}}
    command.write("pair", two)
    code, output = command.run("pair")
    assert code == 0, output
    assert len(command.results("pair")) == 1
