"""A real MongoDB replica set and recorded LibreChat traffic, for `tailer demo` and for the tests.

Owns everything that shows the tailer at work without a LibreChat. The daemon itself never imports this package: the
server binary and the recordings are not part of a deployment.
"""
