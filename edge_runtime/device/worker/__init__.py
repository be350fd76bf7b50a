"""The training process: a bare interpreter, the native module, and what is here.

It is started by `launch` with a job that was prepared by a process which could afford to import what it liked. Modules
here import `os`, `sys`, `time`, `marshal`, `mmap`, the errors and each other: what numpy, click and msgspec keep resident
would be a third of a small device's budget. A test holds them to it.
"""
