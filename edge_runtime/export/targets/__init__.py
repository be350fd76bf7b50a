"""What is written for which runtime: our bundle, ExecuTorch's TrainingModule, ONNX."""
