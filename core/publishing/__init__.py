"""Publishes a saved merge to the Hub: what may be published, under which license, with which card, and the upload."""
