internal import Custody
internal import Glibc
internal import Platform

/// What a device's custody needs of the loop that it lives in.
protocol CustodySite: AnyObject {
    func watch(_ number: Int32, as target: WatchTarget) -> UInt64?
    func forget(_ token: UInt64, _ number: Int32)
    func program(_ number: Int) -> SharedFD?
    func report(_ report: DeviceMachine.Report, device: String)
    func upgradeEnded(_ outcome: DeviceMachine.Upgrade.Outcome, device: String)
    func resizeEnded(_ outcome: DeviceMachine.ResizeOutcome, device: String)
    func dissolve(_ device: String)
    /// A process has ended, and its ending been read.
    func reapLater(_ process: Int32)
    /// Where a duplicate of everything is kept for the supervisor's successor.
    var store: any FDStore { get }
    var coder: StateCoder { get }
    /// Where workers write their logs.
    var workerOutput: SharedFD { get }
    /// The journal, for them too; nil: their output is all there is.
    var journal: SharedFD? { get }
    /// Where they run; nil: where the supervisor does.
    var workerGroups: WorkerGroups? { get }
    /// What they are kept from.
    var sandbox: WorkerSandbox { get }
}

/// The custody thread: all devices, one place to sleep.
final class CustodyLoop: CustodySite {
    private(set) var devices: [String: DeviceCustody] = [:]
    let workerOutput: SharedFD
    let journal: SharedFD?
    let workerGroups: WorkerGroups?
    let sandbox: WorkerSandbox
    let store: any FDStore
    let coder: StateCoder
    private let poller: Poller
    private let mailbox: Mailbox
    private var targets: [UInt64: WatchTarget] = [:]
    private var lastToken: UInt64 = 0
    private var programs: [Int: Program] = [:]
    /// What devices that are made from now on run.
    private var currentProgram: Int
    private var sinks: [UInt64: @Sendable (SupervisorEvent) -> Void] = [:]
    private var lastEvents: [SupervisorEvent] = []
    private var eventCount: UInt64 = 0
    private var run: UpgradeRun?
    private var deletions: [String: [@Sendable (Result<Void, SupervisorError>) -> Void]] = [:]
    /// Who waits for a device to run with other options.
    var reconfigurations: [String: @Sendable (Result<Void, SupervisorError>) -> Void] = [:]
    /// Who waits for a disk to have another size.
    var resizes: [String: @Sendable (Result<DeviceMachine.ResizeOutcome, SupervisorError>) -> Void] = [:]
    private var ended: [DeviceCustody] = []
    private var endedWorkers = EndedWorkers()
    private(set) var isStopping = false
    /// How long a loop may leave work undone, in nanoseconds; 0: for ever.
    private let hangLimit: UInt64
    /// When loops are to be looked at again, if there are any.
    private var nextWatch: UInt64 = 0
    /// When devices whose requests may wait for room on the host are to be looked at again, if there are any.
    private var nextRoomWatch: UInt64 = 0

    static let maximumDevices = 1024
    /// Events that a new follower is told of.
    static let eventHistory = 256

    private struct Program {
        var path: String
        var file: SharedFD
    }

    /// Goes on with what the store has from a supervisor before.
    ///
    /// - Throws: when the worker's program cannot be opened, or nothing can be watched.
    init(_ options: borrowing Supervisor.Options, mailbox: Mailbox) throws(SystemError) {
        workerOutput = SharedFD(try options.workerOutput.duplicateOrThrow())
        workerGroups = options.workerGroups
        journal = try options.journal.map { number throws(SystemError) in
            SharedFD(try Self.duplicate(number))
        }
        sandbox = options.sandbox
        store = options.store
        coder = options.coder
        hangLimit = options.hangMilliseconds * 1_000_000
        self.mailbox = mailbox
        do throws(Errno) {
            poller = try Poller()
        } catch {
            throw SystemError(cannot: "set up", "the poller", error)
        }
        let found = try store.takeAll()
        for file in found {
            let parts = file.name.split(separator: "/")
            guard parts.count == 2, parts[0] == "program", let number = Int(parts[1]) else { continue }
            programs[number] = Program(
                path: Self.path(of: file.fd), file: SharedFD(try file.fd.duplicateOrThrow()))
        }
        // A program that lies at the path now is not that of a minute ago.
        currentProgram = (programs.keys.max() ?? 0) + 1
        let program = try Self.open(options.programPath)
        programs[currentProgram] = program
        store.put(program.file.number, as: "program/\(currentProgram)")
        guard watch(mailbox.descriptor, as: .mailbox) != nil else {
            throw SystemError(cannot: "watch", "the mailbox", .current)
        }
        try recover(found)
        dropUnusedPrograms()
    }

