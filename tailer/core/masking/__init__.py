"""The masking of texts: rules, detectors and the masker that applies them; it knows no message and no trace."""
