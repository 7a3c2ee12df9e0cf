import FileCheckKit
import FrontendKit
import Glibc
import Platform
import TestSupport
import Testing

/// Random operations on a share and on the host's file system: no difference. Many clients at once on a share: the
/// answers that they must get. Scripts/share/check does the same for longer.
@Suite(.serialized, .enabled(if: geteuid() == 0, "a file system's users cannot be had without root"))
struct ShareCheckTests {
    enum Server: String, CaseIterable, Sendable {
        case virtiofsd, baton

    }

    private let directory: TemporaryDirectoryBox
    private let share: String
    private let model: String

    init() throws {
        // Not in /tmp, which may be memory: both sides lie on the file system that users have.
        directory = TemporaryDirectoryBox(try TemporaryDirectory(in: "/var/tmp"))
        share = directory.value.file("share")
        model = directory.value.file("model")
        for path in [share, model] {
            #expect(unsafe mkdir(path, 0o777) == 0)
            #expect(unsafe chmod(path, 0o777) == 0)
        }
    }

    private func serve(_ server: Server, _ options: [String] = []) throws -> VirtioFileDaemon {
        // By this name, the worker takes virtiofsd's command line.
        let baton = directory.value.file("baton-virtiofsd")
        if server == .baton { #expect(unsafe symlink(WorkerProcess.executable, baton) == 0) }
        return try VirtioFileDaemon(
            server == .baton ? baton : VirtioFileDaemon.debian, sharing: share,
            options: ["-o", "xattr,posix_lock,flock,killpriv_v2"] + options,
            in: directory.value)
    }

    @Test("one operation at a time, compared with the host's file system", arguments: Server.allCases)
    func compares(_ server: Server) throws {
        var check = FileCheck(seed: makeSeed(), operations: 2000)
        check.options.temporaryFiles = server != .virtiofsd
        check.options.whiteouts = false
        var daemon = try serve(server)
        var calls = try SystemCalls(model)
        var tested = GuestKernel(try FileMount(connectingTo: daemon.socketPath))
        let report = try check.run(&tested, &calls, trees: (share, model))
        #expect(report.difference == nil, "\(report.difference.map { "\($0)" } ?? "")")
        #expect(report.operations == 2000 && report.refused < 1500)
        try tested.end()
        calls.end()
        daemon.program.stop()
    }

    @Test("many clients at once", arguments: [1, 4])
    func serves(_ queueCount: Int) throws {
        var daemon = try serve(.baton, ["--queues=\(queueCount)"])
        var options = VerifiedFileLoad.Options(seed: makeSeed())
        options.queueCount = queueCount
        options.requestLimit = 5000
        var load = try VerifiedFileLoad(connectingTo: daemon.socketPath, options)
        let report = try load.run()
        #expect(report.isClean, "\(report)")
        daemon.program.stop()
    }
}
