internal import Custody
internal import Glibc
internal import Platform
internal import Telemetry

/// What a descriptor that has input is.
enum WatchTarget: Hashable {
    case mailbox
    case listener(device: String)
    case channel(device: String, DeviceMachine.WorkerID)
    case process(device: String, DeviceMachine.WorkerID)
}

/// One device in custody: everything that must outlive its workers, and the workers. The edge of `DeviceMachine`.
///
/// Belongs to the custody thread.
final class DeviceCustody {
    var configuration: DeviceConfiguration
    /// What it was before a change of how its workers run, until that has succeeded.
    var fallback: DeviceConfiguration?
    /// What of the configuration has no effect here, as sentences.
    var notices: [String] = []
    /// Names of what the store has no room for.
    var unkept: Set<String> = []
    private(set) var machine: DeviceMachine
    let record: SessionRecord
    private let recordFile: SharedFD
    /// What its workers count, and the policy that they hold.
    let statistics: DeviceStatistics
    private let statisticsFile: SharedFD
    let rings: [SharedFD]
    /// Of the rings, once they have been looked at.
    var ringSights: [RingSight?] = []
    /// The worker that has the device, as it was seen last; nil: none was.
    var watch: WorkerWatch?
    /// What has been told of requests that wait for room on the host.
    var roomWatch = RoomWatch()
    private let listener: UnixListener
    private let stateFile: StateFile
    /// What keeps others off the image; nil when there is none, or it could not be had yet.
    private(set) var imageCustody: SharedFD?
    /// No worker of this device has ever run that we know of: what others left under way is waited for first.
    private var isCold = false
    private(set) var custody: [CustodyKey: SharedFD] = [:]
    private(set) var links: [DeviceMachine.WorkerID: WorkerLink] = [:]
    /// The namespaces that the workers share; nil: those of the supervisor.
    var room: WorkerRoom?
    /// Open files of the image for workers that have just been spawned.
    private var images: [DeviceMachine.WorkerID: [SharedFD]] = [:]
    private var tokens: [WatchTarget: UInt64] = [:]
    private var deadlines: [DeviceMachine.Timer: UInt64] = [:]
    /// The number of the worker whose end is being carried out; nil: it had none, or that is over.
    private var endedGeneration: UInt64?
    /// The descriptor of the message, or of the connection, that is being carried out.
    private var arrived: SharedFD?
    unowned let site: any CustodySite

    /// Entries of a loop's ring, and of the connection's.
    static let ringEntries: UInt32 = 256
    static let connectionRingEntries: UInt32 = 32

    /// Makes a device that nobody has served yet: session record, kernel rings, listening socket.
    ///
    /// - Parameter image: in custody already, or nil: before the first worker.
    /// - Throws: what failed, and what to do; nothing is left behind.
    init(
        _ configuration: DeviceConfiguration, image: SharedFD?, program: Int, site: any CustodySite
    ) throws(SystemError) {
        self.configuration = configuration
        self.site = site
        do throws(SessionRecordError) {
            let geometry = try configuration.recordGeometry()
            recordFile = SharedFD(try Self.makeRecord(geometry))
            record = try SessionRecord(recordFile.fd, expecting: geometry)
        } catch {
            throw SystemError(cannot: "make a session record for", configuration.name, nil, advice: "\(error)")
        }
        statisticsFile = try Self.makeStatistics(configuration)
        statistics = try Self.read(statisticsFile, configuration)
        rings = try Self.makeRings(configuration, record)
        do throws(Errno) {
            stateFile = try StateFile()
            listener = try UnixListener(
                at: configuration.socketPath, access: configuration.socketAccess, backlog: 8)
        } catch {
            throw SystemError(cannot: "listen at", configuration.socketPath, error)
        }
        machine = DeviceMachine(program: program, recordVersion: record.version)
        if let image { secure(image) }
        store(recordFile.number, as: "record")
        store(statisticsFile.number, as: "statistics")
        store(listener.fd.number, as: "listener")
        saveState()
        store(stateFile.file.number, as: "state")
    }

