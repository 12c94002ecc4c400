"""The test lab: real engines, registries and images, with nothing of the machine's own touched.

Needs root, Linux and gpubox's runtime dependencies; knows no pytest.
"""
