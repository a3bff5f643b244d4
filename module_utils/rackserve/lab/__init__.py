"""The embedded lab: real systemd hosts in systemd-nspawn on one machine."""