    /// Takes a device over from a supervisor that has died, with the workers that live.
    ///
    /// - Parameter found: what the store has of it, by name without the device's.
    /// - Throws: why it cannot be gone on with.
    init(recovering state: DeviceState, from found: [String: SharedFD], site: any CustodySite) throws(SystemError) {
        let name = state.configuration.name
        func incomplete(_ what: String) -> SystemError {
            SystemError(cannot: "take over", name, nil, advice: "The store has no \(what) of it")
        }
        guard let recordFile = found["record"] else { throw incomplete("session record") }
        guard let socket = found["listener"] else { throw incomplete("listening socket") }
        guard let stateFile = found["state"] else { throw incomplete("state") }
        configuration = state.configuration
        fallback = state.fallback
        machine = state.machine
        self.site = site
        self.recordFile = recordFile
        self.stateFile = StateFile(stateFile)
        do throws(SessionRecordError) {
            // One of an earlier build may not be sealed.
            try? sealSize(of: recordFile.fd)
            record = try SessionRecord(recordFile.fd, expecting: try configuration.recordGeometry())
        } catch {
            throw SystemError(cannot: "take over", name, nil, advice: "\(error)")
        }
        // None of a supervisor that knew none. What cannot be read is no reason to lose a device.
        if let file = found["statistics"], let kept = try? DeviceStatistics(file.fd, writable: true) {
            (statisticsFile, statistics) = (file, kept)
        } else {
            statisticsFile = try Self.makeStatistics(configuration)
            statistics = try Self.read(statisticsFile, configuration)
        }
        Self.killUnknownWorkers(of: state, from: found)
        let links = Self.links(of: state, from: found)
        guard let rings = Self.rings(of: state, from: links) else {
            throw SystemError(cannot: "take over", name, nil, advice: "No worker of it lives that has its kernel rings")
        }
        self.rings = rings
        self.links = links
        do throws(Errno) {
            listener = UnixListener(owning: try socket.fd.duplicate())
        } catch {
            throw SystemError(cannot: "take over", name, error)
        }
        imageCustody = found["image"]
        room = WorkerRoom(state.room, from: found)
        for key in state.machine.keys { custody[key] = found[Self.storeName(key)] }
        custody[CustodyKey(.connection)] = found[Self.storeName(CustodyKey(.connection))]
        if found["statistics"] !== statisticsFile { store(statisticsFile.number, as: "statistics") }
        forgetUnknown(found.keys)
    }

    /// A worker that was started, and not noted, before the supervisor died: nobody may take the device up unknown to
    /// us. (One whose process was not even stored has been told nothing: it ends with its channel.)
    private static func killUnknownWorkers(of state: DeviceState, from found: [String: SharedFD]) {
        let known = Set(state.machine.workers.map { "worker/\($0.id)/process" })
        for (name, pidfd) in found where name.hasPrefix("worker/") && name.hasSuffix("/process") {
            guard !known.contains(name), let pidfd = try? pidfd.fd.duplicate() else { continue }
            DetachedProcess(adopting: 0, pidfd: pidfd).send(signal: SIGKILL)
        }
    }

    /// The workers whose channel and process are both known.
    private static func links(
        of state: DeviceState, from found: [String: SharedFD]
    ) -> [DeviceMachine.WorkerID: WorkerLink] {
        var links: [DeviceMachine.WorkerID: WorkerLink] = [:]
        for worker in state.machine.workers {
            guard let channel = try? found["worker/\(worker.id)/channel"]?.fd.duplicate(),
                let pidfd = try? found["worker/\(worker.id)/process"]?.fd.duplicate()
            else { continue }
            links[worker.id] = WorkerLink(
                process: DetachedProcess(adopting: worker.process, pidfd: pidfd),
                channel: CustodyChannel(owning: channel), ringNumbers: state.ringNumbers[worker.id] ?? [])
        }
        return links
    }

