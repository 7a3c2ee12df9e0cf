import ControlAPI
import Foundation
import Glibc
import Platform
import TestSupport
import Testing

/// The metrics as scrapers get them.
@Suite(.serialized) struct MetricsTests {
    private struct Response {
        var status: Int
        var headers: String
        var body: String
    }

    /// A supervisor with a served disk, a null disk, and metrics at both kinds of places.
    private func makeSupervisor() throws -> SupervisorProcess {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        let socket = directory.value.file("metrics.sock")
        let supervisor = try SupervisorProcess(
            worker: WorkerProcess.executable, ["--metrics-socket", socket, "--metrics-listen", "127.0.0.1:0"],
            in: directory)
        let image = directory.value.file("disk.img")
        try TestFile.create(image, count: 1 << 20)
        _ = try supervisor.baton("create", "disk", "d", "--file", image, "--cache", "buffered")
        _ = try supervisor.baton("create", "disk", "n-0", "--null", "--queues", "2")
        _ = try supervisor.wait("d", "a standby") { $0.isStaffed }
        _ = try supervisor.wait("n-0", "a standby") { $0.isStaffed }
        return supervisor
    }

    private func connect(_ supervisor: borrowing SupervisorProcess) throws -> UnixStream {
        try UnixStream(connectingTo: supervisor.directory.value.file("metrics.sock"), milliseconds: 5_000)
    }

