"""The commands of the command line, one module each; `tailer.cli` registers them."""