    /// The kernel rings, from any worker that lives: no store can hold them.
    private static func rings(
        of state: DeviceState, from links: [DeviceMachine.WorkerID: WorkerLink]
    ) -> [SharedFD]? {
        for link in links.values where !link.process.hasEnded && !link.ringNumbers.isEmpty {
            var rings: [SharedFD] = []
            for number in link.ringNumbers {
                guard let ring = try? link.process.duplicate(descriptor: number) else { break }
                rings.append(SharedFD(ring))
            }
            if rings.count == link.ringNumbers.count { return rings }
        }
        return nil
    }

    /// Goes on where the supervisor before has ended. To be called once, when the site knows this device.
    func resume() {
        let connection = CustodyKey(.connection)
        for (id, link) in links {
            watch(.channel(device: configuration.name, id), link.channel.fd.number)
            watch(.process(device: configuration.name, id), link.process.pidfd.number)
        }
        applyLimits()
        statistics.setPolicy(configuration.policy)
        handle(.begin)
        // The supervisor before has not come to it.
        endIfUnmounted()
        // It was accepted, and nobody has heard of it yet.
        if custody[connection] != nil, !machine.isConnected { handle(.connected) }
        for worker in machine.workers {
            if links[worker.id] == nil {
                handle(.ended(worker.id, .unknown))
            } else if worker.process == 0 {
                // It was started, and perhaps given everything: nobody knows.
                links[worker.id]?.process.send(signal: SIGKILL)
            }
        }
    }

    func saveState() {
        let state = DeviceState(
            configuration: configuration, machine: machine, ringNumbers: links.mapValues(\.ringNumbers),
            fallback: fallback, room: room?.state)
        stateFile.commit(site.coder.encode(state))
    }

    private func secure(_ image: SharedFD) {
        imageCustody = image
        isCold = !configuration.isReadOnly
        store(image.number, as: "image")
    }

    /// What a worker may rely on before it is started: nobody else has the image, and nobody's requests are under way.
    ///
    /// - Throws: a sentence that says what is in the way; it is tried again.
    private func secureImage() throws(SystemError) {
        if imageCustody == nil, let image = try ImageFiles.takeCustody(configuration) { secure(image) }
        if isCold, let imageCustody, let path = configuration.imagePath {
            try ImageFiles.fence(imageCustody, path: path)
        }
    }

    private static func makeStatistics(_ configuration: DeviceConfiguration) throws(SystemError) -> SharedFD {
        do throws(Errno) {
            return SharedFD(
                try DeviceStatistics.makeFile(
                    queueCount: configuration.virtqueueCount, queueSize: configuration.queueSize))
        } catch {
            throw SystemError(cannot: "make statistics for", configuration.name, error)
        }
    }

    private static func read(
        _ file: SharedFD, _ configuration: DeviceConfiguration
    ) throws(SystemError) -> DeviceStatistics {
        do throws(Errno) {
            let statistics = try DeviceStatistics(file.fd, writable: true)
            statistics.setPolicy(configuration.policy)
            return statistics
        } catch {
            throw SystemError(cannot: "read the statistics of", configuration.name, error)
        }
    }

    private static func makeRecord(_ geometry: RecordGeometry) throws(SessionRecordError) -> OwnedFD {
        do throws(Errno) {
            return try SessionRecord.makeFile(geometry)
        } catch {
            throw .system("\(error)")
        }
    }

    /// The instant at which `runTimers` has something to do; nil when there is nothing.
    var nextDeadline: UInt64? {
        let timer = deadlines.values.min()
        guard links.values.contains(where: \.isBlocked) else { return timer }
        // Nothing tells when a channel has room again.
        return min(timer ?? .max, monotonicNanoseconds() + 2_000_000)
    }

    /// What an operator sees.
    var status: DeviceStatus {
        DeviceStatus(
            configuration: configuration, workers: machine.workers, problem: machine.problem,
            isConnected: machine.isConnected, takeOvers: machine.takeOverCount, connections: machine.connectionCount,
            generation: record.lastGeneration, completed: record.life(of: record.owner)?.returned ?? 0,
            upgrade: machine.upgrade?.phase.rawValue, lastDeath: machine.lastDeath, givenUp: record.givenUpCount,
            notices: notices + weaknesses, statistics: statistics)
    }

