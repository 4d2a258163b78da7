import CheckpointTesting
import FoundationEssentials
import Testing

@testable import CheckpointFiles

/// Files that are read and deleted for others: only where and what they may name.
struct FileRightsTests {
    private static let header = #"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#

    private func write(_ name: String, in directory: TemporaryDirectory) throws -> String {
        try directory.write(
            SafetensorsBuilder.file(header: Self.header, data: [1, 2, 3, 4]), to: name)
        return "\(directory.path)/\(name)"
    }

    private func link(_ path: String, to target: String) throws {
        try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: target)
    }

    private func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: path) }

    @Test func filesLieInTheRootsWhereverLinksLead() throws {
        let (inside, outside) = (try TemporaryDirectory(), try TemporaryDirectory())
        let links = try TemporaryDirectory()
        let (own, other) = (
            try write("a.safetensors", in: inside), try write("a.safetensors", in: outside)
        )
        let roots = try FileRoots([inside.path])
        let there = "\(inside.path)/folder"
        try link("\(inside.path)/b.safetensors", to: other)
        try link(there, to: outside.path)
        let back = "\(links.path)/back.safetensors"
        try link(back, to: own)
        for path in [own, back] {
            #expect(try CheckpointSource.open(paths: [path], in: roots).shards.count == 1)
        }
        let around = "\(inside.path)/../\(outside.path.split(separator: "/").last ?? "")"
        for path in [other, outside.path, "\(inside.path)/b.safetensors", there, around] {
            let error = #expect(throws: FilesError.self, "\(path)") {
                try CheckpointSource.open(paths: [path], in: roots)
            }
            #expect(error?.code == .permissionDenied, "\(path)")
            #expect(error?.message.contains("--allow-path") == true)
            #expect(try CheckpointSource.open(paths: [path]).shards.isEmpty == false)
        }
        // A directory is not its neighbour whose name goes on.
        let roots2 = try FileRoots([inside.path + "/."])
        #expect(throws: FilesError.self) {
            try CheckpointSource.open(paths: [inside.path + "x"], in: roots2)
        }
    }

    @Test func anIndexLeadsNowhereElse() throws {
        let (inside, outside) = (try TemporaryDirectory(), try TemporaryDirectory())
        let other = try write("a.safetensors", in: outside)
        try link("\(inside.path)/a.safetensors", to: other)
        try inside.write(
            Array(#"{"weight_map":{"w":"a.safetensors"}}"#.utf8),
            to: "model.safetensors.index.json")
        let roots = try FileRoots([inside.path])
        let error = #expect(throws: FilesError.self) {
            try CheckpointSource.open(paths: [inside.path], in: roots)
        }
        #expect(error?.code == .permissionDenied)
    }

    @Test func whatIsDeletedHasTheNameThatWasGiven() throws {
        let directory = try TemporaryDirectory()
        let path = try write("a.safetensors", in: directory)
        let shard = try CheckpointSource.open(paths: [path]).shards[0]
        // Another file by that name is not the one.
        let moved = "\(directory.path)/moved"
        try FileManager.default.moveItem(atPath: path, toPath: moved)
        _ = try write("a.safetensors", in: directory)
        #expect(throws: FilesError.self) { try shard.remove() }
        #expect(exists(path))
        try FileManager.default.removeItem(atPath: path)
        try FileManager.default.moveItem(atPath: moved, toPath: path)
        try shard.remove()
        #expect(!exists(path))
    }

    @Test func nothingBehindALinkIsDeleted() throws {
        let (directory, others) = (try TemporaryDirectory(), try TemporaryDirectory())
        let precious = try write("a.safetensors", in: others)
        try link("\(directory.path)/a.safetensors", to: precious)
        let shard = try CheckpointSource.open(paths: [directory.path]).shards[0]
        #expect(throws: FilesError.self) { try shard.remove() }
        #expect(exists(precious))
        try link("\(directory.path)/folder", to: others.path)
        for path in [
            "\(directory.path)/a.safetensors", "\(directory.path)/folder",
            "\(directory.path)/folder/", "\(directory.path)/folder/a.safetensors",
        ] {
            #expect(throws: FilesError.self, "\(path)") { try ShardFile.refuseLinks(in: path) }
        }
        try ShardFile.refuseLinks(in: precious)
        try ShardFile.refuseLinks(in: others.path + "/../")
    }

    @Test(arguments: ["PASSWORD=hunter2 and more", "short!!!", "12345678"])
    func whatIsNoCheckpointIsNotTold(content: String) throws {
        let directory = try TemporaryDirectory()
        try directory.write(Array(content.utf8), to: "secret.safetensors")
        let error = #expect(throws: FilesError.self) {
            try CheckpointSource.open(paths: ["\(directory.path)/secret.safetensors"])
        }
        // The first eight bytes as a number would tell them.
        let number = content.utf8.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        #expect(error?.description.contains("\(number)") == false)
        #expect(error?.description.contains("PASS") == false)
    }
}
