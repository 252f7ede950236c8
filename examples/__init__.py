"""Small programs that show one thing each, and one that is an application."""
