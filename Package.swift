// swift-tools-version:6.2
import PackageDescription

/// The settings that every target of this package is built with.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
]

func library(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

let log = Target.Dependency.product(name: "Logging", package: "swift-log")
let lifecycle = Target.Dependency.product(
    name: "ServiceLifecycle", package: "swift-service-lifecycle")
let httpClient = Target.Dependency.product(name: "AsyncHTTPClient", package: "async-http-client")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let hummingbirdCore = Target.Dependency.product(
    name: "HummingbirdCore", package: "hummingbird")
let hummingbirdTesting = Target.Dependency.product(
    name: "HummingbirdTesting", package: "hummingbird")
let argumentParser = Target.Dependency.product(
    name: "ArgumentParser", package: "swift-argument-parser")
let subprocess = Target.Dependency.product(name: "Subprocess", package: "swift-subprocess")
let system = Target.Dependency.product(name: "SystemPackage", package: "swift-system")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioHTTPTypes = Target.Dependency.product(
    name: "NIOHTTPTypes", package: "swift-nio-extras")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")

let package = Package(
    name: "checkpoint-engine",
    platforms: [.macOS(.v15)],
    products: [
        .executable(name: "checkpoint-engine", targets: ["checkpoint-engine"]),
        .library(name: "CheckpointModel", targets: ["CheckpointModel"]),
        .library(name: "CheckpointFiles", targets: ["CheckpointFiles"]),
        .library(name: "CheckpointEngine", targets: ["CheckpointEngine"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(
            url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(
            url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2", traits: []),
    ],
    targets: [
        .target(name: "CNative"),
        .target(name: "CSimulatedCUDA"),
        library("CheckpointModel", []),
        library("CheckpointJSON", ["CheckpointModel"]),
        library("CheckpointNative", ["CNative"]),
        library(
            "CheckpointFiles",
            ["CNative", "CheckpointNative", "CheckpointModel", "CheckpointJSON"]),
        library("CheckpointPlan", ["CheckpointModel"]),
        library("CheckpointTrace", ["CheckpointJSON"]),
        library("CheckpointDevice", ["CNative", "CheckpointNative", "CheckpointModel"]),
        library(
            "CheckpointTransport",
            [
                "CNative", "CheckpointNative", "CheckpointModel", "CheckpointPlan",
                "CheckpointDevice",
            ]),
        library(
            "CheckpointWorker",
            [
                "CNative", "CheckpointNative", "CheckpointModel", "CheckpointJSON", httpClient,
                log, nioCore, nioHTTP1,
            ]),
        library(
            "CheckpointTransfer",
            ["CheckpointModel", "CheckpointJSON", "CheckpointNative", subprocess, system, log]),
        library(
            "CheckpointPull",
            [
                "CNative", "CheckpointNative", "CheckpointModel", "CheckpointJSON",
                "CheckpointPlan", "CheckpointTransfer", "CheckpointWorker", httpClient, log,
                nioCore, nioHTTP1,
            ]),
        library("CheckpointHosts", ["CheckpointJSON", nioCore, nioPosix]),
        library(
            "CheckpointReference",
            [
                "CheckpointModel", "CheckpointJSON", "CheckpointNative", "CheckpointDevice",
                "CheckpointWorker",
            ]),
        library(
            "CheckpointEngine",
            [
                "CheckpointModel", "CheckpointNative", "CheckpointFiles", "CheckpointPlan",
                "CheckpointDevice", "CheckpointTransport", "CheckpointWorker", "CheckpointTrace",
                "CheckpointHosts", "CheckpointTransfer", "CheckpointPull", "CheckpointJSON", log,
            ]),
        library(
            "CheckpointControl",
            [
                "CheckpointModel", "CheckpointJSON", "CheckpointTrace", "CheckpointEngine",
                "CheckpointNative", "CheckpointPull", hummingbird, hummingbirdCore, log, nioCore,
                nioHTTPTypes,
            ]),
        .executableTarget(
            name: "checkpoint-engine",
            dependencies: [
                "CheckpointModel", "CheckpointJSON", "CheckpointFiles", "CheckpointPlan",
                "CheckpointDevice", "CheckpointTransport", "CheckpointWorker", "CheckpointTrace",
                "CheckpointHosts", "CheckpointEngine", "CheckpointControl",
                "CheckpointReference", "CheckpointNative", "CheckpointTransfer", "CheckpointPull",
                argumentParser, hummingbird, lifecycle, subprocess, system, log,
            ],
            path: "Sources/checkpoint-engine",
            swiftSettings: strict,
            // Here and not by --static-swift-stdlib: the tests of the same build need the shared libraries.
            linkerSettings: [
                .unsafeFlags(
                    [
                        "-static-stdlib", "-lFoundationEssentials", "-l_FoundationCollections",
                        "-l_FoundationCShims", "-l_FoundationICU",
                    ], .when(platforms: [.linux], configuration: .release))
            ]),
        library(
            "CheckpointTesting", ["CheckpointModel", "CheckpointDevice", "CheckpointWorker"]),
        tests("CheckpointModelTests", ["CheckpointModel"]),
        tests("CheckpointJSONTests", ["CheckpointJSON", "CheckpointTesting"]),
        tests(
            "CheckpointFilesTests", ["CheckpointFiles", "CheckpointModel", "CheckpointTesting"]),
        tests("CheckpointNativeTests", ["CheckpointNative"]),
        tests(
            "CheckpointHostsTests", ["CheckpointHosts", "CheckpointTesting", nioCore, nioPosix]),
        tests("CheckpointTransferTests", ["CheckpointTransfer", "CheckpointNative", log]),
        tests(
            "CheckpointPullTests",
            [
                "CheckpointPull", "CheckpointPlan", "CheckpointModel", "CheckpointNative",
                "CheckpointTransfer", "CheckpointWorker", "CheckpointTesting", "CheckpointJSON",
                hummingbird, log, nioCore,
            ]),
        tests("CheckpointTraceTests", ["CheckpointTrace", "CheckpointJSON"]),
        tests(
            "CheckpointTransportTests",
            [
                "CheckpointTransport", "CheckpointDevice", "CheckpointPlan", "CheckpointModel",
                "CheckpointNative", "CheckpointTesting", "CSimulatedCUDA", "CNative",
            ]),
        tests("CheckpointPlanTests", ["CheckpointPlan", "CheckpointModel", "CheckpointTesting"]),
        tests(
            "CheckpointDeviceTests",
            [
                "CheckpointDevice", "CheckpointModel", "CheckpointNative", "CheckpointTesting",
                "CNative",
            ]),
        tests(
            "CheckpointWorkerTests",
            [
                "CheckpointWorker", "CheckpointModel", "CheckpointTesting", "CheckpointJSON",
                httpClient, "CheckpointNative",
            ]),
        tests(
            "CheckpointReferenceTests",
            [
                "CheckpointReference", "CheckpointWorker", "CheckpointDevice", "CheckpointModel",
                "CheckpointFiles", "CheckpointTesting", "CSimulatedCUDA",
            ]),
        tests(
            "CheckpointEngineTests",
            [
                "CheckpointEngine", "CheckpointModel", "CheckpointFiles", "CheckpointDevice",
                "CheckpointWorker", "CheckpointPlan", "CheckpointTesting", log,
            ]),
        tests(
            "CheckpointControlTests",
            [
                "CheckpointControl", "CheckpointEngine", "CheckpointModel", "CheckpointTesting",
                "CheckpointDevice", "CheckpointJSON", "CheckpointPull", "CheckpointTransfer",
                hummingbird, hummingbirdTesting, log,
            ]),
    ]
)
