"""Engines that hang: found on their own host, ended there, started again by systemd."""