    private func receive(_ stream: borrowing UnixStream) throws -> String {
        guard waitForInput(stream.fd.number, milliseconds: 20_000) else { throw Errno.timedOut }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 1)
        defer { unsafe buffer.deallocate() }
        let count = try unsafe stream.receive(into: buffer).byteCount
        return unsafe String(decoding: buffer[..<count], as: UTF8.self)
    }

    /// Waits for what comes next, and whether that is the end.
    private func isClosed(_ box: StreamBox) -> Bool {
        do {
            return try receive(box.stream).isEmpty
        } catch {
            return error as? Errno != .timedOut
        }
    }

    private func send(_ text: String, to stream: borrowing UnixStream) throws {
        let bytes = Array(text.utf8)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
        defer { unsafe buffer.deallocate() }
        unsafe buffer.copyBytes(from: bytes)
        try unsafe stream.send(UnsafeRawBufferPointer(buffer))
    }

    /// Asks, and reads the answer by its length.
    private func ask(
        _ stream: borrowing UnixStream, _ method: String = "GET", _ path: String = "/metrics"
    ) throws -> Response {
        try send("\(method) \(path) HTTP/1.1\r\nHost: here\r\n\r\n", to: stream)
        var text = ""
        while !text.contains("\r\n\r\n") { text += try receive(stream) }
        let end = try #require(text.range(of: "\r\n\r\n"))
        let headers = String(text[..<end.lowerBound])
        let length = headers.split(separator: "\r\n").first { $0.lowercased().hasPrefix("content-length:") }
            .flatMap { Int($0.split(separator: " ")[1]) }
        var body = String(text[end.upperBound...])
        while method != "HEAD", body.utf8.count < (length ?? 0) { body += try receive(stream) }
        return Response(
            status: Int(headers.split(separator: " ")[1]) ?? 0, headers: headers.lowercased(), body: body)
    }

    private func page(_ supervisor: borrowing SupervisorProcess) throws -> String {
        try ask(connect(supervisor)).body
    }

    /// The names of all metrics of a page.
    private func names(_ page: String) -> Set<String> {
        Set(page.split(separator: "\n").filter { $0.hasPrefix("# TYPE ") }.map { String($0.split(separator: " ")[2]) })
    }

    @Test func `the page has each device, and the numbers of its status`() throws {
        var supervisor = try makeSupervisor()
        let response = try ask(connect(supervisor))
        #expect(response.status == 200)
        #expect(response.headers.contains("content-type: text/plain; version=0.0.4"))
        let lines = response.body.split(separator: "\n").map(String.init)
        for device in ["d", "n-0"] {
            #expect(lines.contains("baton_device_up{device=\"\(device)\"} 1"))
            #expect(lines.contains("baton_device_generation{device=\"\(device)\"} 1"))
            #expect(lines.contains("baton_device_requests_total{device=\"\(device)\",kind=\"read\"} 0"))
            let labels = "device=\"\(device)\",kind=\"write\",le=\"0.000008192\""
            #expect(lines.contains("baton_device_request_duration_seconds_bucket{\(labels)} 0"))
        }
        #expect(lines.contains("baton_devices 2"))
        for line in lines where !line.hasPrefix("#") {
            #expect(line.contains(/^[a-z_]+(\{[^{}]*\})? [0-9.]+$/), "\(line)")
        }
        // A device that has died once.
        _ = try supervisor.baton("kill", "d")
        _ = try supervisor.wait("d", "a take-over") { $0.isStaffed && $0.generation == 2 }
        let after = try page(supervisor)
        #expect(after.contains("baton_device_deaths_total{device=\"d\"} 1\n"), "\(after)")
        #expect(after.contains("baton_device_last_gap_seconds{device=\"d\",cause=\"death\"} 0."), "\(after)")
        try supervisor.end()
    }

    @Test func `a share counts under a file system's names`() throws {
        var supervisor = try makeSupervisor()
        let tree = supervisor.directory.value.file("tree")
        #expect(unsafe mkdir(tree, 0o755) == 0)
        #expect(try supervisor.baton("create", "share", "s", "--directory", tree).code == 0)
        let lines = try page(supervisor).split(separator: "\n").map(String.init)
        func kinds(_ device: String) -> [String] {
            let start = "baton_device_requests_total{device=\"\(device)\",kind=\""
            return lines.filter { $0.hasPrefix(start) }.map { String($0.dropFirst(start.count).prefix { $0 != "\"" }) }
        }
        #expect(kinds("s") == ["read", "write", "sync", "lookup", "change", "open", "attribute", "other"])
        #expect(kinds("d") == ["read", "write", "flush", "identify", "discard", "write_zeroes", "refused"])
        #expect(
            lines.contains { $0.hasPrefix("baton_device_request_duration_seconds_count{device=\"s\",kind=\"sync\"}") })
        try supervisor.end()
    }

    @Test func `what is no scrape is answered as HTTP asks, and a connection serves many`() throws {
        var supervisor = try makeSupervisor()
        let stream = try connect(supervisor)
        #expect(try ask(stream).status == 200)
        #expect(try ask(stream, "GET", "/").status == 404)
        #expect(try ask(stream, "GET", "/metrics?name=x").status == 200)
        #expect(try ask(stream, "POST").status == 405)
        let head = try ask(stream, "HEAD")
        #expect(head.status == 200 && head.body.isEmpty)
        #expect(try ask(stream).status == 200)
        let nonsense = try connect(supervisor)
        try send("nonsense\r\n\r\n", to: nonsense)
        #expect(try receive(nonsense).hasPrefix("HTTP/1.1 400"))
        try supervisor.end()
    }

    @Test func `connections, bytes and time are bounded`() throws {
        var supervisor = try makeSupervisor()
        // Seventeen connections: the last one is closed at once.
        let others = try (0..<16).map { _ in StreamBox(try connect(supervisor)) }
        for other in others { #expect(try ask(other.stream).status == 200) }
        let excess = StreamBox(try connect(supervisor))
        #expect(isClosed(excess))
        // One that sends without end.
        let pieces = String(repeating: "X-Filler: \(String(repeating: "x", count: 1000))\r\n", count: 20)
        try? send("GET /metrics HTTP/1.1\r\n\(pieces)", to: others[0].stream)
        #expect(isClosed(others[0]))
        // One that begins a request and stops.
        try send("GET /met", to: others[1].stream)
        #expect(isClosed(others[1]))
        // There is room again.
        #expect(try page(supervisor).contains("baton_devices 2\n"))
        try supervisor.end()
    }

    @Test func `only the loopback interface is listened at`() throws {
        let directory = TemporaryDirectoryBox(try TemporaryDirectory())
        for address in ["0.0.0.0:9753", "192.0.2.1:9753", "[::]:9753", "127.0.0.1", "localhost:x"] {
            var program = try Program(
                SupervisorProcess.executable("batond"),
                [
                    "--state-directory", directory.value.path, "--worker", WorkerProcess.executable, "--control-socket",
                    directory.value.file("control.sock"), "--metrics-listen", address,
                ], in: directory.value)
            #expect(program.wait(milliseconds: 20_000) == .exited(code: 1))
            #expect(program.output.contains("--metrics-listen is a loopback address"), "\(program.output)")
        }
    }

    // MARK: Others' programs

    private func run(_ program: String, _ arguments: [String], input: String = "") throws -> (
        code: Int32, output: String
    ) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        let (standardInput, output) = (Pipe(), Pipe())
        process.standardInput = standardInput
        process.standardOutput = output
        process.standardError = output
        try process.run()
        standardInput.fileHandleForWriting.write(Data(input.utf8))
        try standardInput.fileHandleForWriting.close()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, text)
    }

    @Test(.enabled(if: Prometheus.isThere, "left out: no promtool; Scripts/lib/prometheus fetches it"))
    func `promtool has nothing to say against the page`() throws {
        var supervisor = try makeSupervisor()
        let result = try run(try #require(Prometheus.path("promtool")), ["check", "metrics"], input: page(supervisor))
        #expect(result.code == 0 && result.output.isEmpty, "\(result.output)")
        try supervisor.end()
    }

    /// The expressions of the dashboard, as Prometheus would get them.
    private func dashboardQueries() throws -> [String] {
        let package = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }
        let file = try Data(contentsOf: URL(fileURLWithPath: package + "/share/grafana/baton.json"))
        var found: [String] = []
        func collect(_ value: Any) {
            if let list = value as? [Any] { list.forEach(collect) }
            guard let object = value as? [String: Any] else { return }
            if let query = object["expr"] as? String { found.append(query) }
            object.values.forEach(collect)
        }
        collect(try JSONSerialization.jsonObject(with: file))
        return found.map {
            $0.replacingOccurrences(of: "$__rate_interval", with: "1m").replacingOccurrences(of: "$device", with: ".*")
        }
    }

    @Test func `every query of the dashboard names metrics that there are`() throws {
        var supervisor = try makeSupervisor()
        let names = names(try page(supervisor))
        let queries = try dashboardQueries()
        #expect(queries.count > 10)
        for query in queries {
            let used = query.matches(of: /baton_[a-z_]+/).map { match in
                ["_bucket", "_sum", "_count"].reduce(String(match.output)) { name, suffix in
                    name.hasSuffix(suffix) ? String(name.dropLast(suffix.count)) : name
                }
            }
            #expect(!used.isEmpty, "\(query)")
            for name in used { #expect(names.contains(name), "\(query)") }
        }
        try supervisor.end()
    }

    @Test(.enabled(if: Prometheus.isThere, "left out: no prometheus; Scripts/lib/prometheus fetches it"))
    func `a real Prometheus scrapes it, and carries out the dashboard's queries`() throws {
        var supervisor = try makeSupervisor()
        let target = try #require(supervisor.program.output.firstMatch(of: /http:\/\/(127\.0\.0\.1:[0-9]+)\/metrics/)).1
        let directory = supervisor.directory.value.path
        let configuration = """
            scrape_configs:
              - job_name: baton
                scrape_interval: 1s
                static_configs:
                  - targets: ["\(target)"]

            """
        try configuration.write(toFile: directory + "/prometheus.yml", atomically: true, encoding: .utf8)
        let promtool = try #require(Prometheus.path("promtool"))
        let place = "127.0.0.1:\(try Prometheus.freePort())"
        var prometheus = try Program(
            try #require(Prometheus.path("prometheus")),
            [
                "--config.file=\(directory)/prometheus.yml", "--storage.tsdb.path=\(directory)/tsdb",
                "--web.listen-address=\(place)",
            ], in: supervisor.directory.value)
        defer { prometheus.stop() }
        func query(_ expression: String) throws -> (code: Int32, output: String) {
            try run(promtool, ["query", "instant", "http://\(place)", expression])
        }
        let end = monotonicNanoseconds() + 60_000_000_000
        var answer = try query("baton_devices")
        while !answer.output.contains("=> 2 "), monotonicNanoseconds() < end {
            Platform.pause(milliseconds: 200)
            answer = try query("baton_devices")
        }
        #expect(answer.output.contains("=> 2 "), "\(answer.output)\n\(prometheus.output)")
        #expect(try query("up").output.contains("=> 1 "))
        let types = try query("count({__name__=~\"baton_.+\"})")
        #expect(types.code == 0, "\(types.output)")
        for expression in try dashboardQueries() {
            let result = try query(expression)
            #expect(result.code == 0, "\(expression): \(result.output)")
        }
        try supervisor.end()
    }
}

private final class StreamBox {
    let stream: UnixStream

    init(_ stream: consuming UnixStream) { self.stream = stream }
}

/// Debian's Prometheus, found along PATH.
private enum Prometheus {
    static func path(_ program: String) -> String? {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        return folders.map { "\($0)/\(program)" }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    static var isThere: Bool { path("prometheus") != nil && path("promtool") != nil }

    /// A port of the loopback interface that nobody listens at now.
    static func freePort() throws -> Int { try #require(takePort()) }

    private static func takePort() -> Int? {
        let fd = OwnedFD(owning: Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        return unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                guard unsafe Glibc.bind(fd.number, generic, length) == 0,
                    unsafe getsockname(fd.number, generic, &length) == 0
                else { return nil }
                return unsafe Int(UInt16(bigEndian: pointer.pointee.sin_port))
            }
        }
    }
}
