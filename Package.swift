// swift-tools-version: 6.2
import PackageDescription

/// Every Swift target is built alike: strict memory safety, no warning tolerated, imports internal unless they say otherwise.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
]

/// A module of the product. The list below is in layer order: a module depends only on modules above it.
func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tests(of name: String, _ dependencies: [Target.Dependency] = [], resources: [Resource]? = nil) -> Target {
    .testTarget(
        name: "\(name)Tests", dependencies: [.byName(name: name)] + dependencies, resources: resources,
        swiftSettings: settings)
}

let log: Target.Dependency = .product(name: "Logging", package: "swift-log")

let package = Package(
    name: "baton",
    products: [
        .executable(name: "baton-worker", targets: ["baton-worker"]),
        .library(name: "FrontendKit", targets: ["FrontendKit"]),
        .library(name: "FuzzTargets", targets: ["FuzzTargets"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2")
    ],
    targets: [
        // What Swift cannot see
        .target(name: "CLinux"),
        .target(name: "CWire"),
        .systemLibrary(
            name: "CLiburing", pkgConfig: "liburing", providers: [.apt(["liburing-dev"])]),

        module("Platform", ["CLinux"]),
        module("Telemetry", ["Platform"]),
        module("Uring", ["CLiburing", "CLinux", "Platform"]),
        module("Virtio", ["CWire", "Platform"]),
        module("VhostUser", ["CWire", "Platform", "Virtio"]),
        module("BlockTarget", ["CWire", "CLinux", "Platform", "Telemetry", "Uring", "Virtio"]),
        module(
            "WorkerRuntime", ["Platform", "Telemetry", "Uring", "Virtio", "VhostUser", "BlockTarget", "CWire", log]),
        .executableTarget(
            name: "baton-worker", dependencies: ["Platform", "BlockTarget", "WorkerRuntime", "CLinux", log],
            swiftSettings: settings),

        // The other side
        module("FrontendKit", ["CWire", "Platform", "Virtio", "VhostUser"]),

        // What fuzzers run: pure functions, so that tests run their corpora too
        module("FuzzTargets", ["VhostUser", "Virtio"]),

        tests(of: "Platform"),
        tests(of: "VhostUser", ["CWire", "Platform", "Virtio"]),
        tests(of: "FuzzTargets"),
    ]
)
