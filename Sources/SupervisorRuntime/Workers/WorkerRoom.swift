internal import Custody
internal import Glibc
internal import Platform

/// What workers are kept from, so that one that a hostile guest has taken over harms its own disk and nothing else.
public struct WorkerSandbox: Sendable, Hashable {
    /// How much of it there has to be.
    public enum Demand: String, Sendable, CaseIterable {
        /// All of it, or no worker is started.
        case full
        /// As much as this system allows; what is missing is said.
        case auto
        /// Nothing: workers have the supervisor's rights.
        case off
    }

    public var demand: Demand
    /// Whom workers become; nil: they stay who the supervisor is.
    public var user: UInt32?
    public var group: UInt32?
    /// What an operator can do when the supervisor lacks what a share needs, as a sentence; may be empty.
    public var adviceForShares = ""

    public init(_ demand: Demand, user: UInt32? = nil, group: UInt32? = nil) {
        self.demand = demand
        self.user = user
        self.group = group
    }

    /// As a worker is told of it: `--confine=room[,USER,GROUP]` or `--confine=host[,USER,GROUP]`.
    func arguments(_ room: WorkerRoom?, isShare: Bool) -> [String] {
        guard demand != .off else { return [] }
        // It acts for the users of its files, and needs the host's root for that.
        if isShare { return [room == nil ? "--confine=host" : "--confine=room"] }
        if let room { return ["--confine=room" + (room.hasOwnUser ? ",1,1" : "")] }
        guard let user, let group else { return ["--confine=host"] }
        return ["--confine=host,\(user),\(group)"]
    }
}

/// The namespaces in which all workers of a device live. They are in one PID namespace, because the mutex by which the
/// device passes on names its holder by a number in it: docs/decisions/custody/0015.
final class WorkerRoom {
    private let room: ProcessRoom
    /// Of its descriptors, in the store.
    static let names = ["room/process", "room/lifeline"]
    static let userWarning = "workers keep the supervisor's user: it may not give them another"
    static let advice = "See kernel.unprivileged_userns_clone, user.max_user_namespaces, and what AppArmor restricts"

    /// Workers in it can become user 1.
    let hasOwnUser: Bool

    /// What a supervisor's successor must know.
    struct State: Codable, Hashable, Sendable {
        let hasOwnUser: Bool
    }

    /// Numbers of descriptors, valid while this lives.
    var pidfd: Int32 { room.pidfd.number }
    var lifeline: Int32 { room.lifeline.number }

    var state: State { State(hasOwnUser: hasOwnUser) }
    var pid: Int32 { room.pid }

    /// - Parameter isShare: its workers act for the host's users.
    init(_ sandbox: WorkerSandbox, isShare: Bool) throws(Errno) {
        var hasOwnUser = false
        if isShare {
            room = try ProcessRoom()
            self.hasOwnUser = false
            return
        }
        room = try ProcessRoom(
            user: sandbox.user ?? geteuid(), group: sandbox.group ?? getegid(), hasOwnUser: &hasOwnUser)
        self.hasOwnUser = hasOwnUser
    }

    /// - Parameters:
    ///   - state: nil where the supervisor before has not come as far as writing it down: nobody is in the room.
    ///   - found: what the store has of the device; nil is returned where the room is not among it.
    init?(_ state: State?, from found: [String: SharedFD]) {
        guard let pidfd = try? found["room/process"]?.fd.duplicate(),
            let lifeline = try? found["room/lifeline"]?.fd.duplicate()
        else { return nil }
        room = ProcessRoom(adopting: pidfd, lifeline: lifeline)
        guard let state else {
            room.end()
            return nil
        }
        hasOwnUser = state.hasOwnUser
    }

    var hasEnded: Bool { room.hasEnded }
    func end() { room.end() }
    func reap() { room.reap() }
}

extension DeviceCustody {
    /// The room for the next worker; nil: it runs in the supervisor's namespaces.
    ///
    /// Living workers decide: all are in one PID namespace.
    ///
    /// - Throws: when there must be one and cannot be.
    func roomForWorker() throws(SystemError) -> WorkerRoom? {
        if let room {
            if !room.hasEnded { return room }
            room.reap()
            self.room = nil
        } else if !links.isEmpty {
            return nil
        }
        let sandbox = site.sandbox
        guard sandbox.demand != .off else { return nil }
        do throws(Errno) {
            let new = try WorkerRoom(sandbox, isShare: configuration.share != nil)
            try? site.workerGroups?.take(new.pid, device: configuration.name)
            room = new
            store(new.pidfd, as: "room/process")
            store(new.lifeline, as: "room/lifeline")
            if sandbox.user != nil, !new.hasOwnUser, configuration.share == nil {
                note(.weakened, WorkerRoom.userWarning)
            }
            return new
        } catch {
            let problem = SystemError(
                cannot: "make", "namespaces for workers", error,
                advice: WorkerRoom.advice)
            if sandbox.demand == .full { throw problem }
            note(.weakened, "\(problem). Workers share the supervisor's user and PID namespaces")
            return nil
        }
    }

    func closeRoom() {
        room?.end()
        room = nil
        for name in WorkerRoom.names { unstore(name) }
    }

    // MARK: Sights of threads

    /// Shows a worker's threads to all others: one of them may have to see them stop.
    func showThreads(of id: DeviceMachine.WorkerID) {
        for (other, link) in links where other != id { showThreads(of: id, to: link) }
    }

    /// Shows a new worker the threads of all others, and tells it if nothing is left of the one that had the device.
    func showThreads(to link: WorkerLink) {
        for (other, worker) in links where worker !== link { showThreads(of: other, to: link) }
        let owner = record.ownerProcess
        if owner != 0, !links.values.contains(where: { $0.process.pid == owner }) {
            let name = ThreadName(process: owner, thread: 0)
            link.send(CustodyMessage(.drop, CustodyKey(.thread), value: name.value), nil)
        }
    }

    private func showThreads(of id: DeviceMachine.WorkerID, to link: WorkerLink) {
        guard let worker = links[id] else { return }
        worker.lookAtThreads()
        for sight in worker.threads {
            let name = ThreadName(process: worker.process.pid, thread: sight.number)
            link.send(CustodyMessage(.give, CustodyKey(.thread), value: name.value), .thread(sight))
        }
    }

    /// A process has ended, and its number may soon be another's.
    func forgetThreads(of process: Int32) {
        let name = ThreadName(process: process, thread: 0)
        for link in links.values { link.send(CustodyMessage(.drop, CustodyKey(.thread), value: name.value), nil) }
    }
}
