"""Windowing in plain Python, one event at a time, from the definitions; must not import eventsim.

SpikingJelly integrates a fixed number T of frames. By number: with N events, frame i starts at event i * (N // T) and
the last frame runs to the end. By time: with d = (t[-1] - t[0]) // T, frame i covers t[0] + i * d <= t < t[0] +
(i + 1) * d, and the last frame runs to the last event whatever its time. Channel 0 counts p = 0, channel 1 p = 1.
"""

import numpy as np


def windows_by_number(events, frames_number):
    """Window index of each event when every window has the same number of events."""
    per_window = len(events) // frames_number
    return [min(i // per_window, frames_number - 1) for i in range(len(events))]


def windows_by_time(events, frames_number):
    """Window index of each event when every window lasts equally long."""
    times = [int(t) for t in events["t"]]
    duration = (times[-1] - times[0]) // frames_number
    windows = []
    for t in times:
        window = 0
        while window < frames_number - 1 and t >= times[0] + (window + 1) * duration:
            window += 1
        windows.append(window)
    return windows


def windows_by_duration(events, bin_us, start_us=None):
    """Window index of each event for bins of one duration, negative before the start."""
    start = int(events["t"][0]) if start_us is None else start_us
    return [(int(t) - start) // bin_us for t in events["t"]]


def frames(events, windows, frames_number, height, width, move=lambda x, y: (x, y)):
    """Count events one by one; `move` gives the pixel of the frame, or None to drop the event."""
    counts = np.zeros((frames_number, 2, height, width), np.int32)
    for event, window in zip(events, windows, strict=True):
        pixel = move(int(event["x"]), int(event["y"]))
        if pixel is not None and 0 <= window < frames_number:
            counts[window, int(event["p"]), pixel[1], pixel[0]] += 1
    return counts


def windows_of_tonic_by_number(events, frames_number):
    """Tonic's windows of equally many events: what is left over is in none, here called -1."""
    per_window = len(events) // frames_number
    return [i // per_window if i < per_window * frames_number else -1 for i in range(len(events))]


def windows_of_tonic_by_time(events, frames_number):
    """Tonic's windows of equal time: what comes at their end or later is in none, here called -1."""
    times = [int(t) for t in events["t"]]
    duration = (times[-1] - times[0]) // frames_number
    windows = [(t - times[0]) // duration for t in times]
    return [window if window < frames_number else -1 for window in windows]


def windows_from_events(events, bin_us):
    """SpikingJelly's bins of one duration: each begins with an event, and holds those at most so much later."""
    windows, begin = [], None
    for t in (int(each) for each in events["t"]):
        if begin is None or t - begin > bin_us:
            windows.append(windows[-1] + 1 if windows else 0)
            begin = t
        else:
            windows.append(windows[-1])
    return windows


def slices_of_tonic(positions, size, overlap, complete_at):
    """Begin and end of Tonic's slices, in the unit of the positions, with at least one; the end is no part of it.

    `complete_at` is the least position that makes a slice complete which ends there.
    """
    slices, begin = [], positions[0]
    while begin + size <= complete_at:
        slices.append((begin, begin + size))
        begin += size - overlap
    return slices or [(positions[0], positions[0] + size)]


def frames_of_slices(events, positions, slices, height, width):
    """Count events one by one, in every slice that holds them."""
    counts = np.zeros((len(slices), 2, height, width), np.int32)
    for event, position in zip(events, positions, strict=True):
        for index, (begin, end) in enumerate(slices):
            if begin <= position < end:
                counts[index, int(event["p"]), int(event["y"]), int(event["x"])] += 1
    return counts
