"""The light runtime on the device: open a bundle, train one block, checkpoint, resume.

Nothing here imports PyTorch or ExecuTorch's python package; numpy and the native module are imported only by the
commands that compute.
"""
