"""Hosts: layers of timm's models that project, turn and bias queries and keys themselves, around any mixer."""
