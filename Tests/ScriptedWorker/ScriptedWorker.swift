import Custody
import Glibc
import Platform

// A worker that serves nothing and does as its file's name says, so that a supervisor can be tried with builds that
// fail: `refuses`, `mute` (never ready), `other-record` (reads other records), `traps` (when it gets the device),
// `traps-later` (when it is told to keep something), else a good one, whose version is its name.
//
// The test reaches it through the front-end's connection: each byte that is sent there is answered by the number of
// kicks in custody, as a digit; `k` gives one more first, `x` ends the connection.

func fileName() -> String {
    unsafe withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
        let count = unsafe readlink("/proc/self/exe", buffer.baseAddress!, buffer.count)
        let path = unsafe String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
        return path.split(separator: "/").last.map { String($0) } ?? ""
    }
}

func option(_ name: String) -> String? {
    CommandLine.arguments.first { $0.hasPrefix("--\(name)=") }.map { String($0.dropFirst(name.count + 3)) }
}

final class ScriptedWorker {
    let name = fileName()
    let channel: CustodyChannel
    var held: [CustodyKey: OwnedFDBox] = [:]
    var record: SessionRecord?
    var sentinel: Sentinel?
    var generation: UInt64 = 0
    /// As the supervisor numbers it.
    var process = getpid()
    /// An answer to the front-end counts as a request returned.
    var account: QueueAccount?
    /// The value of the `keep` that has no answer yet.
    var awaited: UInt64?
    var keeps: UInt64 = 0

    final class OwnedFDBox {
        let fd: OwnedFD
        init(_ fd: consuming OwnedFD) { self.fd = fd }
    }

    init(channel number: Int32) { channel = CustodyChannel(owning: OwnedFD(owning: number)) }

    var hasDevice: Bool { generation != 0 }

    func say(_ kind: CustodyMessageKind, _ key: CustodyKey = CustodyKey(.record), value: UInt64 = 0, text: String = "")
    {
        try? channel.send(CustodyMessage(kind, key, value: value, text: text))
    }

    func run() throws {
        while true {
            var numbers = [channel.fd.number]
            if let sentinel { numbers.append(sentinel.acquiredDescriptor) }
            let connection = held[CustodyKey(.connection)]?.fd.number ?? -1
            if hasDevice { numbers.append(connection) }
            let ready = waitForAny(numbers)
            if ready.contains(channel.fd.number), try !listen() { return }
            if let sentinel, ready.contains(sentinel.acquiredDescriptor) { try takeUp(sentinel) }
            if hasDevice, ready.contains(connection) { serve(connection) }
        }
    }

    /// - Returns: false at the end.
    func listen() throws -> Bool {
        switch try channel.receive() {
        case .nothing: return true
        case .unreadable: return true
        case .closed:
            // Whoever has the device goes on without a supervisor.
            if !hasDevice { return false }
            pause(milliseconds: 10)
            return true
        case .message(let message, var fds):
            switch message.kind {
            case .give: if let fd = fds.takeFirst() { held[message.key] = OwnedFDBox(fd) }
            case .drop: held[message.key] = nil
            case .prepare:
                if message.value > 0 { process = Int32(message.value) }
                return try prepare()
            case .kept:
                // Comes twice when a supervisor has died between sending it and noting that it has.
                guard awaited == message.value else { return true }
                awaited = nil
                if let connection = held[CustodyKey(.connection)]?.fd.number { answer(connection) }
                if name.hasPrefix("traps-later") { abort() }
            case .freeze:
                giveUp()
                say(.frozen)
            case .thaw: sentinel?.acquire()
            case .quit:
                if hasDevice { giveUp() }
                return false
            default: break
            }
            return true
        }
    }

    func giveUp() {
        record?.noteFatalSignals(nil)
        record?.release(generation)
        generation = 0
        account = nil
        sentinel?.release()
    }

    func prepare() throws -> Bool {
        if name.hasPrefix("refuses") {
            say(.refused, text: "this build refuses everything")
            exit(1)
        }
        if name.hasPrefix("mute") { return true }
        guard let file = held[CustodyKey(.record)] else { return false }
        let record = try SessionRecord(file.fd)
        let sentinel = try Sentinel(record)
        self.record = record
        self.sentinel = sentinel
        say(.ready, value: name.hasPrefix("other-record") ? 7 | 7 << 16 | 7 << 32 : 1 | 1 << 16 | 1 << 32, text: name)
        sentinel.acquire()
        return true
    }

    func takeUp(_ sentinel: Sentinel) throws {
        guard try sentinel.takeAcquisition() != nil, let record else { return }
        generation = try record.claim(from: record.owner, process: process)
        record.noteFatalSignals(generation)
        account = QueueAccount(record, queue: 0, ring: 0)
        if name.hasPrefix("traps"), !name.hasPrefix("traps-later") { abort() }
        say(.active, value: generation)
        say(.settled)
    }

    func serve(_ connection: Int32) {
        var byte: UInt8 = 0
        guard unsafe recv(connection, &byte, 1, Int32(MSG_DONTWAIT)) == 1, byte != UInt8(ascii: "x") else {
            held = held.filter { $0.key.role == .record || $0.key.role == .image }
            say(.disconnected, text: "the front-end has gone")
            return
        }
        guard byte == UInt8(ascii: "k") else { return answer(connection) }
        let key = CustodyKey(.kick, UInt16(held.count))
        guard let event = try? EventFD(), let copy = try? event.fd.duplicate() else { return }
        held[key] = OwnedFDBox(copy)
        // Answered when it is in custody.
        keeps += 1
        awaited = keeps
        try? channel.send(CustodyMessage(.keep, key, value: keeps), with: event.fd.number)
    }

    func answer(_ connection: Int32) {
        let count = held.keys.count { $0.role == .kick }
        var answer = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: count)
        _ = unsafe send(connection, &answer, 1, Int32(MSG_NOSIGNAL))
        account?.giveBack()
        account?.publish()
    }
}

@main
enum Main {
    static func main() throws {
        guard let text = option("custody"), let number = Int32(text) else { exit(2) }
        try noteFatalSignals()
        try ScriptedWorker(channel: number).run()
    }
}
