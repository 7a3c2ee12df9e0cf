internal import ArgumentParser
internal import FrontendKit
internal import Glibc
internal import Platform

@main
struct Scale: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "baton-scale",
        abstract: "What many devices cost: memory of their own, CPU when idle, and an upgrade of all of them.",
        discussion: """
            Makes devices in a supervisor of its own, connects a front-end to each, lets every queue work for a \
            moment, and then leaves them alone. Private memory is the sum of Private_* of smaps_rollup of all workers \
            and standbys. After the upgrade every queue works again, over the same connection.
            """)

    @Option(help: ArgumentHelp("The supervisor.", valueName: "path"))
    var batond: String

    @Option(help: ArgumentHelp("The operator's command.", valueName: "path"))
    var baton: String

    @Option(help: ArgumentHelp("The worker.", valueName: "path"))
    var worker: String

    @Option(help: "Devices.")
    var devices = 64

    @Option(help: "Queues of each.")
    var queues = 4

    @Option(help: "Descriptors of each queue.")
    var queueSize = 256

    @Option(help: "How long the devices are left alone, in seconds.")
    var idle = 10

    @Option(help: ArgumentHelp("Where images, sockets and logs go.", valueName: "path"))
    var directory = "/var/tmp"

    @Option(help: ArgumentHelp("Also write the figures as JSON.", valueName: "file"))
    var json: String?

    func validate() throws {
        guard (1...1000).contains(devices), (1...64).contains(queues), idle > 0 else {
            throw ValidationError("Nothing would be measured.")
        }
        guard (16...1024).contains(queueSize) else { throw ValidationError("A queue has 16 to 1024 descriptors here.") }
    }

    func run() throws {
        var host = try Host(batond: batond, baton: baton, worker: worker, directory: directory)
        try host.awaitStart()
        var guests: [Guest] = []
        for index in 0..<devices {
            let socket = try host.makeDisk("d\(index)", queues: queues, queueSize: queueSize)
            guests.append(try Guest(socket, queues: queues, queueSize: queueSize))
        }
        for guest in guests { try guest.work() }
        let workers = try host.awaitStandbys(devices)
        let memory = workers.map { Double(privateBytes($0)) }
        let before = cpuNanoseconds(workers)
        pause(milliseconds: Int32(idle) * 1000)
        // A thread that ends takes its time with it.
        let now = cpuNanoseconds(workers)
        let cpu = Double(now > before ? now - before : 0) / Double(idle) / 1e7
        let start = monotonicNanoseconds()
        try host.baton(["upgrade", "--all", "--worker", worker])
        let upgrade = Double(monotonicNanoseconds() - start) / 1e9
        for guest in guests { try guest.work() }
        for guest in guests { try guest.stop() }
        // Workers and the keeper outlive a supervisor that ends, for the next one.
        for index in 0..<devices { try host.baton(["delete", "d\(index)"]) }
        host.stop()
        host.removeFiles()
        let perDevice = memory.reduce(0, +) / Double(devices) / 1_048_576
        let largest = (memory.max() ?? 0) / 1_048_576
        print(
            """
            \(devices) devices of \(queues) queues of \(queueSize), \(workers.count) workers:
            private memory of a device: \(decimal(perDevice, 2)) MiB; of the largest worker: \(decimal(largest, 2)) MiB
            CPU of all workers when idle: \(decimal(cpu, 3)) % of one CPU
            upgrade of all, one by one: \(decimal(upgrade, 2)) s
            """)
        guard let json else { return }
        let text = """
            {"devices": \(devices), "queues": \(queues), "queue_size": \(queueSize), "private_mib_per_device": \
            \(decimal(perDevice, 3)), "private_mib_largest_worker": \(decimal(largest, 3)), "idle_cpu_percent": \
            \(decimal(cpu, 4)), "upgrade_seconds": \(decimal(upgrade, 3))}

            """
        try writeFile(text, to: json)
    }
}

/// Why nothing could be measured.
struct ScaleError: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}

/// A number with so many places behind the point.
func decimal(_ value: Double, _ places: Int) -> String {
    var scale = 1.0
    for _ in 0..<places { scale *= 10 }
    let whole = Int((value * scale).rounded())
    let fraction = "\(whole % Int(scale))"
    return "\(whole / Int(scale)).\(String(repeating: "0", count: places - fraction.count))\(fraction)"
}

private func writeFile(_ text: String, to path: String) throws {
    let number = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard number >= 0 else { throw SystemError(cannot: "write", path, .current) }
    let file = OwnedFD(owning: number)
    var text = text
    let written = text.withUTF8 { unsafe write(file.number, $0.baseAddress, $0.count) }
    guard written == text.utf8.count else { throw SystemError(cannot: "write", path, .current) }
}