    /// The number of the worker that a report is about: of the one that has died, or that has the device.
    func generation(of report: DeviceMachine.Report) -> UInt64 {
        if report.kind == .died { return endedGeneration ?? 0 }
        return record.lastGeneration
    }

    /// Kills the worker that has the device: for drills.
    ///
    /// - Returns: its process.
    func killActive() -> Int32? {
        guard let worker = machine.active, let link = links[worker.id] else { return nil }
        link.process.send(signal: SIGKILL)
        return worker.process
    }
}

// MARK: - Events

extension DeviceCustody {
    /// Carries out an event, and what follows from it.
    func handle(_ event: DeviceMachine.Event) {
        var events = [event]
        // Each worker that is spawned gives one more.
        var rounds = 0
        while !events.isEmpty, rounds < 64 {
            rounds += 1
            let actions = machine.handle(events.removeFirst(), at: monotonicNanoseconds())
            for action in actions {
                if let next = perform(action) { events.append(next) }
            }
        }
        saveState()
        if !events.isEmpty { note(.failed, "its events cause each other without end: \(events.count) are dropped") }
    }

    func runTimers() {
        let now = monotonicNanoseconds()
        for link in links.values where link.isBlocked { link.flush() }
        for timer in DeviceMachine.Timer.allCases {
            guard let deadline = deadlines[timer], deadline <= now else { continue }
            deadlines[timer] = nil
            handle(.expired(timer))
        }
    }

    /// Something has arrived at a descriptor of this device.
    func arrival(_ target: WatchTarget) {
        switch target {
        case .listener: accept()
        case .channel(_, let id): takeMessages(id, atMost: Self.messagesInTurn)
        case .process(_, let id): takeEnd(id)
        case .mailbox: break
        }
    }

    private func accept() {
        do throws(Errno) {
            let stream = try listener.accept()
            arrived = SharedFD(try stream.fd.duplicate())
        } catch {
            note(.failed, "cannot accept a connection: \(error)")
            return
        }
        keep(arrived, under: CustodyKey(.connection))
        arrived = nil
        handle(.connected)
    }

    private func takeEnd(_ id: DeviceMachine.WorkerID) {
        guard let link = links[id], link.process.hasEnded else { return }
        // What it said last is still in the channel.
        takeMessages(id)
        let life = record.life(ofProcess: link.process.pid)
        endedGeneration = life?.generation
        defer { endedGeneration = nil }
        handle(
            .ended(
                id, ending(of: link, life),
                DeviceMachine.LastWords(returned: life?.returned, handling: life?.handling)))
    }

    /// The record knows better than the exit status: it tells of a child of another supervisor, too, and of a worker
    /// that was killed while it wrote its core.
    private func ending(of link: WorkerLink, _ life: WorkerLife?) -> DeviceMachine.Ending {
        let status = link.process.readEnding()
        // Another supervisor's child is not ours to reap: its number may be one of ours a second later.
        if status != nil { site.reapLater(link.process.pid) }
        if let life, life.fatalSignal != 0 {
            return .byFault(signal: life.fatalSignal, call: life.forbiddenCall)
        }
        if let life, life.isHung { return .hung }
        switch status {
        case .exited(let code): return .onItsOwn(code: code)
        case .killed(let signal):
            let faults = [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS]
            return faults.contains(signal) ? .byFault(signal: signal) : .fromOutside(signal: signal)
        case nil: return .unknown
        }
    }

    /// Messages of one worker that are taken before those of others: one that sends without end is heard no faster than
    /// they are.
    private static let messagesInTurn = 16

