"""Bascule: self-hosted deployments on Ansible."""
