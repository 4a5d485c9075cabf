"""Score texts over HTTP; needs the extra `[serve]`."""
