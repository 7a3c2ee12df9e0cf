internal import ArgumentParser
internal import ControlAPI
internal import Foundation
internal import Glibc
internal import Platform

/// A connection to the supervisor.
final class Client {
    private let stream: UnixStream
    private var pending: [UInt8] = []
    private var lastID = 0

    /// - Throws: a sentence when no supervisor listens.
    init(_ options: ConnectionOptions) throws(SystemError) {
        do throws(Errno) {
            stream = try Self.connect(to: options.controlSocket)
        } catch {
            let advice =
                switch error {
                case .noEntry, .connectionRefused: "Start batond first, or say where it listens: --control-socket"
                case .permissionDenied: "Ask for access to the socket's group, or use sudo"
                default: ""
                }
            throw SystemError(cannot: "connect to", options.controlSocket, error, advice: advice)
        }
    }

    /// A supervisor that was killed has left its socket, and is started again in a moment: it is waited for.
    private static func connect(to path: String) throws(Errno) -> UnixStream {
        let end = monotonicNanoseconds() + 2_000_000_000
        while true {
            do throws(Errno) {
                return try UnixStream(connectingTo: path, milliseconds: 5_000)
            } catch {
                guard error == .connectionRefused, monotonicNanoseconds() < end else { throw error }
            }
            pause(milliseconds: 20)
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// - Parameter notified: told of each notification that comes before it.
    func call<Result: Decodable>(
        _ method: ControlMethod, _ parameters: some Encodable, as type: Result.Type,
        notified: (Data) throws -> Void = { _ in }
    ) throws -> Result {
        lastID += 1
        let request = try JSONRPC.encode(method.rawValue, parameters, id: lastID)
        try unsafe request.withUnsafeBytes { try unsafe stream.send($0) }
        while true {
            let line = try nextLine()
            if (try? JSONRPC.head(of: line)) != nil {
                try notified(line)
            } else {
                return try JSONRPC.result(of: line, as: type)
            }
        }
    }

    /// Tells of each notification, for ever.
    func follow(_ notified: (Data) throws -> Void) throws -> Never {
        while true { try notified(try nextLine()) }
    }

    /// Returns when the supervisor has closed the connection, by throwing.
    func waitForEnd() throws {
        while true { _ = try nextLine() }
    }

    private func nextLine() throws -> Data {
        var searched = 0
        while true {
            if let end = pending[searched...].firstIndex(of: UInt8(ascii: "\n")) {
                let line = Data(pending[..<end])
                pending.removeSubrange(...end)
                return line
            }
            searched = pending.count
            var buffer = [UInt8](repeating: 0, count: 65536)
            let count = try unsafe buffer.withUnsafeMutableBytes { bytes throws(Errno) in
                try unsafe stream.receive(into: bytes).byteCount
            }
            guard count > 0 else {
                throw SystemError(cannot: "go on", "", nil, advice: "The supervisor has closed the connection")
            }
            pending += buffer[..<count]
        }
    }
}

/// What every command understands.
struct ConnectionOptions: ParsableArguments {
    @Option(help: "Where batond listens.")
    var controlSocket = "/run/baton/control.sock"

    @Flag(help: "Print JSON, one object a line.")
    var json = false

    /// Runs a command; what goes wrong is said in a sentence, with exit status 1.
    func run(_ body: (Client) throws -> Void) throws {
        do {
            try body(try Client(self))
        } catch let code as ExitCode {
            throw code
        } catch {
            printText("baton: \(error)\n", to: STDERR_FILENO)
            throw ExitCode(1)
        }
    }
}

/// Prints a value as JSON, on one line.
func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    printText(String(decoding: try encoder.encode(value), as: UTF8.self) + "\n", to: STDOUT_FILENO)
}

/// A path that the supervisor understands, wherever it was started.
func absolute(_ path: String) -> String {
    path.hasPrefix("/") ? path : "\(FileManager.default.currentDirectoryPath)/\(path)"
}
