"""Rows as a malicious chat user, a broken plug-in or an unknown release may have left them, made by seeded dice."""
