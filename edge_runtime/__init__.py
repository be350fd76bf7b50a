"""The light runtime: `export` builds programs on a host, `device` trains them without PyTorch."""
