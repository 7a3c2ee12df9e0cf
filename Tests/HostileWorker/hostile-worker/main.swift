import CAttacks
import Custody
import Glibc
import Platform

// A worker as a guest would have it that has taken it over: it confines itself as every worker does, before it hears
// anything, takes the device, and then does what the serial number of its disk, or the tag of its share, names (see
// attacks.c; `forge` sends the supervisor what no worker would). It says what came of it, if it lives to tell.

func option(_ name: String, in words: [String] = CommandLine.arguments) -> String? {
    words.first { $0.hasPrefix("--\(name)=") }.map { String($0.dropFirst(name.count + 3)) }
}

/// Messages that no worker would send: of the wrong kind, order, role and length.
func forge(_ channel: borrowing CustodyChannel) {
    let kinds: [CustodyMessageKind] = [
        .ready, .active, .frozen, .settled, .disconnected, .kept, .prepare, .give, .quit,
        CustodyMessageKind(rawValue: 999),
    ]
    for kind in kinds {
        try? channel.send(CustodyMessage(kind, value: .max, text: "forged"))
    }
    for role in 0..<40 as Range<UInt16> {
        let key = CustodyKey(CustodyRole(rawValue: role), 4095)
        try? channel.send(CustodyMessage(.keep, key, value: 1), with: 2)
        try? channel.send(CustodyMessage(.keep, key, value: 1))
        try? channel.send(CustodyMessage(.release, CustodyKey(CustodyRole(rawValue: role)), value: 1))
    }
    for count in [1, 15, 4096] {
        let bytes = [UInt8](repeating: 0xff, count: count)
        _ = unsafe send(channel.fd.number, bytes, count, Int32(MSG_NOSIGNAL))
    }
}

struct Hostile: ~Copyable {
    let channel: CustodyChannel
    let ring: Int32

    consuming func run() throws {
        var file: OwnedFD?
        var process = getpid()
        while true {
            _ = waitForInput(channel.fd.number)
            guard case .message(let message, var fds) = try channel.receive() else { continue }
            if message.kind == .give, message.key.role == .record { file = fds.takeFirst() }
            guard message.kind == .prepare else { continue }
            if message.value > 0 { process = Int32(truncatingIfNeeded: message.value) }
            guard let file = file.take() else { exit(3) }
            let words = message.text.split(separator: "\n").map(String.init)
            let name = option("serial", in: words) ?? option("tag", in: words) ?? ""
            try takeOver(try SessionRecord(file), process, name)
        }
    }

    borrowing func takeOver(_ record: SessionRecord, _ process: Int32, _ name: String) throws {
        let sentinel = try Sentinel(record)
        try channel.send(CustodyMessage(.ready, value: 1 | 1 << 16 | 1 << 32, text: "hostile"))
        sentinel.acquire()
        while try sentinel.takeAcquisition() == nil { _ = waitForInput(sentinel.acquiredDescriptor) }
        let generation = try record.claim(from: record.owner, process: process)
        record.noteFatalSignals(generation)
        try channel.send(CustodyMessage(.active, value: generation))
        if name == "forge" { forge(channel) }
        let result = unsafe name == "forge" ? 0 : attack(name, ring, record.ringParameters(0), 1)
        try channel.send(CustodyMessage(.event, text: "attack \(name): \(result) "))
        while true {
            _ = waitForInput(channel.fd.number)
            switch try channel.receive() {
            case .message(let message, _): if message.kind == .quit { exit(0) }
            case .closed: exit(0)
            case .nothing: break
            case .unreadable: break
            }
        }
    }
}

guard let channel = option("custody").flatMap({ Int32($0) }),
    let ring = option("rings")?.split(separator: ",").first.flatMap({ Int32($0) })
else { exit(2) }
let words = (option("confine") ?? "").split(separator: ",")
let numbers = words.dropFirst().compactMap { UInt32($0) }
try noteFatalSignals()
let share = option("share").flatMap { Int32($0) }
_ = try Confinement(user: numbers.first, group: numbers.last, isInRoom: words.first == "room").apply(root: share)
try limitSystemCalls(to: share == nil ? .custody : .share)
try Hostile(channel: CustodyChannel(owning: OwnedFD(owning: channel)), ring: ring).run()
