import Custody
import Testing

@testable import SupervisorRuntime

private let kick = CustodyKey(.kick, 3)
private let connection = CustodyKey(.connection)

@Suite struct CustodyOfWorkers {
    @Test func aNewDeviceGetsAWorkerAndThenAStandby() {
        var world = MachineWorld()
        #expect(world.living == [1])
        world.ready(1)
        #expect(world.living == [1], "no standby before somebody has the device")
        world.active(1)
        #expect(world.living == [1, 2])
        world.ready(2)
        #expect(world.phase(1) == .active)
        #expect(world.phase(2) == .standby)
        #expect(world.machine.problem == nil)
    }

    @Test(arguments: [true, false]) func theStandbyTakesOver(deathIsHeardFirst: Bool) {
        var world = MachineWorld.staffed()
        if deathIsHeardFirst {
            world.kill(1)
            world.active(2)
        } else {
            world.active(2)
            #expect(world.phase(1) == .superseded)
            world.kill(1)
        }
        #expect(world.phase(2) == .active)
        #expect(world.living == [2, 3], "a new standby is on its way")
        #expect(world.machine.takeOverCount == 1)
        #expect(world.machine.failures == 0)
    }

    @Test func aKillFromOutsideIsNeverHeldAgainstAnybody() {
        var world = MachineWorld.staffed()
        for generation in 1...50 as ClosedRange<UInt32> {
            world.kill(generation)
            world.active(generation + 1)
            #expect(world.living.last == generation + 2)
            world.ready(generation + 2)
        }
        #expect(world.machine.problem == nil)
        #expect(world.machine.takeOverCount == 50)
    }

    @Test func whoTrapsAtOnceWaitsLongerAndLonger() {
        var world = MachineWorld()
        var waits: [UInt64] = []
        var id: UInt32 = 1
        for _ in 0..<12 {
            world.ready(id)
            world.active(id)
            // Its standby, started beside it, goes too.
            world.crash(id)
            if world.phase(id + 1) != nil {
                world.crash(id + 1)
                id += 1
            }
            waits.append(world.timers[.backOff] ?? 0)
            #expect(world.living.isEmpty)
            world.send(.expired(.backOff))
            id += 1
            #expect(world.living == [id])
        }
        #expect(waits == waits.sorted())
        #expect(waits[0] >= 100)
        #expect(waits.last == 30_000)
    }

    @Test func aUsefulLifeEndsTheBackOff() {
        var world = MachineWorld.staffed()
        world.crash(1, returned: 1)
        #expect(world.machine.failures == 0)
        #expect(world.timers[.backOff] == nil)
        #expect(world.machine.problem == nil)
    }

    @Test func aHangIsAFault() {
        var world = MachineWorld.staffed()
        world.end(1, .hung)
        #expect(world.machine.failures == 1)
        #expect(world.timers[.backOff] == 100)
    }

    @Test func theCauseOfADeathIsASentence() {
        var world = MachineWorld.staffed()
        world.crash(1, returned: 7, handling: HandledRequest(queue: 2, slot: 17))
        let sentence = "worker 1 (active) died by SIGILL while it handled queue 2, head 17"
        #expect(world.machine.lastDeath == sentence)
        let reports = world.take().compactMap { if case .report(let report) = $0 { report } else { nil } }
        #expect(reports.contains { $0.kind == .died && $0.worker == 1 && $0.text == sentence })
        world.active(2)
        world.kill(2)
        #expect(world.machine.lastDeath == "worker 2 (active) was killed from outside by SIGKILL")
    }

    @Test func aRefusalIsTold() {
        var world = MachineWorld()
        world.say(1, .refused, text: "the image is locked")
        world.end(1, .onItsOwn(code: 1))
        #expect(world.machine.problem == "the image is locked")
        #expect(world.living.isEmpty)
        world.send(.expired(.backOff))
        world.ready(2)
        world.active(2)
        #expect(world.machine.problem == nil)
    }

    @Test func aWorkerThatCannotBeStartedIsTriedAgain() {
        var world = MachineWorld()
        world.spawnFails = true
        world.crash(1)
        world.send(.expired(.backOff))
        #expect(world.machine.problem == "no memory")
        #expect(world.machine.workers.isEmpty)
        world.spawnFails = false
        world.send(.expired(.backOff))
        #expect(world.machine.workers.count == 1)
    }

    @Test func aBuildThatCannotReadTheRecordDoesNotGetTheDevice() {
        var world = MachineWorld()
        world.ready(1, versions: 2 | 3 << 16 | 3 << 32)
        #expect(world.take().contains(.kill(1)))
        world.kill(1)
        #expect(world.machine.problem?.contains("session records 2 to 3") == true)
    }

    @Test func aStandbyThatDoesNotTakeTheDeviceUpIsReplaced() {
        var world = MachineWorld.staffed()
        world.kill(1)
        #expect(world.timers[.takeOver] != nil)
        world.send(.expired(.takeOver))
        #expect(world.take().contains(.kill(2)))
        world.kill(2)
        #expect(world.machine.workers.count == 1)
    }

