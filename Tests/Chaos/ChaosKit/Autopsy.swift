internal import Custody
internal import Glibc
internal import Platform
internal import Synchronization
internal import TestSupport

/// What can be seen of workers that have come to a standstill, for whoever looks for the reason: where each thread is,
/// what the kernel has of each ring, and whose the device is.
enum Autopsy {
    /// - Parameter supervisor: its process; all that it has started are looked at, too.
    static func report(on supervisor: Int32) -> String {
        ([supervisor] + children(of: supervisor)).map { process in
            let threads = TestFile.names(in: "/proc/\(process)/task").sorted().map { thread(Int32($0) ?? 0, process) }
            let files = TestFile.names(in: "/proc/\(process)/fdinfo").sorted().compactMap { ring($0, process) }
            let lines = ["process \(process)"] + threads + files + [record(of: process)].compactMap(\.self)
            return lines.joined(separator: "\n  ")
        }.joined(separator: "\n")
    }

    private static func children(of process: Int32) -> [Int32] {
        TestFile.names(in: "/proc/\(process)/task").flatMap { thread in
            (readSmallFile("/proc/\(process)/task/\(thread)/children") ?? "").split(separator: " ").compactMap {
                Int32($0)
            }
        }
    }

    private static func thread(_ thread: Int32, _ process: Int32) -> String {
        let place = "/proc/\(process)/task/\(thread)"
        func line(_ file: String) -> String { (readSmallFile("\(place)/\(file)") ?? "").replacing("\n", with: " ") }
        let state = line("stat").split(separator: ")").last?.prefix(2) ?? ""
        // Nanoseconds on a CPU, nanoseconds waiting for one, turns.
        return
            "\(thread) \(line("comm"))\(state) schedstat \(line("schedstat")) call \(line("syscall")) "
            + "stack \(line("stack"))"
    }

    /// The counters of an io_uring; nil for another file.
    private static func ring(_ number: String, _ process: Int32) -> String? {
        let text = readFile("/proc/\(process)/fdinfo/\(number)", limit: 1 << 16) ?? ""
        guard text.contains("CachedSqHead:") else { return nil }
        let lines = text.split(separator: "\n").map { $0.replacing("\t", with: " ") }
        return "ring \(number): " + lines.prefix(96).joined(separator: "; ")
    }

    /// Whose the device is, as the session record says that the process has open; nil when it has none.
    private static func record(of process: Int32) -> String? {
        for number in TestFile.names(in: "/proc/\(process)/fd") {
            let place = "/proc/\(process)/fd/\(number)"
            guard linkTarget(of: place).hasPrefix("/memfd:baton-session") else { continue }
            let file = unsafe open(place, O_RDWR | O_CLOEXEC)
            guard file >= 0, let record = try? SessionRecord(OwnedFD(owning: file)) else { continue }
            return "record: owner \(record.owner) of \(record.lastGeneration), process \(record.ownerProcess), "
                + "threads \(record.ownerThreads), returned \(record.returnedCount)"
        }
        return nil
    }

    private static func linkTarget(of path: String) -> String {
        unsafe withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
            let count = unsafe readlink(path, buffer.baseAddress!, buffer.count)
            return unsafe String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
        }
    }
}

/// Takes a look at everything when nothing has gone on for a long time, and again while that lasts.
final class StandstillWatch: Sendable {
    private let lastStep = Atomic<UInt64>(monotonicNanoseconds())
    private let isOver = Atomic<Bool>(false)
    private let found = Mutex<[String]>([])

    /// In nanoseconds: shorter than any limit that ends what stands still.
    private static let patience: UInt64 = 8_000_000_000
    private static let mostReports = 4

    /// Watches until `end`, in a thread of the caller's.
    func run(_ supervisor: Int32) {
        var looks: UInt64 = 0
        while !isOver.load(ordering: .relaxed), reports.count < Self.mostReports {
            pause(milliseconds: 50)
            let stood = monotonicNanoseconds() - lastStep.load(ordering: .relaxed)
            if stood < Self.patience { looks = 0 }
            guard stood > Self.patience * (looks + 1) else { continue }
            looks += 1
            let report = "nothing has gone on for \(stood / 1_000_000) ms:\n\(Autopsy.report(on: supervisor))"
            found.withLock { $0.append(report) }
        }
    }

    /// Something has gone on.
    func step() { lastStep.store(monotonicNanoseconds(), ordering: .relaxed) }

    func end() { isOver.store(true, ordering: .relaxed) }

    /// What it saw; empty when it never had to look.
    var reports: [String] { found.withLock(\.self) }
}
