"""The pipelines; each folder's name is the name it is registered under."""
