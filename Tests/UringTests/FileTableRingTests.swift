import Custody
import Glibc
import Platform
import Testing

@testable import Uring

/// The table in which a share's open files outlive its workers.
@Suite("A ring's table of files")
struct FileTableRingTests {
    @Test func `a file that a worker before has left behind is closed, with its lock`() throws {
        let kept: KernelRing
        do {
            kept = try KernelRing(entries: 8, completions: 8, for: .files(8))
        } catch {
            return print("not tried: \(error)")
        }
        let parameters = kept.parameters
        let name = "/tmp/baton-table-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        defer { unsafe unlink(name) }
        func open() -> OwnedFD { OwnedFD(owning: unsafe Glibc.open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)) }
        do {
            let locked = open()
            let plain = open()
            #expect(flock(locked.number, LOCK_EX | LOCK_NB) == 0)
            var first = FileTableRing(try Ring(mapping: try kept.fd.duplicate(), parameters: parameters))
            #expect(first.put(locked.number, slot: 2) == 1)
            #expect(first.put(plain.number, slot: 5) == 1)
        }
        let rival = open()
        #expect(flock(rival.number, LOCK_EX | LOCK_NB) != 0, "the table keeps it open")
        var second = FileTableRing(try Ring(mapping: try kept.fd.duplicate(), parameters: parameters))
        second.takeUp()
        #expect(second.empty(from: 1, keeping: [true, true, true, true, true, true]) == 6)
        #expect(flock(rival.number, LOCK_EX | LOCK_NB) != 0)
        #expect(second.empty(from: 1, keeping: [false, false, false, false, true, false]) == 6)
        #expect(comesToLock(rival.number))
        #expect(second.install(slot: 2) == -EBADF)
        let plainToo = open()
        #expect(second.put(plainToo.number, slot: 3) == 1)
        // More than the ring takes at once, and one that is not open.
        for slot in [3, 4, 3, 4, 3, 4, 3, 4, 3] as [UInt32] { second.queue(-1, slot: slot) }
        second.queue(plainToo.number, slot: 4)
        second.queue(9999, slot: 6)
        #expect(second.finish() == -EBADF)
        #expect(second.install(slot: 3) == -EBADF)
        let other = second.install(slot: 4)
        #expect(other >= 0)
        if other >= 0 { close(other) }
        let number = second.install(slot: 5)
        #expect(number >= 0)
        if number >= 0 { close(number) }
    }
}
