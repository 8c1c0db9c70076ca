"""How long training takes on an A100, from the one figure that the paper gives. An estimate, not a measurement of ours.

The paper's appendix on search cost: 100 epochs of EfficientNet-B0 on ImageNet take about 2.5 A100 days. Such networks
are bound by the memory that their layers write rather than by arithmetic, so time is taken to be proportional to
activations (outputs of convolutions and linear layers), not to MACs. For 30 epochs that is 1.9 days for B4 at 224 px,
5.8 and 7.4 for B7 at 256 and 288 px, where table 4 prints 3.2, 5.8 and 7.0; by MACs they would be 2.9, 13.1
and 16.6.
"""

from __future__ import annotations

#: EfficientNet-B0 at 224 px, by the counter of `dms_bench.scaling`.
_ACTIVATIONS = 6_748_036
_IMAGES, _EPOCHS, _DAYS = 1_281_167, 100, 2.5


def gpu_days(activations: float) -> float:
    """Return the A100 days of a training.

    Args:
        activations: elements that the layers write in a forward pass, over all samples of all epochs.
    """
    return _DAYS * activations / (_ACTIVATIONS * _IMAGES * _EPOCHS)
