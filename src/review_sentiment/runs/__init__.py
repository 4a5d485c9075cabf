"""What a run is: its version, session, locks and manifest, and what earlier runs have left on disk."""