    @Test func deletionWaitsForTheWorkers() {
        var world = MachineWorld.staffed()
        world.connect()
        world.send(.delete)
        let quit = world.take().filter {
            if case .send(let message, _, _) = $0 { message.kind == .quit } else { false }
        }
        #expect(quit.count == 2)
        #expect(!world.accepts)
        world.end(2, .onItsOwn(code: 0))
        #expect(!world.isDissolved)
        world.end(1, .onItsOwn(code: 0))
        #expect(world.isDissolved)
        #expect(world.machine.workers.isEmpty)
    }
}

@Suite struct CustodyOfDescriptors {
    @Test func whatAWorkerGivesIsSharedBeforeItIsConfirmed() throws {
        var world = MachineWorld.staffed()
        world.say(1, .keep, kick, value: 77, with: true)
        let actions = world.take()
        let store = try #require(actions.firstIndex(of: .store(kick)))
        let give = try #require(
            actions.firstIndex(of: .send(CustodyMessage(.give, kick), to: 2, descriptor: kick)))
        let kept = try #require(actions.firstIndex(of: .send(CustodyMessage(.kept, kick, value: 77), to: 1)))
        #expect(store < give && give < kept)
    }

    @Test func aWorkerThatIsStartingGetsWhatComesMeanwhile() {
        var world = MachineWorld()
        world.ready(1)
        world.active(1)
        world.say(1, .keep, kick, with: true)
        #expect(world.take().contains(.send(CustodyMessage(.give, kick), to: 2, descriptor: kick)))
    }

    @Test func aWorkerWhoseDeviceIsGoneChangesNothing() {
        var world = MachineWorld.staffed()
        world.active(2)
        world.say(1, .keep, kick, with: true)
        world.say(1, .disconnected)
        #expect(world.custody.isEmpty)
    }

    @Test func keepWithoutADescriptorIsTheEndOfTheWorker() {
        var world = MachineWorld.staffed()
        world.say(1, .keep, kick)
        #expect(world.take().contains(.kill(1)))
        #expect(world.machine.keys.isEmpty)
    }

    @Test(arguments: [CustodyRole.record, .statistics, .journal, .thread])
    func whatIsTheSupervisorsIsTakenFromNoWorker(role: CustodyRole) {
        var world = MachineWorld.staffed()
        world.say(1, .keep, CustodyKey(role), with: true)
        #expect(world.take().contains(.kill(1)))
        #expect(world.machine.keys.isEmpty)
    }

    @Test func custodyIsBounded() {
        var world = MachineWorld.staffed()
        for index in 0..<UInt16(DeviceMachine.maximumKeys) {
            world.say(1, .keep, CustodyKey(.memory, index), with: true)
        }
        _ = world.take()
        world.say(1, .keep, CustodyKey(.memory, 0), with: true)
        #expect(!world.take().contains(.kill(1)), "replacing one is no growth")
        world.say(1, .keep, CustodyKey(.memory, 4000), with: true)
        #expect(world.take().contains(.kill(1)))
        #expect(world.machine.keys.count == DeviceMachine.maximumKeys)
    }

    @Test func oneFrontendAtATime() {
        var world = MachineWorld()
        #expect(!world.accepts, "nobody would answer")
        world.ready(1)
        world.active(1)
        #expect(world.accepts)
        world.connect()
        #expect(!world.accepts)
        let actions = world.take()
        for worker in [1, 2] as [UInt32] {
            #expect(
                actions.contains(.send(CustodyMessage(.give, connection), to: worker, descriptor: connection)))
        }
    }

    @Test func whatCameWithAConnectionGoesWithIt() {
        var world = MachineWorld.staffed()
        let own = [CustodyKey(.inflight), CustodyKey(.bounce, 2)]
        for key in own { world.say(1, .keep, key, with: true) }
        world.connect()
        let theirs = [
            kick, CustodyKey(.memory, 1), CustodyKey(.call, 3), CustodyKey(.error), CustodyKey(.dirtyLog),
            CustodyKey(.backendChannel), CustodyKey(.sharedInflight), CustodyKey(CustodyRole(rawValue: 99)),
        ]
        for key in theirs { world.say(1, .keep, key, with: true) }
        _ = world.take()
        world.say(1, .disconnected, text: "closed")
        #expect(world.custody == Set(own))
        #expect(world.machine.keys == Set(own))
        let actions = world.take()
        for key in theirs + [connection] {
            #expect(actions.contains(.send(CustodyMessage(.drop, key), to: 2)))
        }
        #expect(world.accepts)
        // Found a second time by a supervisor's successor.
        world.connect()
        world.say(1, .disconnected)
        world.say(1, .disconnected)
        #expect(world.accepts)
    }

    @Test func theConnectionSurvivesAWorker() {
        var world = MachineWorld.staffed()
        world.connect()
        world.kill(1)
        #expect(!world.accepts)
        #expect(world.custody.contains(connection))
        world.active(2)
        #expect(!world.accepts)
        #expect(world.machine.isConnected)
    }
}