    /// Takes what a worker has sent, at most as much as it may have under way.
    private func takeMessages(_ id: DeviceMachine.WorkerID, atMost limit: Int = WorkerLink.outboxLimit) {
        for _ in 0..<limit {
            guard let link = links[id] else { return }
            do throws(Errno) {
                switch try link.channel.receive(peeking: true) {
                case .nothing: return
                case .closed:
                    // Its end comes through the pidfd. One that lives without a channel is of no use.
                    unwatch(.channel(device: configuration.name, id), link.channel.fd.number)
                    link.process.send(signal: SIGKILL)
                    return
                case .unreadable(let error):
                    note(.failed, "worker \(id): \(error)")
                case .message(let message, var fds):
                    if message.kind == .active {
                        takeMessagesOfOthers(than: id)
                        showThreads(of: id)
                    }
                    if let fd = fds.takeFirst() { arrived = SharedFD(fd) }
                    handle(.message(id, message, hasDescriptor: arrived != nil))
                    arrived = nil
                    if message.kind == .disconnected { endIfUnmounted() }
                }
                // Only now that it has been carried out: it would be found again by a supervisor's successor.
                _ = try link.channel.receive()
            } catch {
                note(.failed, "cannot receive from worker \(id): \(error)")
                return
            }
        }
    }

    /// A mount is mounted once: there is nothing to wait for when it is not mounted any more.
    private func endIfUnmounted() {
        guard configuration.share?.mountPoint != nil, machine.connectionCount > 0, !machine.isConnected else { return }
        handle(.delete)
    }

    /// Whoever was active before has said all that it will ever say: that comes first.
    private func takeMessagesOfOthers(than id: DeviceMachine.WorkerID) {
        for worker in machine.workers where worker.id != id && worker.phase != .starting && worker.phase != .standby {
            takeMessages(worker.id)
        }
    }

    func note(_ kind: DeviceMachine.Report.Kind, _ text: String) {
        site.report(DeviceMachine.Report(kind: kind, worker: nil, text: text), device: configuration.name)
    }
}

// MARK: - Actions

extension DeviceCustody {
    /// - Returns: the event that tells how it went, if it is one.
    private func perform(_ action: DeviceMachine.Action) -> DeviceMachine.Event? {
        switch action {
        case .spawn(let id, let program):
            do throws(SystemError) {
                return .spawned(id, process: try spawn(id, program: program))
            } catch {
                // Its number does not come again.
                unstore("worker/\(id)/channel")
                return .notSpawned(id, reason: "\(error)")
            }
        case .equip(let id): equip(id)
        case .send(let message, let id, let key): send(message, to: id, key)
        case .store(let key): keep(arrived, under: key)
        case .drop(let key):
            custody[key] = nil
            unstore(Self.storeName(key))
        case .kill(let id): links[id]?.process.send(signal: SIGKILL)
        case .forget(let id): forget(id)
        case .accept(let accepts): watchListener(accepts)
        case .setTimer(let timer, let milliseconds):
            deadlines[timer] = milliseconds.map { monotonicNanoseconds() + $0 * 1_000_000 }
        case .report(let report): site.report(report, device: configuration.name)
        case .upgradeEnded(let outcome):
            reconfigured(outcome)
            site.upgradeEnded(outcome, device: configuration.name)
        case .cut(let bytes): cutImage(bytes)
        case .resizeEnded(let outcome): site.resizeEnded(outcome, device: configuration.name)
        case .dissolve: dissolve()
        }
        return nil
    }

    private func keep(_ descriptor: SharedFD?, under key: CustodyKey) {
        guard let descriptor else { return }
        custody[key] = descriptor
        store(descriptor.number, as: Self.storeName(key))
    }

    private func send(_ message: CustodyMessage, to id: DeviceMachine.WorkerID, _ key: CustodyKey?) {
        guard let key else {
            links[id]?.send(message, nil)
            return
        }
        // Missing only after a supervisor's death between a drop and the note of it: the drop comes again.
        if let descriptor = custody[key] { links[id]?.send(message, descriptor) }
    }

