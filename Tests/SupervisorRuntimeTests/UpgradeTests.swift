import Custody
import SupervisorRuntime
import Testing

private func send(_ kind: CustodyMessageKind, to id: UInt32) -> DeviceMachine.Action {
    .send(CustodyMessage(kind), to: id)
}

/// A device whose worker 1 is active, with standby 2 and candidate 3 of program 2.
private func upgrading() -> MachineWorld {
    var world = MachineWorld.staffed()
    world.send(.upgrade(.init(program: 2)))
    _ = world.take()
    return world
}

@Suite struct UpgradeOfOneDevice {
    @Test func goesStepByStep() {
        var world = upgrading()
        #expect(world.program(3) == 2)
        world.ready(3)
        #expect(world.take().contains(send(.quit, to: 2)))
        world.end(2, .onItsOwn(code: 0))
        #expect(world.take().contains(send(.freeze, to: 1)), "only when nobody else waits for the device")
        world.say(1, .frozen)
        #expect(world.machine.program == 1)
        world.active(3)
        #expect(world.machine.program == 2)
        #expect(!world.take().contains(send(.quit, to: 1)), "its requests are under way")
        #expect(world.program(4) == 2)
        world.ready(4)
        world.say(3, .settled)
        #expect(world.take().contains(send(.quit, to: 1)))
        #expect(world.outcomes.isEmpty)
        world.end(1, .onItsOwn(code: 0))
        #expect(world.outcomes == [.succeeded])
        #expect(world.living == [3, 4])
        #expect(world.machine.takeOverCount == 0)
    }

    @Test func aDryRunTouchesNothing() {
        var world = MachineWorld.staffed()
        world.send(.upgrade(.init(program: 2, isDryRun: true)))
        world.ready(3)
        #expect(world.outcomes == [.succeeded])
        #expect(world.take().contains(send(.quit, to: 3)))
        #expect(world.phase(1) == .active)
        #expect(world.phase(2) == .standby)
        world.end(3, .onItsOwn(code: 0))
        #expect(world.living == [1, 2])
    }

    @Test func aCandidateThatRefusesChangesNothing() {
        var world = upgrading()
        world.say(3, .refused, text: "needs Linux 9")
        world.end(3, .onItsOwn(code: 1))
        #expect(world.outcomes == [.failed("needs Linux 9")])
        #expect(world.living == [1, 2])
        #expect(world.machine.program == 1)
        #expect(world.machine.problem == nil)
    }

    @Test func aCandidateThatReadsOtherRecordsIsRefusedBeforeAnythingIsTouched() {
        var world = upgrading()
        world.ready(3, versions: 2 | 2 << 16 | 2 << 32)
        let actions = world.take()
        #expect(actions.contains(.kill(3)))
        #expect(!actions.contains(send(.quit, to: 2)))
        world.kill(3)
        #expect(world.outcomes.count == 1)
        #expect(world.living == [1, 2])
    }

    @Test(arguments: [true, false]) func aCandidateThatDiesInTheGapGivesTheDeviceBack(byFault: Bool) {
        var world = upgrading()
        world.ready(3)
        world.end(2, .onItsOwn(code: 0))
        world.say(1, .frozen)
        _ = world.take()
        if byFault { world.crash(3) } else { world.kill(3) }
        #expect(world.take().contains(send(.thaw, to: 1)))
        world.active(1)
        #expect(world.phase(1) == .active)
        #expect(world.outcomes.count == 1)
        #expect(world.machine.program == 1)
        #expect(world.living == [1, 4])
        #expect(world.program(4) == 1)
    }

    @Test func aCandidateThatHangsInTheGapIsKilled() {
        var world = upgrading()
        world.ready(3)
        world.end(2, .onItsOwn(code: 0))
        world.say(1, .frozen)
        _ = world.take()
        world.send(.expired(.upgradeStep))
        #expect(world.take().contains(.kill(3)))
        world.kill(3)
        #expect(world.take().contains(send(.thaw, to: 1)))
    }

    /// A thread of it may be in a system call that does not return: it has the device, and guests are served.
    @Test func `a worker that cannot freeze serves on`() {
        var world = upgrading()
        world.ready(3)
        world.end(2, .onItsOwn(code: 0))
        world.say(1, .busy, text: "loop 1 has not stopped")
        let actions = world.take()
        #expect(actions.contains(.kill(3)))
        #expect(world.phase(1) == .active)
        world.kill(3)
        #expect(world.outcomes == [.failed("worker 1 cannot give the device up: loop 1 has not stopped")])
        #expect(!world.take().contains(.kill(1)))
        #expect(world.living == [1, 4])
        #expect(world.program(4) == 1)
        #expect(world.machine.takeOverCount == 0)
    }

    /// It has not heard the order yet, or is about to answer it: it is not killed for that, and is thawed if it did.
    @Test(arguments: [false, true]) func `a freeze that nobody answers is taken back`(answersLate: Bool) {
        var world = upgrading()
        world.ready(3)
        world.end(2, .onItsOwn(code: 0))
        world.send(.expired(.upgradeStep))
        world.kill(3)
        #expect(world.take().contains(send(.thaw, to: 1)))
        #expect(world.phase(1) == .active)
        world.send(.expired(.takeOver))
        #expect(world.living == [1, 4])
        guard answersLate else { return }
        world.say(1, .frozen)
        #expect(world.phase(1) == .standby)
        world.active(1)
        #expect(world.phase(1) == .active)
        #expect(world.machine.takeOverCount == 0)
    }

