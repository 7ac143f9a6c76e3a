"""The HTTP API and the page: the extra ``brainstage[serve]``."""
