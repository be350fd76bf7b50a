"""Build one program as operations: training step, distillation, evaluation, features; and the optimizers."""
