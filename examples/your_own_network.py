"""A network that nobody published, from PyTorch into eventsim: nothing is trained, it runs in seconds.

``python your_own_network.py`` builds a small spiking network with a gate and attention, imports it with
`eventsim.from_torch`, and prints what one sample makes it execute.
"""

from __future__ import annotations

import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

import eventsim


class Gated(nn.Module):
    """Two branches of a map, one of which gates the other; then self-attention among pixels, and a vote of ten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            layer.Conv2d(2, 32, 3, padding=1, bias=False), layer.BatchNorm2d(32), neuron.LIFNode()
        )
        self.pool = layer.MaxPool2d(4)
        self.gate = nn.Sequential(layer.Conv2d(32, 32, 3, padding=1, groups=32), neuron.LIFNode(v_threshold=0.25))
        self.qkv = nn.Linear(32, 96)
        self.spikes = neuron.LIFNode(v_threshold=0.1, v_reset=None)
        self.attended = neuron.LIFNode(v_threshold=0.1)
        self.head = nn.Linear(32, 10)
        for module in self.modules():
            if hasattr(module, "step_mode"):
                module.step_mode = "m"

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, 10]`` for frames ``[T, B, 2, 32, 32]``."""
        x = self.pool(self.stem(x))
        x = x * self.gate(x)
        x = x.flatten(3).transpose(2, 3)  # [T, B, 64, 32]
        q, k, v = self.spikes(self.qkv(x)).chunk(3, dim=-1)
        x = x + self.attended(q @ (k.transpose(2, 3) @ v) * 0.125)
        return self.head(x.mean(2)).mean(0)


def main() -> None:
    """Import the network and run one sample."""
    torch.manual_seed(0)
    model = Gated().eval()
    frames = torch.poisson(3 * torch.rand(4, 1, 2, 32, 32))  # [T, 1, C, H, W]
    network = eventsim.from_torch(model, frames)
    for setting in network.settings:
        print(f"{setting.source}: {setting.sentence}")
    result = eventsim.Simulator(network).run(frames[:, 0].numpy())
    print(f"prediction {result.prediction}, PyTorch's {model(frames)[0].argmax()}")
    for profile in result.profile:
        print(f"{profile.name:12} {profile.counts.spikes:6} spikes {profile.counts.acs:8} acs")


if __name__ == "__main__":
    main()
