"""A run for other programs: files, TensorBoard, MLflow, standalone scripts."""
