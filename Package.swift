// swift-tools-version: 6.2
import PackageDescription

/// Every Swift target is built alike: strict memory safety, no warning tolerated, imports internal unless they say
/// otherwise.
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
func module(_ name: String, _ dependencies: [Target.Dependency] = [], _ more: [SwiftSetting] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings + more)
}

func tests(of name: String, _ dependencies: [Target.Dependency] = [], resources: [Resource]? = nil) -> Target {
    .testTarget(
        name: "\(name)Tests", dependencies: [.byName(name: name)] + dependencies, resources: resources,
        swiftSettings: settings)
}

let log: Target.Dependency = .product(name: "Logging", package: "swift-log")

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
]

let package = Package(
    name: "baton",
    products: [
        .executable(name: "baton-worker", targets: ["baton-worker"]),
        .executable(name: "batond", targets: ["batond"]),
        .executable(name: "baton", targets: ["baton"]),
        // The first two for the benchmarks, the third for the fuzzers: packages of their own.
        .library(name: "FrontendKit", targets: ["FrontendKit"]),
        .library(name: "Platform", targets: ["Platform"]),
        .library(name: "FuzzTargets", targets: ["FuzzTargets"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        // The control socket and the command lines; the worker links neither.
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        // The configuration files.
        .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
    ],
    targets: [
        // What Swift cannot see
        .target(name: "CLinux"),
        .target(name: "CWire"),
        .systemLibrary(
            name: "CLiburing", providers: [.apt(["liburing-dev"])]),
        // The supervisor's only: no worker links it.
        .systemLibrary(name: "CSystemd", providers: [.apt(["libsystemd-dev"])]),

        module("Platform", ["CLinux"]),
        module("Telemetry", ["CLinux", "CWire", "Platform", log]),
        // Debian's liburing 2.3 does not export every inline wrapper from its shared library: link the archive.
        .target(
            name: "Uring", dependencies: ["CLiburing", "CLinux", "Platform"], swiftSettings: settings,
            linkerSettings: [.linkedLibrary(":liburing.a")]),
        module("Virtio", ["CWire", "Platform"]),
        module("Inflight", ["CWire", "Platform", "Virtio"]),
        module("VhostUser", ["CWire", "Platform", "Virtio"]),
        module("Custody", ["CLinux", "CWire", "Platform"]),
        module(
            "BlockTarget",
            ["CWire", "CLinux", "Platform", "Telemetry", "Uring", "Virtio", "Inflight", "Custody"]),
        module(
            "FileTarget",
            ["CWire", "CLinux", "Platform", "Telemetry", "Uring", "Virtio", "Inflight", "Custody"]),
        module(
            "WorkerRuntime",
            [
                "Platform", "Telemetry", "Uring", "Virtio", "Inflight", "VhostUser", "Custody", "BlockTarget",
                "FileTarget", "CLinux", "CWire", log,
            ],
            // A loop and what it serves are both owners: `LoopService` names non-copyable queues.
            [.enableExperimentalFeature("SuppressedAssociatedTypes")]),
        module(
            "WorkerProgram", ["CLinux", "Platform", "Telemetry", "BlockTarget", "FileTarget", "WorkerRuntime", log]),
        .executableTarget(
            name: "baton-worker", dependencies: ["WorkerProgram", "WorkerRuntime"], swiftSettings: settings),

        // Custody of what outlives workers: knows no device, ring or protocol
        module("SupervisorRuntime", ["CLinux", "CSystemd", "Custody", "Platform", "Telemetry"]),
        module("ControlAPI"),
        // Files that say which devices there are: the supervisor and the operator's command read them alike
        module("Configuration", ["ControlAPI", "Platform", .product(name: "TOMLKit", package: "TOMLKit")]),
        .executableTarget(
            name: "batond",
            dependencies: [
                "Configuration", "ControlAPI", "Platform", "SupervisorRuntime", "Telemetry", argumentParser, log,
            ] + nio,
            swiftSettings: settings),
        .executableTarget(
            name: "baton", dependencies: ["CLinux", "Configuration", "ControlAPI", "Platform", argumentParser],
            swiftSettings: settings),

        // The other side
        module("FrontendKit", ["CWire", "Platform", "Virtio", "VhostUser"]),
        .target(name: "CStoreWatch"),
        module(
            "SimulationKit",
            [
                "BlockTarget", "CLinux", "CStoreWatch", "CWire", "Custody", "Inflight", "Platform", "Telemetry",
                "Uring",
                "Virtio",
            ]),

        // What fuzzers run: pure functions, so that tests run their corpora too
        module(
            "FuzzTargets",
            ["BlockTarget", "CWire", "FileTarget", "Platform", "SimulationKit", "Uring", "VhostUser", "Virtio"]),

        tests(of: "Platform", ["TestSupport"]),
        // The kernel's virtio headers, to compare our own with
        .target(name: "CKernelHeaders", dependencies: ["CWire"], path: "Tests/CKernelHeaders"),
        tests(of: "Virtio", ["CKernelHeaders", "Platform", "SimulationKit", "TestSupport"]),
        tests(of: "Custody", ["Platform"]),
        tests(of: "Uring", ["CLiburing", "CLinux", "Custody", "Platform", "TestSupport"]),
        tests(
            of: "BlockTarget",
            ["CLinux", "CWire", "Custody", "Platform", "SimulationKit", "Telemetry", "TestSupport", "Uring", "Virtio"]),
        tests(
            of: "FileTarget",
            [
                "CLinux", "CStoreWatch", "CWire", "Custody", "Inflight", "Platform", "SimulationKit", "Telemetry",
                "TestSupport", "Uring", "Virtio",
            ]),
        tests(of: "VhostUser", ["CWire", "Platform", "Virtio"]),
        .target(
            name: "TestSupport", dependencies: ["CWire", "FrontendKit", "Platform"], path: "Tests/TestSupport",
            swiftSettings: settings),
        // Workers that are killed at chosen moments: for the tests, and as a program (Scripts/kills)
        .target(name: "CTrace", path: "Tests/Kills/CTrace"),
        .target(
            name: "KillKit", dependencies: ["CTrace", "CWire", "FrontendKit", "Platform", "TestSupport", "Virtio"],
            path: "Tests/Kills/KillKit", swiftSettings: settings),
        .executableTarget(
            name: "baton-kills", dependencies: ["FrontendKit", "KillKit", "Platform", "TestSupport"],
            path: "Tests/Kills/baton-kills", swiftSettings: settings),
        tests(of: "FrontendKit", ["Platform", "TestSupport", "VhostUser", "Virtio"]),
        tests(of: "Inflight", ["CWire", "Platform", "Virtio"]),
        tests(
            of: "WorkerRuntime",
            ["BlockTarget", "FrontendKit", "Platform", "Telemetry", "Uring", "VhostUser", "Virtio", log]),
        tests(of: "SimulationKit", ["CWire", "TestSupport"]),
        tests(of: "Telemetry", ["ControlAPI", "Platform", "SimulationKit", "TestSupport"]),
        // The real program, as a process
        .testTarget(
            name: "WorkerTests",
            dependencies: [
                "baton-worker", "CLinux", "FrontendKit", "KillKit", "Platform", "TestSupport", "VhostUser", "Virtio",
            ],
            swiftSettings: settings),
        // A load that a script steers: Scripts/service-test
        .executableTarget(
            name: "baton-load", dependencies: ["FrontendKit", "Platform", "TestSupport"],
            path: "Tests/Service/baton-load", swiftSettings: settings),
        // Workers that serve nothing, and fail as they are told
        .executableTarget(
            name: "scripted-worker", dependencies: ["Custody", "Platform"], path: "Tests/ScriptedWorker",
            swiftSettings: settings),
        // Workers that a guest has taken over
        .target(name: "CAttacks", path: "Tests/HostileWorker/CAttacks"),
        .executableTarget(
            name: "hostile-worker", dependencies: ["CAttacks", "Custody", "Platform"],
            path: "Tests/HostileWorker/hostile-worker", swiftSettings: settings),
        // A worker of another version, whose session record has a field more
        .executableTarget(
            name: "next-worker", dependencies: ["Custody", "Platform", "WorkerProgram", "WorkerRuntime"],
            path: "Tests/NextWorker", swiftSettings: settings),
        // The real programs, as processes
        .testTarget(
            name: "SupervisorTests",
            dependencies: [
                "CAttacks", "CLinux", "CWire", "ControlAPI", "baton", "batond", "scripted-worker", "hostile-worker",
                "baton-worker",
                "next-worker",
                "FrontendKit",
                "KillKit", "Platform", "TestSupport", "VhostUser",
            ],
            swiftSettings: settings),
        // Workers that are killed and upgraded under a supervisor: for the tests, and as a program (Scripts/chaos)
        .target(
            name: "ChaosKit",
            dependencies: ["ControlAPI", "Custody", "FrontendKit", "KillKit", "Platform", "TestSupport", "Virtio"],
            path: "Tests/Chaos/ChaosKit", swiftSettings: settings),
        // A file system compared with the kernel's own: for the tests, and as a program (Scripts/share/check)
        .target(name: "CFileCalls", path: "Tests/Files/CFileCalls"),
        .target(
            name: "FileCheckKit", dependencies: ["CFileCalls", "FrontendKit", "Platform", "TestSupport"],
            path: "Tests/Files/FileCheckKit", swiftSettings: settings),
        .executableTarget(
            name: "baton-share-check", dependencies: ["FileCheckKit", "FrontendKit", "Platform", "TestSupport"],
            path: "Tests/Files/baton-share-check", swiftSettings: settings),
        .testTarget(
            name: "ShareCheckTests",
            dependencies: ["baton-worker", "FileCheckKit", "FrontendKit", "Platform", "TestSupport"],
            swiftSettings: settings),
        .executableTarget(
            name: "baton-chaos", dependencies: ["ChaosKit", "Platform"], path: "Tests/Chaos/baton-chaos",
            swiftSettings: settings),
        .testTarget(
            name: "TakeOverTests", dependencies: ["baton-worker", "batond", "ChaosKit", "TestSupport"],
            swiftSettings: settings),
        tests(of: "Configuration", ["ControlAPI", "FileTarget", "SupervisorRuntime", "Telemetry", "TestSupport"]),
        tests(of: "SupervisorRuntime", ["Custody", "FrontendKit", "Platform", "TestSupport"]),
        tests(of: "FuzzTargets"),
    ]
)
