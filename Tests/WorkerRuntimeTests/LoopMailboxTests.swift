import Platform
import Testing

@testable import WorkerRuntime

/// Commands to a loop and its answers.
@Suite struct LoopMailboxTests {
    private func isDone(_ reply: LoopReply?) -> Bool {
        if case .done = reply { return true }
        return false
    }

    @Test func `a command wakes the loop, and its answer the one who asked`() throws {
        let mailbox = try LoopMailbox()
        #expect(!mailbox.hasCommand)
        let loop = try JoinableThread(name: "loop") {
            _ = waitForInput(mailbox.wakeUp.fd.number)
            guard let (number, _) = mailbox.take() else { return }
            mailbox.answer(number, .done)
        }
        #expect(isDone(mailbox.wait(for: mailbox.post(.quit), milliseconds: 60_000)))
        loop.join()
        #expect(!mailbox.hasCommand)
    }

    @Test func `an answer that comes too late is not taken for that of the next command`() throws {
        let mailbox = try LoopMailbox()
        let reply = mailbox.wait(for: mailbox.post(.detach(queue: 0)), milliseconds: 1)
        if reply != nil { Issue.record("nobody has answered") }
        let first = try #require(mailbox.take())
        mailbox.answer(first.number, .refused("late"))
        let loop = try JoinableThread(name: "loop") {
            while !mailbox.hasCommand { _ = waitForInput(mailbox.wakeUp.fd.number, milliseconds: 1) }
            guard let (number, _) = mailbox.take() else { return }
            mailbox.answer(number, .done)
        }
        #expect(isDone(mailbox.wait(for: mailbox.post(.quit), milliseconds: 60_000)))
        loop.join()
    }

    @Test func `commands are taken in their order`() throws {
        let mailbox = try LoopMailbox()
        _ = mailbox.wait(for: mailbox.post(.detach(queue: 0)), milliseconds: 0)
        _ = mailbox.wait(for: mailbox.post(.quit), milliseconds: 0)
        let numbers = [mailbox.take()?.number, mailbox.take()?.number, mailbox.take()?.number]
        #expect(numbers == [1, 2, nil])
        #expect(!mailbox.hasCommand)
    }

    /// What the mailbox remembers of eventfds, it remembers to empty those that are full.
    @Test func `eventfds that a loop does not take are let go of, those that it has are kept`() throws {
        let mailbox = try LoopMailbox()
        weak var refused: SharedFD?
        weak var kept: SharedFD?
        func set(_ reply: LoopReply) throws -> SharedFD {
            let event = SharedFD(try EventFD())
            let number = mailbox.post(.setSignals(queue: 0, QueueSignals(call: event)))
            _ = mailbox.take()
            mailbox.answer(number, reply)
            _ = mailbox.answer(to: number, until: 0)
            return event
        }
        do { kept = try set(.done) }
        do { refused = try set(.refused("not now")) }
        #expect(kept != nil)
        #expect(refused == nil)
        do { _ = try set(.done) }
        #expect(kept == nil)
    }
}
