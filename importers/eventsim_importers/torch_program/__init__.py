"""Networks from PyTorch modules: what a module does with one example, as a network."""
