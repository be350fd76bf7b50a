"""Cut a captured model into units and blocks, with the stand-ins and the head of every output module."""
