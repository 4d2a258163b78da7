"""The element types of the safetensors format: their widths, and their names in torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DType:
    """One element type.

    ``bits`` is the width of an element in the file. ``torch_name`` is the attribute of the module
    ``torch``, or ``None`` where torch has no type that holds these bits. ``packed`` counts the
    elements that one element of the torch type holds.
    """

    name: str
    bits: int
    torch_name: str | None
    packed: int = 1


# Source: `Dtype` of the safetensors format, version 0.8.
DTYPES = {
    dtype.name: dtype
    for dtype in (
        DType("BOOL", 8, "bool"),
        DType("F4", 4, "float4_e2m1fn_x2", packed=2),
        DType("F6_E2M3", 6, None),
        DType("F6_E3M2", 6, None),
        DType("U8", 8, "uint8"),
        DType("I8", 8, "int8"),
        DType("F8_E5M2", 8, "float8_e5m2"),
        DType("F8_E4M3", 8, "float8_e4m3fn"),
        DType("F8_E8M0", 8, "float8_e8m0fnu"),
        DType("F8_E4M3FNUZ", 8, "float8_e4m3fnuz"),
        DType("F8_E5M2FNUZ", 8, "float8_e5m2fnuz"),
        DType("I16", 16, "int16"),
        DType("U16", 16, "uint16"),
        DType("F16", 16, "float16"),
        DType("BF16", 16, "bfloat16"),
        DType("I32", 32, "int32"),
        DType("U32", 32, "uint32"),
        DType("F32", 32, "float32"),
        DType("C64", 64, "complex64"),
        DType("I64", 64, "int64"),
        DType("U64", 64, "uint64"),
        DType("F64", 64, "float64"),
    )
}
