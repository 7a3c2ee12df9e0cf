import Configuration
import ControlAPI
import Platform
import SupervisorRuntime
import Telemetry
import Testing

/// The documentation and the supervisor say the same as the schema.
@Suite struct DocumentationTests {
    private var tree: String {
        #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
    }

    @Test func `docs/configuration.md has the table of all keys, of each kind of device`() throws {
        let text = try #require(readFile("\(tree)/docs/configuration.md", limit: 1 << 20))
        for kind in DeviceKind.allCases {
            let table = ConfigurationKey.documentation(of: kind)
            let isThere = text.contains("\n\n\(table)\n")
            #expect(isThere, "the table of a \(kind.rawValue) is to be:\n\(table)")
        }
    }

    @Test func `the example in the documentation is a configuration`() throws {
        let text = try #require(readFile("\(tree)/docs/configuration.md", limit: 1 << 20))
        let blocks = text.split(separator: "```").filter { $0.hasPrefix("toml\n") }.map { String($0.dropFirst(5)) }
        #expect(!blocks.isEmpty)
        for block in blocks {
            #expect(ConfigurationContent([ConfigurationText(path: "example", text: block)]).problems.isEmpty)
        }
    }

    @Test func `ranges are those of the supervisor`() {
        func isValid(_ change: (inout DeviceConfiguration) -> Void) -> Bool {
            var configuration = DeviceConfiguration(name: "d", socketPath: "/s", imagePath: nil)
            configuration.queueCount = 64
            change(&configuration)
            return (try? configuration.validate()) != nil
        }
        func isRead(_ line: String) -> Bool {
            let text = "[disk.d]\nnull = true\n\(line.hasPrefix("queues") ? "" : "queues = 64\n")\(line)\n"
            return !ConfigurationContent([ConfigurationText(path: "a", text: text)]).hasErrors
        }
        for value in [0, 1, 64, 65] {
            #expect(isRead("queues = \(value)") == isValid { $0.queueCount = value })
        }
        for value in [1, 2, 1024, 1025] {
            #expect(isRead("queue-size = \(value)") == isValid { $0.queueSize = value })
        }
        for value in [0, 1, 15, 16] { #expect(isRead("threads = \(value)") == isValid { $0.threadCount = value }) }
        for value in [0, 512, 1024, 4096] {
            #expect(isRead("block-size = \(value)") == isValid { $0.blockSize = value })
        }
        for value in [-1, 0, 1_000_000, 1_000_001] {
            #expect(isRead("poll-us = \(value)") == isValid { $0.pollMicroseconds = value })
        }
        for value in [-1, 0, 4095, 4096] { #expect(isRead("cpus = [\(value)]") == isValid { $0.cpus = [value] }) }
        for value in [0, 1, 10000, 10001] {
            #expect(isRead("cpu-weight = \(value)") == isValid { $0.limits = ResourceLimits(cpuWeight: value) })
            #expect(isRead("io-weight = \(value)") == isValid { $0.limits = ResourceLimits(ioWeight: value) })
        }
        for value in [1, 10_000_000, 10_000_001] as [UInt64] {
            #expect(isRead("limit = { iops = \(value) }") == isValid { $0.rates = RateLimits(operations: value) })
        }
        for value in [4095, 4096, 1 << 40, 1 << 40 + 1] as [UInt64] {
            #expect(isRead("limit = { bandwidth = \(value) }") == isValid { $0.rates = RateLimits(bandwidth: value) })
        }
        for count in [20, 21] {
            let serial = String(repeating: "x", count: count)
            #expect(isRead("serial = \"\(serial)\"") == isValid { $0.serial = serial })
        }
        for count in [106, 107] {
            let path = "/" + String(repeating: "x", count: count - 1)
            #expect(isRead("socket = \"\(path)\"") == isValid { $0.socketPath = path })
        }
        for name in ["a", ".a", "a b", "a.b", String(repeating: "a", count: 64), String(repeating: "a", count: 65)] {
            let text = "[disk.\"\(name)\"]\nnull = true"
            let isRead = !ConfigurationContent([ConfigurationText(path: "a", text: text)]).hasErrors
            #expect(isRead == isValid { $0.name = name })
        }
    }
}
