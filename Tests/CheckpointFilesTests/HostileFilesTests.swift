import CheckpointModel
import CheckpointTesting
import Testing

@testable import CheckpointFiles

/// Bytes that look like safetensors and are not; none may be accepted, and each has its error.
struct HostileFilesTests {
    struct Sample: Sendable, CustomTestStringConvertible {
        let name: String
        let bytes: [UInt8]
        let code: FilesError.Code
        var testDescription: String { name }
    }

    private static func header(
        _ name: String, _ header: String, data: Int = 4, _ code: FilesError.Code = .malformed
    ) -> Sample {
        Sample(
            name: name,
            bytes: SafetensorsBuilder.file(
                header: header, data: [UInt8](repeating: 7, count: data)), code: code)
    }

    private static func tensor(
        _ name: String, dtype: String = "\"F32\"", shape: String = "[1]",
        offsets: String = "[0,4]", data: Int = 4, _ code: FilesError.Code = .malformed
    ) -> Sample {
        header(
            name, "{\"a\":{\"dtype\":\(dtype),\"shape\":\(shape),\"data_offsets\":\(offsets)}}",
            data: data, code)
    }

    static let samples: [Sample] = [
        Sample(name: "empty", bytes: [], code: .wrongLength),
        Sample(name: "seven bytes", bytes: [UInt8](repeating: 0, count: 7), code: .wrongLength),
        Sample(
            name: "header of zero bytes", bytes: [UInt8](repeating: 0, count: 8), code: .malformed),
        Sample(
            name: "header longer than the file", bytes: [9, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d],
            code: .wrongLength),
        Sample(
            name: "header of 2^64 - 1 bytes", bytes: [UInt8](repeating: 255, count: 8) + [0x7b],
            code: .malformed),
        Sample(
            name: "header of 2^63 bytes", bytes: [0, 0, 0, 0, 0, 0, 0, 0x80, 0x7b, 0x7d],
            code: .malformed),
        Sample(
            name: "pickle", bytes: [0x80, 2, 0x7d, 0x71, 0, 0x58, 1, 0, 0, 0, 0x61],
            code: .malformed),
        Sample(
            name: "Git LFS pointer",
            bytes: Array("version https://git-lfs.github.com/spec/v1\noid sha256:0\n".utf8),
            code: .malformed),
        header("no object", "[1,2,3]"), header("not JSON", "{\"a\""),
        header("text after the object", "{}x", data: 0),
        header("blanks alone", "   ", data: 0), header("no tensor", "{}", data: 0, .notACheckpoint),
        header("null byte", "{\"a\u{0}\":1}"),
        header("tensor is a number", "{\"a\":1}"),
        header("tensor is empty", "{\"a\":{}}"),
        header("deep", "{\"a\":" + String(repeating: "[", count: 5000) + "}"),
        header(
            "one name twice",
            "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                + "\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
            .duplicateTensor),
        header(
            "overlap",
            "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                + "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[1,4]}}"),
        header(
            "hole",
            "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                + "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[3,4]}}"),
        header("metadata is a list", "{\"__metadata__\":[]}", data: 0),
        header("metadata has a number", "{\"__metadata__\":{\"a\":1}}", data: 0),
        header("metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}", data: 0),
        header(
            "dtype twice",
            "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"),
        header("data without tensors", "{}", .wrongLength),
        tensor("unknown dtype", dtype: "\"F33\""), tensor("dtype is a number", dtype: "32"),
        tensor("dtype in small letters", dtype: "\"f32\""),
        tensor("negative dimension", shape: "[-1]"), tensor("fraction", shape: "[1.0]"),
        tensor("dimension as text", shape: "[\"1\"]"), tensor("shape is a number", shape: "1"),
        tensor("huge dimension", shape: "[9223372036854775807]"),
        tensor("dimension beyond 64 bits", shape: "[18446744073709551616]"),
        tensor("product overflows", shape: "[4294967296,4294967296]"),
        tensor("too many dimensions", shape: "[" + String(repeating: "1,", count: 99) + "1]"),
        tensor("shape too large", shape: "[2]"),
        tensor("shape too small", shape: "[]", offsets: "[0,2]"),
        tensor("offsets backwards", offsets: "[4,0]"), tensor("one offset", offsets: "[0]"),
        tensor("three offsets", offsets: "[0,4,8]"), tensor("negative offset", offsets: "[-4,0]"),
        tensor("does not start at zero", offsets: "[4,8]", data: 8),
        tensor("ends after the file", shape: "[2]", offsets: "[0,8]", .wrongLength),
        tensor("file is longer", data: 8, .wrongLength),
        tensor("half a byte", dtype: "\"F4\"", shape: "[3]", offsets: "[0,1]", data: 1),
        tensor(
            "offsets at the end of numbers", offsets: "[9223372036854775803,9223372036854775807]"),
    ]

    @Test(arguments: samples)
    func isRefused(_ sample: Sample) throws {
        let directory = try TemporaryDirectory()
        let path = try directory.write(sample.bytes, to: "m.safetensors")
        let error = #expect(throws: FilesError.self) {
            try CheckpointSource.open(paths: [path])
        }
        #expect(error?.code == sample.code, "\(String(describing: error))")
        #expect(error?.description.contains(path) == true)
    }

    /// What the format's own library takes as well.
    @Test(arguments: [
        " \n\t\r{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}  ",
        "{\"__metadata__\":null,\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"U8\",\"x\":[1],\"shape\":[4],\"data_offsets\":[0,4],\"y\":null}}",
    ])
    func isTaken(_ header: String) throws {
        let directory = try TemporaryDirectory()
        let path = try directory.write(
            SafetensorsBuilder.file(header: header, data: [1, 2, 3, 4]), to: "m.safetensors")
        let catalog = try CheckpointSource.open(paths: [path]).catalog
        #expect(catalog.tensors.map(\.name) == ["a"])
        #expect(catalog.byteCount == 4)
    }

    @Test func helpsWithKnownMistakes() throws {
        let directory = try TemporaryDirectory()
        let pointer = try directory.write(
            Array("version https://git-lfs.github.com/spec/v1\n".utf8), to: "l.safetensors")
        let lfs = #expect(throws: FilesError.self) { try CheckpointSource.open(paths: [pointer]) }
        #expect(lfs?.message.contains("git lfs pull") == true)
        let binary = try directory.write([0x80, 2], to: "pytorch_model.bin")
        let bin = #expect(throws: FilesError.self) { try CheckpointSource.open(paths: [binary]) }
        #expect(bin?.code == .notACheckpoint)
        let page = try directory.write(Array("<!DOCTYPE html><html>".utf8), to: "p.safetensors")
        let html = #expect(throws: FilesError.self) { try CheckpointSource.open(paths: [page]) }
        #expect(html?.message.contains("web page") == true)
    }

    @Test(arguments: [
        ("s3://bucket/model", "URL"), ("hf://Qwen/Qwen3-8B", "URL"), ("Qwen/Qwen3-8B", "hub"),
        ("/Qwen/Qwen3-8B", "No such file"), ("./Qwen3-8B", "No such file"),
        ("models/a.safetensors", "No such file"),
    ])
    func tellsWhatAPathMayBeInstead(_ path: String, _ words: String) {
        let error = #expect(throws: FilesError.self) { try CheckpointSource.open(paths: [path]) }
        #expect(error?.code == .missing)
        #expect(error?.description.contains(words) == true, "\(String(describing: error))")
    }
}
