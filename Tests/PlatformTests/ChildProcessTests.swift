import Platform
import Testing

@Suite struct ChildProcessTests {
    @Test func tellsHowItEnded() throws {
        let output = try makeMemoryFile(name: "output", count: 0)
        var success = try ChildProcess("true", [], output: output)
        #expect(success.wait() == .exited(code: 0))
        var failure = try ChildProcess("sh", ["-c", "exit 7"], output: output)
        #expect(failure.wait() == .exited(code: 7))
        #expect(failure.wait() == .exited(code: 7))
        var killed = try ChildProcess("sleep", ["1000"], output: output)
        killed.send(signal: 9)
        #expect(killed.wait() == .killed(signal: 9))
    }

    @Test func aWaitHasAnEnd() throws {
        let output = try makeMemoryFile(name: "output", count: 0)
        var child = try ChildProcess("sleep", ["1000"], output: output)
        #expect(child.wait(milliseconds: 1) == nil)
    }

    @Test func aProgramThatIsNotThereIsNamed() throws {
        let output = try makeMemoryFile(name: "output", count: 0)
        let error = #expect(throws: SystemError.self) {
            _ = try ChildProcess("no-such-program", [], output: output)
        }
        #expect(error?.description.contains("no-such-program") == true)
    }
}
