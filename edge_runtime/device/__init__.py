"""The light runtime on the device: open a bundle, train one block, checkpoint, resume.

Nothing here imports PyTorch, ExecuTorch's python package or numpy; the native module is imported only by the commands
that compute.
"""
