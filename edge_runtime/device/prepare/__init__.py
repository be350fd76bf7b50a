"""Everything before the training process starts: bundle, weights, data and options become one checked job."""
