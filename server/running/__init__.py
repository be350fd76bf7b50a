"""A whole run: from its fleet file to the trained model, and what its folder keeps."""
