"""Score new texts with a fine-tuned classifier, whether from a file, the command line or the server."""
