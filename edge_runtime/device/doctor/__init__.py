"""What this machine offers a training and what is missing, a row for each thing, with the remedy."""
