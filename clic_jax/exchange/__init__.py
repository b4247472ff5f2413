"""Weights in and out: publishing, the authors' checkpoints converted, and exports to formats of others."""
