"""A checkpoint of about 1 GB whose tensors are as odd as the format allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shapes import ITEM_BITS, Entry, write_tensors

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 12
# What 1, 2, 3 and 4 workers divide.
_CUT = 12
FILE_BYTES_MAX = 150_000_000


def odd_tensors(*, packed: bool = True, scales: bool = True) -> list[Entry]:
    """Every dtype, cut by rows, by columns and not at all, at unaligned offsets.

    ``packed`` adds the type whose elements share bytes and ``scales`` the type that only has
    exponents, which older packages do not know.
    """
    left_out = {"F4"} if scales else {"F4", "F8_E8M0"}
    dtypes = [name for name in ITEM_BITS if name not in left_out]
    entries: list[Entry] = [
        ("model.embed_tokens.weight", "BF16", (_CUT * 4001, 517)),
        ("lm_head.weight", "F32", (_CUT * 2001, 1023)),
        ("model.norm.weight", "U8", (1,)),
        # Larger than the buckets of the tests.
        ("model.table.weight", "U8", (150_000_001,)),
    ]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for number, dtype in enumerate(dtypes):
            odd = 2 * (layer * len(dtypes) + number) + 1
            block = f"{prefix}.block_{number}"
            entries += [
                (f"{block}.q_proj.weight", dtype, (_CUT * odd, 257)),
                (f"{block}.o_proj.weight", dtype, (odd, _CUT * 17)),
                (f"{block}.down_proj.weight", dtype, (259, _CUT)),
                (f"{block}.experts.7.up_proj.weight", dtype, (_CUT, 3, odd, 1)),
                (f"{block}.bias", dtype, (odd,)),
                (f"{block}.scalar", dtype, ()),
                (f"{block}.nothing", dtype, (0, odd)),
                (f"{block}.gate_proj.nothing", dtype, (_CUT, 0, 3)),
            ]
        for number in range(100):
            entries.append((f"{prefix}.small_{number}", "U8", (number + 1,)))
        entries.append((f"{prefix}.mlp.down_proj.weight", "F8_E4M3", (4099, _CUT * 300)))
        entries.append((f"{prefix}.mlp.down_proj.weight_scale_inv", "F32", (33, 29)))
        if packed:
            entries.append((f"{prefix}.packed", "F4", (37, 2 * layer + 2)))
    return entries


def write_odd(folder: Path, seed: int, *, packed: bool = True, scales: bool = True) -> Path:
    """Writes it; the layout does not depend on ``seed``."""
    write_tensors(folder, odd_tensors(packed=packed, scales=scales), FILE_BYTES_MAX, seed)
    return folder
