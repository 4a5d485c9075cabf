"""What the commands of `cli` do; apart from it, since every `kedro` command loads that."""