    /// Goes on with the devices of a supervisor before.
    private func recover(_ found: [StoredFD]) throws(SystemError) {
        var groups: [String: [String: SharedFD]] = [:]
        for file in found {
            let parts = file.name.split(separator: "/", maxSplits: 2)
            guard parts.count == 3, parts[0] == "device" else { continue }
            groups[String(parts[1]), default: [:]][String(parts[2])] = SharedFD(try file.fd.duplicateOrThrow())
        }
        for (name, files) in groups {
            do throws(SystemError) {
                guard let file = files["state"], let bytes = StateFile(file).load(), let state = coder.decode(bytes)
                else {
                    throw SystemError(cannot: "take over", name, nil, advice: "Its state cannot be read")
                }
                let device = try DeviceCustody(recovering: state, from: files, site: self)
                devices[name] = device
                report(DeviceMachine.Report(kind: .note, worker: nil, text: "taken over"), device: name)
            } catch {
                // It is made anew from its description; its front-end connects again.
                report(DeviceMachine.Report(kind: .failed, worker: nil, text: "\(error)"), device: name)
                for (file, descriptor) in files {
                    if file.hasSuffix("/process") { Self.end(descriptor) }
                    store.remove("device/\(name)/\(file)")
                }
            }
        }
        if devices.count < groups.count {
            groups = [:]
            store.synchronize()
        }
        for device in devices.values { device.resume() }
    }

    /// A worker of a device that nobody can go on with; what it has under way holds the image until it has landed.
    private static func end(_ process: SharedFD) {
        guard let pidfd = try? process.fd.duplicate() else { return }
        DetachedProcess(adopting: 0, pidfd: pidfd).send(signal: SIGKILL)
    }

