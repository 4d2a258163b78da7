"""Writes seeds for the fuzz target: a byte with the length of the data, then a header."""

import json
import pathlib
import sys

DTYPES = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "U8": 8, "F8_E4M3": 8, "BF16": 16, "F32": 32, "C64": 64}


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    samples = {"empty": (0, {}), "metadata": (0, {"__metadata__": {"format": "pt"}})}
    for name, bits in DTYPES.items():
        length = 4 * bits // 8
        one = {"dtype": name, "shape": [2, 2], "data_offsets": [0, length]}
        two = {"dtype": name, "shape": [4], "data_offsets": [length, 2 * length]}
        none = {"dtype": name, "shape": [0, 7], "data_offsets": [0, 0]}
        samples[name] = (2 * length, {"a.weight": one, "b.weight": two, "empty": none})
    for name, (length, header) in samples.items():
        text = json.dumps(header, separators=(",", ":")).encode()
        (folder / name).write_bytes(bytes([length]) + text)


if __name__ == "__main__":
    main()
