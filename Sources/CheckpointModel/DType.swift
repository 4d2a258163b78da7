/// The element type of a tensor, by its name in the safetensors format.
///
/// Source: the safetensors format, `Dtype` in version 0.8.
public enum DType: String, CaseIterable, Hashable, Sendable {
    case bool = "BOOL"
    case f4 = "F4"
    case f6e2m3 = "F6_E2M3"
    case f6e3m2 = "F6_E3M2"
    case u8 = "U8"
    case i8 = "I8"
    case f8e5m2 = "F8_E5M2"
    case f8e4m3 = "F8_E4M3"
    case f8e8m0 = "F8_E8M0"
    case f8e4m3fnuz = "F8_E4M3FNUZ"
    case f8e5m2fnuz = "F8_E5M2FNUZ"
    case i16 = "I16"
    case u16 = "U16"
    case f16 = "F16"
    case bf16 = "BF16"
    case i32 = "I32"
    case u32 = "U32"
    case f32 = "F32"
    case c64 = "C64"
    case i64 = "I64"
    case u64 = "U64"
    case f64 = "F64"

    /// Bits of one element; F4 and F6 are packed without padding.
    public var bitWidth: Int {
        switch self {
        case .f4: 4
        case .f6e2m3, .f6e3m2: 6
        case .bool, .u8, .i8, .f8e5m2, .f8e4m3, .f8e8m0, .f8e4m3fnuz, .f8e5m2fnuz: 8
        case .i16, .u16, .f16, .bf16: 16
        case .i32, .u32, .f32: 32
        case .c64, .i64, .u64, .f64: 64
        }
    }

    /// The type of that name in torch.
    public init?(torchName: String) {
        guard let type = Self.allCases.first(where: { $0.torchName == torchName }) else {
            return nil
        }
        self = type
    }

    /// The name of the same type in torch; `nil` where torch has none that holds these bits.
    public var torchName: String? {
        switch self {
        case .bool: "torch.bool"
        case .f4: "torch.float4_e2m1fn_x2"
        case .f6e2m3, .f6e3m2: nil
        case .u8: "torch.uint8"
        case .i8: "torch.int8"
        case .f8e5m2: "torch.float8_e5m2"
        case .f8e4m3: "torch.float8_e4m3fn"
        case .f8e8m0: "torch.float8_e8m0fnu"
        case .f8e4m3fnuz: "torch.float8_e4m3fnuz"
        case .f8e5m2fnuz: "torch.float8_e5m2fnuz"
        case .i16: "torch.int16"
        case .u16: "torch.uint16"
        case .f16: "torch.float16"
        case .bf16: "torch.bfloat16"
        case .i32: "torch.int32"
        case .u32: "torch.uint32"
        case .f32: "torch.float32"
        case .c64: "torch.complex64"
        case .i64: "torch.int64"
        case .u64: "torch.uint64"
        case .f64: "torch.float64"
        }
    }
}
