"""A generic OTLP destination: spans by the GenAI semantic conventions, over HTTP as protobuf."""
