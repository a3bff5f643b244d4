"""Engines that span hosts: where one part goes, all parts go, and start again together."""
