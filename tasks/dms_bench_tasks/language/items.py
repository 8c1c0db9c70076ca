"""Multiple-choice items from plain text: which line comes next?

A choice is right because the file says so; the wrong ones are other lines of the same file, of similar length. They
measure whether a model has learnt its text, and that the harness works on a machine without network. They are no
benchmark that others report.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Lines of context, choices of an item, items of a document at most.
_CONTEXT, _CHOICES, _PER_DOCUMENT = 6, 4, 50
_LENGTHS = range(12, 60)


def next_line_items(documents: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """Return items with `context`, `choices` and the number of the right one (`answer`); always the same."""
    generator = random.Random(seed)
    items = []
    for text in documents:
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        usable = [index for index in range(_CONTEXT, len(lines)) if len(lines[index].strip()) in _LENGTHS]
        generator.shuffle(usable)
        for index in usable[:_PER_DOCUMENT]:
            right = lines[index]
            length = len(right.strip())
            alternatives = {line for line in lines if 0.7 * length <= len(line.strip()) <= 1.4 * length}
            alternatives -= set(lines[index - _CONTEXT : index + 1])
            if len(alternatives) < _CHOICES - 1:
                continue
            choices = [right, *generator.sample(sorted(alternatives), _CHOICES - 1)]
            generator.shuffle(choices)
            context = "\n".join(lines[index - _CONTEXT : index])
            items.append({"context": context, "choices": choices, "answer": choices.index(right)})
    generator.shuffle(items)
    return items


def write_task(folder: Path, items: Sequence[dict[str, Any]], name: str) -> None:
    """Write items and the file by which lm-eval knows them as a task."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / f"{name}.yaml").write_text(
        f"""task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {json.dumps(str(data))}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: "\\n"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
    )
