internal import Glibc
public import Platform

/// A program that a test runs: started, watched, and always ended. What it prints goes to a file beside the test's own.
public struct Program: ~Copyable, Sendable {
    private var process: ChildProcess
    private let name: String
    private let logPath: String

    /// Starts a program, found along PATH.
    ///
    /// - Parameter directory: where its output goes.
    /// - Throws: a sentence that names the program, when it is not installed.
    public init(_ name: String, _ arguments: [String], in directory: borrowing TemporaryDirectory) throws(SystemError) {
        self.name = name
        logPath = directory.file("\(name.split(separator: "/").last ?? "program").log")
        let output = try TestFile.openForAppending(logPath)
        process = try ChildProcess(name, arguments, output: output)
    }

    public var pid: Int32 { process.pid }

    /// Everything that it has printed, up to 64 KiB.
    public var output: String {
        do throws(SystemError) {
            return String(decoding: try TestFile.read(logPath, count: 65536), as: UTF8.self)
        } catch {
            return "\(error)"
        }
    }

    /// Sends a signal.
    public borrowing func send(signal: Int32) { process.send(signal: signal) }

    /// Waits for the end; nil when the time was over first.
    @discardableResult
    public mutating func wait(milliseconds: Int32) -> ChildProcess.Ending? {
        process.wait(milliseconds: milliseconds)
    }

    /// Waits until a file appears, a socket for instance, as long as the program runs.
    ///
    /// - Throws: what the program printed, when it ended instead or the time was over.
    public mutating func waitForFile(_ path: String, milliseconds: Int32 = 120_000) throws(SystemError) {
        let end = monotonicNanoseconds() + UInt64(milliseconds) * 1_000_000
        while !TestFile.exists(path) {
            let ended = wait(milliseconds: 2) != nil
            if ended || monotonicNanoseconds() > end {
                let what = ended ? "\(name) ended" : "\(name) did not make it within \(milliseconds) ms"
                throw SystemError(cannot: "find", path, nil, advice: "\(what). It printed: \(output)")
            }
        }
    }

    /// Asks it to end with SIGTERM, and kills it if it does not.
    public mutating func stop() {
        send(signal: SIGTERM)
        guard wait(milliseconds: 5_000) == nil else { return }
        send(signal: SIGKILL)
        wait(milliseconds: 5_000)
    }
}
