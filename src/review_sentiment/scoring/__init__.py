"""Score new texts with a fine-tuned classifier: one way for files, the command line, the server and exported models."""
