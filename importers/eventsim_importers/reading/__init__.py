"""What every format reads with: the containers of tensors, and access to them that forgets nothing."""