    /// They speak through channels of their own, and a worker gives the device up before it says so. Taken for dead, it
    /// would never be told to end; not waited for, it would end with its requests under way.
    @Test(arguments: [false, true]) func `the candidate may be heard before the one that froze`(settledFirst: Bool) {
        var world = upgrading()
        world.ready(3)
        world.end(2, .onItsOwn(code: 0))
        world.active(3)
        #expect(!world.take().contains(send(.quit, to: 1)), "its requests are under way")
        if settledFirst {
            world.say(3, .settled)
            world.say(1, .frozen)
        } else {
            world.say(1, .frozen)
            #expect(!world.take().contains(send(.quit, to: 1)))
            world.say(3, .settled)
        }
        #expect(world.take().contains(send(.quit, to: 1)))
        world.ready(4)
        world.end(1, .onItsOwn(code: 0))
        #expect(world.outcomes == [.succeeded])
        #expect(world.living == [3, 4])
        #expect(world.machine.takeOverCount == 0, "nobody has died")
    }

    @Test(arguments: ["preparing", "retiring", "freezing", "settling"])
    func theOldWorkerMayDieAtAnyStep(phase: String) {
        var world = upgrading()
        let steps = ["preparing", "retiring", "freezing", "settling"]
        let step = steps.firstIndex(of: phase) ?? 0
        if step >= 1 { world.ready(3) }
        if step >= 2 { world.end(2, .onItsOwn(code: 0)) }
        if step >= 3 {
            world.say(1, .frozen)
            world.active(3)
        }
        #expect(world.machine.upgrade?.phase.rawValue == phase)
        world.kill(1)
        // The kernel gives the device to whoever waits for it.
        switch step {
        case 0:
            world.active(2)
            world.ready(3)
            world.say(2, .frozen)
            #expect(world.phase(2) == .freezing || world.phase(2) == .frozen)
            world.active(3)
        case 1:
            world.active(3)
            world.end(2, .onItsOwn(code: 0))
        case 2: world.active(3)
        default: break
        }
        if step == 0 {
            world.say(3, .settled)
            world.end(2, .onItsOwn(code: 0))
        }
        world.ready(4)
        #expect(world.outcomes == [.succeeded])
        #expect(world.phase(3) == .active)
        #expect(world.program(3) == 2)
        #expect(world.program(4) == 2)
    }

    @Test func `a standby that cannot be started while an upgrade ends is tried again later`() {
        var world = upgrading()
        world.ready(3)
        world.end(2, .onItsOwn(code: 0))
        world.say(1, .frozen)
        world.spawnFails = true
        world.active(3)
        #expect(world.machine.upgrade?.phase == .settling)
        #expect(world.machine.problem == "no memory")
        world.send(.expired(.backOff))
        #expect(world.living == [1, 3])
        world.spawnFails = false
        world.send(.expired(.backOff))
        #expect(world.living.count == 3)
    }

    @Test func aNewProgramThatTrapsIsRolledBack() {
        var world = upgrading()
        world.ready(3)
        world.end(2, .onItsOwn(code: 0))
        world.say(1, .frozen)
        world.active(3)
        world.say(3, .settled)
        world.end(1, .onItsOwn(code: 0))
        world.ready(4)
        #expect(world.outcomes == [.succeeded])
        world.crash(3)
        #expect(world.machine.program == 1)
        // The standby of the new program has the device already; one of the old follows it.
        world.active(4)
        #expect(world.program(5) == 1)
        world.ready(5)
        #expect(world.take().contains(send(.freeze, to: 4)))
        world.say(4, .frozen)
        world.active(5)
        world.say(5, .settled)
        world.end(4, .onItsOwn(code: 0))
        world.ready(6)
        #expect(world.living.allSatisfy { world.program($0) == 1 })
        #expect(world.machine.upgrade == nil)
    }

    @Test func aKillFromOutsideRollsNothingBack() {
        var world = upgrading()
        world.ready(3)
        world.end(2, .onItsOwn(code: 0))
        world.say(1, .frozen)
        world.active(3)
        world.ready(4)
        world.kill(3)
        world.active(4)
        world.end(1, .onItsOwn(code: 0))
        world.ready(5)
        #expect(world.outcomes == [.succeeded])
        #expect(world.machine.program == 2)
    }

    @Test func oneAtATime() {
        var world = upgrading()
        world.send(.upgrade(.init(program: 3)))
        #expect(world.outcomes == [.failed("an upgrade is under way")])
        #expect(world.machine.upgrade?.order.program == 2)
    }

    @Test func aDeviceThatNobodyServesIsUpgradedToo() {
        var world = MachineWorld()
        world.crash(1)
        #expect(world.living.isEmpty)
        world.send(.upgrade(.init(program: 2)))
        world.ready(2)
        world.active(2)
        world.ready(3)
        #expect(world.outcomes == [.succeeded])
        #expect(world.program(2) == 2)
        #expect(world.program(3) == 2)
    }
}
