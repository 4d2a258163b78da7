import CheckpointModel
import CheckpointNative
import CheckpointTesting
import Glibc
import Testing

@testable import CheckpointFiles

/// Which files of a directory without an index are its checkpoint.
struct ShardChoiceTests {
    private static func files(_ names: [String]) -> [String] { names.map { "\($0).safetensors" } }

    @Test(arguments: [
        ["model"], ["weights"], ["adapter_model"], ["consolidated"],
        ["model-00001-of-00002", "model-00002-of-00002"],
        // Published so: other widths, and a number that begins with 0.
        ["model-00001-of-000002", "model-00002-of-000002"],
        ["model-00000-of-00002", "model-00001-of-00002", "model-00002-of-00002"],
        ["model-1-of-1"], ["model-00001-of-00001.fp16"],
    ])
    func takesWhatIsAlone(_ names: [String]) throws {
        let files = Self.files(names)
        let others = ["config.json", "._\(files[0])", ".x.safetensors", "tokenizer.model"]
        #expect(try ShardChoice(among: others + files.reversed()).names == files)
    }

    @Test(arguments: [
        (["model"], ["consolidated"]),
        (["model"], ["model.fp16", "model.fp16-00001-of-00002", "adapter_model"]),
        (["model-1-of-2", "model-2-of-2"], ["consolidated-1-of-3", "model-1-of-2.bf16"]),
        (["diffusion_pytorch_model"], ["diffusion_pytorch_model.fp16", "training_args"]),
        (["weights"], ["optimizer", "optimizer.0"]),
        (["w-1-of-2", "w-2-of-2"], ["training_args"]),
    ])
    func leavesOutWhatLiesBesideAModel(_ model: [String], _ beside: [String]) throws {
        let choice = try ShardChoice(among: Self.files(beside + model))
        #expect(choice.names == Self.files(model))
    }

    @Test(arguments: [
        ["model", "model-1-of-2", "model-2-of-2"],
        ["model-1-of-1", "model-1-of-2", "model-2-of-2"],
        ["a", "b"], ["model", "extra"], ["a-1-of-1", "b-1-of-1"], ["model.fp16", "model.bf16"],
        ["model", "diffusion_pytorch_model"], ["x\u{e9}", "x\u{65}\u{301}"],
    ])
    func refusesWhatCannotBeTold(_ names: [String]) {
        let error = #expect(throws: ShardChoice.Refusal.self) {
            try ShardChoice(among: Self.files(names))
        }
        #expect(error?.description.contains("name the files") == true)
    }

    @Test(arguments: [
        (["model-00001-of-00003", "model-00003-of-00003"], "missing: 2;"),
        (["model-00002-of-00003"], "missing: 1, 3;"),
        (["model-00000-of-00002", "model-00001-of-00002"], "missing: 2;"),
        (["m-1-of-900000000"], "missing: 2, 3, 4, 5, 6, 7, 8, 9 and 899999991 others;"),
        (["model-1-of-2", "model-2-of-2", "model-3-of-2"], "number 3 of the 2"),
        (["model-1-of-2", "model-01-of-2", "model-2-of-2"], "twice"),
        ([], "no file that ends with .safetensors"),
    ])
    func refusesWhatIsIncomplete(_ names: [String], _ words: String) {
        let error = #expect(throws: ShardChoice.Refusal.self) {
            try ShardChoice(among: Self.files(names))
        }
        #expect(error?.description.contains(words) == true, "\(error?.description ?? "")")
    }

    @Test func namesOfOtherKindsAreStems() {
        let names = [
            "model-1-of-", "model--of-2", "model-x-of-2", "model-1-of-2x", "of", "-of-1-of-",
        ]
        for name in names {
            let parsed = ShardName("\(name).safetensors")
            #expect(parsed.group.stem == name)
            #expect(parsed.group.count == nil)
        }
    }
}

/// Directories that the system does not show as they are.
struct UnreadableFilesTests {
    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try directory.write(
            SafetensorsBuilder.file(
                header: "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", data: [1]
            ),
            to: "blob")
        try #require(unsafe symlink("blob", "\(directory.path)/model.safetensors") == 0)
    }

    @Test func theNameOfALinkCounts() throws {
        let source = try CheckpointSource.open(paths: [directory.path])
        #expect(source.catalog.shards.map(\.name) == ["model.safetensors"])
        #expect(source.shards[0].givenPath == "\(directory.path)/model.safetensors")
        #expect(source.shards[0].path == "\(directory.path)/blob")
        try directory.write([0, 0], to: "blob")
        let error = #expect(throws: FilesError.self) { try source.shards[0].checkUnchanged() }
        #expect(error?.path.hasSuffix("model.safetensors") == true)
    }

    @Test(arguments: [
        (EMFILE, FilesError.Code.insufficientDescriptors, "ulimit -n"),
        (ENOSPC, .insufficientMemory, "room"), (ENOMEM, .insufficientMemory, "memory"),
        (EACCES, .permissionDenied, "user"), (EROFS, .permissionDenied, "user"),
        (EIO, .system, "device"), (ENOENT, .missing, "path"),
    ])
    func whatTheSystemLacksHasItsCode(_ number: CInt, _ code: FilesError.Code, _ words: String) {
        let error = FilesError(number, "/x", "it cannot be opened")
        #expect(error.code == code)
        #expect(error.description.contains(words))
        #expect(error.description.contains("errno \(number)"))
    }

    @Test func aDirectoryThatCannotBeListedIsAnError() {
        #expect(throws: FileFailure.call("opendir", errno: ENOTDIR)) {
            try DirectoryListing.names(in: "/dev/null")
        }
    }
}
