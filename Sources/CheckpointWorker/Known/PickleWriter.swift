/// Writes one pickle of protocol 4, opcode by opcode: only what the frames of ``KnownFrames`` are
/// made of. Each call pushes one value, or takes values from the reader's stack.
///
/// Source: CPython, `Lib/pickletools.py`. That marks, arguments and ends match is the caller's
/// duty.
struct PickleWriter: Sendable {
    /// What a reader imports: `name` of `module`.
    struct Global: Hashable, Sendable {
        let module: String
        let name: String
    }

    private enum Opcode {
        static let proto: UInt8 = 0x80
        static let stop = UInt8(ascii: ".")
        static let none = UInt8(ascii: "N")
        static let newFalse: UInt8 = 0x89
        static let integer1 = UInt8(ascii: "K")
        static let integer2 = UInt8(ascii: "M")
        static let integer4 = UInt8(ascii: "J")
        static let long1: UInt8 = 0x8A
        static let shortUnicode: UInt8 = 0x8C
        static let unicode = UInt8(ascii: "X")
        static let shortBytes = UInt8(ascii: "C")
        static let stackGlobal: UInt8 = 0x93
        static let pop = UInt8(ascii: "0")
        static let mark = UInt8(ascii: "(")
        static let tuple = UInt8(ascii: "t")
        static let emptyTuple = UInt8(ascii: ")")
        static let tuple1: UInt8 = 0x85
        static let tuple2: UInt8 = 0x86
        static let tuple3: UInt8 = 0x87
        static let emptyList = UInt8(ascii: "]")
        static let appends = UInt8(ascii: "e")
        static let emptyDictionary = UInt8(ascii: "}")
        static let setItems = UInt8(ascii: "u")
        static let reduce = UInt8(ascii: "R")
        static let memoize: UInt8 = 0x94
        static let get = UInt8(ascii: "h")
    }

    /// What was written so far; a pickle once ``stop()`` was called.
    private(set) var bytes: [UInt8] = []
    private var memoCount = 0

    /// Starts a pickle, with room for `capacity` bytes.
    init(capacity: Int = 0) {
        bytes.reserveCapacity(capacity)
        bytes.append(Opcode.proto)
        bytes.append(4)
    }

    /// Ends the pickle: its value is the one that is left on the stack.
    mutating func stop() { bytes.append(Opcode.stop) }
}

// MARK: - Values

extension PickleWriter {
    mutating func none() { bytes.append(Opcode.none) }

    /// The boolean false; no frame says true.
    mutating func no() { bytes.append(Opcode.newFalse) }

    mutating func integer(_ value: Int) {
        switch value {
        case 0..<0x100:
            bytes.append(Opcode.integer1)
            append(value, byteCount: 1)
        case 0..<0x1_0000:
            bytes.append(Opcode.integer2)
            append(value, byteCount: 2)
        case Int(Int32.min)...Int(Int32.max):
            bytes.append(Opcode.integer4)
            append(value, byteCount: 4)
        default:
            let byteCount = (Int.bitWidth - value.magnitude.leadingZeroBitCount + 8) / 8
            bytes.append(Opcode.long1)
            append(byteCount, byteCount: 1)
            append(value, byteCount: byteCount)
        }
    }

    mutating func string(_ value: String) {
        let count = value.utf8.count
        if count < 0x100 {
            bytes.append(Opcode.shortUnicode)
            append(count, byteCount: 1)
        } else {
            bytes.append(Opcode.unicode)
            append(UInt32(count))
        }
        bytes.append(contentsOf: value.utf8)
    }

    /// At most 255 bytes.
    mutating func shortBytes(_ value: [UInt8]) {
        precondition(value.count < 0x100, "a short byte string has at most 255 bytes")
        bytes.append(Opcode.shortBytes)
        append(value.count, byteCount: 1)
        bytes.append(contentsOf: value)
    }

    mutating func global(_ global: Global) {
        string(global.module)
        string(global.name)
        bytes.append(Opcode.stackGlobal)
    }

    /// Text that a reader drops as soon as it has read it; it stands here for those who look at the
    /// bytes. `utf8` must be valid. The form is the same for every length.
    mutating func skippedText(_ utf8: [UInt8]) {
        bytes.append(Opcode.unicode)
        append(UInt32(utf8.count))
        bytes.append(contentsOf: utf8)
        bytes.append(Opcode.pop)
    }

    private mutating func append(_ count: UInt32) { append(Int(count), byteCount: 4) }

    /// The low `byteCount` bytes of `value` in two's complement, the lowest first.
    private mutating func append(_ value: Int, byteCount: Int) {
        for index in 0..<byteCount {
            bytes.append(UInt8(truncatingIfNeeded: value >> (8 * index)))
        }
    }
}

// MARK: - Containers

extension PickleWriter {
    /// Where the values of a tuple, a list or a dictionary begin.
    mutating func mark() { bytes.append(Opcode.mark) }

    /// Everything since the mark as a tuple.
    mutating func endTuple() { bytes.append(Opcode.tuple) }

    /// The last value as a tuple.
    mutating func tuple1() { bytes.append(Opcode.tuple1) }

    /// The last two values as a tuple.
    mutating func tuple2() { bytes.append(Opcode.tuple2) }

    /// A tuple of integers.
    mutating func tuple(_ values: [Int]) {
        if values.count > 3 { mark() }
        for value in values { integer(value) }
        switch values.count {
        case 0: bytes.append(Opcode.emptyTuple)
        case 1: bytes.append(Opcode.tuple1)
        case 2: bytes.append(Opcode.tuple2)
        case 3: bytes.append(Opcode.tuple3)
        default: endTuple()
        }
    }

    /// An empty list and the mark behind which its elements come.
    mutating func beginList() {
        bytes.append(Opcode.emptyList)
        mark()
    }

    mutating func endList() { bytes.append(Opcode.appends) }

    /// An empty dictionary and the mark behind which keys and values come in turn.
    mutating func beginDictionary() {
        bytes.append(Opcode.emptyDictionary)
        mark()
    }

    mutating func endDictionary() { bytes.append(Opcode.setItems) }

    /// The result of the call: the value before the last with the last, a tuple, as arguments.
    mutating func reduce() { bytes.append(Opcode.reduce) }

    /// What `write` writes for the first time, and a reference to it from then on. `index` is `nil`
    /// at first, and this pickle's own; it has room for 256 such values.
    mutating func once(_ index: inout UInt8?, _ write: (inout Self) -> Void) {
        if let index {
            bytes.append(Opcode.get)
            bytes.append(index)
            return
        }
        write(&self)
        bytes.append(Opcode.memoize)
        index = UInt8(memoCount)
        memoCount += 1
    }
}