    /// Where an open program lies, for people.
    private static func path(of file: borrowing OwnedFD) -> String {
        unsafe withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
            let count = unsafe readlink("/proc/self/fd/\(file.number)", buffer.baseAddress!, buffer.count)
            return unsafe String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
        }
    }

    private static func duplicate(_ number: Int32) throws(SystemError) -> OwnedFD {
        do throws(Errno) {
            return OwnedFD(owning: try duplicateDescriptor(number))
        } catch {
            throw SystemError(cannot: "keep", "the journal's socket", error)
        }
    }

    private static func open(_ path: String) throws(SystemError) -> Program {
        let number = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard number >= 0 else { throw SystemError(cannot: "open the worker's program", path, .current) }
        let file = SharedFD(OwnedFD(owning: number))
        guard unsafe access(path, X_OK) == 0 else {
            throw SystemError(cannot: "execute", path, .current, advice: "Give the path of a baton-worker")
        }
        return Program(path: path, file: file)
    }

    /// Serves until `stop`.
    func serve() {
        while !isStopping {
            let count = poller.wait(milliseconds: timeout())
            for index in 0..<count {
                guard let target = targets[poller.token(at: index)] else { continue }
                switch target {
                case .mailbox: for command in mailbox.takeAll() { command(self) }
                case .listener(let device), .channel(let device, _), .process(let device, _):
                    devices[device]?.arrival(target)
                }
            }
            for device in devices.values { device.runTimers() }
            watchLoops()
            watchRoom()
            advanceRun()
            endedWorkers.reap(at: monotonicNanoseconds())
            ended = []
        }
        endedWorkers.reap(at: .max)
    }

    func reapLater(_ process: Int32) { endedWorkers.add(process, at: monotonicNanoseconds()) }

    /// Looks at the loops of all workers, four times in the time that one may leave work undone.
    private func watchLoops() {
        let now = monotonicNanoseconds()
        guard hangLimit > 0, now >= nextWatch else { return }
        nextWatch = now + hangLimit / 4
        for device in devices.values { device.watchLoops(at: now, limit: hangLimit) }
    }

    /// Tells of requests that wait for room on the host, and that none does any more.
    private func watchRoom() {
        let now = monotonicNanoseconds()
        guard now >= nextRoomWatch else { return }
        nextRoomWatch = now + RoomWatch.interval
        for device in devices.values where device.mustWatchRoom { device.watchRoom() }
    }

    /// Milliseconds until something is due, rounded up; nil for never.
    private func timeout() -> Int32? {
        var deadline = devices.values.compactMap(\.nextDeadline).min()
        if let due = endedWorkers.nextDeadline { deadline = min(deadline ?? .max, due) }
        if let canary = run?.resumeAt { deadline = min(deadline ?? .max, canary) }
        if hangLimit > 0, devices.values.contains(where: \.mustWatch) { deadline = min(deadline ?? .max, nextWatch) }
        if devices.values.contains(where: \.mustWatchRoom) { deadline = min(deadline ?? .max, nextRoomWatch) }
        guard let deadline else { return nil }
        let now = monotonicNanoseconds()
        return deadline <= now ? 0 : Int32(min(60_000, (deadline - now + 999_999) / 1_000_000))
    }

    func stop(forSuccessor: Bool) {
        isStopping = true
        // Nothing is left to hold.
        if devices.isEmpty, !forSuccessor { for number in programs.keys { store.remove("program/\(number)") } }
    }

    // MARK: Site

    func watch(_ number: Int32, as target: WatchTarget) -> UInt64? {
        lastToken += 1
        do throws(Errno) {
            try poller.watch(number, token: lastToken)
        } catch {
            return nil
        }
        targets[lastToken] = target
        return lastToken
    }

    func forget(_ token: UInt64, _ number: Int32) {
        poller.forget(number)
        targets[token] = nil
    }

    func program(_ number: Int) -> SharedFD? { programs[number]?.file }

    func report(_ report: DeviceMachine.Report, device: String) {
        eventCount += 1
        let event = SupervisorEvent(
            sequence: eventCount, time: wallClockMilliseconds(), device: device,
            generation: devices[device]?.generation(of: report) ?? 0, report: report)
        lastEvents.append(event)
        if lastEvents.count > Self.eventHistory { lastEvents.removeFirst() }
        for sink in sinks.values { sink(event) }
    }

    func upgradeEnded(_ outcome: DeviceMachine.Upgrade.Outcome, device: String) {
        guard reconfigurations[device] != nil else {
            run?.ended(device, outcome)
            return
        }
        switch outcome {
        case .succeeded: endReconfiguration(device, .success(()))
        case .failed(let why): endReconfiguration(device, .failure(.failed(why)))
        }
    }

    func dissolve(_ name: String) {
        report(DeviceMachine.Report(kind: .deleted, worker: nil, text: ""), device: name)
        // It is still carrying out its last event.
        if let device = devices.removeValue(forKey: name) { ended.append(device) }
        for reply in deletions.removeValue(forKey: name) ?? [] { reply(.success(())) }
        run?.ended(name, .failed("the device was deleted"))
    }
}

// MARK: - Commands

extension CustodyLoop {
    /// - Parameter isRestored: it was made earlier: an image that is not there now, or what a share needs and the
    ///   supervisor lacks, is the device's problem, not a reason not to have it.
    func create(
        _ configuration: DeviceConfiguration, isRestored: Bool
    ) throws(SupervisorError) -> DeviceStatus {
        try configuration.validate()
        guard devices[configuration.name] == nil else { throw .deviceExists(configuration.name) }
        guard devices.count < Self.maximumDevices else { throw .failed("there are \(devices.count) devices already") }
        let device: DeviceCustody
        do throws(SystemError) {
            if !isRestored, let share = configuration.share { try sandbox.checkMayShare(share.directory) }
            let image = isRestored ? nil : try ImageFiles.takeCustody(configuration)
            device = try DeviceCustody(configuration, image: image, program: currentProgram, site: self)
        } catch {
            throw .failed("\(error)")
        }
        devices[configuration.name] = device
        report(DeviceMachine.Report(kind: .created, worker: nil, text: ""), device: configuration.name)
        device.handle(.begin)
        return status(of: device)
    }

