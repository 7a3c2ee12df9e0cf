internal import Custody

/// What a supervisor writes down of a device for its successor, beside the descriptors.
public struct DeviceState: Codable, Hashable, Sendable {
    let configuration: DeviceConfiguration
    let machine: DeviceMachine
    /// The numbers under which each worker has the kernel rings.
    let ringNumbers: [DeviceMachine.WorkerID: [Int32]]
    /// What it was before a change that is under way.
    let fallback: DeviceConfiguration?
    /// What the workers are in; nil: in none.
    let room: WorkerRoom.State?
}

/// How states become bytes: left to the program, so that this module needs no coder of its own.
public struct StateCoder: Sendable {
    public var encode: @Sendable (DeviceState) -> [UInt8]
    /// nil: they cannot be read.
    public var decode: @Sendable ([UInt8]) -> DeviceState?

    public init(
        encode: @escaping @Sendable (DeviceState) -> [UInt8], decode: @escaping @Sendable ([UInt8]) -> DeviceState?
    ) {
        self.encode = encode
        self.decode = decode
    }
}
