"""The rules: one idea a file. Rules never import each other."""
