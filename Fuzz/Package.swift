// swift-tools-version: 6.2
import PackageDescription

/// The fuzz targets, in a package of their own: they link only with the fuzzer's runtime, which `Scripts/fuzz` asks
/// for. What they run is the module FuzzTargets of the package above, whose tests run the corpora too.
func fuzzTarget(_ name: String) -> Target {
    .executableTarget(
        name: name, dependencies: ["CLibFuzzer", .product(name: "FuzzTargets", package: "baton")],
        swiftSettings: [
            .swiftLanguageMode(.v6),
            .strictMemorySafety(),
            .treatAllWarnings(as: .error),
        ])
}

let package = Package(
    name: "baton-fuzz",
    dependencies: [.package(name: "baton", path: "..")],
    targets: [
        .target(name: "CLibFuzzer"),
        fuzzTarget("fuzz-vhost-user"),
        fuzzTarget("fuzz-block-request"),
        fuzzTarget("fuzz-fuse-request"),
    ]
)
