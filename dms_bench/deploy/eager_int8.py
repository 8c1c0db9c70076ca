"""A network in eight bits as PyTorch runs it: static quantisation by `torch.ao`, of what it can trace."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn

from dms_bench.errors import UserError


def quantised(model: nn.Module, samples: Iterable[Tensor], example: Tensor) -> tuple[nn.Module, int]:
    """Return a copy in eight bits, and the bytes of its state.

    Args:
        model: the network, on the CPU and in eval mode.
        samples: batches [batch, ...] of inputs to calibrate on.
        example: an input, [batch, ...].

    Raises:
        UserError: torch.ao cannot quantise this network, or cannot run it then.
    """
    try:
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
    except ImportError:
        raise UserError("this version of torch has no torch.ao.quantization") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            prepared = prepare_fx(deepcopy(model), get_default_qconfig_mapping("x86"), (example,))
            with torch.no_grad():
                for batch in samples:
                    prepared(batch)
                small = convert_fx(prepared)
                small(example)
        except Exception as error:  # tracing stops at what depends on values, and some kernels are missing
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"torch.ao cannot quantise it: {line[:200]}") from error
        state = io.BytesIO()
        torch.save(small.state_dict(), state)
    return small, state.tell()
