"""Coding without JAX: onnxruntime for the transforms, NumPy for the integer networks.

`export` writes what a model needs for it when it is published, `programs` runs it. Nothing here but `export` imports
JAX, and nothing in `clic_jax.coding` that a codec of this kind uses does.
"""
