"""Object detection with Ultralytics: data, networks, training and measure."""
