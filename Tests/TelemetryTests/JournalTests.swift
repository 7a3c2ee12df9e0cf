import Glibc
import Logging
import Platform
import TestSupport
import Testing

@testable import Telemetry

/// Entries as journald gets them (systemd.io/JOURNAL_NATIVE_PROTOCOL).
@Suite struct JournalTests {
    /// A socket that receives as journald's does.
    private struct Receiver: ~Copyable {
        private let ours: OwnedFD
        let theirs: OwnedFD

        init() throws {
            var pair: [Int32] = [-1, -1]
            try #require(unsafe socketpair(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0, &pair) == 0)
            ours = OwnedFD(owning: pair[0])
            theirs = OwnedFD(owning: pair[1])
        }

        /// The fields of the next entry; nil when there is none.
        func next() -> [String: String]? {
            var bytes = [UInt8](repeating: 0, count: 1 << 16)
            let count = unsafe recv(ours.number, &bytes, bytes.count, Int32(MSG_DONTWAIT))
            guard count > 0 else { return nil }
            var rest = bytes[..<count]
            var fields: [String: String] = [:]
            while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                let line = rest[..<end]
                rest = rest[(end + 1)...]
                if let equals = line.firstIndex(of: UInt8(ascii: "=")) {
                    fields[text(line[..<equals])] = text(line[(equals + 1)...])
                } else {
                    let length = rest.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
                    fields[text(line)] = text(rest.dropFirst(8).prefix(length))
                    rest = rest.dropFirst(8 + length + 1)
                }
            }
            return fields
        }

        private func text(_ bytes: ArraySlice<UInt8>) -> String { String(decoding: bytes, as: UTF8.self) }
    }

    private func makeLog(_ journal: JournalSocket) -> Logger {
        var log = Logger(label: "baton-worker") { StandardErrorLog(label: $0, journal: journal) }
        log.logLevel = .debug
        log[metadataKey: "device"] = "d"
        return log
    }

    @Test func `an entry has the message, the priority and a field for each pair`() throws {
        let receiver = try Receiver()
        let journal = JournalSocket()
        journal.adopt(try receiver.theirs.duplicate())
        var log = makeLog(journal)
        log[metadataKey: "generation"] = "3"
        log.warning("a queue is slow", metadata: ["queue": "1", "odd key=": "=x"])
        let entry = receiver.next()
        let fields = try #require(entry)
        #expect(
            fields == [
                "MESSAGE": "a queue is slow device=d generation=3 odd key===x queue=1", "PRIORITY": "4",
                "SYSLOG_IDENTIFIER": "baton-worker", "BATON_DEVICE": "d", "BATON_GENERATION": "3", "BATON_QUEUE": "1",
                "BATON_ODD_KEY_": "=x",
            ])
        let another = receiver.next()
        #expect(another == nil)
    }

    @Test(arguments: [
        (Logger.Level.debug, "7"), (.info, "6"), (.notice, "5"), (.warning, "4"), (.error, "3"), (.critical, "2"),
    ])
    func `levels are those of syslog`(level: Logger.Level, priority: String) throws {
        let receiver = try Receiver()
        let journal = JournalSocket()
        journal.adopt(try receiver.theirs.duplicate())
        makeLog(journal).log(level: level, "x")
        let fields = receiver.next()
        #expect(fields?["PRIORITY"] == priority)
    }

    /// A peer's text must not become fields of its own.
    @Test func `a line feed begins no field`() throws {
        let receiver = try Receiver()
        let journal = JournalSocket()
        journal.adopt(try receiver.theirs.duplicate())
        makeLog(journal).error("a\nPRIORITY=0", metadata: ["name": "b\nPRIORITY=0\n"])
        let entry = receiver.next()
        let fields = try #require(entry)
        #expect(fields["PRIORITY"] == "3")
        #expect(fields["BATON_NAME"] == "b\nPRIORITY=0\n")
        #expect(fields["MESSAGE"]?.hasPrefix("a PRIORITY=0 ") == true)
    }

    @Test func `a journal that does not read is not waited for`() throws {
        let receiver = try Receiver()
        let journal = JournalSocket()
        journal.adopt(try receiver.theirs.duplicate())
        let entry = JournalEntry(level: .info, label: "x", message: String(repeating: "x", count: 8000), pairs: [:])
        var sent = 0
        while case .sent = journal.send(entry) { sent += 1 }
        #expect(sent > 0 && sent < 10_000)
        let first = receiver.next()
        #expect(first != nil)
        guard case .sent = journal.send(entry) else {
            Issue.record("there is room again")
            return
        }
    }

    @Test func `without a journal nothing is sent`() {
        let entry = JournalEntry(level: .info, label: "x", message: "x", pairs: [:])
        guard case .impossible = JournalSocket().send(entry) else {
            Issue.record("where to?")
            return
        }
    }
}
