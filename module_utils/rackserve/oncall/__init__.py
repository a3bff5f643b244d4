"""What `fab` asks hosts with nothing but SSH and a shell, for when Ansible or a host's Python does not work."""
