"""Updates as input from strangers: read, compared with each other, rejected or cut down."""
