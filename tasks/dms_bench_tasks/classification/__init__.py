"""Image classification with timm: data, networks, training and measure."""