    private func spawn(_ id: DeviceMachine.WorkerID, program: Int) throws(SystemError) -> Int32 {
        guard let file = site.program(program) else {
            throw SystemError(cannot: "start", "a worker", nil, advice: "Its program is not known any more")
        }
        try secureImage()
        let files = try ImageFiles.open(configuration)
        let ours: OwnedFD
        let theirs: OwnedFD
        do throws(Errno) {
            let pair = try CustodyChannel.pair()
            ours = OwnedFD(owning: pair.first)
            theirs = OwnedFD(owning: pair.second)
        } catch {
            throw SystemError(cannot: "start", "a worker", error)
        }
        // Before the worker is there: a successor of ours that finds it without its channel closes it, and the worker
        // ends.
        store(ours.number, as: "worker/\(id)/channel")
        let ringNumbers = rings.map(\.number)
        let room = try roomForWorker()
        let directory = try directoryForWorker()
        var arguments = [
            "--custody=\(theirs.number)", "--rings=\(ringNumbers.map { "\($0)" }.joined(separator: ","))",
        ]
        if let directory { arguments.append("--share=\(directory.number)") }
        arguments += site.sandbox.arguments(room, isShare: directory != nil)
        let process = try DetachedProcess(
            path: "/proc/self/fd/\(file.number)", name: "baton-worker:\(configuration.name)",
            arguments: arguments, output: site.workerOutput.fd,
            inheriting: [theirs.number] + ringNumbers + [room?.lifeline, directory?.number].compactMap(\.self),
            room: room?.pidfd, roomHasUsers: directory == nil)
        let pid = process.pid
        do throws(SystemError) {
            try site.workerGroups?.take(pid, device: configuration.name)
        } catch {
            process.send(signal: SIGKILL)
            throw error
        }
        applyLimits()
        let link = WorkerLink(
            process: process, channel: CustodyChannel(owning: ours), ringNumbers: ringNumbers)
        links[id] = link
        images[id] = files
        isCold = false
        store(link.process.pidfd.number, as: "worker/\(id)/process")
        saveState()
        watch(.channel(device: configuration.name, id), link.channel.fd.number)
        watch(.process(device: configuration.name, id), link.process.pidfd.number)
        return pid
    }

    private func equip(_ id: DeviceMachine.WorkerID) {
        guard let link = links[id] else { return }
        link.send(CustodyMessage(.give, CustodyKey(.record)), recordFile)
        link.send(CustodyMessage(.give, CustodyKey(.statistics)), statisticsFile)
        if let journal = site.journal { link.send(CustodyMessage(.give, CustodyKey(.journal)), journal) }
        for (key, descriptor) in custody { link.send(CustodyMessage(.give, key), descriptor) }
        // Not there when a supervisor before this one started the worker; without them it refuses the device.
        let files = images.removeValue(forKey: id) ?? (try? ImageFiles.open(configuration)) ?? []
        for (index, file) in files.enumerated() {
            link.send(CustodyMessage(.give, CustodyKey(.image, UInt16(index))), file)
        }
        showThreads(to: link)
        let process = UInt64(UInt32(bitPattern: link.process.pid))
        link.send(CustodyMessage(.prepare, value: process, text: configuration.workerOptions), nil)
    }

    private func forget(_ id: DeviceMachine.WorkerID) {
        guard let link = links.removeValue(forKey: id) else { return }
        unwatch(.channel(device: configuration.name, id), link.channel.fd.number)
        unwatch(.process(device: configuration.name, id), link.process.pidfd.number)
        forgetThreads(of: link.process.pid)
        images[id] = nil
        unstore("worker/\(id)/channel")
        unstore("worker/\(id)/process")
    }

    private func watchListener(_ accepts: Bool) {
        let target = WatchTarget.listener(device: configuration.name)
        if accepts { watch(target, listener.fd.number) } else { unwatch(target, listener.fd.number) }
    }

    private func watch(_ target: WatchTarget, _ number: Int32) {
        guard tokens[target] == nil else { return }
        tokens[target] = site.watch(number, as: target)
    }

    private func unwatch(_ target: WatchTarget, _ number: Int32) {
        if let token = tokens.removeValue(forKey: target) { site.forget(token, number) }
    }

    private func dissolve() {
        watchListener(false)
        for key in custody.keys { unstore(Self.storeName(key)) }
        custody = [:]
        // Rings are freed some time after they are closed: the image is free at once.
        for ring in rings { forgetFiles(ofRing: ring.number) }
        for name in Self.ownNames { unstore(name) }
        unsafe unlink(configuration.socketPath)
        closeRoom()
        site.workerGroups?.remove(device: configuration.name)
        site.dissolve(configuration.name)
    }
}
