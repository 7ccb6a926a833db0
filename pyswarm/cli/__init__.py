"""The command line, one file per noun; every import that costs is lazy."""
