"""The training process: a bare interpreter, the native module, and what is here.

It is started by `launch` with a job that was prepared by a process which could afford to import what it liked. Modules
here import a few small ones of the standard library, the errors and each other: click and msgspec would keep
20 MB resident, a third of a small block. A test holds them to it.
"""
