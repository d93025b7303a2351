"""Multiply-accumulates of the dense layers, per time step; borders are not subtracted."""


def conv2d(
    size: tuple[int, int],
    weight_shape: tuple[int, int, int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> int:
    """Ho * Wo * Co * (Ci / groups) * kH * kW for an input map of the given (H, W)."""
    out, per_group, kh, kw = weight_shape
    rows = (size[0] + 2 * padding[0] - kh) // stride[0] + 1
    columns = (size[1] + 2 * padding[1] - kw) // stride[1] + 1
    return rows * columns * out * per_group * kh * kw


def linear(weight_shape: tuple[int, int], positions: int = 1) -> int:
    """Positions * O * F."""
    return positions * weight_shape[0] * weight_shape[1]


def attention(tokens: int, channels: int) -> int:
    """2 * N * N * D: scores, then their sums of values; the number of heads does not matter."""
    return 2 * tokens * tokens * channels
