"""What a cut took away, made up for in the layers behind it, without training: least squares, or biases."""