    /// - Parameter sparesMounts: what is mounted on this host is not taken away from whoever uses it.
    func delete(
        _ name: String, sparesMounts: Bool, reply: @escaping @Sendable (Result<Void, SupervisorError>) -> Void
    ) {
        guard let device = devices[name] else { return reply(.failure(.noSuchDevice(name))) }
        if sparesMounts, device.machine.isConnected, let place = device.configuration.share?.mountPoint {
            return reply(.failure(.failed("it is mounted at \(place): unmount it (baton umount \(place))")))
        }
        deletions[name, default: []].append(reply)
        device.handle(.delete)
    }

    /// Of all devices, by name; or of one.
    func statuses(_ name: String?) throws(SupervisorError) -> [DeviceStatus] {
        guard let name else { return devices.keys.sorted().compactMap { devices[$0].map(status(of:)) } }
        guard let device = devices[name] else { throw .noSuchDevice(name) }
        return [status(of: device)]
    }

    private func status(of device: DeviceCustody) -> DeviceStatus { device.status }

    func kill(_ name: String) throws(SupervisorError) -> Int32 {
        guard let device = devices[name] else { throw .noSuchDevice(name) }
        guard let process = device.killActive() else { throw .failed("no worker has the device '\(name)'") }
        return process
    }

    /// Tells of events: first of those that were, then of each new one.
    func follow(_ id: UInt64, _ sink: @escaping @Sendable (SupervisorEvent) -> Void) {
        lastEvents.forEach(sink)
        sinks[id] = sink
    }

    func unfollow(_ id: UInt64) { sinks[id] = nil }
}

// MARK: - Upgrades

extension CustodyLoop {
    func upgrade(_ request: UpgradeRequest) {
        guard !isUpgrading, reconfigurations.isEmpty else {
            return request.reply(.failure(.failed("an upgrade is under way")))
        }
        do throws(SupervisorError) {
            let names = request.devices.isEmpty ? devices.keys.sorted() : request.devices
            for name in names where devices[name] == nil { throw .noSuchDevice(name) }
            let program: Program
            do throws(SystemError) {
                program = try Self.open(request.programPath ?? programs[currentProgram]?.path ?? "")
            } catch {
                throw .failed("\(error)")
            }
            let number = (programs.keys.max() ?? 0) + 1
            programs[number] = program
            store.put(program.file.number, as: "program/\(number)")
            run = UpgradeRun(request, names: names, program: number)
        } catch {
            request.reply(.failure(error))
        }
        advanceRun()
    }

    var isUpgrading: Bool { run != nil }

    /// Starts the next device's upgrade, if the one before has ended.
    private func advanceRun() {
        while let next = run?.next(at: monotonicNanoseconds()) {
            switch next {
            case .upgrade(let name, let order):
                guard let device = devices[name] else {
                    run?.ended(name, .failed("the device was deleted"))
                    continue
                }
                device.handle(.upgrade(order))
            case .checkCanaries(let names, let program):
                let strayed = names.filter { devices[$0]?.machine.program != program }
                run?.canariesChecked(strayed)
            case .finish(let reply, let result, let program, let isComplete):
                run = nil
                // Devices that are made later run it too, if the whole supervisor was upgraded.
                if isComplete { currentProgram = program }
                dropUnusedPrograms()
                reply(result)
            }
        }
    }

    private func dropUnusedPrograms() {
        var used: Set<Int> = [currentProgram]
        for device in devices.values { used.formUnion(device.machine.usedPrograms) }
        for number in programs.keys where !used.contains(number) {
            programs[number] = nil
            store.remove("program/\(number)")
        }
    }
}

extension OwnedFD {
    fileprivate func duplicateOrThrow() throws(SystemError) -> OwnedFD {
        do throws(Errno) {
            return try duplicate()
        } catch {
            throw SystemError(cannot: "keep", "a descriptor", error)
        }
    }
}

/// Milliseconds since 1970.
private func wallClockMilliseconds() -> UInt64 {
    var now = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &now)
    return UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec) / 1_000_000
}
