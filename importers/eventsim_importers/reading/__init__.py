"""What formats share: containers of tensors and access that forgets nothing, options, synapses, readers."""
