internal import ControlAPI
internal import Dispatch
internal import SupervisorRuntime

/// Changes of one device by a command: they go the way of a reload, one after the other with it. What the
/// configuration asks for holds again when that is applied next.
extension ConfiguredDevices {
    func limit(
        _ asked: LimitParameters, reply: @escaping @Sendable (Result<DeviceInfo, SupervisorError>) -> Void
    ) {
        queue.async {
            reply(
                self.change(asked.name) { disk in
                    let before = asked.none ? LimitInfo() : disk.limit ?? LimitInfo()
                    let limit = before.changed(asked.change)
                    disk.limit = limit == LimitInfo() ? nil : limit
                })
        }
    }

    func set(_ asked: SetParameters, reply: @escaping @Sendable (Result<DeviceInfo, SupervisorError>) -> Void) {
        queue.async { reply(self.change(asked.name) { $0.onEnospc = asked.onEnospc ?? $0.onEnospc }) }
    }

    private func change(_ name: String, _ edit: (inout DeviceParameters) -> Void) -> Result<DeviceInfo, SupervisorError>
    {
        Result { () throws(SupervisorError) in
            guard var disk = running().first(where: { $0.name == name }) else { throw .noSuchDevice(name) }
            edit(&disk)
            let device = try DeviceConfiguration(disk, directory: directory)
            try Answer.wait { self.supervisor.reconfigure(device, reply: $0) }.get()
            save(DeviceParameters(device))
            guard let status = try Answer.wait({ self.supervisor.status(name, reply: $0) }).get().first else {
                throw .noSuchDevice(name)
            }
            return DeviceInfo(status)
        }
    }
}
