"""Hosts: layers of timm's models that project, turn and bias queries and keys themselves, around any mixer.

A further class of timm becomes one in a file here: a class that derives from `HostLayer` and from timm's, does in its
``forward`` what timm's does around the softmax, and hands queries, keys, values and biases to ``self.mix``. It is named
in `table`, and tested by one line in ``tests/attention_zoo/test_hosts.py``.
"""
