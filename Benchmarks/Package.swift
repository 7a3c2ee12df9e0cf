// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that who builds Baton needs neither argument parsing nor the baseline's C.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
    name: "benchmarks",
    dependencies: [
        .package(name: "baton", path: ".."),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    ],
    targets: [
        .target(name: "CCeiling", linkerSettings: [.linkedLibrary("uring")]),
        .executableTarget(
            name: "baton-bench",
            dependencies: [
                "CCeiling",
                .product(name: "FrontendKit", package: "baton"),
                .product(name: "Platform", package: "baton"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings),
        .executableTarget(
            name: "baton-cost",
            dependencies: [
                .product(name: "FrontendKit", package: "baton"),
                .product(name: "Platform", package: "baton"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings),
        .executableTarget(
            name: "baton-scale",
            dependencies: [
                .product(name: "FrontendKit", package: "baton"),
                .product(name: "Platform", package: "baton"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings),
    ]
)
