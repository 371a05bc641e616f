"""What an operator decides: which turns are sent, with which content, under which user."""
