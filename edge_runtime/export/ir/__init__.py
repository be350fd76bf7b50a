"""What a model and a program are made of between capture and file: layers, operations, values, and the tape."""
