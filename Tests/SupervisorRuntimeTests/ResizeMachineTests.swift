import Custody
import Testing

@testable import SupervisorRuntime

/// Who is told of a disk's size, and when it is settled.
@Suite struct ResizeMachineTests {
    private func told(_ world: inout MachineWorld) -> [DeviceMachine.WorkerID] {
        world.take().compactMap { action in
            guard case .send(let message, let id, _) = action, message.kind == .resize else { return nil }
            return id
        }
    }

    /// A worker answers what it was told.
    private func answer(
        _ world: inout MachineWorld, _ id: DeviceMachine.WorkerID, _ bytes: UInt64, isShrinking: Bool = false,
        isLast: Bool = true, refusal: String = ""
    ) {
        let order = ResizeOrder(bytes: bytes, isShrinking: isShrinking, isLast: isLast)
        world.send(.message(id, CustodyMessage(answering: order, refusal: refusal), hasDescriptor: false))
    }

    private func grow(_ world: inout MachineWorld) {
        world.send(.resize(DeviceMachine.Resize(bytes: 4096, isShrinking: false)))
    }

    @Test func `the worker that has the device is told, once`() {
        var world = MachineWorld.staffed()
        grow(&world)
        #expect(told(&world) == [1])
        world.connect()
        #expect(told(&world) == [])
        answer(&world, 1, 4096)
        #expect(world.resizes == [.done(4096)])
        #expect(world.cuts == [])
        #expect(world.machine.resize == nil)
    }

    @Test(arguments: [true, false]) func `a successor is told again`(deathIsHeardFirst: Bool) {
        var world = MachineWorld.staffed()
        grow(&world)
        #expect(told(&world) == [1])
        if deathIsHeardFirst { world.kill(1) }
        world.active(2)
        #expect(told(&world) == [2])
        // What the dead one has said last does not count.
        answer(&world, 1, 4096)
        #expect(world.resizes == [])
        answer(&world, 2, 4096)
        #expect(world.resizes == [.done(4096)])
    }

    @Test func `a supervisor that comes back tells it again`() {
        var world = MachineWorld.staffed()
        grow(&world)
        #expect(told(&world) == [1])
        world.send(.begin)
        #expect(told(&world) == [1])
        answer(&world, 1, 4096)
        answer(&world, 1, 4096)
        #expect(world.resizes == [.done(4096)])
    }

    @Test func `a file is cut when nobody lets requests in behind its end, and then looked at again`() {
        var world = MachineWorld.staffed()
        world.send(.resize(DeviceMachine.Resize(bytes: 512, isShrinking: true)))
        #expect(told(&world) == [1])
        #expect(world.cuts == [])
        answer(&world, 1, 512, isShrinking: true, isLast: false)
        #expect(world.cuts == [512])
        #expect(world.resizes == [])
        #expect(told(&world) == [1])
        world.kill(1)
        world.active(2)
        #expect(told(&world) == [2])
        answer(&world, 2, 512, isShrinking: true)
        #expect(world.cuts == [512])
        #expect(world.resizes == [.done(512)])
    }

    /// It comes again when a supervisor has died over it. The worker's successor may have looked at the file before.
    @Test(arguments: [false, true]) func `what was said before the cut does not end it`(supervisorDies: Bool) {
        var world = MachineWorld.staffed()
        world.send(.resize(DeviceMachine.Resize(bytes: 512, isShrinking: true)))
        #expect(told(&world) == [1])
        answer(&world, 1, 512, isShrinking: true, isLast: false)
        #expect(told(&world) == [1])
        if supervisorDies {
            world.send(.begin)
            #expect(told(&world) == [1])
        }
        answer(&world, 1, 512, isShrinking: true, isLast: false)
        #expect(world.resizes == [])
        world.active(2)
        #expect(told(&world) == [2])
        answer(&world, 2, 512, isShrinking: true)
        #expect(world.cuts == [512])
        #expect(world.resizes == [.done(512)])
    }

    @Test func `a worker that cannot is believed`() {
        var world = MachineWorld.staffed()
        grow(&world)
        answer(&world, 1, 4096, refusal: "no")
        #expect(world.resizes == [.failed("no")])
        #expect(world.machine.resize == nil)
    }

    @Test func `without a worker it waits for one, and so it does for one that does not answer`() {
        var world = MachineWorld()
        grow(&world)
        #expect(world.resizes == [.waiting(4096)])
        world.ready(1)
        world.active(1)
        #expect(told(&world) == [1])
        world.send(.expired(.resize))
        #expect(world.resizes.last == .waiting(4096))
        #expect(world.machine.resize != nil)
        grow(&world)
        #expect(world.resizes.last == .failed("the disk is being resized already"))
        answer(&world, 1, 4096)
        #expect(world.resizes.last == .done(4096))
    }

    @Test func `a device that is deleted has no size to wait for`() {
        var world = MachineWorld.staffed()
        grow(&world)
        world.send(.delete)
        #expect(world.resizes == [.failed("the device was deleted")])
        grow(&world)
        #expect(world.resizes.last == .failed("the device is being deleted"))
    }
}
